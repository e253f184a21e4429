//go:build failpoints

package replication

import (
	"bytes"
	"encoding/binary"
	"time"

	"hacluster/blockdev"
	"hacluster/blockdev/backend/faultdev"
	"hacluster/heartbeat/cluster"
)

// What a person does when the primary is lost in the middle of a resync: the standby is forced (R18), at once or after the
// power of it, of the primary or of both was cut. Then it must hold what it held when it left, to the byte, before a client
// writes, and that is all that was promised from there on.

// wayBack is what a standby held when it left the set.
type wayBack struct {
	node  *labNode
	point []byte
	areas int // that were made before
	taken bool
}

// leave has the standby drop out, and notes what it holds then, while clients go on. false: the power went off first.
func (r *cutRun) leave(s *labNode) bool {
	s.cable.cut()
	if !r.soon("the drop", func() bool { r.pass(2 * dropAfter); return !r.volume().IsMember(s.name) }) ||
		!r.soon("the standby to be quiet", s.quiet) {
		return false
	}
	held := make([]byte, cutVolume)
	if _, err := s.mem.ReadAt(held, 0); err != nil {
		return false // its power is off
	}
	if r.async != nil {
		r.mu.Lock()
		r.prefix(s, r.uniform(s, held))
		r.mu.Unlock()
	}
	r.back = &wayBack{node: s, point: held, areas: s.undo.areas()}
	r.writes(20)
	return true
}

// force loses the primary for its clients when the standby has overwritten a part, and has the standby promoted.
func (r *cutRun) force(p, s *labNode) {
	h := s.faults.Add(faultdev.Rule{Op: blockdev.OpWrite, Skip: r.rng.Int64N(6), Stall: true})
	s.cable.mend()
	if !r.soon("the middle of the resync", func() bool { r.pass(0); return h.Waiting() > 0 || r.whole() }) {
		return
	}
	if h.Waiting() == 0 { // there was less to copy
		h.Remove()
		return
	}
	r.hold.Store(true)
	if !r.soon("the client to be cut off", func() bool { r.cutClients(); return r.parked.Load() }) {
		return
	}
	p.expire()
	r.promise(s)
	s.grant()
	h.Remove()
	h.Release()
	if r.soon("the forced standby to serve", func() bool { t := s.get().Tenure(); return t != nil && t.gate.try() }) {
		r.atPoint()
	}
}

// promise has the standby promoted by force: what it goes back to is all that counts now.
func (r *cutRun) promise(s *labNode) {
	before := r.volume().Epoch
	r.apply(cluster.Command{Promote: &cluster.Promote{On: r.on(), Term: 1, Candidate: s.name, Member: s.member(), Basis: cluster.BasisForced}})
	if v := r.volume(); v.Epoch == before || v.Primary != s.name {
		return
	}
	r.t.Logf("%s is forced", s.name)
	for _, n := range r.lab.nodes {
		if n != s && !r.back.taken {
			r.lost(n, r.back.point)
		}
	}
	r.back.taken = true
	r.forces++
	r.mu.Lock()
	defer r.mu.Unlock()
	for b := range cutBlocks {
		at := int64(b) * (cutVolume / cutBlocks)
		r.acked[b] = binary.LittleEndian.Uint64(r.back.point[at:])
	}
	r.flushed = r.acked
	if r.async != nil {
		r.async.newBase(r.acked)
	}
}

// atPoint compares what the forced standby holds, before a client writes, and lets clients go on. A cut leaves that to the end.
func (r *cutRun) atPoint() {
	w := r.back
	got := make([]byte, cutVolume)
	if _, err := w.node.mem.ReadAt(got, 0); err != nil {
		return // its power is off
	}
	for at := 0; at < len(got); at += 512 {
		if !bytes.Equal(got[at:at+512], w.point[at:at+512]) {
			r.t.Fatalf("sector at %d of the forced %s holds write %d, and %d when it left; cut at %v", at, w.node.name,
				binary.LittleEndian.Uint64(got[at:]), binary.LittleEndian.Uint64(w.point[at:]), r.point)
		}
	}
	r.back = nil
	r.hold.Store(false)
}

// forceAfter is the person's word after a power cut in the middle of a resync, most of the time; while it is awaited no
// resync may end.
func (r *cutRun) forceAfter() {
	if r.back == nil || r.back.taken || r.rng.IntN(4) == 0 {
		return
	}
	s := r.back.node
	s.cable.cut()
	defer s.cable.mend()
	r.await("the standby to be quiet", s.quiet)
	rep := s.get().Report()
	if v := r.volume(); v.IsMember(s.name) || v.Primary == s.name || !rep.Inconsistent || rep.Point == nil || s.undo.areas() != r.back.areas+1 {
		return
	}
	r.lab.nodes[r.volume().Primary].expire()
	r.promise(s)
	s.grant()
}

// forceAgain is for one whose power went off on its way back.
func (r *cutRun) forceAgain(v *cluster.Volume) {
	p := r.lab.nodes[v.Primary]
	if rep := p.get().Report(); r.back != nil && r.back.taken && v.Process != p.process && rep.Inconsistent && rep.Promotable() {
		r.promise(p)
		p.grant()
	}
}

// allow is the person's word that the other may be overwritten, although what it holds cannot be kept aside.
func (r *cutRun) allow() {
	if v := r.volume(); len(v.Held) > 0 && r.awaits(r.lab.nodes[v.Held[0]]) {
		r.givenUp(r.lab.nodes[v.Held[0]])
		r.apply(cluster.Command{AllowResync: &cluster.AllowResync{On: r.on(), Node: v.Held[0]}})
	}
}

func (r *cutRun) cutClients() {
	for _, n := range r.lab.nodes {
		if t := n.get().Tenure(); t != nil {
			t.cutClients()
		}
	}
}

// pause keeps the client from writing while the forced standby returns. false: it is to end.
func (r *cutRun) pause(stop chan struct{}) bool {
	for r.hold.Load() {
		r.parked.Store(true)
		select {
		case <-stop:
			return false
		case <-time.After(time.Millisecond):
		}
	}
	r.parked.Store(false)
	return true
}
