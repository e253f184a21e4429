package sim

import (
	"slices"
	"time"

	"hacluster/heartbeat/failover"
)

// mixed is the focus in which replicas have modes of their own.
const mixed = 17

// members is the focus in which replicas come and go.
const members = 18

// focus makes some runs look at one thing much closer than chance would.
func (w *world) focus(mine *[]fault, total *int) {
	f := &w.faults
	names := []string{"hand-over", "cut", "election", "isolate"}
	one := w.rng.IntN(28)
	if *focusOn >= 0 {
		one = *focusOn
	}
	switch one {
	case 0:
		f.lateGrant, f.lateApply = 0.5, 0.6
		names = []string{"hand-over"}
	case 1: // a leader that is primary, alone, and hears what was said to it before
		f.lateAnswer, f.stubborn = 0.6, 1
		names = []string{"leader alone"}
	case 2: // a give-up that the next leader hears first
		f.lateGiveUp = 0.7
		names = []string{"hand-over, election"}
	case 3:
		f.lateCommand = 0.3
	case 4: // what an old primary sent, and the cable kept
		names = []string{"isolate", "hand-over"}
	case 5: // a primary that comes back while its successor is being decided
		names = []string{"primary nods off"}
	case 6: // a hand-over that the old primary learns of late
		f.lateApply = 0.8
		names = []string{"hand-over"}
	case 7: // writes in flight that reached one member and not the other
		f.slowDisk = 0.05
		names = []string{"primary alone restarts", "hand-over"}
	case 8: // a target that loses its memory again and again
		f.slowDisk = 0.02
		names = []string{"standby's power"}
	case 9: // a target that a person promotes in the middle of its resync
		f.slowDisk, f.interrupts, f.noRoom = 0.05, 0.7, 0.1
		names = []string{"standby's power"}
	case 10: // a person who pauses resyncs, and ends that
		f.slowDisk = 0.05
		names = []string{"standby's power", "standby's process", "pause", "end of pause", "hand-over"}
	case 11: // a primary that cannot read its own disk
		f.slowDisk = 0.05
		names = []string{"standby's process", "cannot read", "hand-over", "break stream"}
	case 12: // a volume that grows and shrinks again and again
		f.slowDisk, f.interrupts = 0.03, 0.5
		names = []string{"grow", "shrink", "standby's power", "standby's process", "hand-over", "force", "kill", "power"}
	case 13: // what a standby had in memory only
		f.slowDisk = 0.2
		names = []string{"standby's process, then the primary's", "standby's disk drags, the primary's power, the standby's process", "hand-over"}
	case 14: // what a standby on a slow line lacks
		f.slowDisk = 0.1
		names = []string{"the standby's line is slow, the primary goes", "standby's process", "hand-over"}
	case 15: // a standby that stops in order and is back, in the middle of what it is sent again
		f.slowDisk = 0.1
		names = []string{"the standby stops while its line breaks, then the primary goes"}
	case 16: // an operator who changes the mode again and again
		w.changesModes()
		f.slowDisk = 0.1
		f.lateApply = 0.3
		names = []string{"mode", "the standby's line is slow, the primary goes", "standby's process", "standby's power", "hand-over", "kill", "isolate"}
	case mixed: // some replicas in sync, others in async
		f.slowDisk = 0.1
		names = []string{"the standby's line is slow, the primary goes", "standby's process", "standby's power", "hand-over", "kill", "isolate"}
	case members: // replicas that come and go
		f.slowDisk = 0.05
		names = []string{"add replica", "remove replica", "standby's power", "standby's process", "hand-over", "kill", "power", "isolate", "force"}
	case fenced: // a primary that is cut off or stopped for so long that it is to be turned off
		f.lateApply, f.lateCommand = 0.2, 0.1
		names = []string{"primary away", "primary away", "hand-over", "kill", "power", "election", "cut"}
	default:
		return
	}
	f.loseMessage, f.eager = 0, 0.1+0.4*w.rng.Float64()
	if one >= 4 {
		f.eager = 0
	}
	if one == 5 { // so that the outcome takes longer than a round
		f.loseMessage, f.lateApply = 0.3, 0.6
	}
	*mine, *total = nil, 0
	for _, k := range append(allFaults, closeFaults...) {
		if slices.Contains(names, k.name) {
			*mine = append(*mine, k)
			*total += k.weight
		}
	}
}

// closeFaults are schedules of some steps that runs with a focus repeat.
var closeFaults = []fault{
	{"leader alone", 1, func(w *world) {
		n := w.primary()
		for _, l := range w.nodes {
			if p := l.proc; n != nil && p != nil && p.raft.role == leading && l != n {
				p.raft.transfer(n)
			}
		}
		w.after(w.between(50*time.Millisecond, 700*time.Millisecond), func() {
			if n != nil && n.proc != nil && n.proc.raft.role == leading && !w.calm {
				w.isolate(n, w.between(time.Second, 3*time.Second))
			}
		})
	}},
	{"primary nods off", 1, func(w *world) {
		if n := w.primary(); n != nil && n.proc.raft.role != leading {
			w.stopFor(n, w.between(lease, 2*lease))
		}
	}},
	{"primary away", 12, func(w *world) {
		n := w.primary()
		switch {
		case n == nil:
		case w.chance(0.3):
			w.stopFor(n, w.between(lease, 6*lease))
		default:
			w.isolate(n, w.between(lease, 6*lease))
		}
	}},
	{"primary alone restarts", 3, func(w *world) {
		n := w.primary()
		if n == nil {
			return
		}
		for _, s := range w.data() {
			if s != n {
				w.stopFor(s, w.between(lease, 3*lease))
			}
		}
		w.after(w.between(0, 5*time.Millisecond), func() {
			n.kill("killed")
			n.startProc()
		})
	}},
	{"standby's power", 1, func(w *world) {
		if n := w.primary(); n != nil {
			s := w.standby(n)
			s.crash()
			w.after(w.between(0, 300*time.Millisecond), s.boots)
		}
	}},
	{"standby's process", 1, func(w *world) {
		if n := w.primary(); n != nil {
			s := w.standby(n)
			s.kill("killed")
			w.after(w.between(0, 300*time.Millisecond), s.startProc)
		}
	}},
	{"mode", 8, (*world).changeMode},
	{"add replica", 20, (*world).addReplica},
	{"remove replica", 12, (*world).removeReplica},
	{"grow", 12, (*world).grow},
	{"shrink", 8, (*world).shrink},
	{"standby's process, then the primary's", 3, func(w *world) {
		n := w.primary()
		if n == nil {
			return
		}
		s := w.standby(n)
		s.kill("killed")
		n.kill("killed")
		w.after(w.between(0, 300*time.Millisecond), s.startProc)
		w.after(w.between(lease, 4*lease), n.startProc)
	}},
	{"standby's disk drags, the primary's power, the standby's process", 6, func(w *world) {
		n := w.primary()
		if n == nil {
			return
		}
		s := w.standby(n)
		s.disk.drags = 30
		w.after(w.between(0, lease/2), func() {
			n.crash()
			w.after(w.between(4*lease, 8*lease), n.boots)
			w.after(w.between(lease/2, 2*lease), func() {
				s.disk.drags = 0
				s.kill("killed")
				w.after(w.between(0, 300*time.Millisecond), s.startProc)
			})
		})
	}},
	{"the standby's line is slow, the primary goes", 8, (*world).loseTail},
	{"the standby stops while its line breaks, then the primary goes", 8, (*world).stopStandby},
	{"pause", 2, func(w *world) { w.pause(true) }},
	{"end of pause", 1, func(w *world) { w.pause(false) }},
	{"cannot read", 8, func(w *world) {
		if n := w.primary(); n != nil {
			for range 1 + w.rng.IntN(firstBlocks) {
				n.disk.bad[w.rng.IntN(firstBlocks)] = true
			}
		}
	}},
	{"hand-over, election", 1, func(w *world) {
		w.order(failover.Order{To: w.anyData().name})
		w.after(w.between(50*time.Millisecond, 600*time.Millisecond), func() {
			if p := w.any().proc; p != nil && p.raft.role != leading && !w.calm {
				p.soon(p.raft.campaign)
			}
		})
	}},
}

// interrupt has the primary go away when it has just begun to overwrite a target, and a person take the target: that needs
// two leases, and his word again when the target was restarted meanwhile.
func (w *world) interrupt(target *node) {
	if w.calm || !w.chance(w.faults.interrupts) {
		return
	}
	w.after(w.between(0, 15*time.Millisecond), func() {
		p := w.primary()
		if p == nil || p == target || w.calm {
			return
		}
		w.tracef("FAULT %s goes in the middle of the resync of %s", p.name, target.name)
		switch w.rng.IntN(3) {
		case 0:
			w.restartLater(p, func(n *node) { n.crash(); w.counts.Reboots++ })
		case 1:
			w.restartLater(p, func(n *node) { n.kill("killed"); w.counts.Kills++ })
		default:
			w.isolate(p, w.between(lease, 4*lease))
		}
		if w.chance(0.5) {
			w.after(w.between(0, 2*lease), func() {
				w.restartLater(target, func(n *node) {
					if w.chance(0.5) {
						n.crash()
					} else {
						n.kill("killed")
					}
				})
			})
		}
		for i := range 8 {
			w.after(time.Duration(i+1)*lease/2, func() {
				if target.super.inconsistent && !w.calm {
					w.order(failover.Order{To: target.name, Force: true})
				}
			})
		}
	})
}
