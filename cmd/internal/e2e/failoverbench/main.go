// Command failoverbench measures failovers of a real cluster on loopback addresses of this machine.
//
// Without -calm it kills the serving daemon again and again under write load, and measures each time how long a client
// waits for its next acknowledged write. With -calm it is the other way round: the machine is kept busy for the time
// given, and no failover may happen.
//
// Exit codes: 0 all is as promised, 1 something is not, and it says what.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"hacluster/cmd/internal/e2e"
)

type options struct {
	bin, keep string
	rounds    int
	limit     time.Duration
	calm      time.Duration
}

func main() { os.Exit(run()) }

func run() int {
	var o options
	flag.StringVar(&o.bin, "bin", "bin", "`folder` of haclusterd and ha-admin")
	flag.StringVar(&o.keep, "keep", "", "work in this `folder`, and leave it behind")
	flag.IntVar(&o.rounds, "n", 50, "how many failovers")
	flag.DurationVar(&o.limit, "limit", 1500*time.Millisecond, "the longest that a client may wait in any of them")
	flag.DurationVar(&o.calm, "calm", 0, "instead keep the machine busy for this `time`, and see that nothing fails over")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := bench(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "failoverbench:", err)
		return 1
	}
	return 0
}

// bench prepares a folder and the cluster in it, runs what was asked for, and cleans up whatever happened.
func bench(ctx context.Context, o options) (err error) {
	dir := o.keep
	if dir == "" {
		if dir, err = os.MkdirTemp("", "hacluster-bench-"); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return err
	}
	cfg := e2e.Config{Dir: filepath.Join(dir, "c"), Bin: o.bin, RTO: benchTarget.String(), Size: "64MiB"}
	if o.calm > 0 {
		cfg.RTO, cfg.Size = calmTarget.String(), "256MiB"
	}
	c, err := e2e.New(cfg)
	if err != nil {
		return err
	}
	defer func() {
		defer c.Close()
		if err != nil {
			c.ShowLogs(os.Stderr, 20)
			c.Dump()
		}
	}()
	if err := c.Start(); err != nil {
		return err
	}
	if o.calm > 0 {
		err = calm(ctx, c, o.calm)
	} else {
		err = failovers(ctx, c, o)
	}
	if cause := context.Cause(ctx); cause != nil && err != nil {
		err = fmt.Errorf("%w: %w", cause, err)
	}
	return err
}
