package consensus

import (
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// beat has an idle leader's heartbeats go to all followers at one moment, and evenly. By itself raft keeps a timer for each
// follower, which runs for a tenth to a fifth of a heartbeat, by chance: no two coincide, and each is a wake-up of this
// machine and of the follower's, and one more for the answer. So while all goes well those timers are slow, and raft is
// asked to verify its leadership each quarter of a heartbeat, which it does by a heartbeat to everybody at once.
//
//	gap between two heartbeats  raft's own   1/10 to 1/5 of a heartbeat
//	                            even         1/4; if raft's main loop hangs in its disk: 3/10 to 6/10, by the slow timers
//
// At the first heartbeat that fails, before leadership is handed on, and for the first while of every term, raft's own
// timers go as fast as ever. Nothing relies on what raft verifies here (R8).
type beat struct {
	wake chan struct{} // sent by whoever changed what follows, received by keepBeat; bound 1

	mu                  sync.Mutex
	heartbeat, election time.Duration // in force on a follower
	even                bool          // the timers of raft are slow. Invariant: only while it leads
	from                time.Time     // not even before
}

const (
	evenBeats  = 4  // in a heartbeat
	slowFactor = 3  // of raft's own timers while the beat is even: the shortest is longer than an even gap
	restless   = 10 // heartbeats without a failure before the beat is even
)

// gap is the time between two even beats. After SetTimers a heartbeat may be longer than the leader lease, within which
// the leader has to be answered: then it decides.
func (r *Raft) gap() time.Duration {
	return min(r.beat.heartbeat/evenBeats, r.cfg.LeaderLease*9/20)
}

// timersLocked puts into force what fits the role and how the group is.
func (r *Raft) timersLocked(node *raft.Raft) error {
	b := &r.beat
	heartbeat, election := b.heartbeat, b.election
	if b.even {
		heartbeat = min(slowFactor*heartbeat, 5*r.cfg.LeaderLease)
		election = max(election, heartbeat) // raft wants that; on a leader it bounds transfers, before which the beat is uneven
	}
	c := r.raftConfig(newBridge(r.cfg.Logger))
	err := node.ReloadConfig(raft.ReloadableConfig{TrailingLogs: c.TrailingLogs, SnapshotInterval: c.SnapshotInterval, SnapshotThreshold: c.SnapshotThreshold,
		HeartbeatTimeout: heartbeat, ElectionTimeout: election})
	if err != nil {
		return fmt.Errorf("change Raft's timers to %v: %w", heartbeat, err)
	}
	return nil
}

// unsettle gives raft its own timers back for a while. It is called in raft's main loop at each change of its role, so
// that a follower never waits by a leader's timers.
func (r *Raft) unsettle() {
	node := r.trans.node.Load()
	if node == nil {
		return
	}
	b := &r.beat
	b.mu.Lock()
	defer b.mu.Unlock()
	b.from = time.Now().Add(restless * b.heartbeat)
	if b.even {
		b.even = false
		_ = r.timersLocked(node) // they were in force before
	}
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// keepBeat beats while this node leads.
func (r *Raft) keepBeat() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-r.stop:
			return
		case <-r.beat.wake:
		case <-timer.C:
		}
		if wait, due := r.nextBeat(); due {
			timer.Reset(wait)
		} else {
			timer.Stop()
		}
	}
}

// nextBeat makes the beat even when it is time for that, beats if it is, and tells when to come back, if at all.
func (r *Raft) nextBeat() (wait time.Duration, due bool) {
	node := r.trans.node.Load()
	b := &r.beat
	b.mu.Lock()
	if node == nil || node.State() != raft.Leader { // unsettle follows a change behind our back, and waits for the lock
		b.mu.Unlock()
		return 0, false
	}
	if early := time.Until(b.from); early > 0 {
		b.mu.Unlock()
		return early, true
	}
	if !b.even {
		b.even = true
		if r.timersLocked(node) != nil {
			b.even = false
		}
	}
	wait = r.gap()
	b.mu.Unlock()
	// Nobody waits for the outcome: it comes by way of a channel of 64 places, which raft's main loop empties, and a node
	// that shuts down takes none.
	_ = node.VerifyLeader()
	return wait, true
}
