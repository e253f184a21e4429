package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"hacluster/cmd/internal/api"
	"hacluster/cmd/internal/identity/pki"
)

const (
	defaultConfig  = "/etc/hacluster/cluster.hcl"
	defaultTimeout = 10 * time.Second
)

// app is what all commands share: the flags that every one takes, and where answers go.
type app struct {
	out, err io.Writer
	in       io.Reader // answers to questions

	servers  []string
	pki      string
	user     string
	insecure bool
	output   string
	timeout  time.Duration
	config   string
	node     string
	flags    *cobra.Command // the root, to ask which flags were given
}

// run carries out one command line and gives the exit code.
func run(ctx context.Context, args []string, out, errOut io.Writer) int {
	return (&app{out: out, err: errOut, in: os.Stdin}).run(ctx, args)
}

func (a *app) run(ctx context.Context, args []string) int {
	root := a.root()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	var done *exit
	if errors.As(err, &done) {
		return done.code
	}
	fmt.Fprintf(a.err, "ha-admin: %s\n", oneLine(err.Error()))
	return int(kindOf(err))
}

// exit ends the program with a code when everything has been said already.
type exit struct{ code int }

func (e *exit) Error() string { return fmt.Sprintf("exit code %d", e.code) }

// failure is an error of a command that ran. Whatever else cobra returns is an error of the command line.
type failure struct{ err error }

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

func kindOf(err error) api.Kind {
	var f *failure
	if errors.As(err, &f) {
		return api.KindOf(f.err)
	}
	return api.KindUsage
}

// oneLine keeps what a node or a file says from breaking the promise of one line, and from writing to the terminal.
func oneLine(s string) string { return printable(strings.TrimSpace(s)) }

func printable(s string) string {
	return strings.Map(func(c rune) rune {
		switch {
		case c == '\n' || c == '\t':
			return ' '
		case !unicode.IsPrint(c):
			return '?'
		}
		return c
	}, s)
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:               "ha-admin",
		Short:             "look after a hacluster",
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
		Args:              none,
		RunE:              showHelp,
	}
	root.SetOut(a.out)
	root.SetErr(a.err)
	a.flags = root
	a.globalFlags(root)
	root.AddCommand(a.statusCommand(), a.failoverCommand(), a.failoversCommand(), a.volumeCommand(), a.nodeCommand(),
		a.eventsCommand(), a.configCommand(), a.applyCommand(), a.pkiCommand(), a.manCommand())
	root.AddCommand(a.maintenanceCommand(), a.simulateCommand(), a.explainCommand(), a.fenceCommand())
	return root
}

func (a *app) globalFlags(root *cobra.Command) {
	f := root.PersistentFlags()
	f.StringSliceVar(&a.servers, "server", nil, "who to ask: host:port or a path of a socket, several by commas, the first that answers serves (default: the local daemon's socket)")
	f.StringVar(&a.pki, "pki", "", "`folder` with the certificates (default "+pki.DefaultPath+")")
	f.StringVar(&a.user, "user", "", "as which user of the certificates' folder to speak with host:port (default: the first one there)")
	f.BoolVar(&a.insecure, "insecure", false, "no TLS; loopback addresses only")
	f.StringVarP(&a.output, "output", "o", "table", "table or json")
	f.DurationVar(&a.timeout, "timeout", defaultTimeout, "how long to wait for the answer")
	f.StringVar(&a.config, "config", defaultConfig, "where to look up the local daemon's data_dir")
	f.StringVar(&a.node, "node", "", "which node of the file this is (default: the host name)")
	root.PersistentPreRunE = func(*cobra.Command, []string) error { return a.checkFlags() }
}

func (a *app) checkFlags() error {
	switch {
	case a.output != "table" && a.output != "json":
		return fmt.Errorf("unknown output %q: -o table or -o json is wanted", a.output)
	case a.timeout <= 0:
		return fmt.Errorf("--timeout %v: more than zero is wanted, such as 10s", a.timeout)
	case a.insecure && (a.pki != "" || a.user != ""):
		return errors.New("--pki and --user contradict --insecure: either is wanted")
	}
	return nil
}

// command makes one that does work when its arguments are right.
func command(use, short string, args cobra.PositionalArgs, do func(ctx context.Context, args []string) error) *cobra.Command {
	return &cobra.Command{Use: use, Short: short, Args: args, RunE: func(c *cobra.Command, args []string) error {
		err := do(c.Context(), args)
		var done *exit
		if err == nil || errors.As(err, &done) {
			return err
		}
		return &failure{err}
	}}
}

// group makes a command that only holds others.
func group(use, short string, subs ...*cobra.Command) *cobra.Command {
	g := &cobra.Command{Use: use, Short: short, Args: cobra.ArbitraryArgs, RunE: func(c *cobra.Command, args []string) error {
		var names []string
		for _, s := range c.Commands() {
			names = append(names, s.Name())
		}
		what := "no command"
		if len(args) > 0 {
			what = fmt.Sprintf("unknown command %q", args[0])
		}
		return fmt.Errorf("%s after %q: one of these is wanted: %s", what, c.Name(), strings.Join(names, ", "))
	}}
	g.AddCommand(subs...)
	return g
}

func showHelp(c *cobra.Command, _ []string) error {
	if err := c.Help(); err != nil {
		return err
	}
	return &exit{int(api.KindUsage)}
}

// none, one and atMostOne check the number of arguments and say what is wanted.
func none(c *cobra.Command, args []string) error { return wantArgs(c, args, 0, 0) }
func one(c *cobra.Command, args []string) error  { return wantArgs(c, args, 1, 1) }

// some wants one or more, anyNumber takes what comes.
func some(c *cobra.Command, args []string) error { return wantArgs(c, args, 1, len(args)) }
func anyNumber(*cobra.Command, []string) error   { return nil }

// two wants both.
func two(c *cobra.Command, args []string) error { return wantArgs(c, args, 2, 2) }

func atMostOne(c *cobra.Command, args []string) error { return wantArgs(c, args, 0, 1) }

func wantArgs(c *cobra.Command, args []string, least, most int) error {
	switch {
	case len(args) == 0 && least == 0:
		return nil
	case c.HasSubCommands() && most == 0:
		return fmt.Errorf("unknown command %q: ha-admin --help lists them", args[0])
	case len(args) < least:
		return fmt.Errorf("missing argument: %s is wanted", c.UseLine())
	case len(args) > most:
		return fmt.Errorf("one argument too many, %q: %s is wanted", args[most], c.UseLine())
	case args[0] == "":
		return fmt.Errorf("empty argument: %s is wanted", c.UseLine())
	}
	return nil
}
