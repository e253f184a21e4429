package failover

import (
	"maps"
	"slices"

	"hacluster/heartbeat/cluster"
)

// Where fencing is required a promotion needs more than the end of the lease: what served until now is surely gone (cluster.State.Gone),
// or has said itself that it serves no more. The Leader asks for the old primary's node to be fenced when somebody could follow it and
// nothing else keeps him from that, and goes on asking until it is off, or serves again. Being off counts only with a quarter of a lease
// behind it in which the node was asked and did not answer: an agent that says so of a node that lives lies, and what it said is
// refuted. Where fencing is not required the promotion does not wait, and the node is fenced beside it.
//
// The Leader's own node is never fenced by it: leadership goes to another first (moveAway).

// Actions of fencing.
type (
	// Fence has a node turned off whose processes up to Start may still act, until Spare says otherwise; Beside: once, and nobody waits for
	// it. What came of it is seen in the applied state.
	Fence struct {
		Node   string
		Start  uint64
		Beside bool
		Why    string
	}
	// Spare ends that.
	Spare struct{ Node, Why string }
	// Refute says that a node which counts as off has answered, as process Start.
	Refute struct {
		Node  string
		Start uint64
	}
)

// offSince is when we saw first that a node's process is off, by which attempt, and the newest round then.
type offSince struct {
	process uint64
	attempt uint64 // 0: it was said before our term, and others have begun since
	round   uint64
	at      Instant
}

// beside is a node that is turned off although nobody waits for it, and the newest round when that began.
type beside struct{ start, round uint64 }

// liar is a process that answered after it was said to be off, and when we had that refuted last.
type liar struct {
	process uint64
	said    Instant
}

// learnFences follows what the state says of nodes that are off.
func (l *Leader) learnFences(now Instant) {
	for name, n := range l.state.Nodes {
		if n.Fence == nil || n.Fence.Off == 0 {
			delete(l.off, name)
			delete(l.liars, name)
			continue
		}
		attempt := uint64(0) // by which it is off, if the newest word says so
		if n.Fence.Word == cluster.FenceOff || n.Fence.Word == cluster.FenceConfirmed {
			attempt = n.Fence.Attempt
		}
		if o := l.off[name]; o.process != n.Fence.Off || attempt > o.attempt { // what was a lie before may be true now
			l.off[name] = offSince{n.Fence.Off, attempt, l.lastNum, now}
			delete(l.liars, name)
		}
	}
	gone := func(name string) bool { _, ok := l.state.Nodes[name]; return !ok }
	maps.DeleteFunc(l.off, func(name string, _ offSince) bool { return gone(name) })
	maps.DeleteFunc(l.liars, func(name string, _ liar) bool { return gone(name) })
	maps.DeleteFunc(l.beside, func(name string, _ beside) bool { return gone(name) })
}

// FenceOver tells that a node is not being turned off any more, whatever came of it, or cannot be.
func (l *Leader) FenceOver(node string) { delete(l.beside, node) }

// countsAsOff reports whether a node's process is said to be off: it gets no grant before that is taken back, for the next leader would
// go by it (R10).
func (l *Leader) countsAsOff(node string, process uint64) bool {
	return l.off[node].process >= process && process != 0
}

// alive notes that a process of a node speaks, after a question of that round; 0: unasked, by its own message.
func (l *Leader) alive(now Instant, node string, process, round uint64) (out []Action) {
	if b, ok := l.beside[node]; ok && process <= b.start && (round == 0 || round > b.round) {
		delete(l.beside, node)
		out = append(out, Spare{Node: node, Why: "it answers"})
	}
	o, ok := l.off[node]
	if !ok || process > o.process || round != 0 && round <= o.round {
		return out
	}
	if s, known := l.liars[node]; known && now.Sub(s.said) < l.cfg.Lease {
		return out
	}
	l.liars[node] = liar{o.process, now}
	return append(out, Refute{Node: node, Start: process})
}

// mayFollow reports whether nothing of the old primary is in the way of a promotion. fence: its node is to be turned off for that.
func (l *Leader) mayFollow(now Instant, v *cluster.Volume, a *account, p *cluster.Promote) (may, fence bool) {
	if l.state.Fencing != cluster.FencingRequired || v.Primary == "" || p.Candidate == v.Primary {
		return true, false
	}
	n := l.state.Nodes[v.Primary]
	switch {
	case a.released == givenUp && (a.proven || l.knowsEnd(v, a)):
		p.GaveUp = true
		return true, false
	case n.Start > v.Process:
		return true, false // its own newer process says so
	case a.released == replaced:
		return false, false // likewise, as soon as it is registered
	case l.liars[v.Primary].process >= v.Process && v.Process != 0, !l.state.Gone(v.Primary, v.Process):
		return false, l.mayFence(now, a, p)
	}
	o := l.off[v.Primary]
	ans := l.reports[p.Candidate]
	return now.Sub(o.at) >= l.cfg.RoundTimeout && ans.round > o.round, false
}

// mayFence reports whether the old primary's node is to be turned off: not before it was asked once after the end of its lease and had the
// time to answer, for another's answer is often there a moment earlier; and not soon where all were stopped or lost their memory, for then
// it may just boot last.
func (l *Leader) mayFence(now Instant, a *account, p *cluster.Promote) bool {
	cold := p.Basis != cluster.BasisUnchanged && p.Basis != cluster.BasisHandOver && p.Basis != cluster.BasisForced
	return l.lastNum > a.after && now.Sub(a.ended) >= l.cfg.RoundTimeout && (!cold || now.Sub(l.since) >= l.cfg.ColdFor)
}

// knowsEnd reports whether the old primary's process has answered a question that was asked after its lease had ended. Its clock runs, so
// it knows of that: a grant of an earlier leader, made after a give-up which that one never heard of, is no reason to serve any more.
func (l *Leader) knowsEnd(v *cluster.Volume, a *account) bool {
	r, ok := l.fresh(v, a, v.Primary)
	return ok && r.Process == v.Process
}

// fenceBeside is how an old primary is fenced that is followed without waiting for that; nil: it is not. It begins when the promotion has
// been applied: of one that is void the old primary serves on.
func (l *Leader) fenceBeside(v *cluster.Volume, p *cluster.Promote, why string) *Fence {
	if l.state.Fencing == cluster.FencingRequired || why != LeaseExpired || v.Primary == "" || v.Primary == p.Candidate || v.Primary == l.cfg.Self ||
		l.state.Gone(v.Primary, v.Process) {
		return nil
	}
	return &Fence{Node: v.Primary, Start: l.state.Nodes[v.Primary].Start, Beside: true, Why: fenceWhy(v, p)}
}

// besides are those that begin, as the epoch of the volume has moved; no: it has not, and what was decided is void.
func (l *Leader) besides(v *cluster.Volume, a *account) []Action {
	f := a.beside
	if f == nil || a.deciding != nil {
		return nil
	}
	a.beside = nil
	if a.epoch == v.Epoch || v.Primary == f.Node || l.state.Nodes[f.Node].Start != f.Start {
		return nil
	}
	l.beside[f.Node] = beside{f.Start, l.lastNum}
	return []Action{*f}
}

func fenceWhy(v *cluster.Volume, p *cluster.Promote) string {
	return p.Candidate + " is to follow it as primary of " + v.Name
}

// fences tells which nodes are to be turned off from now on, and which no more.
func (l *Leader) fences() (out []Action) {
	next := map[string]Fence{}
	l.myself = false
	for i, a := range l.books {
		if a.fence == "" {
			continue
		}
		v := l.state.Volumes[l.names[i]]
		if a.deciding != nil {
			continue
		}
		if v.Primary == l.cfg.Self {
			l.myself = true
			continue
		}
		if _, ok := next[v.Primary]; !ok {
			next[v.Primary] = Fence{Node: v.Primary, Start: l.state.Nodes[v.Primary].Start, Why: a.fence}
		}
	}
	for _, node := range slices.Sorted(maps.Keys(l.fencing)) {
		if was, is := l.fencing[node], next[node]; is.Node == "" || is.Start != was.Start {
			out = append(out, Spare{Node: node, Why: "nobody waits for that any more"})
		}
	}
	for _, node := range slices.Sorted(maps.Keys(next)) {
		if was := l.fencing[node]; was.Node == "" || was.Start != next[node].Start {
			out = append(out, next[node])
		}
	}
	l.fencing = next
	return out
}
