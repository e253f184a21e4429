package replication

import (
	"sync/atomic"

	"hacluster/replication/primary"
)

// maxEarlyBytes is what the volumes of a node hold in memory, together, of writes in semisync that their clients were told of and
// a member has not written (R28).
const maxEarlyBytes = 256 << 20

// Room counts it, one for all replicas of a node. It may be used concurrently.
type Room struct{ used, back atomic.Int64 }

var _ primary.Room = (*Room)(nil)

// Take takes so many bytes; false: there is not so much left.
func (r *Room) Take(bytes int64) bool {
	if r.used.Add(bytes) <= maxEarlyBytes {
		return true
	}
	r.used.Add(-bytes)
	return false
}

// maxBackBytes is what comes back from the spools beside that.
const maxBackBytes = 64 << 20

// Back takes what was given back while it was in a spool: what is sent to standbys far behind holds up no writer.
func (r *Room) Back(bytes int64, must bool) bool {
	if r.back.Add(bytes) <= maxBackBytes || must {
		return true
	}
	r.back.Add(-bytes)
	return false
}

// Returned gives that back.
func (r *Room) Returned(bytes int64) { r.back.Add(-bytes) }

// Tight reports whether more than half is in use.
func (r *Room) Tight() bool { return r.used.Load() > maxEarlyBytes/2 }

// Give gives them back.
func (r *Room) Give(bytes int64) { r.used.Add(-bytes) }
