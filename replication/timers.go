package replication

import (
	"sync/atomic"
	"time"
)

// timers are the times of a replica that may change while it runs. Whoever waits takes the new ones at its next turn.
type timers struct{ dropAfter, suspendLimit atomic.Int64 }

func (t *timers) set(drop, suspend time.Duration) {
	t.dropAfter.Store(int64(drop))
	t.suspendLimit.Store(int64(suspend))
}

func (t *timers) drop() time.Duration    { return time.Duration(t.dropAfter.Load()) }
func (t *timers) suspend() time.Duration { return time.Duration(t.suspendLimit.Load()) }

// SetTimers changes Config.DropAfter and Config.SuspendLimit.
func (r *Replica) SetTimers(dropAfter, suspendLimit time.Duration) {
	if dropAfter <= 0 || suspendLimit <= 0 {
		return // not settings, but a caller without any
	}
	r.timers.set(dropAfter, suspendLimit)
	if t := r.Tenure(); t != nil {
		t.look()
	}
}
