package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"text/tabwriter"
	"time"

	"golang.org/x/sync/errgroup"

	"hacluster/cmd/internal/api"
	"hacluster/cmd/internal/e2e"
)

const (
	calmTarget = 3 * time.Second
	calmSize   = 256 << 20
	fioSize    = 192 << 20              // fio has the first part of the volume, the probe the rest
	look       = 250 * time.Millisecond // how often the cluster is asked how it is
)

// calm keeps both cores and the volume busy for a time in which nothing may fail over.
func calm(ctx context.Context, c *e2e.Cluster, d time.Duration) error {
	fmt.Printf("%v of stress on two cores (stress-ng) and load on the volume (fio), rto %v: nothing may fail over\n", d, calmTarget)
	forming, cancel := context.WithTimeout(ctx, patience)
	begin, err := c.Until(forming, "the new cluster is healthy and led by another node than the primary", func(st *api.Status) bool {
		return e2e.Healthy(st) && st.Leader != "" && st.Leader != st.Volumes[0].Primary
	})
	cancel()
	if err != nil {
		return err
	}
	leaders, err := c.Elections()
	if err != nil {
		return err
	}
	p, err := newProbe(ctx, c)
	if err != nil {
		return err
	}
	defer p.close()
	w := watcher{c: c, epoch: begin.Volumes[0].Epoch, primary: begin.Volumes[0].Primary}
	var io fioResult
	busy, done := context.WithCancel(ctx)
	defer done()
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return w.run(busy) })
	g.Go(func() error { return p.run(busy) })
	g.Go(func() error {
		defer done() // the load ends by its own time limit, and with it all
		tools, tctx := errgroup.WithContext(gctx)
		tools.Go(func() error { return stress(tctx, d) })
		tools.Go(func() (err error) { io, err = fio(tctx, c.URI(w.primary), d); return err })
		return tools.Wait()
	})
	err = g.Wait()
	after, err2 := c.Elections()
	if err = errors.Join(err, err2); err != nil {
		return err
	}
	return judgeCalm(ctx, c, &w, p, io, after-leaders)
}

// judgeCalm prints what was seen and says whether it was calm.
func judgeCalm(ctx context.Context, c *e2e.Cluster, w *watcher, p *probe, io fioResult, elections int) error {
	counts, err := c.EventKinds(ctx)
	if err != nil {
		return err
	}
	t := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', 0)
	row := func(what string, value any, remark string) { fmt.Fprintf(t, "  %s\t%v\t%s\n", what, value, remark) }
	moves := counts["promoted"] - 1 // the first start promotes once
	row("failovers", moves, "must be 0")
	row("suspended", w.suspended.Round(look), fmt.Sprintf("without a valid lease: writes waited; looked at every %v", look))
	row("longest wait", p.dev.Stats().LongestPause.Round(time.Millisecond), "of a client that wrote a block every 20 ms")
	row("elections", elections, "changes of the Raft leader")
	row("standby dropped", counts["member dropped"], "times it did not answer in time; its return is a resync")
	row("fio", fmt.Sprintf("%.0f/s", io.iops), fmt.Sprintf("reads and writes of 4 KiB, %d errors, the slowest took %v", io.errors, io.slowest.Round(time.Millisecond)))
	row("asked in vain", w.unanswered, fmt.Sprintf("of %d status requests", w.looks))
	t.Flush()
	switch s := p.dev.Stats(); {
	case moves != 0 || w.moved != "":
		return fmt.Errorf("the role moved %d times without a reason: %s", moves, w.moved)
	case io.errors > 0:
		return fmt.Errorf("fio saw %d errors", io.errors)
	case s.Reconnects > 0 || len(s.Errors) > 0 || s.Unanswered > 0:
		return fmt.Errorf("the probe was disturbed: %+v", s)
	}
	return p.judge()
}

// watcher asks the cluster how it is.
type watcher struct {
	c       *e2e.Cluster
	epoch   uint64
	primary string

	looks, unanswered int
	suspended         time.Duration // as far as looking now and then can tell
	moved             string        // what it found instead
}

func (w *watcher) run(ctx context.Context) error {
	tick := time.NewTicker(look)
	defer tick.Stop()
	last := time.Now()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		st, err := w.c.Status(ctx)
		if ctx.Err() != nil {
			return nil
		}
		now := time.Now()
		passed := now.Sub(last)
		last = now
		w.looks++
		if err != nil || len(st.Volumes) != 1 {
			w.unanswered++
			continue
		}
		v := st.Volumes[0]
		if v.IO.Suspended {
			w.suspended += passed
		}
		if st.Quorum && (v.Epoch != w.epoch || v.Primary != w.primary) && w.moved == "" {
			w.moved = fmt.Sprintf("primary %s in epoch %d became %s in epoch %d", w.primary, w.epoch, v.Primary, v.Epoch)
		}
	}
}
