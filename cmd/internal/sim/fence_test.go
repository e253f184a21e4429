package sim

import (
	"time"

	"hacluster/heartbeat/cluster"
	"hacluster/heartbeat/failover"
	"hacluster/heartbeat/fence"
)

// Of eleven seeds one requires fencing, and in one nodes are fenced beside promotions that do not wait for it.
const (
	seedRequired = 4
	seedBeside   = 7
)

// fenced is the focus in which fencing is required, and hard to come by.
const fenced = 19

func (w *world) requiresFencing() bool { return w.seed%11 == seedRequired || *focusOn == fenced }

func (w *world) hasAgents() bool { return w.requiresFencing() || w.seed%11 == seedBeside }

// fencer is the Leader's wish that a node be turned off, as the leader's process carries it out. It goes with the leader.
type fencer struct {
	l       *leader
	node    *node
	start   uint64
	beside  bool
	a       *fence.Attempt
	attempt uint64
	wanted  bool
	over    bool
	off     map[int]bool // by agent: it says that it was turned off, whether or not
}

// fence begins to turn a node off, unless that is under way.
func (l *leader) fence(a failover.Fence) {
	w := l.p.w
	if !w.hasAgents() {
		l.l.FenceOver(a.Node)
		return
	}
	if f := l.fencers[a.Node]; f != nil && !f.over {
		return
	}
	f := &fencer{l: l, node: w.node(a.Node), start: a.Start, beside: a.Beside, wanted: !a.Beside}
	if l.fencers == nil {
		l.fencers = map[string]*fencer{}
	}
	l.fencers[a.Node] = f
	f.begin()
}

func (f *fencer) begin() {
	w := f.l.p.w
	cfg := fence.Config{Node: f.node.name, Pause: 200 * time.Millisecond, MaxPause: time.Second}
	if f.beside {
		cfg.Tries = 2
	}
	for i := range 1 + w.rng.IntN(3) {
		cfg.Agents = append(cfg.Agents, fence.Agent{Name: string(rune('a' + i)), Level: 1 + w.rng.IntN(2), Timeout: 800 * time.Millisecond, Retries: w.rng.IntN(2), RandomDelay: 200 * time.Millisecond})
	}
	f.a, f.off, f.over = fence.New(cfg), map[int]bool{}, false
	f.step(fence.Begin{Random: w.rng.Float64()})
}

func (f *fencer) step(ev fence.Event) {
	if f.l.p.leader != f.l {
		return // whoever leads no more fences nobody
	}
	for _, act := range f.a.Step(f.l.p.now(), ev) {
		switch act := act.(type) {
		case fence.Note:
			f.note(act)
		case fence.Ask:
			f.ask(act)
		case fence.Over:
			f.over = true
			f.l.l.FenceOver(f.node.name)
			if f.wanted && !act.Fenced {
				f.l.p.after(time.Second, func() {
					if f.l.p.leader == f.l && f.wanted && f.over {
						f.begin()
					}
				})
			}
		}
	}
}

// note has the cluster note what came of it.
func (f *fencer) note(n fence.Note) {
	p := f.l.p
	was := uint64(0)
	if r := p.state.Nodes[f.node.name].Fence; r != nil {
		was = r.Attempt
	}
	c := cluster.FenceNode{Node: f.node.name, Word: word[n.Word], Start: f.start, Level: n.Level, Unverified: n.Unverified, Text: n.Text}
	if n.Word == fence.Begun {
		f.attempt = was + 1
	}
	c.Attempt = f.attempt
	w := p.w
	p.accept(cluster.Command{By: p.node.name, FenceNode: &c}, func(r cluster.Result) {
		if n.Word == fence.NotOff && w.chance(0.1) {
			w.after(w.between(0, 2*time.Second), func() { w.confirmOff(f.node) })
		}
		f.step(fence.Noted{OK: r.Void == ""})
	})
}

var word = map[fence.Word]cluster.FenceWord{fence.Begun: cluster.FenceBegun, fence.Fenced: cluster.FenceOff, fence.NotOff: cluster.FenceFailed, fence.GivenEnd: cluster.FenceEnded}

// ask is an agent: it does what it is asked, or fails, or hangs and does it late or never, or lies.
func (f *fencer) ask(q fence.Ask) {
	w := f.l.p.w
	r := w.truth.state.Nodes[f.node.name].Fence
	if r == nil || r.Attempt < f.attempt {
		w.violate("%s is turned off by %s, and that this begins is not committed", f.node.name, f.l.p.node.name)
	}
	answer := func(after time.Duration, said fence.Answer) {
		f.l.p.after(after, func() { f.step(fence.Answered{Call: q.Call, Answer: said, Text: "so it says"}) })
	}
	if q.Op == fence.OpStatus {
		said := fence.IsOn
		if f.off[q.Agent] || !f.node.up {
			said = fence.IsOff
		}
		answer(w.between(time.Millisecond, 100*time.Millisecond), said)
		return
	}
	d := w.between(time.Millisecond, 300*time.Millisecond)
	f.off[q.Agent] = false
	one := w.rng.IntN(10)
	if w.calm {
		one = 9
	}
	switch one {
	case 0, 1:
		answer(d, fence.Failed)
	case 2: // hangs; it may have done it all the same
		answer(q.Limit, fence.Failed)
		if w.chance(0.5) {
			w.after(w.between(0, 2*time.Second), func() { f.cut() })
		}
	case 3, 4: // lies, and its status with it
		f.off[q.Agent] = true
		w.lies(f.node.name, f.start)
		answer(d, fence.Done)
	case 5: // lies, and its status tells
		answer(d, fence.Done)
	default:
		w.after(d/2, f.cut)
		answer(d, fence.Done)
	}
}

// cut is the power's. Somebody turns it on again after a while.
func (f *fencer) cut() {
	w := f.l.p.w
	if w.calm && f.l.p.w.now-w.healed > int64(time.Second) && f.node.proc != nil && f.node.proc.number > f.start {
		return // a late one, of a process that is gone
	}
	w.tracef("FENCED %s", f.node.name)
	w.counts.Fenced++
	f.node.crash()
	w.after(w.between(200*time.Millisecond, 4*time.Second), f.node.boots)
}

// lies notes that an agent may say of a process that it is off, whether or not.
func (w *world) lies(node string, process uint64) {
	if w.lied == nil {
		w.lied = map[string]uint64{}
	}
	w.lied[node] = max(w.lied[node], process)
}

// fenceTick lets time act on what is turned off.
func (l *leader) fenceTick() {
	for _, n := range l.p.w.nodes { // in their order, so that a run replays
		if f := l.fencers[n.name]; f != nil && !f.over {
			f.step(fence.Tick{})
		}
	}
}

func (l *leader) spare(a failover.Spare) {
	if f := l.fencers[a.Node]; f != nil && !f.over {
		f.wanted = false
		f.step(fence.End{Why: a.Why})
	}
}

func (l *leader) refute(a failover.Refute) {
	p := l.p
	r := p.state.Nodes[a.Node].Fence
	if r == nil {
		return
	}
	p.w.counts.Refuted++
	p.accept(cluster.Command{By: p.node.name, FenceNode: &cluster.FenceNode{Node: a.Node, Word: cluster.FenceRefuted, Start: a.Start, Attempt: r.Attempt + 1}}, nil)
}

// confirmOff is a person who has gone to a machine whose fencing fails, turns it off and says so.
func (w *world) confirmOff(n *node) {
	r := w.truth.state.Nodes[n.name]
	if w.calm || r.Fence == nil || r.Fence.Word != cluster.FenceFailed || n.start != r.Start {
		return
	}
	w.tracef("A PERSON turns %s off and says so", n.name)
	w.counts.Confirmed++
	n.crash()
	w.after(w.between(time.Second, 4*time.Second), n.boots)
	w.tell(cluster.Command{By: "person", FenceNode: &cluster.FenceNode{Node: n.name, Word: cluster.FenceConfirmed, Start: r.Start, Attempt: r.Fence.Attempt + 1, Person: "person"}})
}

// runs reports whether a process lives, that of a stopped one too.
func (w *world) runs(node string, process uint64) bool {
	n := w.node(node)
	return n.proc != nil && n.proc.number == process
}

// fencing checks a word that was committed: what counts as off is off, unless an agent lied.
func (o *oracle) fencing(f *cluster.FenceNode) {
	w := o.w
	off := w.truth.state.Nodes[f.Node].Fence.Off
	if off != 0 && w.lied[f.Node] < off && w.runs(f.Node, off) {
		w.violate("process %d of %s counts as off, nobody lied, and it runs", off, f.Node)
	}
}

// replaces checks a promotion in another's place where fencing is required.
func (o *oracle) replaces(p *cluster.Promote, before *cluster.Volume) {
	w := o.w
	old := before.Primary
	if !w.requiresFencing() || old == "" || old == p.Candidate || !w.runs(old, before.Process) {
		return
	}
	if s := w.node(old).proc.replica.sess; p.GaveUp {
		if s != nil && s.epoch == before.Epoch && !s.gaveUp && !s.ended {
			w.violate("%s follows process %d of %s, which is said to have given up and has not", p.Candidate, before.Process, old)
		}
		return
	}
	n := w.truth.state.Nodes[old]
	if n.Fence == nil || n.Fence.Off < before.Process || w.lied[old] < before.Process {
		w.violate("fencing: %s follows process %d of %s, which runs", p.Candidate, before.Process, old)
	}
}

// spoke notes that a process has spoken to a leader, after a question of that round; 0: unasked.
func (l *leader) spoke(node string, process, round uint64) {
	if o, ok := l.off[node]; ok && process <= o.process && (round == 0 || round > o.round) {
		o.spoke = true
		l.off[node] = o
	}
}

// asks is spoke for a request of a lease; one that comes behind a newer one tells nothing.
func (l *leader) asks(r *cluster.LeaseRequest) {
	if l.newest == nil {
		l.newest = map[string]uint64{}
	}
	if id := r.Start<<32 | r.Number; id > l.newest[r.Node] {
		l.newest[r.Node] = id
		l.spoke(r.Node, r.Start, 0)
	}
}

// offHeard is what a leader knows of a node that is off by its own log.
type offHeard struct {
	process, round uint64
	spoke          bool
}

func (l *leader) noteOff() {
	for name, n := range l.p.state.Nodes {
		if n.Fence == nil || n.Fence.Off == 0 {
			delete(l.off, name)
		} else if l.off[name].process != n.Fence.Off {
			if l.off == nil {
				l.off = map[string]offHeard{}
			}
			l.off[name] = offHeard{process: n.Fence.Off, round: l.asked}
		}
	}
}

// believes checks that a leader does not follow a process that has answered it after it was said to be off.
func (o *oracle) believes(l *leader, p *cluster.Promote) {
	v := l.p.state.Volumes[volumeName]
	if !o.w.requiresFencing() || p.Candidate == v.Primary || p.GaveUp || l.p.state.Nodes[v.Primary].Start > v.Process {
		return
	}
	if h := l.off[v.Primary]; h.spoke && h.process >= v.Process {
		o.w.violate("fencing: %s proposes that %s follows process %d of %s, which has answered since it was said to be off", l.p.node.name, p.Candidate, v.Process, v.Primary)
	}
}
