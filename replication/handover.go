package replication

import (
	"context"
	"errors"
	"fmt"

	"hacluster/blockdev"
)

// HandOver gives the role up in order (R30): admit nothing, let every write in flight reach all members (or its member
// be dropped), flush, give up. It returns when the leader has taken the give-up; the promotion follows, and until then
// clients wait. When it is void, the next lease that names this epoch lets everything go on.
func (r *Replica) HandOver(ctx context.Context, to string) error {
	t := r.Tenure()
	if t == nil {
		return fmt.Errorf("hand over volume %q: %w", r.cfg.Volume.Name, blockdev.ErrNotPrimary)
	}
	if err := t.quiesce(ctx); err != nil {
		t.resume()
		return fmt.Errorf("hand over volume %q: %w", r.cfg.Volume.Name, err)
	}
	if err := r.node.GiveUp(ctx, r.cfg.Volume.Name, t.epoch, to, false); err != nil {
		return fmt.Errorf("hand over volume %q: %w", r.cfg.Volume.Name, err)
	}
	return nil
}

// quiesce stops admission and returns when nothing is in flight and all is flushed on every member.
func (t *Tenure) quiesce(ctx context.Context) error {
	drained := make(chan struct{})
	t.mu.Lock()
	if t.handing || t.ended {
		t.mu.Unlock()
		return errors.New("a hand-over is under way already, or the role has moved")
	}
	t.handing, t.drained = true, drained
	t.core.Drain()
	acts := t.takeLocked()
	t.mu.Unlock()
	t.run(acts, false)
	if err := t.await(ctx, drained); err != nil {
		return fmt.Errorf("writes in flight did not end: %w", err)
	}
	o := newOp(blockdev.OpFlush, blockdev.Range{})
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

func (t *Tenure) signalDrained() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.drained != nil {
		close(t.drained)
		t.drained = nil
	}
}

// resume lets operations in again after a hand-over that did not happen.
func (t *Tenure) resume() {
	t.mu.Lock()
	if !t.handing || t.ended || !t.gate.try() {
		t.mu.Unlock()
		return
	}
	if t.drained != nil { // still draining towards the give-up: that grant was of before it
		t.mu.Unlock()
		return
	}
	t.handing = false
	t.core.Resume()
	held := t.held
	t.held = nil
	t.mu.Unlock()
	for _, o := range held {
		t.admit(o)
	}
}
