package consensus

import "time"

// heartbeatReach is by how much the heartbeat may exceed the leader lease: a leader that heard nobody for a leader lease
// steps down, and by itself it sends each fifth of a heartbeat at the latest (see beat for an even one).
const heartbeatReach = 3

// SetTimers changes how fast the group reacts, as far as that goes while it runs: the leader lease is fixed when a node
// is opened, and the heartbeat must fit it. It tells the heartbeat that is in force from now on.
func (r *Raft) SetTimers(heartbeat, election time.Duration) (inForce time.Duration, err error) {
	inForce = min(max(heartbeat, r.cfg.LeaderLease), heartbeatReach*r.cfg.LeaderLease)
	election = max(min(election, heartbeatReach*r.cfg.LeaderLease), inForce)
	b := &r.beat
	b.mu.Lock()
	defer b.mu.Unlock()
	before := [2]time.Duration{b.heartbeat, b.election}
	b.heartbeat, b.election = inForce, election
	if err := r.timersLocked(r.node); err != nil {
		b.heartbeat, b.election = before[0], before[1]
		return 0, err
	}
	return inForce, nil
}

// SetDiskDeadline changes Config.DiskDeadline, for calls that are outstanding too.
func (r *Raft) SetDiskDeadline(after time.Duration) { r.disk.Store(int64(after)) }

func (r *Raft) diskDeadline() time.Duration { return time.Duration(r.disk.Load()) }
