package consensus

import (
	"fmt"
	"sync"
	"time"
)

// watch knows which store calls are outstanding. It never abandons or repeats one: an abandoned append that succeeds
// later makes the log refuse its repetition.
type watch struct {
	mu    sync.Mutex
	next  uint64
	calls map[uint64]*outstanding
}

type outstanding struct {
	op    string
	ticks int
}

func newWatch() *watch { return &watch{calls: map[uint64]*outstanding{}} }

// begin notes a call; the function that it returns notes its end.
func (w *watch) begin(op string) (end func()) {
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

// ticksPerDeadline is how finely a deadline is measured.
const ticksPerDeadline = 8

// tick counts. It returns an error when a call has been outstanding for more ticks than its deadline has. Counting,
// not clocks: a process that was stopped gets one tick for all the time that it missed.
func (w *watch) tick(deadline time.Duration) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.calls {
		if c.ticks++; c.ticks > ticksPerDeadline {
			return fmt.Errorf("%s: the call has not returned for %v (DiskDeadline): the disk hangs", c.op, deadline)
		}
	}
	return nil
}
