package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"

	"hacluster/blockdev/frontend/nbd/nbdclient"
	"hacluster/cmd/internal/api"
	"hacluster/cmd/internal/e2e"
)

const (
	benchTarget = 2 * time.Second
	volumeSize  = 64 << 20
	think       = time.Millisecond // of each of the load's workers: thousands of writes a second, and time for the daemons
	patience    = time.Minute      // for anything that must happen
)

// rounds is a cluster under load, whose primary is killed again and again.
type rounds struct {
	c    *e2e.Cluster
	dev  *nbdclient.Reconnecting
	rec  *e2e.Recorder
	load *e2e.Load

	heir  atomic.Pointer[string] // the server whose first answer is waited for; nil: none
	first chan time.Duration     // when it came; sent by the load, room for one

	stop  context.CancelFunc // of the load that runs, nil: none
	ended chan error         // of that load
}

// round is what one failover took.
type round struct {
	wait   time.Duration // from the kill to the first acknowledged write
	stages []api.Stage
	back   time.Duration // from the restart of the killed one to healthy
	rosy   bool          // the cluster's own record claims less than half of what the client waited
}

func failovers(ctx context.Context, c *e2e.Cluster, o options) error {
	fmt.Printf("%d times: the serving daemon is killed by SIGKILL while 8 writers write; the target (rto) is %v, the limit %v\n",
		o.rounds, benchTarget, o.limit)
	r, err := newRounds(ctx, c)
	if err != nil {
		return err
	}
	defer r.close()
	var all []round
	for i := range o.rounds {
		one, err := r.failover(ctx, i+1)
		if err != nil {
			return fmt.Errorf("failover %d of %d: %w", i+1, o.rounds, err)
		}
		all = append(all, one)
	}
	if err := r.finish(ctx); err != nil {
		return err
	}
	return report(all, r.rec.Writes, o.limit)
}

func newRounds(ctx context.Context, c *e2e.Cluster) (*rounds, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if _, err := c.Until(ctx, "the new cluster is healthy", e2e.Healthy); err != nil {
		return nil, err
	}
	dev, err := nbdclient.Open(ctx, c.URIs(), nbdclient.ReconnectConfig{Limit: patience / 2, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	r := &rounds{c: c, dev: dev, first: make(chan time.Duration, 1)}
	if r.rec, err = e2e.NewRecorder(""); err != nil {
		return nil, errors.Join(err, dev.Close())
	}
	r.load = &e2e.Load{Dev: dev, Record: r.rec, Blocks: volumeSize / e2e.StampSize, Think: think, Acked: r.acked}
	return r, nil
}

func (r *rounds) close() {
	_ = r.pause()
	r.dev.Close()
}

// acked is told of each acknowledged write.
func (r *rounds) acked(server string) {
	if want := r.heir.Load(); want != nil && server == *want {
		r.heir.Store(nil)
		r.first <- e2e.Monotonic()
	}
}

// run lets the load write.
func (r *rounds) run() {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	r.stop, r.ended = cancel, ended
	go func() { ended <- r.load.Run(ctx) }()
}

// pause ends the load; afterwards every write has its answer.
func (r *rounds) pause() error {
	if r.stop == nil {
		return nil
	}
	r.stop()
	r.stop = nil
	return <-r.ended
}

// failover is one round. It begins and ends with a healthy cluster.
func (r *rounds) failover(ctx context.Context, number int) (one round, err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*patience)
	defer cancel()
	st, err := r.c.Until(ctx, "the cluster is healthy", e2e.Healthy)
	if err != nil {
		return one, err
	}
	from, epoch := st.Volumes[0].Primary, st.Volumes[0].Epoch
	to := map[string]string{"alpha": "beta", "beta": "alpha"}[from]
	r.run()
	defer func() { err = errors.Join(err, r.pause()) }()
	if one.wait, err = r.kill(ctx, from, to); err != nil {
		return one, err
	}
	if err := r.judge(ctx, to); err != nil {
		return one, err
	}
	f, err := r.c.FailoverTo(ctx, epoch+1)
	if err != nil {
		return one, err
	}
	// A record without its first stage says by itself that the leader which decided it could not complete it.
	whole := slices.ContainsFunc(f.Stages, func(s api.Stage) bool { return s.Name == "detect" })
	if f.From != from || f.To != to {
		return one, fmt.Errorf("the cluster's own record is wrong: %s to %s %s; it was %s to %s", f.From, f.To, stagesText(f.Stages), from, to)
	}
	one.rosy = whole && f.RTOMs < one.wait.Milliseconds()/2
	one.stages = f.Stages
	if one.back, err = r.bringBack(ctx, from, to, epoch+1); err != nil {
		return one, err
	}
	remark := ""
	if st.Leader == from {
		remark = "; it led the Raft group too"
	}
	if !whole {
		remark += "; the record is incomplete: the Raft group's leader changed meanwhile"
	}
	if one.rosy {
		remark += fmt.Sprintf("; the RECORD IS WRONG: it says %d ms", f.RTOMs)
	}
	fmt.Printf("%3d  %-5s -> %-5s  %5d ms  %s; healthy %.1f s after its restart%s\n", number, from, to, one.wait.Milliseconds(),
		stagesText(f.Stages), one.back.Seconds(), remark)
	return one, nil
}

// kill kills the primary at a moment that differs each time, and waits for the first answer of the other one.
func (r *rounds) kill(ctx context.Context, from, to string) (time.Duration, error) {
	select {
	case <-time.After(300*time.Millisecond + rand.N(500*time.Millisecond)):
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	uri := r.c.URI(to)
	r.heir.Store(&uri)
	at := e2e.Monotonic()
	r.c.Kill(from)
	select {
	case first := <-r.first:
		return first - at, nil
	case err := <-r.ended:
		r.ended <- err
		return 0, fmt.Errorf("the load ended after the kill of %s: %w", from, err)
	case <-ctx.Done():
		return 0, fmt.Errorf("no write was acknowledged by %s after the kill of %s: %w", to, from, ctx.Err())
	}
}

// judge stops the load and reads over a new connection what it wrote.
func (r *rounds) judge(ctx context.Context, node string) error {
	if err := r.pause(); err != nil {
		return err
	}
	dev, err := nbdclient.Dial(ctx, r.c.URI(node))
	if err != nil {
		return err
	}
	defer dev.Close()
	lost, err := r.rec.Check(dev)
	if err == nil && len(lost) > 0 {
		err = fmt.Errorf("LOST: %d of %d blocks do not hold what was acknowledged, the first: %v", len(lost), r.rec.Size(), lost[0])
	}
	return err
}

// bringBack starts the killed daemon under load and waits until it has caught up.
func (r *rounds) bringBack(ctx context.Context, node, primary string, epoch uint64) (time.Duration, error) {
	r.run()
	begin := time.Now()
	if err := r.c.Start(node); err != nil {
		return 0, err
	}
	st, err := r.c.Until(ctx, node+" has caught up", e2e.Healthy)
	if err != nil {
		return 0, err
	}
	if v := st.Volumes[0]; v.Primary != primary || v.Epoch != epoch {
		return 0, fmt.Errorf("the volume moved again while %s caught up: it is at %s in epoch %d, it was at %s in epoch %d",
			node, v.Primary, v.Epoch, primary, epoch)
	}
	return time.Since(begin), r.pause()
}

// finish stops all daemons in order and compares the copies.
func (r *rounds) finish(ctx context.Context) error {
	if s := r.dev.Stats(); len(s.Errors) > 0 || s.Unanswered > 0 {
		return fmt.Errorf("the load saw errors: %+v", s)
	}
	st, err := r.c.Status(ctx)
	if err != nil {
		return err
	}
	if err := r.judge(ctx, st.Volumes[0].Primary); err != nil {
		return err
	}
	return r.c.StopAndCompare(st.Volumes[0].Primary)
}
