package consensus

import (
	"slices"
	"sync"

	"github.com/hashicorp/raft"
)

// standing is what this node knows of memberships, its own and those that others ask about.
//
// raft tells a removed member so once, in one request that nobody repeats. If that is lost, the member waits for a
// leader for ever: none will speak to it again. So a member that has heard of no leader for long asks the others, one
// at a time, and believes them that it was removed only if both of these hold, whatever order things happened in:
//
//   - The configuration that the other has committed does not name this node, and is newer than the newest one that
//     this node has. A member that lags behind therefore has nothing to say.
//   - Some committed configuration did name this node. One whose addition was begun and overruled was never a member,
//     and is not removed: it may still be added.
type standing struct {
	id   string
	logs raft.LogStore // where the other's entry is looked up

	mu      sync.Mutex
	named   point              // the newest entry in log or snapshot that names this node; of a snapshot: its last term
	member  bool               // a committed configuration named this node
	at      point              // the newest configuration known to be committed; its term only if it came by a snapshot
	members raft.Configuration // that one
}

// logged notes an entry with a configuration that is in the log, committed or not.
func (s *standing) logged(at point, c raft.Configuration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.nameLocked(at, c)
	// A group begins with its first entry, which is never decided upon.
	s.member = s.member || at.index == 1 && names(c, s.id)
}

// committed notes a configuration that is committed. Those of snapshots come with the snapshot's last term.
func (s *standing) committed(at point, c raft.Configuration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.nameLocked(at, c)
	s.member = s.member || names(c, s.id)
	if at.index >= s.at.index {
		s.at, s.members = at, c.Clone()
	}
}

func (s *standing) nameLocked(at point, c raft.Configuration) {
	if names(c, s.id) && (at.term > s.named.term || at.term == s.named.term && at.index > s.named.index) {
		s.named = at
	}
}

// own returns the newest entry that names this node, and whether a committed one did.
func (s *standing) own() (named point, member bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.named, s.member
}

// verdict is what one member says about another that asks. The numbers travel.
type verdict uint64

const (
	unremoved  verdict = iota // it is a member, or nothing is known
	notMember                 // the committed configuration is newer and does not name it
	wasRemoved                // and the one that it asks about was committed before
)

// judge answers id, whose newest configuration that names it is entry newest.
func (s *standing) judge(id string, newest point) verdict {
	s.mu.Lock()
	at, members := s.at, s.members
	s.mu.Unlock()
	if at.index == 0 || newest.index == 0 || names(members, id) {
		return unremoved
	}
	if at.index <= newest.index {
		// Either this node lags behind, or the entry was overruled: then what is committed here is of a later term.
		term := at.term
		if stored := s.term(at.index); stored != 0 {
			term = stored
		}
		if term <= newest.term {
			return unremoved
		}
	} else if newest.term != 0 && s.term(newest.index) == newest.term {
		return wasRemoved
	}
	return notMember
}

// term is that of an entry which has been in the log; 0 if it is there no more. Only such are looked up: an index from
// outside decides nothing about this store's health.
func (s *standing) term(index uint64) uint64 {
	var l raft.Log
	if err := s.logs.GetLog(index, &l); err != nil {
		return 0
	}
	return l.Term
}

func names(c raft.Configuration, id string) bool {
	return slices.ContainsFunc(c.Servers, func(s raft.Server) bool { return s.ID == raft.ServerID(id) })
}

// witnessed is a snapshot store that notes the members in each snapshot: what is in a snapshot is committed.
type witnessed struct {
	raft.SnapshotStore
	standing *standing
}

func (w witnessed) Create(version raft.SnapshotVersion, index, term uint64, members raft.Configuration,
	membersIndex uint64, trans raft.Transport) (raft.SnapshotSink, error) {
	sink, err := w.SnapshotStore.Create(version, index, term, members, membersIndex, trans)
	if err == nil {
		w.standing.committed(point{membersIndex, term}, members)
	}
	return sink, err
}
