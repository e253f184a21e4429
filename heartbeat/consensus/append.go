package consensus

import (
	"errors"
	"net"
	"time"

	"github.com/hashicorp/raft"
)

// appendPause is how often a member that cannot be reached is tried again.
const appendPause = 100 * time.Millisecond

// AppendEntries tries a member that cannot be reached until it can be, is a member no more, or this node leads no more.
// Left alone, the library waits between two tries, longer with each, up to ten seconds: a member that is back after an
// outage would hear from its leader at once (heartbeats go on) and get no entry for that long. It is held here instead,
// in a goroutine that raft has for this member and this term alone.
//
// Only a refused or unanswered dial is held: what a member answers, and connections that broke, raft judges by itself.
func (t *transport) AppendEntries(id raft.ServerID, to raft.ServerAddress, req *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	for {
		err := t.NetworkTransport.AppendEntries(id, to, req, resp)
		if err != nil && isHeartbeat(req) {
			t.failed() // before raft begins its pause, which follows from its timers
			return err
		}
		var op *net.OpError
		if err == nil || !errors.As(err, &op) || op.Op != "dial" || !t.appendsTo(id, req.Term) {
			return err
		}
		pause := time.NewTimer(appendPause)
		select {
		case <-pause.C:
		case <-t.done:
			pause.Stop()
			return err
		}
	}
}

// isHeartbeat: as raft tells them from appends without entries, which name the entry before.
func isHeartbeat(q *raft.AppendEntriesRequest) bool {
	return len(q.Entries) == 0 && q.PrevLogEntry == 0 && q.PrevLogTerm == 0 && q.LeaderCommitIndex == 0
}

// appendsTo reports whether this node leads in the term and the member is one.
func (t *transport) appendsTo(id raft.ServerID, term uint64) bool {
	node := t.node.Load()
	if node == nil || node.State() != raft.Leader || node.CurrentTerm() != term {
		return false
	}
	for _, s := range node.GetConfiguration().Configuration().Servers {
		if s.ID == id {
			return true
		}
	}
	return false
}
