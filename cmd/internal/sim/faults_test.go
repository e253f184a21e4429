package sim

import (
	"time"

	"hacluster/heartbeat/failover"
)

// faultRates are the chances of what goes wrong all the time.
type faultRates struct {
	loseMessage, doubleMessage, lateMessage, veryLate float64
	lateGrant, lateAnswer, lateGiveUp, lateCommand    float64
	stubborn                                          float64 // a leader that does not notice that it is alone
	eager                                             float64 // something goes wrong just when something is decided
	slowDisk, lateApply                               float64
	noRoom                                            float64 // for an undo area, or for all of it
	interrupts                                        float64 // a person takes a target for the primary when its resync has begun
}

// fault is one thing that goes wrong at a moment.
type fault struct {
	name   string
	weight int
	do     func(*world)
}

// Each run draws which of these it has: few together reach deeper than all at once.
var allFaults = []fault{
	{"kill", 6, func(w *world) { w.restartLater(w.any(), func(n *node) { n.kill("killed"); w.counts.Kills++ }) }},
	{"power", 4, func(w *world) { w.restartLater(w.any(), func(n *node) { n.crash(); w.counts.Reboots++ }) }},
	{"kill both", 1, func(w *world) {
		for _, n := range w.data() {
			w.restartLater(n, func(n *node) { n.kill("killed"); w.counts.Kills++ })
		}
	}},
	{"power both", 1, func(w *world) {
		for _, n := range w.data() {
			w.restartLater(n, func(n *node) { n.crash(); w.counts.Reboots++ })
		}
	}},
	{"power one by one", 1, func(w *world) {
		for _, n := range w.data() {
			w.after(w.between(0, time.Second), func() {
				w.restartLater(n, func(n *node) { n.crash(); w.counts.Reboots++ })
			})
		}
	}},
	{"cut", 5, (*world).cutSome},
	{"isolate", 2, func(w *world) { // whoever leads, or is primary
		a := w.any()
		for _, n := range w.nodes {
			if p := n.proc; p != nil && (p.leader != nil || p.replica != nil && p.replica.sess != nil) && w.chance(0.6) {
				a = n
			}
		}
		w.isolate(a, w.between(50*time.Millisecond, 5*time.Second))
	}},
	{"one way", 2, func(w *world) {
		a, b := w.any(), w.any()
		w.cutLink(a, b, w.between(50*time.Millisecond, 5*time.Second))
	}},
	{"slow line", 2, func(w *world) {
		a, b := w.any(), w.any()
		w.links[a.index][b.index].slow = w.between(time.Millisecond, 300*time.Millisecond)
		w.after(w.between(100*time.Millisecond, 3*time.Second), func() { w.links[a.index][b.index].slow = 0 })
	}},
	{"break stream", 6, (*world).snapStream},
	{"pause", 5, func(w *world) {
		w.stopFor(w.any(), w.between(50*time.Millisecond, 4*time.Second))
	}},
	{"disk error", 2, func(w *world) {
		n := w.anyData()
		w.tracef("the next operation on the disk of %s fails", n.name)
		n.disk.failing = 1 + w.rng.IntN(2)
	}},
	{"disk hangs", 2, func(w *world) { w.anyData().disk.stalls = 1 }},
	{"election", 3, func(w *world) {
		if p := w.any().proc; p != nil && p.raft.role != leading {
			p.soon(p.raft.campaign)
		}
	}},
	{"hand-over", 4, func(w *world) { w.order(failover.Order{To: w.anyData().name}) }},
	{"stop", 3, func(w *world) {
		n := w.any()
		if p := n.proc; p != nil {
			if p.replica == nil {
				w.restartLater(n, func(n *node) { n.kill("stopped") })
				return
			}
			p.soon(p.replica.stop)
			w.after(w.between(3*time.Second, 5*time.Second), func() { n.startProc() })
			if w.chance(0.5) {
				w.after(w.between(500*time.Millisecond, 4*time.Second), func() {
					if n.proc != p && n.up && !w.calm {
						n.crash()
						w.after(w.between(100*time.Millisecond, 2*time.Second), n.boots)
					}
				})
			}
		}
	}},
	{"force", 1, func(w *world) { w.order(failover.Order{To: w.anyData().name, Force: true}) }},
}

func (w *world) any() *node { return w.nodes[w.rng.IntN(len(w.nodes))] }

// restartLater does harm and has the node come back after a while, unless something else brought it back.
func (w *world) restartLater(n *node, harm func(*node)) {
	if w.calm {
		return
	}
	harm(n)
	w.after(w.between(10*time.Millisecond, 4*time.Second), func() {
		if !n.up {
			n.boots()
		} else {
			n.startProc()
		}
	})
}

func (w *world) cutLink(a, b *node, d time.Duration) {
	if a == b {
		return
	}
	w.counts.Cuts++
	w.tracef("CUT %s -> %s for %v", a.name, b.name, d)
	l := &w.links[a.index][b.index]
	l.cut = true
	w.after(d, func() { l.cut = false })
}

// cutSome parts one pair, or one node from all others.
func (w *world) cutSome() {
	a := w.any()
	b := w.another(a)
	d := w.between(50*time.Millisecond, 5*time.Second)
	w.cutLink(a, b, d)
	w.cutLink(b, a, d)
	if w.chance(0.4) {
		for _, c := range w.nodes {
			if c != a && c != b {
				w.cutLink(a, c, d)
				w.cutLink(c, a, d)
			}
		}
	}
}

func (w *world) snapStream() {
	open := w.conns[:0]
	for _, c := range w.conns {
		if !c.ends[0].closed && !c.ends[0].p.dead {
			open = append(open, c)
		}
	}
	w.conns = open
	if len(open) > 0 {
		w.tracef("BREAK a stream")
		open[w.rng.IntN(len(open))].snap()
	}
}

// order gives a person's word to whoever leads.
func (w *world) order(o failover.Order) {
	w.oracle.named(o.To)
	for _, n := range w.nodes {
		if p := n.proc; p != nil && p.leader != nil && w.now >= p.pausedUntil {
			w.tracef("ORDER %+v", o)
			p.leader.do(p.leader.l.Order(p.now(), volumeName, o))
		}
	}
}

// schedule draws what goes wrong in this run, and when.
func (w *world) schedule(until int64) {
	var mine []fault
	total := 0
	for _, f := range allFaults {
		if w.chance(0.45) {
			mine = append(mine, f)
			total += f.weight
		}
	}
	noise := func(p float64) float64 {
		if w.chance(0.5) {
			return 0
		}
		return p * w.rng.Float64()
	}
	w.faults = faultRates{loseMessage: noise(0.15), doubleMessage: noise(0.2), lateMessage: noise(0.05), veryLate: noise(0.02), stubborn: noise(1), eager: noise(0.4), slowDisk: noise(0.03), lateApply: noise(0.2),
		noRoom: noise(0.3)}
	w.focus(&mine, &total)
	if total == 0 {
		return
	}
	pause := w.between(60*time.Millisecond, 1500*time.Millisecond)
	var next func()
	next = func() {
		if w.now >= until {
			return
		}
		x := w.rng.IntN(total)
		for _, f := range mine {
			if x -= f.weight; x < 0 {
				w.tracef("FAULT %s", f.name)
				f.do(w)
				break
			}
		}
		w.after(w.between(0, 2*pause), next)
	}
	w.after(w.between(0, 3*time.Second), next)
}

// isolate parts a node from all others.
func (w *world) isolate(n *node, d time.Duration) {
	for _, o := range w.nodes {
		w.cutLink(o, n, d)
		w.cutLink(n, o, d)
	}
}

// heal ends all faults and brings everybody back.
func (w *world) heal() {
	w.calm, w.healed = true, w.now
	w.faults = faultRates{}
	w.links = [maxNodes][maxNodes]link{}
	w.tracef("HEAL")
	for _, n := range w.nodes {
		if n.data {
			n.disk.failing, n.disk.stalls, n.disk.drags, n.disk.bad = 0, 0, 0, [blocks]bool{}
		}
		w.revive(n)
	}
	for _, n := range w.nodes {
		if p := n.proc; p != nil {
			w.run(p.pausedUntil, nil) // who was stopped wakes
		}
	}
}

// revive has a machine up and its daemon running, now and whenever a stop that was under way has ended.
func (w *world) revive(n *node) {
	if !n.up {
		n.boots()
	} else {
		n.startProc()
	}
	w.after(500*time.Millisecond, func() { w.revive(n) })
}

// moment tells that something is being decided at n. Now and then just then something happens to it.
func (w *world) moment(n *node) {
	if !w.chance(w.faults.eager) {
		return
	}
	w.after(w.between(0, 30*time.Millisecond), func() {
		if w.calm {
			return
		}
		w.tracef("FAULT at a moment of %s", n.name)
		switch w.rng.IntN(8) {
		case 0:
			w.restartLater(n, func(n *node) { n.kill("killed"); w.counts.Kills++ })
		case 1:
			w.restartLater(n, func(n *node) { n.crash(); w.counts.Reboots++ })
		case 2, 3:
			w.stopFor(n, w.between(50*time.Millisecond, 3*time.Second))
		case 4:
			w.snapStream()
		case 5:
			other := w.another(n)
			w.cutLink(other, n, w.between(50*time.Millisecond, 3*time.Second))
		default:
			d := w.between(50*time.Millisecond, 3*time.Second)
			for _, o := range w.nodes {
				if o != n && w.chance(0.8) {
					w.cutLink(o, n, d)
					w.cutLink(n, o, d)
				}
			}
		}
	})
}

// stopFor keeps a process from running, as SIGSTOP does (faults.md T83), and a suspended machine: its timers stand still with it,
// CLOCK_BOOTTIME goes on (T86).
func (w *world) stopFor(n *node, d time.Duration) {
	if p := n.proc; p != nil && p.pausedUntil <= w.now {
		w.counts.Pauses++
		w.tracef("PAUSE %s for %v", n.name, d)
		p.pausedUntil = w.now + int64(d)
	}
}
