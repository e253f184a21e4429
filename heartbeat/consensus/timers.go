package consensus

import (
	"fmt"
	"time"

	"github.com/hashicorp/raft"
)

// heartbeatReach is by how much the heartbeat may exceed the leader lease: a leader that heard nobody for a leader lease
// steps down, and it sends each fifth of a heartbeat at the latest.
const heartbeatReach = 3

// SetTimers changes how fast the group reacts, as far as that goes while it runs: the leader lease is fixed when a node
// is opened, and the heartbeat must fit it. It tells the heartbeat that is in force from now on.
func (r *Raft) SetTimers(heartbeat, election time.Duration) (inForce time.Duration, err error) {
	inForce = min(max(heartbeat, r.cfg.LeaderLease), heartbeatReach*r.cfg.LeaderLease)
	election = max(min(election, heartbeatReach*r.cfg.LeaderLease), inForce)
	c := r.raftConfig(newBridge(r.cfg.Logger))
	err = r.node.ReloadConfig(raft.ReloadableConfig{TrailingLogs: c.TrailingLogs, SnapshotInterval: c.SnapshotInterval, SnapshotThreshold: c.SnapshotThreshold,
		HeartbeatTimeout: inForce, ElectionTimeout: election})
	if err != nil {
		return 0, fmt.Errorf("change Raft's timers to %v: %w", inForce, err)
	}
	return inForce, nil
}

// SetDiskDeadline changes Config.DiskDeadline, for calls that are outstanding too.
func (r *Raft) SetDiskDeadline(after time.Duration) { r.disk.Store(int64(after)) }

func (r *Raft) diskDeadline() time.Duration { return time.Duration(r.disk.Load()) }
