package replication

import (
	"hacluster/replication/primary"
)

// MaxBound is the largest bound in bytes that makes sense: what clients were told of stays in memory until every member has written
// it, and all volumes of a node share what there is for that (Room).
const MaxBound = maxEarlyBytes / 2

// SetBound changes Config.Bound, by one caller at a time. A smaller one counts for what is acknowledged from now on.
func (r *Replica) SetBound(b primary.Bound) {
	b.Bytes = min(b.Bytes, MaxBound)
	r.mu.Lock()
	r.bound = b
	t := r.tenure
	r.mu.Unlock()
	if t != nil {
		t.with(func(now primary.Instant) { t.core.SetBound(now, b) })
	}
}
