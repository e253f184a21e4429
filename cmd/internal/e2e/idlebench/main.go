// Command idlebench measures what the daemons of an idle cluster cost: three on loopback addresses of this machine, with one
// volume that nobody uses. With several folders of binaries it runs a cluster of each, side by side and in turns, so that
// other work on the machine meets all alike.
//
// Exit codes: 0 no daemon is above the limit, 1 one is, or something else went wrong, and it says what.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"hacluster/cmd/internal/e2e"
)

type options struct {
	bins  []string
	rto   string
	tls   bool
	looks int
	each  time.Duration
	limit float64
}

// settling is how long a cluster may come to rest after it is healthy: leadership moves to the witness, and its beat gets even.
const settling = 10 * time.Second

func main() { os.Exit(run()) }

func run() int {
	var o options
	bins := flag.String("bin", "bin", "`folders` of haclusterd and ha-admin, separated by commas")
	flag.StringVar(&o.rto, "rto", "3s", "the clusters' `target`")
	flag.BoolVar(&o.tls, "tls", false, "with certificates")
	flag.IntVar(&o.looks, "n", 3, "how many `looks` at each cluster")
	flag.DurationVar(&o.each, "t", 20*time.Second, "how long a look `takes`")
	flag.Float64Var(&o.limit, "limit", 2, "the `percentage` of a core that a daemon may take, at the middle of the looks")
	flag.Parse()
	o.bins = strings.Split(*bins, ",")
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	series, err := bench(ctx, o)
	if err == nil {
		err = judge(o, series)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "idlebench:", err)
		return 1
	}
	return 0
}

// bench starts the clusters, looks at them in turns, and cleans up whatever happened.
func bench(ctx context.Context, o options) (series [][]look, err error) {
	dir, err := os.MkdirTemp("", "hacluster-idle-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	var clusters []*e2e.Cluster
	defer func() {
		for _, c := range clusters {
			if err != nil {
				c.ShowLogs(os.Stderr, 20)
			}
			c.Close()
		}
	}()
	for i, bin := range o.bins {
		c, err := e2e.New(e2e.Config{Dir: filepath.Join(dir, fmt.Sprint("c", i)), Bin: bin, RTO: o.rto, Size: "64MiB", TLS: o.tls})
		if err != nil {
			return nil, err
		}
		clusters = append(clusters, c)
		if err := c.Start(); err != nil {
			return nil, err
		}
	}
	series = make([][]look, len(clusters))
	for i, c := range clusters {
		if err := settle(ctx, c); err != nil {
			return nil, fmt.Errorf("%s: %w", o.bins[i], err)
		}
	}
	for range o.looks {
		for i, c := range clusters {
			l, err := lookAt(ctx, c, o.each)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", o.bins[i], err)
			}
			series[i] = append(series[i], l...)
		}
	}
	return series, nil
}

func settle(ctx context.Context, c *e2e.Cluster) error {
	forming, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if _, err := c.Until(forming, "the new cluster is healthy", e2e.Healthy); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(settling):
		return nil
	}
}
