package sim

import (
	"math/bits"
	"time"

	"hacluster/heartbeat/cluster"
)

// The Raft of the model: elections, log matching and commitment as in the paper, by messages that are lost, late and
// doubled, with entries applied on each node at its own time. What the daemon gets from hashicorp/raft.

type logEntry struct {
	term uint64
	id   uint64           // unique, to tell entries apart in the checks
	cmd  *cluster.Command // nil: the barrier of a term
}

// raftDisk is what a voter has on stable storage.
type raftDisk struct {
	term uint64
	vote int        // -1: none in this term
	log  []logEntry // index 1 first
}

type raftRole uint8

const (
	follower raftRole = iota
	candidate
	leading
)

type raft struct {
	p        *proc
	role     raftRole
	leaderID int // -1: unknown
	commit   uint64
	applied  uint64
	applying bool
	electAt  int64
	voted    uint // by index
	next     [maxNodes]uint64
	match    [maxNodes]uint64
	heard    [maxNodes]int64 // leading: when a follower last answered
	barrier  uint64          // leading: index of this term's barrier
	waiting  map[uint64]func(cluster.Result)
	patience int64 // leading: for how long without a majority it goes on believing that it leads
}

const (
	heartbeatEvery = 60 * time.Millisecond
	electionMin    = 200 * time.Millisecond
	electionMax    = 450 * time.Millisecond
)

func (r *raft) begin() {
	r.leaderID = -1
	r.resetElection()
	r.electionLoop()
}

func (r *raft) resetElection() {
	w := r.p.w
	r.electAt = w.now + int64(electionMin) + w.rng.Int64N(int64(electionMax-electionMin))
}

func (r *raft) electionLoop() {
	w := r.p.w
	if r.role != leading && w.now >= r.electAt {
		r.campaign()
	}
	w.push(event{at: max(r.electAt, w.now+int64(10*time.Millisecond)), proc: r.p, fn: r.electionLoop})
}

func (r *raft) disk() *raftDisk { return &r.p.node.raft }

func (r *raft) last() (index, term uint64) {
	l := r.disk().log
	if len(l) == 0 {
		return 0, 0
	}
	return uint64(len(l)), l[len(l)-1].term
}

func (r *raft) termAt(index uint64) uint64 {
	if index == 0 {
		return 0
	}
	return r.disk().log[index-1].term
}

// sees takes over a higher term.
func (r *raft) sees(term uint64) {
	d := r.disk()
	if term > d.term {
		d.term, d.vote = term, -1
		r.leaderID = -1
		r.follow()
	}
}

func (r *raft) follow() {
	if r.role == leading {
		r.p.w.tracef("raft: %s leads no more (term %d)", r.p.node.name, r.disk().term)
		r.p.leader = nil
		r.waiting = nil
	}
	r.role = follower
	r.resetElection()
}

func (r *raft) campaign() {
	d, w := r.disk(), r.p.w
	d.term++
	d.vote = r.p.node.index
	r.role, r.voted, r.leaderID = candidate, 1<<r.p.node.index, -1
	r.resetElection()
	term := d.term
	index, lastTerm := r.last()
	for _, n := range w.nodes {
		if n == r.p.node {
			continue
		}
		w.datagram(r.p, n, func(q *proc) {
			granted := q.raft.voteFor(r.p.node.index, term, index, lastTerm)
			answered := q.raft.disk().term
			w.datagram(q, r.p.node, func(c *proc) {
				if c == r.p {
					r.gotVote(n.index, term, answered, granted)
				}
			})
		})
	}
}

func (r *raft) voteFor(who int, term, index, lastTerm uint64) bool {
	r.sees(term)
	d := r.disk()
	myIndex, myTerm := r.last()
	if term < d.term || d.vote != -1 && d.vote != who || lastTerm < myTerm || lastTerm == myTerm && index < myIndex {
		return false
	}
	d.vote = who
	r.resetElection()
	return true
}

func (r *raft) gotVote(from int, term, answered uint64, granted bool) {
	r.sees(answered)
	if !granted || r.role != candidate || r.disk().term != term {
		return
	}
	if r.voted |= 1 << from; bits.OnesCount(r.voted) == r.p.w.majority() { // a doubled answer does not count twice
		r.lead()
	}
}

func (r *raft) lead() {
	w := r.p.w
	r.role, r.leaderID = leading, r.p.node.index
	r.patience = int64(electionMax)
	if w.chance(w.faults.stubborn) {
		r.patience = int64(w.between(electionMax, 4*time.Second))
	}
	r.waiting = map[uint64]func(cluster.Result){}
	index, _ := r.last()
	for i := range r.next {
		r.next[i], r.match[i], r.heard[i] = index+1, 0, w.now
	}
	w.counts.Elections++
	w.tracef("raft: %s leads term %d", r.p.node.name, r.disk().term)
	r.barrier = r.append(nil)
	r.p.leader = newLeader(r.p, r.disk().term)
	w.moment(r.p.node)
	r.heartbeatLoop(r.disk().term)
}

// append adds an entry to the leader's log.
func (r *raft) append(c *cluster.Command) (index uint64) {
	d, w := r.disk(), r.p.w
	w.seq++
	d.log = append(d.log, logEntry{term: d.term, id: w.seq, cmd: c})
	return uint64(len(d.log))
}

func (r *raft) heartbeatLoop(term uint64) {
	if r.role != leading || r.disk().term != term {
		return
	}
	w := r.p.w
	heard := 1
	for _, n := range w.nodes {
		if n != r.p.node && w.now-r.heard[n.index] < r.patience {
			heard++
		}
	}
	if heard < w.majority() { // no majority for long: step down, as hashicorp/raft does
		r.follow()
		return
	}
	r.sendAll()
	r.p.after(heartbeatEvery, func() { r.heartbeatLoop(term) })
}

func (r *raft) sendAll() {
	for _, n := range r.p.w.nodes {
		if n != r.p.node {
			r.sendTo(n)
		}
	}
}

func (r *raft) sendTo(n *node) {
	d, w := r.disk(), r.p.w
	term, commit := d.term, r.commit
	prev := r.next[n.index] - 1
	prevTerm := r.termAt(prev)
	var entries []logEntry
	if uint64(len(d.log)) > prev {
		entries = append(entries, d.log[prev:]...)
	}
	w.datagram(r.p, n, func(q *proc) {
		ok, match := q.raft.take(r.p.node.index, term, prev, prevTerm, commit, entries)
		answered := q.raft.disk().term
		w.datagram(q, r.p.node, func(c *proc) {
			if c == r.p {
				r.gotAppend(n.index, term, answered, ok, match)
			}
		})
	})
}

func (r *raft) take(from int, term, prev, prevTerm, commit uint64, entries []logEntry) (ok bool, match uint64) {
	d := r.disk()
	if term < d.term {
		return false, 0
	}
	r.sees(term)
	if r.role != follower {
		r.follow()
	}
	r.leaderID = from
	r.resetElection()
	if index, _ := r.last(); index < prev || r.termAt(prev) != prevTerm {
		return false, min(index, prev-1)
	}
	for i, e := range entries {
		at := prev + uint64(i) + 1
		if at <= uint64(len(d.log)) {
			if d.log[at-1].id == e.id {
				continue
			}
			if at <= r.commit {
				r.p.w.violate("raft: %s would overwrite committed entry %d", r.p.node.name, at)
			}
			d.log = append([]logEntry(nil), d.log[:at-1]...)
		}
		d.log = append(d.log, e)
	}
	match = prev + uint64(len(entries))
	r.advance(min(commit, match))
	return true, match
}

func (r *raft) gotAppend(from int, term, answered uint64, ok bool, match uint64) {
	r.sees(answered)
	if r.role != leading || r.disk().term != term {
		return
	}
	r.heard[from] = r.p.w.now
	if !ok {
		r.next[from] = max(min(r.next[from]-1, match+1), r.match[from]+1)
		r.sendTo(r.p.w.nodes[from])
		return
	}
	r.match[from] = max(r.match[from], match)
	r.next[from] = max(r.next[from], match+1)
	r.count()
}

// count finds what a majority holds.
func (r *raft) count() {
	d := r.disk()
	for n := uint64(len(d.log)); n > r.commit && d.log[n-1].term == d.term; n-- {
		have := 1
		for i, m := range r.match {
			if i != r.p.node.index && m >= n {
				have++
			}
		}
		if have >= r.p.w.majority() {
			for i := r.commit + 1; i <= n; i++ {
				r.p.w.committed(i, d.log[i-1])
			}
			r.advance(n)
			if r.p.w.chance(0.7) {
				r.sendAll() // else with the next heartbeat
			}
			return
		}
	}
}

func (r *raft) advance(commit uint64) {
	if commit <= r.commit {
		return
	}
	r.commit = commit
	if !r.applying {
		r.applying = true
		r.applySoon()
	}
}

func (r *raft) applySoon() {
	w := r.p.w
	d := w.between(10*time.Microsecond, time.Millisecond)
	if w.chance(w.faults.lateApply) {
		d = w.between(time.Millisecond, 500*time.Millisecond)
	}
	r.p.after(d, r.apply)
}

// apply carries out some of what is committed.
func (r *raft) apply() {
	p, w := r.p, r.p.w
	n := r.commit
	if w.chance(0.2) {
		n = r.applied + 1
	}
	for r.applied < n {
		r.applied++
		e := r.disk().log[r.applied-1]
		w.committed(r.applied, e)
		if e.cmd == nil {
			continue
		}
		res := p.state.Apply(r.applied, e.term, *e.cmd)
		if done := r.waiting[r.applied]; done != nil {
			delete(r.waiting, r.applied)
			done(res)
		}
	}
	r.applying = r.applied < r.commit
	if r.applying {
		r.applySoon()
	}
	p.appliedMore()
}

// transfer moves leadership: the target campaigns at once.
func (r *raft) transfer(to *node) {
	term := r.disk().term
	r.p.w.datagram(r.p, to, func(q *proc) {
		if q.raft.disk().term == term && q.raft.role == follower {
			q.raft.campaign()
		}
	})
}
