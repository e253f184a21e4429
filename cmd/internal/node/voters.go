package node

import (
	"context"

	"hacluster/heartbeat/cluster"
)

// votes reports whether a Raft id votes, by the newest configuration.
func (l *leading) votes(raftID string) (bool, error) {
	servers, err := l.raft.Servers()
	for _, s := range servers {
		if s.ID == raftID {
			return s.Voter, nil
		}
	}
	return false, err
}

// votersChanged tells the Leader who votes now: a change of voters is no change of the state that it is fed with, and
// a majority of others than those who vote would prove nothing (R8).
func (l *leading) votersChanged(ctx context.Context) {
	// Not done: the leadership is over, and the next one begins with the newest voters.
	_ = l.do(ctx, func(now cluster.Instant) {
		st := l.n.state.get()
		l.carryOut(l.core.Applied(now, st, l.voters(st), true))
	})
}
