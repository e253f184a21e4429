//go:build mutate_pause_uncounted

package replication

import (
	"sync"
	"time"

	"hacluster/heartbeat/cluster"
)

// mutatePause makes the gate's clock leave out the time for which the process stood still: a primary that was stopped
// goes on with its lease after SIGCONT (R8, R11 broken).
func mutatePause(now func() cluster.Instant) func() cluster.Instant {
	const pause = 200 * time.Millisecond // nobody asks for so long only when the process does not run
	var mu sync.Mutex
	var last cluster.Instant
	var left time.Duration
	return func() cluster.Instant {
		mu.Lock()
		defer mu.Unlock()
		at := now()
		if d := at.Sub(last); last != 0 && d > pause {
			left += d
		}
		last = at
		return at.Add(-left)
	}
}
