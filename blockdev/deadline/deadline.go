// Package deadline notices calls that do not return: a disk that hangs reports no error, it just keeps its caller (R26).
// A Watch knows which calls are outstanding. It never abandons or repeats one: what was abandoned may still take effect
// at any later time. What follows from an expiry is decided by who ticks.
//
// The Raft log (heartbeat/consensus) and a node's own metadata are timed by it; backings, whose operations are many, by
// blockdev/backend/timed. It refuses nothing.
package deadline

import (
	"fmt"
	"sync"
	"time"
)

// Watch is the calls that are outstanding. Make one with New; its methods may be called concurrently.
type Watch struct {
	mu    sync.Mutex
	next  uint64
	calls map[uint64]*outstanding
}

type outstanding struct {
	op    string
	ticks int
}

// New watches nothing yet.
func New() *Watch { return &Watch{calls: map[uint64]*outstanding{}} }

// Begin notes a call; the function that it returns notes its end.
func (w *Watch) Begin(op string) (end func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.next++
	id := w.next
	w.calls[id] = &outstanding{op: op}
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.calls, id)
	}
}

// Ticks is how finely a deadline is measured: Tick is to be called so many times in one.
const Ticks = 8

// Tick counts. It returns an error when a call has been outstanding for more ticks than its deadline has. Counting,
// not clocks: a process that was stopped gets one tick for all the time that it missed.
func (w *Watch) Tick(deadline time.Duration) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.calls {
		if c.ticks++; c.ticks > Ticks {
			return fmt.Errorf("%s: the call has not returned for %v (disk_deadline): the disk hangs", c.op, deadline)
		}
	}
	return nil
}
