package sim

import (
	"time"

	"hacluster/heartbeat/cluster"
	"hacluster/heartbeat/failover"
)

// The control plane of a process: lease requests, proposals, and the failover.Leader while it leads.

const (
	lease      = time.Second
	leaderTick = 50 * time.Millisecond
)

// toLeader brings fn to the Raft leader as p believes it to be, sometimes by way of another node. Whoever gets it and
// does not lead hands it on to the leader that it knows.
func (p *proc) toLeader(late float64, fn func(*proc)) {
	p.toLeaderBy(late, func(q *proc, _ string) { fn(q) })
}

// toLeaderBy tells the leader, too, who passed the message on; empty: nobody.
func (p *proc) toLeaderBy(late float64, fn func(q *proc, by string)) {
	w, hint := p.w, p.raft.leaderID
	switch {
	case p.raft.role == leading:
		fn(p, "")
	case hint < 0 || w.chance(0.15) || !w.reachable(p.node, w.nodes[hint]):
		relay := w.another(p.node)
		w.datagram(p, relay, func(q *proc) { q.handOn(late, fn) })
	default:
		w.late(late, p, w.nodes[hint], func(q *proc) { q.handOn(0, fn) })
	}
}

func (q *proc) handOn(late float64, fn func(q *proc, by string)) {
	switch hint := q.raft.leaderID; {
	case q.raft.role == leading:
		fn(q, "")
	case hint >= 0 && hint != q.node.index:
		q.w.late(late, q, q.w.nodes[hint], func(l *proc) { fn(l, q.node.name) })
	}
}

// back carries an answer to a node, around a broken cable if need be.
func (p *proc) back(late float64, to *node, fn func(*proc)) {
	w := p.w
	if to == p.node {
		fn(p)
		return
	}
	if w.reachable(p.node, to) {
		w.late(late, p, to, fn)
		return
	}
	w.datagram(p, w.relay(p.node, to), func(q *proc) { w.late(late, q, to, fn) })
}

// propose hands a command to the leader. done gets the leader's word on the outcome, if it ever arrives.
func (p *proc) propose(c cluster.Command, done func(cluster.Result)) {
	p.toLeader(p.w.faults.lateCommand, func(q *proc) {
		q.accept(c, func(r cluster.Result) {
			if done != nil {
				q.back(0, p.node, func(x *proc) {
					if x == p {
						done(r)
					}
				})
			}
		})
	})
}

// accept is what a leader does with a proposal.
func (p *proc) accept(c cluster.Command, done func(cluster.Result)) {
	if p.raft.role != leading {
		return
	}
	if c.Drop != nil && (p.leader == nil || !p.leader.l.MayDrop(p.now(), c)) {
		p.w.tracef("%s refuses: %s", p.node.name, describe(&c))
		return
	}
	p.w.tracef("%s appends: %s", p.node.name, describe(&c))
	i := p.raft.append(&c)
	p.raft.waiting[i] = done
	p.raft.sendAll()
}

// appliedMore follows every step of the log.
func (p *proc) appliedMore() {
	if p.replica != nil {
		if v, ok := p.state.Volumes[volumeName]; ok {
			p.replica.learn(v)
		}
	}
	if l := p.leader; l != nil {
		l.noteOff()
		l.do(l.l.Applied(p.now(), p.state, p.w.voters(), p.raft.applied >= p.raft.barrier))
	}
}

// askLoop asks for the lease, four times as often as it runs out.
func (p *proc) askLoop() {
	if !p.node.data {
		return
	}
	if p.replica == nil || p.replica.asksLease() {
		r := cluster.LeaseRequest{Node: p.node.name, Start: p.number, Number: p.holder.Next(p.now()), Boot: p.node.incarnation().Boot, DataDir: "dir-" + p.node.name}
		r.Has, r.HasTerm = p.holder.Has()
		if q := p.replica; q != nil && q.vol.Primary == p.node.name && (q.vol.Process != p.number || q.vol.Mode == cluster.ModeAsync || q.vol.NextMode != "") {
			r.Reports, _ = p.reports()
		}
		p.toLeaderBy(0, func(q *proc, by string) {
			if l := q.leader; l != nil {
				if by != "" {
					l.l.Relayed(q.now(), r.Node, by)
				}
				l.asks(&r)
				l.do(l.l.Request(q.now(), r))
			}
		})
	}
	p.after(lease/4, p.askLoop)
}

// reports is what the node says of its replicas; not ok while it may not answer.
func (p *proc) reports() (out []cluster.Report, ok bool) {
	if r := p.replica; r == nil || r.resizing || r.vol.Size != 0 && !r.mine() || r.vol.Size != 0 && r.vol.AgeOf(r.size, r.resized) != cluster.SizeSame {
		return nil, true
	}
	if p.replica.noting > 0 {
		return nil, false
	}
	return []cluster.Report{p.replica.report()}, true
}

// leader carries out what a failover.Leader decides, for one term.
type leader struct {
	p    *proc
	l    *failover.Leader
	term uint64

	asked uint64           // the newest round
	heard map[string]heard // what was said in it, or in one before

	fencers map[string]*fencer
	off     map[string]offHeard
	newest  map[string]uint64 // number of the newest request of each node, in its newest process
}

// heard is what a node said of its replica in a round, and when that came.
type heard struct {
	cluster.Report
	at int64
}

func newLeader(p *proc, term uint64) *leader {
	l := &leader{p: p, term: term, heard: map[string]heard{}, l: failover.NewLeader(failover.Config{Self: p.node.name, Term: term, Lease: lease, ColdFor: 4 * lease}, p.now())}
	l.l.SetSites(p.w.sites())
	p.after(leaderTick, l.tick)
	return l
}

func (l *leader) tick() {
	if l.p.leader == l {
		l.do(l.l.Tick(l.p.now()))
		l.fenceTick()
		l.p.after(leaderTick, l.tick)
	}
}

func (l *leader) do(actions []failover.Action) {
	p, w := l.p, l.p.w
	for _, a := range actions {
		if p.leader != l {
			return
		}
		switch a := a.(type) {
		case failover.Ask:
			l.ask(a)
		case failover.CheckSelf:
			l.do(l.l.Confirm(p.now(), a.Round, p.raft.disk().term, p.raft.role == leading))
		case failover.Reply:
			g := a.Grant
			p.back(w.faults.lateGrant, w.node(g.Node), func(q *proc) {
				if q.holder.Answer(g) && q.replica != nil {
					q.replica.granted()
				}
			})
		case failover.Propose:
			c := a.Command
			if c.Promote != nil {
				c.Promote.Bound = w.mostLost()
				w.oracle.longest(l, c.Promote)
				w.oracle.stays(l, c.Promote)
				w.oracle.believes(l, c.Promote)
				w.moment(p.node)
				w.moment(w.node(c.Promote.Candidate))
			}
			// The call into Raft takes its time, and what leads then may be another term.
			d := w.between(0, 2*time.Millisecond)
			if w.chance(w.faults.lateCommand) {
				d += w.between(0, 3*time.Second)
			}
			p.after(d, func() {
				if p.raft.role == leading {
					p.accept(c, nil)
				} else if p.leader == l {
					l.l.Retry(volumeName)
				}
			})
		case failover.HandOver:
			w.tracef("%s: hand over from %s to %q", p.node.name, a.Primary, a.To)
			p.back(0, w.node(a.Primary), func(q *proc) {
				if q.replica != nil {
					q.replica.handOver(a.To, a.Epoch)
				}
			})
		case failover.Fence:
			l.fence(a)
		case failover.Spare:
			l.spare(a)
		case failover.Refute:
			l.refute(a)
		case failover.MoveLeadership:
			w.tracef("%s: move leadership to %s", p.node.name, a.To)
			p.raft.transfer(w.node(a.To))
		}
	}
}

// ask puts the round's question. An answer belongs to the Leader that asked: round numbers begin anew in each.
func (l *leader) ask(a failover.Ask) {
	p, w := l.p, l.p.w
	l.asked = a.Round
	for _, n := range w.nodes {
		if n == p.node {
			continue
		}
		w.datagram(p, n, func(q *proc) {
			term := q.raft.disk().term
			reports, ok := q.reports()
			if !ok {
				return
			}
			if !a.Reports {
				reports = nil
			}
			w.late(w.faults.lateAnswer, q, p.node, func(back *proc) {
				if back.leader == l {
					l.note(q.node.name, a.Round, reports)
					if len(reports) > 0 {
						l.spoke(q.node.name, reports[0].Process, a.Round)
					}
					l.do(l.l.Answer(back.now(), q.node.name, a.Round, term, reports))
				}
			})
		})
	}
	if reports, ok := p.reports(); ok {
		if !a.Reports {
			reports = nil
		}
		l.note(p.node.name, a.Round, reports)
		l.do(l.l.Answer(p.now(), p.node.name, a.Round, p.raft.disk().term, reports))
	}
}

func (l *leader) note(node string, round uint64, reports []cluster.Report) {
	for _, r := range reports {
		if round == l.asked { // what was said in an earlier one counts for nothing
			l.heard[node] = heard{r, l.p.w.now}
		}
	}
}

func (w *world) node(name string) *node {
	for _, n := range w.nodes {
		if n.name == name {
			return n
		}
	}
	panic("no node " + name)
}
