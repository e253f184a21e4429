package consensus

import (
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// Term is the newest term that this node knows of.
func (r *Raft) Term() uint64 { return r.node.CurrentTerm() }

// State tells whether this node leads, and in which term: the two belong together. That it leads is this node's own
// belief; only a majority of the voters, asked with this term, can confirm it.
func (r *Raft) State() (leader bool, term uint64) {
	if r.failure.Load() != nil {
		return false, r.node.CurrentTerm()
	}
	// Term and role change in raft's main loop only, the term never back, and a node does not lead before it has the
	// term that it leads in: the same term on both sides of the role is the role's.
	for {
		term = r.node.CurrentTerm()
		leader = r.node.State() == raft.Leader
		if r.node.CurrentTerm() == term {
			return leader, term
		}
	}
}

// Leader is who this node follows, or itself; empty when it knows of none.
func (r *Raft) Leader() (id, address string) {
	if r.failure.Load() != nil {
		return "", ""
	}
	a, i := r.node.LeaderWithID()
	return string(i), string(a)
}

// AppliedIndex is the index of the last command (not of raft's own entries) that the state machine has applied.
func (r *Raft) AppliedIndex() uint64 { return r.fsm.applied.Load() }

// LastIndex is the index of the last entry that is durable here, committed or not.
func (r *Raft) LastIndex() uint64 { return r.node.LastIndex() }

// LastContact is when a leader last spoke to this node, by the clock that stands still in suspend. It means nothing on
// the leader.
func (r *Raft) LastContact() time.Time { return r.node.LastContact() }

// Stats is for metrics and status; its fields are not read at one moment.
type Stats struct {
	State         string // Follower, Candidate, Leader, Shutdown
	Term          uint64
	LastIndex     uint64
	CommitIndex   uint64
	AppliedIndex  uint64 // handed to the state machine, raft's own entries included
	SnapshotIndex uint64
	Connections   int
	Calls         int // calls of this package that wait for an outcome
	MaxCalls      int // the limit of that
	Failed        bool
}

// Stats reads the counters.
func (r *Raft) Stats() Stats {
	snapshot, _ := strconv.ParseUint(r.node.Stats()["last_snapshot_index"], 10, 64)
	r.stream.mu.Lock()
	conns := len(r.stream.conns)
	r.stream.mu.Unlock()
	return Stats{
		State:         r.node.State().String(),
		Term:          r.node.CurrentTerm(),
		LastIndex:     r.node.LastIndex(),
		CommitIndex:   r.node.CommitIndex(),
		AppliedIndex:  r.node.AppliedIndex(),
		SnapshotIndex: snapshot,
		Connections:   conns,
		Calls:         len(r.places),
		MaxCalls:      maxCalls,
		Failed:        r.failure.Load() != nil,
	}
}

// leadership passes raft's changes of role on to Config.OnLeader, from a goroutine of its own.
type leadership struct {
	tell     func(term uint64, leader bool)
	overflow func(error)
	log      *slog.Logger

	mu    sync.Mutex
	last  change   // the newest change noted
	queue []change // noted, not yet told; beyond maxChanges this node fails, for its owner hangs
	ended bool
	wake  chan struct{} // one element when there is something to do
}

const maxChanges = 1024

type change struct {
	term   uint64
	leader bool
}

func newLeadership(cfg Config, overflow func(error)) *leadership {
	tell := cfg.OnLeader
	if tell == nil {
		tell = func(uint64, bool) {}
	}
	return &leadership{tell: tell, overflow: overflow, log: cfg.Logger, wake: make(chan struct{}, 1)}
}

// observe follows node. raft calls an observer's filter in its main loop, at the change itself, so the term read there
// is the term of the change; its channels tell later, when the term may have moved on. changed is called there too.
func (l *leadership) observe(node *raft.Raft, changed func()) {
	node.RegisterObserver(raft.NewObserver(nil, false, func(o *raft.Observation) bool {
		if state, ok := o.Data.(raft.RaftState); ok {
			changed()
			l.note(node.CurrentTerm(), state == raft.Leader)
		}
		return false
	}))
	// It may have been elected before there was an observer.
	l.mu.Lock()
	defer l.mu.Unlock()
	if node.State() == raft.Leader {
		l.noteLocked(node.CurrentTerm(), true)
	}
}

func (l *leadership) note(term uint64, leader bool) {
	l.mu.Lock()
	l.noteLocked(term, leader)
	full := len(l.queue) > maxChanges
	l.mu.Unlock()
	if full {
		l.overflow(fmt.Errorf("the owner has not taken %d changes of leadership: it hangs", maxChanges))
	}
}

func (l *leadership) noteLocked(term uint64, leader bool) {
	if leader == l.last.leader || l.ended {
		return
	}
	if !leader {
		term = l.last.term
	}
	l.last = change{term, leader}
	l.queue = append(l.queue, l.last)
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// lose notes that a node that may still believe to lead does not count any more.
func (l *leadership) lose() {
	l.note(0, false)
}

// end lets run tell what was noted and return.
func (l *leadership) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.noteLocked(0, false)
	l.ended = true
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

func (l *leadership) run() {
	for range l.wake {
		l.mu.Lock()
		queue, ended := l.queue, l.ended
		l.queue = nil
		l.mu.Unlock()
		for _, c := range queue {
			if c.leader {
				l.log.Info("this node leads the Raft group", "term", c.term)
			} else {
				l.log.Info("this node leads the Raft group no more", "term", c.term)
			}
			l.tell(c.term, c.leader)
		}
		if ended {
			return
		}
	}
}
