// Command haclusterd is the daemon of one server, or of a witness: flags, signals and exit codes. Everything else is in
// package node.
//
// Exit codes: 0 stopped cleanly, 2 the configuration is wrong and nothing was touched, 1 anything else.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"hacluster/cmd/internal/config"
	"hacluster/cmd/internal/node"
)

func main() { os.Exit(run(os.Args[1:], os.Stderr)) }

// version is set by the linker.
var version = "unknown"

type options struct {
	config, node, dataDir, pki, logFormat, logLevel string
	insecure                                        bool
}

func run(args []string, stderr io.Writer) int {
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
	cfg, err := config.Load(o.config, config.Options{Node: o.node, Insecure: o.insecure, DataDir: o.dataDir})
	if err == nil {
		err = cfg.Supported()
	}
	if err != nil {
		fmt.Fprintln(stderr, err)
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	n, err := node.New(cfg, log)
	if err != nil {
		fmt.Fprintln(stderr, "haclusterd:", err)
		return 1
	}
	n.Version = version
	reload(ctx, o, &level, log)
	go systemd(ctx, n.Ready())
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
	f.StringVar(&o.pki, "pki", "/etc/hacluster/pki", "`dir` of certificates and keys")
	f.StringVar(&o.logFormat, "log-format", "text", "`text` or json")
	f.StringVar(&o.logLevel, "log-level", "info", "`level`: debug, info, warn or error")
	f.BoolVar(&o.insecure, "insecure", false, "no TLS; accepted only when every address of the file is a loopback address")
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
		return fmt.Errorf("--log-level %q: debug, info, warn or error is wanted", s)
	}
	return nil
}

// reload switches between the configured log level and debug at each SIGHUP.
func reload(ctx context.Context, o options, level *slog.LevelVar, log *slog.Logger) {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	go func() {
		defer signal.Stop(hup)
		for {
			select {
			case <-ctx.Done():
				return
			case <-hup:
			}
			if level.Level() == slog.LevelDebug {
				_ = setLevel(level, o.logLevel) // was accepted at the start
			} else {
				level.Set(slog.LevelDebug)
			}
			log.Warn("log level changed by SIGHUP", "level", level.Level())
		}
	}()
}

// systemd is told of readiness, of life as often as its watchdog wants, and of stopping; without it nothing happens.
func systemd(ctx context.Context, ready <-chan struct{}) {
	var beat <-chan time.Time
	if every, err := daemon.SdWatchdogEnabled(false); err == nil && every > 0 {
		t := time.NewTicker(every / 3)
		defer t.Stop()
		beat = t.C
	}
	for {
		select {
		case <-ready:
			ready = nil
			_, _ = daemon.SdNotify(false, daemon.SdNotifyReady)
		case <-beat:
			_, _ = daemon.SdNotify(false, daemon.SdNotifyWatchdog)
		case <-ctx.Done():
			_, _ = daemon.SdNotify(false, daemon.SdNotifyStopping)
			return
		}
	}
}
