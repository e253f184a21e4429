package hot

import (
	"sync/atomic"
	"time"
)

// A thread that waits in the kernel keeps one of the runtime's processors from all other goroutines until it is noticed, which takes
// longer than a small write does. One conversation has nobody else to keep it from; among ten of them, each with one write at a time,
// all waited for the processors that others slept on, and together they did a sixteenth of what they could.

// company counts the connections on which something came of late: in the window before, and in this one.
type company struct{ counts atomic.Uint64 } // number of the window << 32 | count in the one before << 16 | count in this one

const (
	// window is how long a connection counts at least.
	window = 10 * time.Millisecond
	// few is how many may wait in their threads: the client's and the standby's of one volume.
	few = 2
)

// joins counts a connection on which something comes, once in each window; seen is the window in which it was counted last, and stays
// the caller's. It reports whether there are more than a few.
func (y *company) joins(now time.Duration, seen *uint64) (crowded bool) {
	at := uint64(now / window)
	for {
		old := y.counts.Load()
		last, before, n := old>>32, old>>16&0xffff, old&0xffff
		switch {
		case last == at:
		case last+1 == at:
			before, n = n, 0
		case last < at:
			before, n = 0, 0
		default:
			at = last // another was here in between, and is ahead
		}
		if *seen != at && n < 0xffff {
			n++
		}
		next := at<<32 | before<<16 | n
		if next == old || y.counts.CompareAndSwap(old, next) {
			*seen = at
			return max(before, n) > few
		}
	}
}

var all company
