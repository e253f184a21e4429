// Command haclusterd is the daemon of one server, or of a witness: flags, signals and exit codes. Everything else is in
// package node.
//
// SIGHUP: certificates, authorities, gossip keys and the log level are read again.
//
// Exit codes: 0 stopped cleanly, 2 the configuration is wrong and nothing was touched, 1 anything else.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"hacluster/blockdev/frontend/attach"
	"hacluster/cmd/internal/config"
	"hacluster/cmd/internal/identity"
	"hacluster/cmd/internal/identity/pki"
	"hacluster/cmd/internal/node"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == attach.Subcommand {
		os.Exit(serveDevice(os.Args[2:]))
	}
	os.Exit(run(os.Args[1:], os.Stderr))
}

// serveDevice is the process behind a local device, which the daemon starts.
func serveDevice(args []string) int {
	if err := attach.Serve(args, slog.New(slog.NewTextHandler(os.Stderr, nil))); err != nil {
		fmt.Fprintln(os.Stderr, "haclusterd:", err)
		return 1
	}
	return 0
}

// version is set by the linker.
var version = "unknown"

type options struct {
	config, node, dataDir, pki, logFormat, logLevel, levelFile string
	insecure                                                   bool
}

func run(args []string, stderr io.Writer) int {
	if code, ok := asGuard(args, stderr); ok {
		return code
	}
	o, err := parse(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		return 2
	}
	var level slog.LevelVar
	log, err := newLogger(o, &level, stderr)
	if err != nil {
		fmt.Fprintln(stderr, "haclusterd:", err)
		return 2
	}
	slog.SetDefault(log)
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP) // early: one that comes during the start is not to end it
	defer signal.Stop(hup)
	cfg, err := config.Load(o.config, config.Options{Node: o.node, Insecure: o.insecure, DataDir: o.dataDir, PKI: o.pki})
	if err == nil {
		err = cfg.Supported()
	}
	if err != nil {
		fmt.Fprintln(stderr, err)
		return 2
	}
	if o.levelFile == "" {
		o.levelFile = filepath.Join(cfg.DataDir(), "log_level")
	}
	if err := readLevel(o, &level); err != nil {
		fmt.Fprintln(stderr, "haclusterd:", err)
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	self, err := os.Executable()
	if err != nil {
		fmt.Fprintln(stderr, "haclusterd:", err)
		return 1
	}
	n, err := node.New(cfg, log, node.Env{Guard: []string{self, "guard", cfg.DataDir()}, Fence: []string{self, "fence", cfg.DataDir()}})
	if err != nil {
		fmt.Fprintln(stderr, "haclusterd:", err)
		if _, certs := errors.AsType[*identity.MaterialError](err); certs {
			return 2
		}
		return 1
	}
	n.Version = version
	reload(ctx, hup, func() {
		relevel(o, &level, log)
		_ = n.Reload() // it has logged what is wrong
	})
	told := supervisor{ready: n.Ready(), why: n.NotReady, alive: n.Alive, notify: func(state string) { _, _ = daemon.SdNotify(false, state) }}
	go told.run(ctx)
	go told.feed(ctx)
	go func() {
		<-n.Failed()
		time.Sleep(cfg.Cluster.RTO)
		log.Error("a disk keeps the daemon from stopping: it exits as it is")
		os.Exit(1)
	}()
	if err := n.Run(ctx); err != nil {
		fmt.Fprintln(stderr, "haclusterd:", err)
		return 1
	}
	log.Info("stopped cleanly")
	return 0
}

func parse(args []string, stderr io.Writer) (o options, err error) {
	host, _ := os.Hostname()
	f := flag.NewFlagSet("haclusterd", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.StringVar(&o.config, "config", "/etc/hacluster/cluster.hcl", "the cluster's `file`, the same on every server")
	f.StringVar(&o.node, "node", host, "this server's `name` in the file")
	f.StringVar(&o.dataDir, "data-dir", "", "keep state in `dir` instead of the file's data_dir")
	f.StringVar(&o.pki, "pki", pki.DefaultPath, "`dir` of certificates and keys, made by ha-admin pki: ca.crt, gossip.key, node-NAME.crt and .key; read at the start and at SIGHUP")
	f.StringVar(&o.logFormat, "log-format", "text", "`text` or json")
	f.StringVar(&o.logLevel, "log-level", "info", "`level`: debug, info, warn or error")
	f.StringVar(&o.levelFile, "log-level-file", "", "`file` with one level, which goes before --log-level; absent: no matter; read at the start and at SIGHUP (default DATA_DIR/log_level)")
	f.BoolVar(&o.insecure, "insecure", false, "no TLS; accepted only when every address of the file is a loopback address")
	f.Usage = func() {
		fmt.Fprintf(stderr, "Usage of haclusterd: one daemon on each server, and one on the witness.\n")
		f.PrintDefaults()
		fmt.Fprintf(stderr, "It starts itself as \"haclusterd %s\" for each local device (attach in cluster.hcl): not for people.\n", attach.Subcommand)
	}
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if f.NArg() > 0 {
		fmt.Fprintf(stderr, "haclusterd: unexpected argument %q: all settings are flags, see --help\n", f.Arg(0))
		return o, errors.New("usage")
	}
	return o, nil
}

func newLogger(o options, level *slog.LevelVar, w io.Writer) (*slog.Logger, error) {
	if err := setLevel(level, o.logLevel); err != nil {
		return nil, err
	}
	opts := &slog.HandlerOptions{Level: level}
	switch o.logFormat {
	case "text":
		return slog.New(slog.NewTextHandler(w, opts)).With("node", o.node), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, opts)).With("node", o.node), nil
	}
	return nil, fmt.Errorf("--log-format %q: text or json is wanted", o.logFormat)
}

func setLevel(level *slog.LevelVar, s string) error {
	if err := level.UnmarshalText([]byte(s)); err != nil {
		return fmt.Errorf("log level %q: debug, info, warn or error is wanted", s)
	}
	return nil
}

// readLevel sets the log level that the file names, or that of the command line when there is no file.
func readLevel(o options, level *slog.LevelVar) error {
	b, err := os.ReadFile(o.levelFile)
	if errors.Is(err, fs.ErrNotExist) {
		return setLevel(level, o.logLevel)
	}
	if err != nil {
		return fmt.Errorf("read the log level: %w", err)
	}
	if err := setLevel(level, strings.TrimSpace(string(b[:min(len(b), 64)]))); err != nil {
		return fmt.Errorf("%s: %w", o.levelFile, err)
	}
	return nil
}

// relevel reads the log level again. What is unusable leaves it as it was.
func relevel(o options, level *slog.LevelVar, log *slog.Logger) {
	before := level.Level()
	if err := readLevel(o, level); err != nil {
		log.Error("the log level stays as it was", "level", before, "error", err)
	} else if now := level.Level(); now != before {
		log.Warn("log level changed", "from", before, "to", now)
	}
}

// reload calls do at each SIGHUP until ctx ends.
func reload(ctx context.Context, hup <-chan os.Signal, do func()) {
	go func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-hup:
				do()
			}
		}
	}()
}
