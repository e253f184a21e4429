package replication

import (
	"context"
	"errors"
	"fmt"
	"time"

	"hacluster/blockdev"
	"hacluster/blockdev/failpoint"
	"hacluster/heartbeat/cluster"
)

// handing is how far a hand-over is. No operation is admitted but in open and approaching.
//
//	open --HandOver--> draining --given up, or it failed--> over --lease--> open
//	  \--in async--> approaching --members have what was acknowledged--^
//
// While approaching operations are complete as in sync, so clients wait for little when they are not admitted any more. A lease that
// is renewed while draining changes nothing; what counts is one asked for after the give-up (R30).
type handing uint8

const (
	open handing = iota
	approaching
	draining
	over
)

// closed reports whether no operation is admitted.
func (h handing) closed() bool { return h >= draining }

// isOn reports whether a hand-over is under way.
func (h handing) isOn() bool { return h == approaching || h == draining }

// ErrHandingOver: the volume is being handed over already, or the role has moved.
var ErrHandingOver = errors.New("a hand-over is under way already, or the role has moved")

// ErrOvertaken: the leader does not take a give-up, because the volume has moved, or a newer request was there first.
var ErrOvertaken = errors.New("the give-up does not fit the leader's state: the volume has moved, or was asked for since")

// giveUpTries bounds how often a give-up is told. Requests are sent a few times a lease, so being overtaken twice is rare.
const giveUpTries = 5

// HandOver gives the role up in order (R30): admit nothing, let every write in flight reach all members (or its member
// be dropped), flush, give up. It returns when the leader has taken the give-up; the promotion follows, and until then
// clients wait. When it is void, the next lease that names this epoch lets everything go on.
func (r *Replica) HandOver(ctx context.Context, to string) error {
	t := r.Tenure()
	if t == nil {
		return fmt.Errorf("hand over volume %q: %w", r.cfg.Volume.Name, blockdev.ErrNotPrimary)
	}
	if !t.beginHandOver() {
		return fmt.Errorf("hand over volume %q: %w", r.cfg.Volume.Name, ErrHandingOver)
	}
	failpoint.Hit(failpoint.HandOver)
	err := t.approach(ctx)
	if err == nil {
		err = t.quiesce(ctx)
	}
	failpoint.Hit(failpoint.HandOverQuiet)
	if err == nil {
		err = r.giveUp(ctx, t.epoch, to)
	}
	failpoint.Hit(failpoint.HandOverDone)
	t.gate.refresh()
	t.mu.Lock()
	t.handing, t.drained = over, nil
	t.mu.Unlock()
	t.look()
	if err != nil {
		return fmt.Errorf("hand over volume %q: %w", r.cfg.Volume.Name, err)
	}
	return nil
}

// giveUp tells the leader. A lease request that was sent after the give-up may have come before it: then the leader has
// granted the volume again, the give-up is void, and only another one, which is newer than that request, counts (R10).
func (r *Replica) giveUp(ctx context.Context, e cluster.Epoch, to string) (err error) {
	for range giveUpTries {
		if err = r.node.GiveUp(ctx, r.cfg.Volume.Name, e, to, false); !errors.Is(err, ErrOvertaken) {
			return err
		}
	}
	return err
}

func (t *Tenure) beginHandOver() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.handing.isOn() || t.ended {
		return false
	}
	if t.handing == open {
		t.handing = approaching
	} else {
		t.handing = draining // nothing is admitted before a new lease (R30)
	}
	return true
}

// approach waits until no member lacks what clients were told of, which they are in async. They are served meanwhile.
func (t *Tenure) approach(ctx context.Context) error {
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	for t.approaches() {
		select {
		case <-look.C:
		case <-ctx.Done():
			return fmt.Errorf("a member did not take what clients were told of: %w", ctx.Err())
		case <-t.gone:
			return blockdev.ErrNotPrimary
		}
	}
	return nil
}

// approaches ends with no operation admitted any more.
func (t *Tenure) approaches() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.handing == approaching && t.core.Approach() {
		return true
	}
	t.handing = draining
	return false
}

// quiesce stops admission and returns when nothing is in flight and all is flushed on every member.
func (t *Tenure) quiesce(ctx context.Context) error {
	drained := make(chan struct{})
	t.mu.Lock()
	t.drained = drained
	t.core.Drain()
	acts := t.takeLocked()
	t.mu.Unlock()
	t.run(acts, loop)
	if err := t.await(ctx, drained); err != nil {
		return fmt.Errorf("writes in flight did not end: %w", err)
	}
	o := t.newOp(blockdev.OpFlush, blockdev.Range{})
	o.done = make(chan error, 1)
	done := o.done
	t.admit(o)
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("the flush did not end: %w", ctx.Err())
	case <-t.gone:
		return blockdev.ErrNotPrimary
	}
}

func (t *Tenure) await(ctx context.Context, c <-chan struct{}) error {
	select {
	case <-c:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-t.gone:
		return blockdev.ErrNotPrimary
	}
}

func (t *Tenure) drainedLocked() {
	if t.drained != nil {
		close(t.drained)
		t.drained = nil
	}
}

// resume lets operations in again after a hand-over that did not happen, in the order in which they came. Those whose
// connection has closed meanwhile are discarded (R11). They are asked under the lock: a client that leaves later reads by
// its next connection what is admitted here.
func (t *Tenure) resume() {
	now := t.r.node.Now()
	t.mu.Lock()
	if t.handing != over || t.ended || !t.gate.try() {
		t.mu.Unlock()
		return
	}
	t.handing = open
	t.core.Resume()
	t.core.LetGo(now)
	var abandoned []*op
	for i, o := range t.held {
		t.held[i] = nil
		if gone := o.req.Abandoned; gone != nil && gone() {
			abandoned = append(abandoned, o)
			continue
		}
		t.core.Admit(now, &o.Op)
	}
	t.held = t.held[:0]
	acts := t.takeLocked()
	t.mu.Unlock()
	t.run(acts, loop)
	for _, o := range abandoned {
		req := o.req
		o.release()
		req.Err = blockdev.ErrAbandoned
		req.Done(req)
	}
}
