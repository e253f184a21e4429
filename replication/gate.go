package replication

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"hacluster/blockdev"
	"hacluster/heartbeat/cluster"
)

// gate says whether the node may admit and reply at this very moment (R11). The clock is read at each question, so a
// process that was stopped finds its lease run out before it replies.
type gate struct {
	now   func() cluster.Instant
	lease func() cluster.Instant
	until atomic.Int64
	holds atomic.Int32 // failures that are not yet noted on stable storage (R23)

	mu      sync.Mutex
	closed  bool
	changed chan struct{} // closed and replaced when the gate may have opened
}

func (g *gate) init(now, lease func() cluster.Instant) {
	g.now, g.lease, g.changed = now, lease, make(chan struct{})
}

func (g *gate) try() bool {
	if g.holds.Load() > 0 {
		return false
	}
	now := g.now()
	return int64(now) < g.until.Load() || mutateLeaseUnchecked && g.until.Load() > 0 || g.renewed(now)
}

// renewed finds out whether the lease that ran out was renewed. Not every gate is told of each renewal; who was told of none, and
// finds the lease over at now, which was read before, is told when there is another one (Node.Lease).
func (g *gate) renewed(now cluster.Instant) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return false
	}
	until := g.lease()
	g.until.Store(int64(until))
	return now < until
}

// refresh takes the lease over as it is now. It is read under the lock: of two that run at once, the later one has the
// newer lease, so that one read before a give-up never opens the gate after it (R9).
func (g *gate) refresh() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return
	}
	g.until.Store(int64(g.lease()))
	g.changedLocked()
}

func (g *gate) changedLocked() {
	close(g.changed)
	g.changed = make(chan struct{})
}

// servedUntil is until when the lease that was taken over last lasts, or lasted; now at the latest, and zero of a gate that is shut
// for good.
func (g *gate) servedUntil() cluster.Instant { return min(cluster.Instant(g.until.Load()), g.now()) }

// hold shuts the gate until as many calls of unhold.
func (g *gate) hold() { g.holds.Add(1) }

func (g *gate) unhold() {
	g.holds.Add(-1)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.changedLocked()
}

// close shuts the gate for good. first: it was not shut so before.
func (g *gate) close() (first bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	first = !g.closed
	g.closed = true
	g.until.Store(0)
	return first
}

func (g *gate) next() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.changed
}

// Export is what the clients of one tenure are served; those that connected before a long suspension have an older
// one, which is gone.
type Export struct {
	t    *Tenure
	gone chan struct{}
	size int64
}

func newExport(t *Tenure, size int64) *Export {
	return &Export{t: t, gone: make(chan struct{}), size: size}
}

// Export is what a new client is served now.
func (t *Tenure) Export() *Export {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.export
}

// Size is the volume's size in bytes, or the smaller one that it is to have.
func (e *Export) Size() int64 { return e.size }

// ReadOnly is false: only a primary has exports.
func (e *Export) ReadOnly() bool { return false }

// Submit starts one operation. One behind the end that the volume is to have, by a client that was shown the old one and is being
// cut off, is refused: what was acknowledged there would be lost.
func (e *Export) Submit(req *blockdev.Request) {
	if end := e.t.shown.Load(); req.Range.End() > end {
		req.Err = fmt.Errorf("volume %q shrinks to %d bytes, %v reaches behind that: %w", e.t.r.cfg.Volume.Name, end, req.Range, blockdev.ErrRange)
		req.Done(req)
		return
	}
	e.t.Submit(req)
}

// Push sends on what was submitted with More.
func (e *Export) Push() { e.t.push() }

// TryGate reports whether Gate would return nil at once.
func (e *Export) TryGate() bool { return e.t.gate.try() }

// Gate waits for the lease. An error means that the client's connection is to be closed.
func (e *Export) Gate(ctx context.Context) error {
	g := &e.t.gate
	for {
		changed := g.next()
		if g.try() {
			return nil
		}
		select {
		case <-changed:
		case <-e.gone:
			return fmt.Errorf("volume %q: %w any more in epoch %d, or suspended for too long", e.t.r.cfg.Volume.Name, blockdev.ErrNotPrimary, e.t.epoch)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Gone is closed when the clients of this export are to be cut off.
func (e *Export) Gone() <-chan struct{} { return e.gone }

// Extents reports what the local backing knows to be holes, save where a change is not yet on every member: a client that
// was told of zeroes there might read something else from the next primary (R29). There it reports data, which promises
// nothing.
func (e *Export) Extents(r blockdev.Range, fn func(blockdev.Range, bool) bool) error {
	return e.t.r.dev.Extents(r, func(at blockdev.Range, hole bool) bool {
		if !hole {
			return fn(at, false)
		}
		return e.t.hole(at, fn)
	})
}

// hole reports one that the backing was seen to have. What is incomplete is asked for after that.
func (t *Tenure) hole(at blockdev.Range, fn func(blockdev.Range, bool) bool) bool {
	t.mu.Lock()
	changing := t.core.Incomplete(at, nil)
	t.mu.Unlock()
	slices.SortFunc(changing, func(a, b blockdev.Range) int { return cmp.Compare(a.Off, b.Off) })
	piece := func(from, to int64, hole bool) bool {
		return from >= to || fn(blockdev.Range{Off: from, Len: to - from}, hole)
	}
	off, end := at.Off, at.Off+at.Len
	for _, c := range changing {
		from, to := max(c.Off, off), min(c.Off+c.Len, end)
		if !piece(off, from, true) || !piece(from, to, false) {
			return false
		}
		off = max(off, to)
	}
	return piece(off, end, true)
}

// FastZero reports whether zeroing is much faster than writing: it is, wherever the backing can punch holes.
func (e *Export) FastZero(blockdev.Range, bool) bool { return true }
