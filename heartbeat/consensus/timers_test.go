package consensus

import (
	"testing"
	"time"
)

// Raft's leader lease is fixed; the heartbeat follows as far as that allows.
func TestHeartbeatFollowsAsFarAsTheLeaderLeaseAllows(t *testing.T) {
	n := newGroup(t, 1)[0]
	lease := n.Raft.cfg.LeaderLease
	for _, c := range []struct{ wanted, inForce time.Duration }{{lease, lease}, {2 * lease, 2 * lease}, {time.Minute, 3 * lease}, {time.Millisecond, lease}} {
		if got, err := n.SetTimers(c.wanted, c.wanted); err != nil || got != c.inForce {
			t.Errorf("wanted %v, got %v, %v; want %v", c.wanted, got, err, c.inForce)
		}
	}
	n.SetDiskDeadline(time.Hour)
	if n.diskDeadline() != time.Hour {
		t.Error("the deadline of the disk is as before")
	}
}
