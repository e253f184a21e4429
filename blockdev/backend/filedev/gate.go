package filedev

import (
	"math"
	"sync/atomic"

	"hacluster/blockdev"
)

// gate counts operations in flight and lets close wait for them. It costs an operation two atomic additions.
type gate struct {
	// state is the number of operations inside; below zero once closed, and while paused.
	state atomic.Int64
	idle  chan struct{} // closed by the last one out
	ended atomic.Bool
}

const (
	closedGate = math.MinInt64
	pausedGate = closedGate / 2
)

func newGate() gate { return gate{idle: make(chan struct{})} }

func (g *gate) enter() bool {
	if g.state.Add(1) > 0 {
		return true
	}
	g.leave() // too late; the visit counted and must end like one
	return false
}

func (g *gate) leave() { g.left(g.state.Add(-1)) }

func (g *gate) left(state int64) {
	if state == closedGate && !g.ended.Swap(true) {
		close(g.idle)
	}
}

// close ends admission and waits until everybody is out; false when it was closed before.
func (g *gate) close() bool {
	for {
		n := g.state.Load()
		if n < 0 {
			return false
		}
		if g.state.CompareAndSwap(n, closedGate+n) {
			g.left(closedGate + n)
			<-g.idle
			return true
		}
	}
}

// pause ends admission until resume. It waits for nobody: with somebody inside it is refused. The caller keeps it apart
// from close.
func (g *gate) pause() error {
	if g.state.CompareAndSwap(0, pausedGate) {
		return nil
	}
	if g.state.Load() < 0 {
		return blockdev.ErrClosed
	}
	return ErrBusy
}

func (g *gate) resume() { g.state.Add(-pausedGate) }
