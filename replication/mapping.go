package replication

import (
	"fmt"

	"hacluster/blockdev"
	"hacluster/blockdev/bitmap"
	"hacluster/blockdev/marks"
	"hacluster/replication/link"
	"hacluster/replication/maps"
	"hacluster/replication/primary"
	"hacluster/replication/wire"
)

// When a stream to a peer is up and the Core does not know its map, the primary asks for what the peer has marked on stable
// storage for it, in pieces, adds what it has marked itself, and hands the union to the Core (R15). A map that is missing
// on either side, or that went back, means everything (R16).

// marked is what is marked for a peer on stable storage, or about to be, by region; false: there is no map of it.
func (r *Replica) marked(peer string) (regions *bitmap.Bitmap, ok bool) {
	f := r.cfg.Marks
	if f == nil {
		return nil, false
	}
	slot, ok := r.roster.Load().slots[peer]
	if !ok {
		return nil, false
	}
	regions = bitmap.New(f.Regions())
	unit := f.RegionSize()
	f.Each(slot, func(at blockdev.Range) bool {
		regions.Set(at.Off/unit, (at.End()+unit-1)/unit)
		return true
	})
	return regions, true
}

// ranges is the same in bytes.
func (r *Replica) ranges(regions *bitmap.Bitmap) (all []blockdev.Range) {
	unit, size := r.cfg.Marks.RegionSize(), r.cfg.Volume.Size
	for from, to, ok := regions.NextRange(0, regions.Len()); ok; from, to, ok = regions.NextRange(to, regions.Len()) {
		all = append(all, blockdev.Range{Off: from * unit, Len: min(to*unit, size) - from*unit})
	}
	return all
}

// slot is what the map keeps of a peer beside its regions.
func (r *Replica) slot(peer string) (i int, s marks.Slot, ok bool) {
	f := r.cfg.Marks
	if f == nil {
		return 0, s, false
	}
	if i, ok = r.roster.Load().slots[peer]; !ok {
		return 0, s, false
	}
	return i, f.Slots()[i], true
}

// promisedMost is the highest number of a clearing that this replica has promised to anybody: the next one is higher, whoever makes
// it, so that all who take part have one number for each other.
func (r *Replica) promisedMost() (n uint64) {
	for _, s := range r.cfg.Marks.Slots() {
		n = max(n, s.Number.Promised)
	}
	return n
}

// answerMarks sends a piece of the map that this standby keeps for the primary.
func (s *session) answerMarks(from uint64) error {
	reply := wire.Reply{Kind: wire.MarksReply, ID: from}
	regions, ok := s.r.marked(s.link.Hello().Primary)
	switch {
	case !ok:
		reply.Code, reply.Text = wire.NoMap, "this node keeps no map for that node"
	case from >= uint64(regions.Len()) || from%bitmap.ChunkUnit != 0:
		return fmt.Errorf("%w: a map request from region %d of %d", wire.ErrMalformed, from, regions.Len())
	default:
		reply.Map, _ = regions.AppendChunk(nil, int64(from), wire.MaxMarks)
	}
	err := s.box.Put(reply)
	s.box.Flush()
	return err
}

// judge says why the map of a peer, or our own of it, must not be believed; empty: nothing is known against them. That
// all may differ is noted before anything is sent.
func (p *peerLink) judge(g wire.HelloReply) string {
	r := p.t.r
	i, s, ok := r.slot(p.node)
	if !ok {
		return ""
	}
	err := maps.Judge(maps.Number(s.Number), maps.Number{Promised: g.Promised, Settled: g.Clearing})
	if err == nil {
		return ""
	}
	r.log.Error("a map of what may differ went back: everything is compared", "peer", p.node, "error", err)
	if !s.Everything {
		if err := r.cfg.Marks.SetEverything(i, true); err != nil {
			r.log.Error("that everything may differ cannot be noted", "peer", p.node, "error", err)
		}
	}
	return err.Error()
}

// piece takes an answer to a map request; it is called by who receives. What is complete goes to the Core.
func (p *peerLink) piece(stream uint64, outbox *link.Outbox, reply *wire.Reply) {
	mine, ok := p.t.r.marked(p.node)
	if !ok || reply.Code != wire.OK {
		p.t.with(func(now primary.Instant) { p.t.core.Unmapped(now, p.node, stream) })
		return
	}
	if reply.ID == 0 {
		p.theirs = bitmap.New(mine.Len())
	}
	if p.theirs == nil {
		p.disconnect("it sent a piece of its map that was not asked for")
		return
	}
	from, to, err := p.theirs.Merge(reply.Map)
	switch {
	case err != nil || from != int64(reply.ID) || to <= from:
		p.disconnect(fmt.Sprintf("it sent a piece of its map from region %d to %d, %d was asked for: %v", from, to, reply.ID, err))
	case to < mine.Len():
		if err := outbox.Put(wire.Frame{Kind: wire.Marks, ID: uint64(to)}); err != nil {
			p.disconnect("a map request cannot be sent: " + err.Error())
			return
		}
		outbox.Flush()
	default:
		theirs := p.theirs
		p.theirs = nil
		mine.Or(theirs)
		p.t.mu.Lock()
		p.whole = theirs.Count() == theirs.Len()
		if p.hot == nil {
			p.hot = bitmap.New(theirs.Len())
		}
		p.hot.Or(theirs)
		p.t.mu.Unlock()
		p.mapped(stream, p.t.r.ranges(mine))
	}
}

func (p *peerLink) mapped(stream uint64, marked []blockdev.Range) {
	p.t.with(func(now primary.Instant) { p.t.core.Mapped(now, p.node, stream, marked) })
}

// flushMarks has everything flushed when marks wait for nothing but that and no client asks for it.
func (t *Tenure) flushMarks() {
	if !t.gate.try() {
		return
	}
	now := t.r.node.Now()
	t.mu.Lock()
	due := !t.ended && t.handing == open && t.core.FlushDue(now, t.idle >= idleRegions)
	if due {
		t.idle = 0
	}
	t.mu.Unlock()
	if due {
		t.admit(t.newOp(blockdev.OpFlush, blockdev.Range{}))
	}
}
