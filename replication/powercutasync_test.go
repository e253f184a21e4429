//go:build failpoints

package replication

import (
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"time"

	"hacluster/blockdev"
	"hacluster/blockdev/backend/faultdev"
	"hacluster/blockdev/backend/memdev"
	"hacluster/heartbeat/cluster"
	"hacluster/replication/primary"
)

// The histories in async, where a promotion of the standby may lose the end of what was acknowledged:
//   - whoever begins to serve after another holds a prefix of the order in which that one took the writes, and lacks no more of
//     what it acknowledged than the bound, in bytes and in time; after a hand-over it lacks nothing (R13, R30)
//   - who served before and is promoted again has lost nothing that was flushed, and nothing at all if it kept its power
//   - what a standby holds after a power cut has nothing that followed a flush of the stream without what came before that
//   - what the new primary began with and the old one had flushed survives its own power cut right after the first one
//   - what is overwritten of the old primary is in rescue images (R19)
//
// The client is one, and numbers its writes as it sends them, so the numbers are the order.

// asyncRun is what a history in async knows of the order. Under cutRun.mu, but for bound.
type asyncRun struct {
	bound primary.Bound
	basis cluster.Basis // of the last promotion
	sent  []*sentWrite  // since base, in order
	base  [cutBlocks]uint64
	fence []streamFence
	turns int // how often another began to serve, or the same without what it had in memory
	last  *lostTail
	loses int // promotions after which something acknowledged was gone
	again bool
}

// sentWrite is one write of the client.
type sentWrite struct {
	block      int
	value      uint64
	begun, ack cluster.Instant // ack 0: not yet
	lost       *lostTail       // the promotion after which it was gone
}

// streamFence: what was sent after number after has to follow what blocks holds, on the disk of a standby.
type streamFence struct {
	after  uint64
	blocks [cutBlocks]uint64
}

// lostTail is what a promotion lost of what was acknowledged.
type lostTail struct {
	node           string
	bytes          int64
	oldest, newest cluster.Instant // when the first was acknowledged at the latest, and the last begun, so at the earliest
}

// drawBound is mostly so narrow that writers feel it.
func drawBound(rng *rand.Rand) primary.Bound {
	return primary.Bound{Bytes: []int64{4, 16, 64}[rng.IntN(3)] * blockdev.BlockSize, Time: []time.Duration{dropAfter, 10 * dropAfter}[rng.IntN(2)], Patience: dropAfter}
}

// watched begins to look at what is decided.
func (r *cutRun) watched(bound primary.Bound) {
	r.async = &asyncRun{bound: bound}
	for _, n := range r.lab.nodes {
		n.mu.Lock()
		n.onGiveUp = func(to string, failed bool) error { return r.handOn(n, to, failed) }
		n.mu.Unlock()
	}
	r.lab.mu.Lock()
	defer r.lab.mu.Unlock()
	r.lab.watch = r.decided
}

// handOn is what the leader makes of a give-up: it waits for the other to have written what it took.
func (r *cutRun) handOn(from *labNode, to string, failed bool) error {
	for _, n := range r.lab.nodes {
		if v := r.volume(); failed && n != from && v.IsMember(n.name) && !n.written(v) {
			return errFault
		}
	}
	return r.lab.handOn(from, to, failed)
}

// written waits for a standby in async to have written what it took when it was asked first; false: it does not, or is not the member.
func (n *labNode) written(v *cluster.Volume) bool {
	first := n.get().Report()
	for end := time.Now().Add(patience / 10); time.Now().Before(end) && !n.dark.Load(); time.Sleep(time.Millisecond) {
		if r := n.get().Report(); !r.Usable() || !v.Unchanged(n.name, &r) {
			return false
		} else if v.MayLead(n.name, &r, first.Taken) {
			return true
		}
	}
	return false
}

// begins notes a write that is about to be sent. Under mu.
func (a *asyncRun) begins(block int, value uint64, now cluster.Instant) *sentWrite {
	w := &sentWrite{block: block, value: value, begun: now}
	if a != nil {
		a.sent = append(a.sent, w)
	}
	return w
}

// answered notes that the client was told of a write; false: a promotion since has lost it. Under mu.
func (r *cutRun) answered(w *sentWrite, fua bool) bool {
	a := r.async
	if a == nil {
		return true
	}
	w.ack = r.lab.now()
	if w.lost != nil {
		w.lost.add(w)
		r.hold2bound(w.lost)
		return false
	}
	if fua {
		f := streamFence{after: w.value}
		f.blocks[w.block] = w.value
		a.fence = append(a.fence, f)
	}
	return true
}

// turn tells one time of serving from another. Under mu.
func (a *asyncRun) turn() int {
	if a == nil {
		return 0
	}
	return a.turns
}

func (a *asyncRun) fenced(f streamFence) {
	if a != nil {
		a.fence = append(a.fence, f)
	}
}

func (l *lostTail) add(w *sentWrite) {
	if l.bytes += blockdev.BlockSize; l.oldest == 0 {
		l.oldest = w.ack
	}
	l.oldest, l.newest = min(l.oldest, w.ack), max(l.newest, w.begun)
}

// hold2bound holds what is lost against the bound.
func (r *cutRun) hold2bound(l *lostTail) {
	if b := r.async.bound; l.bytes > b.Bytes || l.newest.Sub(l.oldest) > b.Time {
		r.t.Errorf("R13: %s began without %d bytes that were acknowledged within %v, the bound is %+v; cut at %v", l.node, l.bytes, l.newest.Sub(l.oldest), b, r.point)
	}
}

// lostUnflushed is what a loss of power leaves promised: what was flushed.
func (r *cutRun) lostUnflushed() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.acked = r.flushed
}

// decided looks at each decision, before any node has seen it.
func (r *cutRun) decided(c cluster.Command, before, now *cluster.Volume) {
	a := r.async
	r.mu.Lock()
	defer r.mu.Unlock()
	if p := c.Promote; p != nil {
		a.basis = p.Basis
		if p.Candidate == before.Served && slices.Contains([]cluster.Basis{cluster.BasisLastPrimary, cluster.BasisUnmarked, cluster.BasisForced}, p.Basis) {
			r.backWithout(p, before)
		}
	}
	if now.Served == before.Served || a.basis == cluster.BasisForced || a.basis == cluster.BasisFirst {
		return
	}
	r.follow(r.lab.nodes[now.Served], a.basis == cluster.BasisHandOver, before)
}

// backWithout: who served is promoted again, and has lost what it had not flushed.
func (r *cutRun) backWithout(p *cluster.Promote, before *cluster.Volume) {
	n := r.lab.nodes[p.Candidate]
	held := n.inMemory()
	for at, v := range sectors(held) {
		if b := at / cutBlockSectors; v < r.flushed[b] {
			r.t.Errorf("R20: %s is promoted again with write %d in a sector of block %d, and write %d was flushed; cut at %v", n.name, v, b, r.flushed[b], r.point)
		}
	}
	r.acked = r.flushed
	r.async.newBase(r.flushed)
	if p.Basis != cluster.BasisUnmarked {
		r.leaves(n, held, before)
	}
}

// newBase begins anew: nothing older than base may be seen again.
func (a *asyncRun) newBase(base [cutBlocks]uint64) {
	a.sent, a.fence, a.base = nil, nil, base
	a.turns++
}

// follow judges what n holds when it begins to serve after another, and makes that all that is promised.
func (r *cutRun) follow(n *labNode, whole bool, before *cluster.Volume) {
	a, held := r.async, n.inMemory()
	has := r.uniform(n, held)
	l := r.prefix(n, has)
	if whole && l.bytes > 0 {
		r.t.Errorf("R30: %d bytes that were acknowledged are not on %s after the hand-over; cut at %v", l.bytes, n.name, r.point)
	}
	r.hold2bound(l)
	if l.bytes > 0 {
		a.loses++
		r.t.Logf("%s follows (%s), without %d bytes that were acknowledged", n.name, a.basis, l.bytes)
	}
	for _, w := range a.sent {
		if has[w.block] < w.value {
			w.lost = l
		}
	}
	a.last = l
	if !whole {
		r.leaves(n, held, nil) // held since the promotion, for this
	}
	for b := range has {
		r.acked[b], r.flushed[b] = has[b], min(r.flushed[b], has[b])
	}
	a.newBase(has)
}

// prefix looks whether what n holds is a prefix of the order, and tells what it lacks of what was acknowledged.
func (r *cutRun) prefix(n *labNode, has [cutBlocks]uint64) *lostTail {
	l := &lostTail{node: n.name}
	last := slices.Max(has[:])
	for _, w := range r.async.sent {
		switch {
		case w.ack == 0 || has[w.block] >= w.value:
		case w.value <= last:
			r.t.Errorf("R13: %s holds write %d, and of block %d write %d, without write %d that came between and was acknowledged; cut at %v",
				n.name, last, w.block, has[w.block], w.value, r.point)
		default:
			l.add(w)
		}
	}
	for b, v := range has {
		if v < r.async.base[b] {
			r.t.Errorf("%s holds write %d of block %d, and %d was there when the last primary began; cut at %v", n.name, v, b, r.async.base[b], r.point)
		}
	}
	return l
}

const cutBlockSectors = blockdev.BlockSize / 512

// sectors are the numbers of the writes in the sectors of all blocks.
func sectors(held []byte) (all [cutBlocks * cutBlockSectors]uint64) {
	for i := range all {
		all[i] = binary.LittleEndian.Uint64(held[int64(i/cutBlockSectors)*(cutVolume/cutBlocks)+int64(i%cutBlockSectors)*512:])
	}
	return all
}

// uniform is which write each block holds on a node that has kept its power since it was a member.
func (r *cutRun) uniform(n *labNode, held []byte) (has [cutBlocks]uint64) {
	for at, v := range sectors(held) {
		b := at / cutBlockSectors
		if at%cutBlockSectors != 0 && v != has[b] {
			r.t.Errorf("R13: block %d of %s holds parts of writes %d and %d; cut at %v", b, n.name, has[b], v, r.point)
		}
		has[b] = v
	}
	return has
}

// inMemory is what a node's memory holds, also when its power is off.
func (n *labNode) inMemory() []byte {
	held := make([]byte, cutVolume)
	if _, err := n.mem.Reopen().ReadAt(held, 0); err != nil {
		panic(err)
	}
	return held
}

// isStandby reports whether n is a member that follows who serves.
func isStandby(v *cluster.Volume, n *labNode) bool {
	return v.Mode == cluster.ModeAsync && v.IsMember(n.name) && v.Primary == v.Served && n.name != v.Served
}

// flushOrder: a standby's disk has nothing that followed a flush of the stream without what came before that.
func (r *cutRun) flushOrder(n *labNode, left *memdev.Dev) {
	held := make([]byte, cutVolume)
	if _, err := left.ReadAt(held, 0); err != nil {
		r.t.Error(err)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	all := sectors(held)
	last := slices.Max(all[:])
	for _, f := range r.async.fence {
		for at, v := range all {
			if b := at / cutBlockSectors; last > f.after && v < f.blocks[b] {
				r.t.Errorf("R13: the disk of %s has write %d, which followed a flush, and write %d of block %d, of which %d came before that; cut at %v",
					n.name, last, v, b, f.blocks[b], r.point)
				return
			}
		}
	}
}

// leaves notes that the other node is held for what n lacks of it (R19). One that was held before stays so for that.
func (r *cutRun) leaves(n *labNode, point []byte, before *cluster.Volume) {
	for _, o := range r.lab.nodes {
		mine := func(c *claim) bool { return c.node == o }
		if o == n || before != nil && before.IsHeld(o.name) && slices.ContainsFunc(r.claims, mine) {
			continue
		}
		c := &claim{node: o, point: point, acked: r.acked, was: o.inMemory()}
		r.claims = append(slices.DeleteFunc(r.claims, mine), c)
		c.await()
	}
}

// overwritten reports whether a replica of which nothing was kept aside held what was acknowledged, and is newer than point.
func (c *claim) overwritten() bool {
	was, point := sectors(c.was), sectors(c.point)
	for at := range was {
		if was[at] > point[at] && was[at] <= c.acked[at/cutBlockSectors] {
			return true
		}
	}
	return false
}

// forgotten gives the claims what a power cut has left of a node.
func (r *cutRun) forgotten(n *labNode) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.claims {
		if c.node == n && c.was != nil {
			c.was = n.inMemory()
		}
	}
}

// slows makes the standby's disk slow for a while, half of the time.
func (r *cutRun) slows(s *labNode) {
	if r.async == nil || r.rng.IntN(2) == 0 {
		return
	}
	op := []blockdev.Op{blockdev.OpWrite, blockdev.OpFlush}[r.rng.IntN(2)]
	s.faults.Add(faultdev.Rule{Op: op, Times: 20, Delay: time.Duration(1+r.rng.IntN(3)) * time.Millisecond})
}

// followsAsync is the leader's choice in async (failover: pickAsync), which hears both nodes, or that of a person: one whose disk
// has failed may have more than the other, of which nobody can say what it lacks.
func (r *cutRun) followsAsync(v *cluster.Volume) (*labNode, cluster.Basis) {
	reports, names := map[string]cluster.Report{}, []string{v.Served}
	for _, name := range v.MemberNames() {
		reports[name] = r.lab.nodes[name].get().Report()
		if name != v.Served {
			names = append(names, name)
		}
	}
	writes := false // who is to follow has yet to write what it took
	for _, name := range names {
		rep, member := reports[name]
		switch ready := v.MayLead(name, &rep, rep.Taken); {
		case !member || !rep.Usable():
		case v.Unchanged(name, &rep) && ready:
			return r.lab.nodes[name], cluster.BasisUnchanged
		case rep.Clean.Matches(v.Members[name]) && (name == v.Served || !writes):
			return r.lab.nodes[name], cluster.BasisClean
		default:
			writes = writes || v.Unchanged(name, &rep)
		}
	}
	last, member := reports[v.Served]
	switch {
	case writes:
		return nil, ""
	case member && last.Usable() && last.Unmarked.Matches(v.Members[v.Served]):
		return r.lab.nodes[v.Served], cluster.BasisUnmarked
	case member && last.Usable() && allLost(v, reports):
		return r.lab.nodes[v.Served], cluster.BasisLastPrimary
	}
	for _, name := range names {
		if rep, ok := reports[name]; ok && rep.Usable() {
			return r.lab.nodes[name], cluster.BasisForced
		}
	}
	if member && last.Promotable() { // its disk failed, and it is all that is left: it writes everything again first
		return r.lab.nodes[v.Served], cluster.BasisForced
	}
	return nil, ""
}

func allLost(v *cluster.Volume, reports map[string]cluster.Report) bool {
	for name, r := range reports {
		if !r.LostKernel(v.Members[name]) {
			return false
		}
	}
	return true
}

// promoteAsync is the leader's promotion in async.
func (r *cutRun) promoteAsync(v *cluster.Volume, n *labNode, how cluster.Basis) {
	rep := n.get().Report()
	p := &cluster.Promote{On: r.on(), Term: 1, Candidate: n.name, Member: n.member(), Basis: how, Clean: rep.Clean, Unmarked: rep.Unmarked}
	for _, m := range v.MemberNames() {
		o := r.lab.nodes[m].get().Report()
		lost := v.LostMemory(m, &o) && !v.Kept(m, &o)
		if stays := m == v.Primary && o.Usable() || m == v.Served && m != v.Primary; m != n.name && (lost || !stays) {
			p.Leave = append(p.Leave, m)
		}
	}
	if how == cluster.BasisForced {
		p.Leave = nil
		r.forces++
		if n.name != v.Served {
			r.onlyWhatItHas(v, n)
		}
	}
	r.apply(cluster.Command{Promote: p})
	n.grant()
}

// onlyWhatItHas: a person has one promoted that lost its memory, and what it has is all that counts now.
func (r *cutRun) onlyWhatItHas(v *cluster.Volume, n *labNode) {
	r.mu.Lock()
	defer r.mu.Unlock()
	held := n.inMemory()
	r.leaves(n, held, v)
	for at, value := range sectors(held) {
		if b := at / cutBlockSectors; at%cutBlockSectors == 0 || value < r.acked[b] {
			r.acked[b] = value
		}
	}
	r.flushed = r.acked
	r.async.newBase(r.acked)
}

// cutAgain has a standby that was promoted in the place of the other lose its power, at once or after a few writes: what it
// began with has to be durable by then.
func (r *cutRun) cutAgain(ended bool) {
	a, v := r.async, r.volume()
	if a == nil || a.again || a.last == nil || a.last.node != v.Served || v.Primary != v.Served || !ended || r.back != nil || r.weak != nil {
		return
	}
	n := r.lab.nodes[v.Served]
	t := n.get().Tenure()
	if t == nil || !t.gate.try() {
		return
	}
	a.again = true
	if r.rng.IntN(4) == 0 {
		return
	}
	if r.rng.IntN(2) == 0 {
		rng := rand.New(rand.NewPCG(r.rng.Uint64(), 5))
		for range r.rng.IntN(8) {
			if !r.batch(t.client(r.t), rng) {
				return // it may be known that the other is not there
			}
		}
	}
	r.cutPower([]*labNode{n})
	r.lostUnflushed()
	r.t.Logf("and power of %s cut again, volume %+v", n.name, r.volume())
	for _, f := range r.after {
		f()
	}
	n.start()
}
