package sim

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"hacluster/heartbeat/cluster"
	"hacluster/heartbeat/failover"
)

const (
	helpAfter  = 6 * time.Second  // a person looks at a volume that does not serve for so long
	healWithin = 40 * time.Second // of virtual time, from the end of the faults to a whole cluster
)

// settle ends the faults and demands that the cluster becomes whole by itself, or with the decisions that only a person
// may take.
func (w *world) settle() {
	w.heal()
	w.allReplicas()
	w.becomeWhole()
	w.resizedAtLast()
	w.modeAtLast()
	for _, c := range w.clients {
		c.quiet = true
	}
	w.run(w.now+int64(3*time.Second), nil)
	w.becomeWhole() // a message that was very late may have moved the role once more
	w.run(w.now+int64(time.Second), nil)
	a, n := w.nodes[0].disk, w.oracle.size()
	for _, o := range w.data()[1:] {
		if b := o.disk; !slices.Equal(a.cache[:n], b.cache[:n]) {
			w.violate("the members differ at rest: alpha %v, %s %v", a.cache, o.name, b.cache)
		}
	}
}

func (w *world) becomeWhole() {
	start := w.now
	for at := start; !w.whole(); {
		if at >= start+int64(healWithin) {
			w.violate("the cluster is not whole %v after the last fault: %s", healWithin, w.describe())
		}
		at += int64(100 * time.Millisecond)
		w.run(at, nil)
		w.person(start)
	}
}

// whole reports whether one node serves with a lease and all replicas are members.
func (w *world) whole() bool {
	v := w.truth.state.Volumes[volumeName]
	if len(v.Members) != len(w.data()) || v.HasLeaving() || v.Previous != "" || len(v.Held) > 0 {
		return false
	}
	for _, n := range w.data() {
		if p := n.proc; p == nil || v.Stamp(n.name) != n.super.number || n.super.failed || n.super.inconsistent || v.AgeOf(n.super.size, n.super.resized) != cluster.SizeSame {
			return false // it could not follow
		}
	}
	for _, n := range w.data() {
		if p := n.proc; p != nil && p.replica.sess != nil && p.replica.sess.epoch == v.Epoch && p.replica.sess.valid() && !p.replica.sess.handing && !p.replica.sess.nearing {
			for _, l := range p.replica.sess.links {
				if g := p.replica.sess.core.Peer(l.peer.name); !g.Connected || !g.Member {
					return false
				}
			}
			return p.replica.sess.core.DiskError() == nil
		}
	}
	return false
}

// lostUnlike reports whether one member lost the memory of its machine and another that of its process only, so that each may
// have what the other lacks, and a person decides (R25).
func (w *world) lostUnlike(v *cluster.Volume) bool {
	if v.IsProcess(v.Primary) && !v.IsMember(v.Served) {
		return true // it ended before it acted, and the last primary had left: what that had is not known to be here
	}
	machine, process := false, false
	for _, n := range w.data() {
		if !v.IsMember(n.name) || n.proc == nil {
			continue
		}
		r := n.proc.replica.report()
		if v.Unchanged(n.name, &r) || v.Kept(n.name, &r) {
			return false
		}
		machine = machine || r.LostKernel(v.Members[n.name])
		process = process || !r.LostKernel(v.Members[n.name])
	}
	return machine && process
}

// person does what waits for a person: allows the resync of a held replica, and forces a promotion when nobody may be
// promoted without.
func (w *world) person(healed int64) {
	v := w.truth.state.Volumes[volumeName]
	if len(v.Paused) > 0 {
		w.pause(false)
	}
	for _, h := range v.Held {
		if w.now-healed < int64(helpAfter) || !v.Acts() { // what it lacks is told when it acts
			break // it is resynced by itself, with a rescue image, unless an earlier resync was interrupted
		}
		w.tell(cluster.Command{By: "person", AllowResync: &cluster.AllowResync{On: cluster.On{Volume: volumeName, Epoch: v.Epoch, Version: v.Version}, Node: h}})
	}
	if w.now-max(w.served, healed) < int64(helpAfter) || w.now-w.helped < int64(3*time.Second) {
		return
	}
	w.helped = w.now
	if to := w.waits(&v); to != "" && !w.moving {
		w.moving = true // once: then it is another reason that it waits for
		w.order(failover.Order{To: to})
		return
	}
	w.moving = false
	if !w.badDisk && w.counts.Forced == 0 && !w.lostUnlike(&v) {
		w.violate("the volume is not served %v after the last fault, although no disk failed and nobody was forced: %s", helpAfter, w.describe())
	}
	w.counts.Helped++
	if n := w.primary(); n != nil {
		n.kill("a person restarts it")
		return
	}
	if n := w.primaryOf(&v); n != nil && n.proc != nil && n.proc.replica.recv.Inconsistent() && n.proc.replica.point() == nil {
		n.kill("a person restarts it: it was forced, lost its way back since, and keeps the lease")
	}
	best := ""
	for _, n := range w.data() {
		if p := n.proc; p != nil && (!p.replica.recv.Inconsistent() || best == "" && p.replica.point() != nil) && (best == "" || v.IsMember(n.name) && (!v.IsMember(best) || v.Primary == n.name)) {
			best = n.name
		}
	}
	w.tracef("a person forces %s: %s", best, w.describe())
	w.order(failover.Order{To: best, Force: true})
}

// primary is the node that has a session, nil without one.
func (w *world) primary() *node {
	for _, n := range w.data() {
		if p := n.proc; p != nil && p.replica.sess != nil {
			return n
		}
	}
	return nil
}

// primaryOf is the node that the record names, nil without one.
func (w *world) primaryOf(v *cluster.Volume) *node {
	if v.Primary == "" {
		return nil
	}
	return w.node(v.Primary)
}

func (w *world) tell(c cluster.Command) {
	for _, n := range w.nodes {
		if p := n.proc; p != nil && p.raft.role == leading {
			p.accept(c, nil)
		}
	}
}

func (w *world) describe() string {
	v := w.truth.state.Volumes[volumeName]
	var b strings.Builder
	fmt.Fprintf(&b, "epoch %d version %d primary %s/%d members %v previous %q held %v", v.Epoch, v.Version, v.Primary, v.Process, v.Members, v.Previous, v.Held)
	for _, n := range w.nodes {
		p := n.proc
		if p == nil {
			fmt.Fprintf(&b, "; %s down, up %t starting %t storing %d", n.name, n.up, n.starting, n.storing)
			if n.data {
				fmt.Fprintf(&b, " running %d", len(n.disk.running))
			}
			continue
		}
		fmt.Fprintf(&b, "; %s/%d %s term %d role %d commit %d applied %d", n.name, p.number, n.incarnation().Boot, n.raft.term, p.raft.role, p.raft.commit, p.raft.applied)
		if r := p.replica; r != nil {
			fmt.Fprintf(&b, " report %+v busy %d outstanding %d stopping %d", r.report(), r.busy, r.recv.Outstanding(), r.stopping)
			if s := r.sess; s != nil {
				fmt.Fprintf(&b, " serving %d valid %t handing %t gaveUp %t inflight %d", s.epoch, s.valid(), s.handing, s.gaveUp, s.core.InFlight())
				for _, l := range s.links {
					fmt.Fprintf(&b, " peer %s %+v", l.peer.name, s.core.Peer(l.peer.name))
				}
			}
		}
	}
	return b.String()
}
