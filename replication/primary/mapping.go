package primary

import (
	"time"

	"hacluster/blockdev"
	"hacluster/replication/maps"
	"hacluster/replication/resync"
)

// What may differ from each peer is kept from the first entry of this tenure on (maps). It is all of it only when it has
// been united with what both sides have on stable storage, which is asked for when a stream is up: then the map is known,
// for the process of the peer that was asked. A peer that comes back as the same process gets what is behind for it and
// nothing else; of any other the question is asked anew (R16; maps/DESIGN.md has the schedule that demands it).
//
// A member has its map asked for too, when this tenure begins or the member was restarted: what is marked is compared
// beside its entries and copied where it differs, so that its marks can leave (R25, R29).

// tell has the maps know of an entry that goes to p as number num. A member keeps its window over a break of the stream:
// its entries are sent again, under the same numbers, to the same incarnation.
func (c *Core) tell(p *peer, op *Op, num uint64) {
	switch {
	case benchUnmarked:
	case op.closing, op.void: // nothing is written: a block that is behind stays so
	case op.IsCopy():
		p.m.Copying(op.id, num, op.Range)
	case op.Kind != blockdev.OpFlush:
		p.m.Sent(op.id, num, op.Range, op.local)
	case op.tracked:
		c.maps.FlushSent(p.m, num)
	}
}

// believed reports whether the map of p is known for the process that greets. One whose written prefix is shorter than
// what it has acknowledged went back with its whole machine.
func (p *peer) believed(g Greeting) bool {
	return p.known && p.knownAs == (identity{g.Incarnation, g.Process}) && !g.Failed && g.WentBack == "" && g.LastNum >= p.heard
}

// ask has the map completed: by the runner, who answers with Mapped, or not at all for a member whose marks may stay.
func (c *Core) ask(p *peer, g Greeting) {
	p.known, p.mapping, p.knownAs, p.heard = false, true, identity{g.Incarnation, g.Process}, 0
	c.act(Action{Kind: AskMap, Node: p.node})
}

// Mapped answers AskMap on this stream: what either of the two has marked on stable storage for the other; all of the
// volume when one of them has a map that cannot be believed.
func (c *Core) Mapped(now Instant, node string, stream uint64, marked []blockdev.Range) {
	p := c.peers[node]
	if stream != p.stream || !p.connected || !p.mapping {
		return
	}
	p.mapping = false
	for _, r := range marked {
		p.m.Load(r)
	}
	p.known = true
	c.replan(p)
	c.progress(now, p)
	c.settle()
}

// Unmapped answers AskMap when one of the two keeps no map at all: everything is compared with a replica that is no member,
// and with a member that is not settled. Of any other member nothing is known, at no time, and nothing is compared.
func (c *Core) Unmapped(now Instant, node string, stream uint64) {
	p := c.peers[node]
	if stream == p.stream && p.connected && p.mapping && p.member && !p.settling {
		p.mapping = false
		return
	}
	c.Mapped(now, node, stream, []blockdev.Range{{Len: c.vol.Size}})
}

// replan has all looked at that is behind for p.
func (c *Core) replan(p *peer) {
	old := p.plan
	p.plan = resync.NewPlan(c.vol.Size, c.cfg.Piece)
	p.plan.Inherit(old)                                       // what cannot be read here does not depend on the target
	unit := c.cfg.Piece * resync.ChunkSize / resync.PieceSize // by the piece it would take long where all of a large volume is behind
	for at, ok := p.m.Next(0); ok; at, ok = p.m.Next((at/unit + 1) * unit) {
		r, _ := p.m.Within(blockdev.Range{Off: at, Len: min((at/unit+1)*unit, c.vol.Size) - at})
		p.plan.Touch(r)
	}
	if p.total = max(p.total, p.m.Behind()); old == nil {
		p.total = p.m.Behind()
	}
	c.prefer(p)
}

// Marked tells, at the beginning of the tenure, what this replica has marked on stable storage for node: the least that
// a resync of it will look at.
func (c *Core) Marked(node string, marked []blockdev.Range) {
	for _, r := range marked {
		c.peers[node].m.Load(r)
	}
}

const (
	// flushAfter is how long marks may wait for a client's flush when nobody writes any more.
	flushAfter = 5 * time.Second
	// flushLatest is the same while clients write: what they write to next is marked again, and a flush holds them up.
	flushLatest = time.Minute
)

// FlushDue reports whether marks wait for nothing but a flush, and none was watched for a while. soon: it is worth one
// although clients write. A member that is away is not made to owe us an answer by it: it may be back before anybody writes.
func (c *Core) FlushDue(now Instant, soon bool) bool {
	wait := flushLatest
	if soon || now.Sub(c.wroteAt) >= flushAfter {
		wait = flushAfter
	}
	if now.Sub(c.flushedAt) < wait || c.flushErr != nil {
		return false
	}
	live := false
	for _, p := range c.peers {
		if p.required() && !p.connected {
			return false
		}
		live = live || p.m.Live() > 0
	}
	return live
}

// Clearable are the maps of members that are connected, known, and have nothing behind: with them marks on stable storage
// may be given back.
func (c *Core) Clearable() (all []*maps.Peer) {
	if c.diskErr != nil || c.flushErr != nil {
		return nil
	}
	for _, n := range c.names {
		if p := c.peers[n]; p.member && p.connected && p.known && p.m.Behind() == 0 {
			all = append(all, p.m)
		}
	}
	return all
}
