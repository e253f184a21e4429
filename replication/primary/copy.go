package primary

import (
	"errors"
	"slices"
	"time"

	"hacluster/blockdev"
)

// maxCopyBytes is how many bytes may be under way to one target before no further chunk is handed out (R28); how many
// comparisons run at a time is up to who makes them. While the undo area of a target takes what one half overwrites, the
// other half is written.
const maxCopyBytes = 32 << 20

// maxSettleBytes is the same to a member, for whose acknowledgements clients wait.
const maxSettleBytes = 8 << 20

// full reports whether no further chunk is handed out. What clients write to a member does not count: it is bounded
// elsewhere, and reads may wait for the chunk.
func (p *peer) full() bool {
	if p.member {
		return p.copyBytes >= maxSettleBytes
	}
	return p.bytes >= maxCopyBytes
}

// advance asks for work on a resync, or closes it when nothing is left.
func (c *Core) advance(now Instant, p *peer) {
	if !p.connected || p.closing || p.catching || p.mapping || c.spoilt() {
		return
	}
	if p.plan.Done() && p.m.Behind() > 0 || c.paused(p) && p.m.Behind() == 0 && !p.plan.Done() && !p.plan.Busy() && !p.plan.Aside() {
		c.replan(p) // what came behind while its chunk was done; in a pause: all was written as a whole
	}
	if !p.plan.Done() {
		if !p.full() && !c.paused(p) {
			c.act(Action{Kind: Compare, Node: p.node})
		}
		return
	}
	p.closing = true
	op := &Op{closing: true, upTo: c.lastSeq, Kind: blockdev.OpFlush, complete: true}
	c.enqueue(now, p, op)
}

// TakeChunk hands out the next blocks whose digests are to be compared on this stream: what is behind in a chunk of at most so
// many bytes (of one piece, where that is more), from the first to the last such block. They are read after that, and Compared
// tells. ok false: nothing to do now; a Compare follows when there is. Of a member one chunk at a time is compared, for writes
// wait for it.
func (c *Core) TakeChunk(now Instant, node string, stream uint64, most int64) (r blockdev.Range, ok bool) {
	p := c.peers[node]
	for stream == p.stream && p.connected && p.plan != nil && !p.mapping && !p.closing && !p.catching && !p.full() && !c.paused(p) && !c.failing(p) &&
		!(p.member && p.plan.Busy() && !p.plan.Preferred()) {
		chunk, ok := p.plan.Take(most)
		if !ok {
			return r, false
		}
		if r, ok = p.m.Within(chunk); ok {
			c.beginReading(p, r)
			return r, true
		}
		p.plan.Differs(chunk, 0) // written as a whole meanwhile
		if p.plan.Done() {
			c.progress(now, p)
		}
	}
	return r, false
}

// Lacks reports whether all of r is still to be compared with node, and copied where it differs.
func (c *Core) Lacks(node string, r blockdev.Range) bool { return c.peers[node].m.Lacks(r) }

// errFailing is why a copy that was read well is not sent.
var errFailing = errors.New("the primary's own disk failed: what it reads may be older than what the member has")

// failing reports whether nothing of this disk may go to p: after a failed write or flush it may show what is older than
// what was acknowledged, and a member has that (R23). The hand-over is under way.
func (c *Core) failing(p *peer) bool {
	return p.required() && (c.diskErr != nil || c.flushErr != nil) || c.spoilt()
}

// spoilt reports whether nobody becomes a member from this disk: a write or flush of it failed, and there is another member, whose
// disk did not. That one has what a failed flush may have lost here, and a prefix of the order; here later writes may lie beside one
// that failed, and whoever was copied from here would hold what was never a prefix (R13, R23). It takes the role when it is back, as
// where there is no third replica, or a person decides.
func (c *Core) spoilt() bool { return c.diskErr != nil && !c.readsOnly && c.members() > 0 }

// Copying tells how many bytes of a resync of node are being copied. paced false: none runs that may wait for clients; of a
// member reads may wait for the comparison (R29).
func (c *Core) Copying(node string) (bytes int64, paced bool) {
	p := c.peers[node]
	return p.copyBytes, !p.member && p.connected && p.plan != nil && !p.plan.Done() && !c.paused(p) && !c.spoilt()
}

// CopyAll reports whether a chunk is to be copied as a whole, also where the digests agree. After a failed flush the
// target's memory may show what its disk will never hold, and no later flush writes it: only writing it again does
// (R23).
func (c *Core) CopyAll(node string) bool { return c.peers[node].failed }

// Answered tells that node answered a digest request in this stream: until Compared is called, what goes on is ours.
func (c *Core) Answered(now Instant, node string, stream uint64) {
	if p := c.peers[node]; stream == p.stream && p.connected {
		p.reading++
		p.answered = now
	}
}

// AskedAgain tells that node was asked for other digests of a chunk that it answered for: until it answers, it owes that.
func (c *Core) AskedAgain(node string, stream uint64) {
	if p := c.peers[node]; stream == p.stream && p.connected {
		p.reading = max(p.reading-1, 0)
	}
}

// Compared tells what a comparison found: one new Op for each range of the chunk that differs, none when it is equal.
// Each is sent at its place in the order of all writes, with what the range holds there: as it was read for the
// comparison when nothing changed it since, else read anew in that order, so that the last write wins on both sides
// (R17). What is not copied is alike, unless it came behind anew, or could not be read, since it was taken. Ops of an
// outdated stream are released at once.
func (c *Core) Compared(now Instant, node string, stream uint64, chunk blockdev.Range, copies []*Op) {
	p := c.peers[node]
	clean := false
	var bad []blockdev.Range
	if stream == p.stream && p.connected {
		p.reading = max(p.reading-1, 0)
		clean = c.endReading(p, chunk)
		bad, p.bad = p.bad, nil // also where nothing comes of it: it is of this chunk only
	}
	if stream != p.stream || !p.connected || p.plan == nil || c.failing(p) {
		for _, op := range copies {
			c.act(Action{Kind: Release, Op: op})
		}
		if p.plan != nil && stream == p.stream { // it stays to be done
			p.plan.Touch(chunk)
			p.plan.Differs(chunk, 0)
		}
		return
	}
	if !p.plan.Again(chunk) {
		p.equal(chunk, copies, bad)
	}
	p.compared += chunk.Len
	p.plan.Differs(chunk, len(copies))
	for _, op := range copies {
		op.id = c.nextID()
		op.Kind, op.copyTo, op.chunk = blockdev.OpWrite, node, chunk
		op.FUA = p.settling
		op.Kept = op.Kept && clean
		op.local = op.Kept
		if !op.local && c.queue.Admit(&op.Item) {
			c.act(Action{Kind: StartLocal, Op: op})
		}
		c.enqueue(now, p, op)
		if op.Kept {
			c.maps.Returned(op.id, op.Range, true)
		}
	}
	c.progress(now, p)
	c.settle()
}

// equal tells the map that all of the chunk is alike but for what is copied and what cannot be read, both in ascending
// order.
func (p *peer) equal(chunk blockdev.Range, copies []*Op, bad []blockdev.Range) {
	at := chunk.Off
	for len(copies) > 0 || len(bad) > 0 {
		var next blockdev.Range
		if len(bad) == 0 || len(copies) > 0 && copies[0].Range.Off < bad[0].Off {
			next, copies = copies[0].Range, copies[1:]
		} else {
			next, bad = bad[0], bad[1:]
		}
		p.m.Equal(blockdev.Range{Off: at, Len: next.Off - at})
		at = next.End()
	}
	p.m.Equal(blockdev.Range{Off: at, Len: chunk.End() - at})
}

// retryAside is how long what cannot be read here is left alone.
const retryAside = time.Minute

var errUnreadable = errors.New("the primary's own disk cannot read them")

// Unreadable tells which blocks of the chunk cannot be read here: bad, of which those in tried were tried, and the rest was
// given up unseen. The resync goes on with everything else and tries this again after a while; until it can be read, the
// target is not admitted. A read that waits for one that was tried is left to the next primary; what was not is tried at
// once when a read waits for it. It is called before Compared.
func (c *Core) Unreadable(now Instant, node string, stream uint64, chunk blockdev.Range, bad, tried []blockdev.Range) {
	p := c.peers[node]
	if stream != p.stream || !p.connected || p.plan == nil {
		return
	}
	p.bad = bad
	c.setAside(now, p, chunk)
	c.giveUp(p, tried, errUnreadable)
	for _, op := range c.held {
		if p.unsettledIn(bad, op.Range) && !p.unsettledIn(tried, op.Range) {
			p.lookFirst(op.Range)
		}
	}
}

func (c *Core) setAside(now Instant, p *peer, chunk blockdev.Range) {
	if !p.plan.Aside() {
		p.asideAt = now
	}
	p.plan.SetAside(chunk)
}

// retryUnreadable hands out again what was set aside a while ago.
func (c *Core) retryUnreadable(now Instant, p *peer) {
	if p.connected && p.plan != nil && p.plan.Aside() && now.Sub(p.asideAt) >= retryAside {
		p.plan.Retry()
		p.asideAt = now
		c.progress(now, p)
	}
}

// copyFailed has the chunk of a copy that could not be read looked at once more, block by block: one that cannot be
// read must not hold up its neighbours. The second time within retryAside the chunk is set aside: what reads as a
// digest and not as a copy would go round for ever.
func (c *Core) copyFailed(now Instant, p *peer, op *Op) {
	switch {
	case p.plan == nil || op.repair || p.plan.Again(op.chunk):
	case p.spoilt.Overlaps(op.chunk) && now.Sub(p.spoiltAt) < retryAside:
		c.setAside(now, p, op.chunk)
		c.giveUp(p, []blockdev.Range{op.Range}, op.Err)
	default:
		p.spoilt, p.spoiltAt = op.chunk, now
		p.plan.Touch(op.chunk)
		c.prefer(p)
	}
}

// copyRead puts a copy that was read into its place. One that cannot be read after all has a place in the sequence that
// nothing fills: the connection is closed, and the next one goes on with the rest. To a member, whose entries outlive the
// connection, a flush goes in its place.
func (c *Core) copyRead(now Instant, op *Op) {
	p := c.peers[op.copyTo]
	if op.refs == 0 { // the connection broke meanwhile
		c.act(Action{Kind: Release, Op: op})
		return
	}
	if op.Err == nil && c.failing(p) {
		op.Err = errFailing
	}
	if op.Err != nil {
		c.copyFailed(now, p, op)
		if !p.required() {
			c.disconnect(now, p, "reading what is to be copied: "+op.Err.Error())
			return
		}
		p.m.Dropped(op.id)
		p.bytes -= weight(op)
		op.Kind = blockdev.OpFlush
		p.bytes += weight(op)
	} else {
		c.maps.Returned(op.id, op.Range, true)
	}
	c.pump(p)
	c.settle()
}

// Progress is what status shows of a peer.
type Progress struct {
	Connected, Member, Resyncing bool
	Unreadable                   bool // a part of what is to be copied cannot be read here
	Paused                       bool // an operator wants nothing copied to it; Resyncing is false
	Spoilt                       bool // this disk failed, and another member is waited for, not it; Resyncing is false
	// Known: RemainingBytes is all that a resync would look at; else it is the least of it.
	Known bool
	// Of a replica that is no member: what is left to look at, and what it was when the resync began.
	RemainingBytes, TotalBytes int64
	// What was looked at and copied since the resync began; of a member: of the one that has ended.
	ComparedBytes, CopiedBytes int64
	UnackedBytes               int64
	// Of a member: the blocks that it may hold otherwise than this primary, since before this tenure (R29).
	SettlingBytes int64
	UnackedSince  Instant // when the oldest unacknowledged entry was queued; zero: there is none

	// In async, of what clients were told of and it has not written: the bytes of the volume, and when a client was told of the
	// oldest; zero: there is nothing. That is what a failover would lose now.
	Async    bool
	LagBytes int64
	LagSince Instant
	// Slowed: so much of the bound is used that writers are slowed; AtBound: the bound is reached, or operations wait for it.
	// Filled is how much is used, in thousandths of the bound.
	Slowed, AtBound bool
	Filled          int64
	// Held is for how long the operation that has to go first has waited for it at the bound.
	Held time.Duration
}

// Oldest is since when there is something that it lacks: in async, that a client was told of; 0: there is nothing.
func (g *Progress) Oldest() Instant {
	if g.Async {
		return g.LagSince
	}
	return g.UnackedSince
}

// Peer tells how it stands with node.
func (c *Core) Peer(node string) Progress {
	p := c.peers[node]
	g := Progress{Connected: p.connected, Member: p.member, UnackedBytes: p.bytes, ComparedBytes: p.compared, CopiedBytes: p.copied}
	if p.out.len() > 0 {
		g.UnackedSince = p.out.at(0).at
	}
	if p.settling {
		if g.SettlingBytes = c.vol.Size; p.known {
			g.SettlingBytes = min(p.m.Behind(), c.vol.Size)
		}
	}
	if !p.member {
		g.Known, g.RemainingBytes = p.known, min(p.m.Behind(), c.vol.Size)
		g.TotalBytes = max(min(p.total, c.vol.Size), g.RemainingBytes)
	}
	if p.plan != nil && !p.member {
		g.Resyncing, g.Unreadable = p.connected && !p.mapping && !c.paused(p) && !c.spoilt(), p.plan.Aside()
	}
	g.Paused, g.Spoilt = c.paused(p), !p.member && c.spoilt()
	c.lagOf(p, &g)
	return g
}

// Silence is for how long node has owed an answer or, when it owes none, has given no sign of life: what drops follow from.
func (c *Core) Silence(now Instant, node string) time.Duration { return c.silence(now, c.peers[node]) }

// Peers names the other replicas.
func (c *Core) Peers() []string {
	if !slices.ContainsFunc(c.names, func(n string) bool { return c.peers[n].gone }) {
		return c.names
	}
	return slices.DeleteFunc(slices.Clone(c.names), func(n string) bool { return c.peers[n].gone })
}
