package replication

import (
	"sync/atomic"

	"hacluster/replication/primary"
)

// maxEarlyBytes is what the volumes of a node hold in memory, together, of writes in semisync that their clients were told of and
// a member has not written (R28).
const maxEarlyBytes = 256 << 20

// Room counts it, one for all replicas of a node. It may be used concurrently.
type Room struct{ used atomic.Int64 }

var _ primary.Room = (*Room)(nil)

// Take takes so many bytes; false: there is not so much left.
func (r *Room) Take(bytes int64) bool {
	if r.used.Add(bytes) <= maxEarlyBytes {
		return true
	}
	r.used.Add(-bytes)
	return false
}

// Give gives them back.
func (r *Room) Give(bytes int64) { r.used.Add(-bytes) }
