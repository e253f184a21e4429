// Command lab makes a network of servers on one Linux machine, breaks it on purpose, and judges what a cluster makes of
// that. docs/lab.md tells how to use it; scripts/lab builds and calls it.
//
// The commands that break things do what they say and return; it is the scenarios (lab run, matrix, soak) that watch a
// recording client, prove that each fault bites, and judge. Nothing outside a lab is touched.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"syscall"
)

// command is one subcommand.
type command struct {
	usage string
	what  string
	run   func(ctx context.Context, c *call) error
}

// errUsage: the command line makes no sense; the usage is shown.
var errUsage = errors.New("usage")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(dispatch(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// dispatch returns 0: done, 1: failed, 2: wrong usage, 3: labs are not permitted here; or what a command inside said.
func dispatch(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	if len(args) == 0 || slices.Contains([]string{"help", "-h", "--help"}, args[0]) {
		help(stdout)
		return 0
	}
	c, ok := commands()[args[0]]
	if !ok {
		fmt.Fprintf(stderr, "lab: there is no command %q; lab help lists them\n", args[0])
		return 2
	}
	k, err := newCall(args[0], args[1:], stdout, stderr)
	if err == nil {
		err = c.run(ctx, k)
	}
	var exit *exec.ExitError
	var missing notPermitted
	switch {
	case err == nil:
		return 0
	case errors.Is(err, errUsage):
		fmt.Fprintf(stderr, "usage: lab %s %s\n%v\n", args[0], c.usage, err)
		return 2
	case errors.As(err, &missing):
		fmt.Fprintln(stderr, "lab: skipped:", err)
		return 3
	case errors.As(err, &exit) && args[0] == "exec":
		return exit.ExitCode()
	}
	fmt.Fprintln(stderr, "lab:", err)
	return 1
}

// notPermitted: the machine does not let us make labs.
type notPermitted struct{ error }

func help(w io.Writer) {
	fmt.Fprint(w, "A laboratory: servers and cables on one machine, faults, and a judge. docs/lab.md tells more. It needs root.\n\n")
	all := commands()
	for _, name := range order {
		c := all[name]
		fmt.Fprintf(w, "  lab %s\n      %s\n", strings.TrimSpace(name+" "+c.usage), c.what)
	}
	fmt.Fprint(w, "\nEvery command takes --lab NAME (default: lab), so that several labs can stand side by side.\n")
}
