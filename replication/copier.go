package replication

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"time"

	"hacluster/blockdev"
	"hacluster/blockdev/failpoint"
	"hacluster/replication/link"
	"hacluster/replication/primary"
	"hacluster/replication/resync"
	"hacluster/replication/wire"
)

// maxCompares is how many chunks of one target are being compared at a time: enough to keep both disks and the line
// busy, few enough that a foreground write does not wait long behind them.
const maxCompares = 16

// maxLooks is how many digest requests of verifies a member has not answered at a time, those of verifies that were stopped
// included.
const maxLooks = 3

// maxAnswers is how many digest requests and reads of the primary are being answered at a time: all that one stream can bring,
// so that a disk that is slow to read does not keep the stream from being read.
const maxAnswers = maxCompares + maxLooks + 1

// copier compares chunks with the peer's digests, of a resync or of a member that is not settled, and has the Core copy
// what differs. One for each stream.
type copier struct {
	p       *peerLink
	t       *Tenure
	stream  uint64
	outbox  *link.Outbox
	asked   map[uint64]*compared // chunks under way, by the id of the digest request; run's own
	lastID  uint64
	replies chan wire.Reply // sent by the receiver, received by run; as many as are asked
	mine    chan seen       // sent by workers, received by run; as many as are asked
	asking  int64           // bytes of asked
	pause   *time.Timer     // until the pace is asked again
	data    blockdev.Range  // known to hold data here, from what was read last on
	whole   bool            // what was compared last is copied as a whole
	told    int64           // the window of which the peer was told last that it is data; 0: none, for the first is behind none
	version uint16          // of the stream
	differs bool            // what was compared last differs for the most part: sums will tell
	paced   bool            // counted in the meter: it asks what clients feel
	line    lineShare

	takesTurns bool // it has a turn among the resyncs of the node, or waits for one
}

// compared is a chunk under way: it is read here while the peer makes its digests. Ours are made when its are known: most of
// them are not needed for a disk that is empty, and none for one that is written anew.
type compared struct {
	chunk  blockdev.Range
	mine   *digests    // nil: it is being read
	theirs *wire.Reply // nil: the peer has not answered
	sums   bool        // sums are asked for, which tell only what differs
	all    bool        // it is copied whatever the digests say
	charge int64       // bytes of the line that were taken for it
	ahead  bool        // what follows it is told to be data
}

// digests are those of one chunk as it is here.
type digests struct {
	sums  []byte           // nil: not made yet
	bad   []blockdev.Range // blocks that cannot be read; their places in sums mean nothing
	tried []blockdev.Range // of bad: the rest was given up unseen
	buf   *blockdev.Buf    // what was read; nil: it is a hole, or was read block by block, or not kept
	err   error
	data  blockdev.Range // known to hold data, from the chunk on
}

func newCopier(p *peerLink, stream uint64, outbox *link.Outbox, slow slowLine, version uint16) *copier {
	return &copier{p: p, version: version, line: newLineShare(slow), t: p.t, stream: stream, outbox: outbox, asked: map[uint64]*compared{},
		replies: make(chan wire.Reply, maxCompares), mine: make(chan seen, maxCompares)}
}

// reply takes an answer to a digest request. More than was asked for is dropped.
func (c *copier) reply(r wire.Reply) {
	select {
	case c.replies <- r:
	default:
	}
}

func (c *copier) run(ctx context.Context) {
	c.pause = time.NewTimer(time.Hour)
	defer c.pause.Stop()
	defer c.asksClients(false)
	defer c.hasTurn(false)
	for {
		c.ask()
		select {
		case <-ctx.Done():
			return
		case <-c.p.wake:
		case <-c.pause.C:
		case r := <-c.replies:
			c.answered(r)
		case s := <-c.mine:
			c.hasRead(s)
		}
	}
}

// ask has the next chunks compared: by the peer and, at the same time, here.
func (c *copier) ask() {
	t, pace := c.t, &c.p.pace
	for len(c.asked) < maxCompares {
		at := time.Duration(takeStamp())
		t.mu.Lock()
		copying, paced := t.core.Copying(c.p.node)
		t.mu.Unlock()
		c.asksClients(paced)
		if !c.hasTurn(paced) {
			return
		}
		most := int64(resync.ChunkSize)
		if paced {
			pace.Limits = t.r.resyncLimits()
			clients, again := t.r.meter.clients(), time.Duration(0)
			if most, again = pace.Next(at, &clients, c.asking+copying); most == 0 {
				c.pause.Reset(again)
				return
			}
			rest, widest := c.line.rest()
			if rest > 0 {
				c.pause.Reset(rest)
				return
			}
			most = min(most, widest)
		}
		t.mu.Lock()
		chunk, ok := t.core.TakeChunk(t.r.node.Now(), c.p.node, c.stream, most)
		t.mu.Unlock()
		if !ok {
			return
		}
		g := &compared{chunk: chunk, sums: c.version >= wire.VersionSums && c.differs && paced, ahead: paced && c.isData(chunk)}
		if paced {
			pace.Took(at, chunk.Len)
			g.charge = c.line.charge(chunk.Len)
		}
		c.asking += chunk.Len
		if !c.request(g) {
			return
		}
		c.read(c.lastID, chunk)
	}
}

// isData reports whether the peer is to be told that what follows a chunk is data, all of which it will be sent: once for each
// window. Data may be zeroes, which it is not sent where it has a hole: so only after a chunk that was sent as a whole, and
// where data ends no more than what was asked for meanwhile is taken in vain.
func (c *copier) isData(chunk blockdev.Range) bool {
	w := resync.Ahead(chunk, c.t.r.cfg.Volume.Size)
	if c.version < wire.VersionAhead || !c.whole || w.Off == c.told || w.Len == 0 || w.Off < c.data.Off || w.End() > c.data.End() {
		return false
	}
	c.t.mu.Lock()
	ok := c.t.core.Lacks(c.p.node, w)
	c.t.mu.Unlock()
	if ok {
		c.told = w.Off
	}
	return ok
}

// hasTurn reports whether chunks may be taken now: of a resync, whose node runs a few at a time, and of a member at once.
func (c *copier) hasTurn(paced bool) bool {
	q := &c.t.r.cfg.Crowd.resyncs
	if !paced {
		if c.takesTurns {
			q.done(c, time.Now())
		}
		c.takesTurns = false
		c.p.waitsForTurn(false)
		return true
	}
	c.takesTurns = true
	has := q.may(c, time.Now())
	c.p.waitsForTurn(!has)
	if !has {
		c.pause.Reset(turnLook)
	}
	return has
}

func (p *peerLink) waitsForTurn(queued bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.queued = queued
}

// asksClients has every operation of clients timed while a resync takes its pace from them.
func (c *copier) asksClients(paced bool) {
	switch {
	case paced && !c.paced:
		c.t.r.meter.paced.Add(1)
	case !paced && c.paced:
		c.t.r.meter.paced.Add(-1)
	}
	c.paced = paced
}

// request asks the peer for the digests of a chunk, or its sums.
func (c *copier) request(g *compared) bool {
	c.lastID++
	c.asked[c.lastID] = g
	f := wire.Frame{Kind: wire.Digest, ID: c.lastID, Range: g.chunk}
	if g.sums {
		f.Flags = wire.Sums
	}
	if g.ahead {
		f.Flags |= wire.Ahead
	}
	if err := c.outbox.Put(f); err != nil {
		c.p.disconnect("a digest request cannot be sent: " + err.Error()) // the chunk goes back to the plan with it
		return false
	}
	c.outbox.Flush()
	return true
}

// read reads our side of a chunk. A worker does it: a disk that hangs must not keep the tenure from ending. mine has room
// for it, also when nobody receives any more.
func (c *copier) read(id uint64, chunk blockdev.Range) {
	t, mine := c.t, c.mine
	t.mu.Lock()
	awaited := t.core.Awaited(c.p.node, chunk)
	t.mu.Unlock()
	dev := t.r.dev
	t.r.work.do(jobFunc(func() { mine <- seen{id, readChunk(dev, chunk, awaited)} }))
}

// answered takes the peer's digests of a chunk.
func (c *copier) answered(r wire.Reply) {
	g, ok := c.asked[r.ID]
	if !ok || g.theirs != nil || r.Range != g.chunk {
		c.p.disconnect("it answered a digest request that was not made")
		return
	}
	c.t.with(func(now primary.Instant) { c.t.core.Answered(now, c.p.node, c.stream) })
	switch {
	case r.Code != wire.OK && r.Code != wire.ReadFailed:
		c.p.disconnect("it cannot compare: " + r.Code.String() + ": " + r.Text)
		return
	case r.Code == wire.OK && len(r.Digests) != wire.Digests(g.chunk)*wire.DigestSize:
		c.p.disconnect("it answered with the digests of another range")
		return
	}
	g.theirs = &r
	c.finish(r.ID, g)
}

// hasRead takes our own.
func (c *copier) hasRead(s seen) {
	if s.d.err != nil {
		c.p.disconnect("what is to be copied cannot be read here: " + s.d.err.Error())
		return
	}
	if s.d.data.End() > c.data.End() || s.d.data.Off < c.data.Off {
		c.data = s.d.data
	}
	g := c.asked[s.id]
	g.mine = &s.d
	c.finish(s.id, g)
}

// finish compares a chunk that both sides have read.
func (c *copier) finish(id uint64, g *compared) {
	if g.mine == nil || g.theirs == nil {
		return
	}
	t, mine, theirs := c.t, g.mine, g.theirs
	t.mu.Lock()
	g.all = g.all || t.core.CopyAll(c.p.node) || theirs.Code != wire.OK // what it cannot read may be mended by writing it
	t.mu.Unlock()
	if mine.sums == nil && !g.all {
		c.hash(id, *mine, theirs.Digests, g.sums)
		return
	}
	if g.sums && !g.all && !g.allDiffer() {
		c.askAgain(id, g)
		return
	}
	delete(c.asked, id)
	c.differs = g.mostDiffer()
	c.asking -= g.chunk.Len
	c.p.noteUnreadable(g.chunk, mine.bad)
	failpoint.Hit(failpoint.ResyncCompare)
	copies := t.copies(g.chunk, mine.buf, func(i int, block blockdev.Range) bool {
		return !overlapsAny(mine.bad, block) && (g.all || g.differ(i))
	})
	c.line.settle(g.chunk.Len, g.charge, copies)
	if mine.buf != nil {
		mine.buf.Free()
	}
	c.whole = len(copies) == 1 && copies[0].Range == g.chunk
	t.with(func(now primary.Instant) {
		if len(mine.bad) > 0 {
			t.core.Unreadable(now, c.p.node, c.stream, g.chunk, mine.bad, mine.tried)
		}
		t.core.Compared(now, c.p.node, c.stream, g.chunk, copies)
	})
}

// hash makes our digests, or sums, of what was read. A worker does it, beside those of other chunks; hasRead gets it once more.
func (c *copier) hash(id uint64, d digests, theirs []byte, sums bool) {
	mine := c.mine
	c.t.r.work.do(jobFunc(func() {
		out := make([]byte, 0, len(theirs))
		if sums {
			d.sums = link.AppendSums(out, d.buf.Bytes())
		} else {
			d.sums = link.AppendDigestsAgainst(out, d.buf.Bytes(), theirs)
		}
		mine <- seen{id, d}
	}))
}

// askAgain has the digests of a chunk compared, for sums do not tell that blocks are alike.
func (c *copier) askAgain(id uint64, g *compared) {
	delete(c.asked, id)
	if g.mine.buf != nil {
		g.mine.sums = nil // else they are digests already
	}
	g.theirs, g.sums, g.ahead = nil, false, false
	c.t.with(func(primary.Instant) { c.t.core.AskedAgain(c.p.node, c.stream) })
	c.request(g)
}

// differ reports whether block i of a chunk is not alike, or with sums, whether it surely is not.
func (g *compared) differ(i int) bool {
	at := i * wire.DigestSize
	return !bytes.Equal(g.mine.sums[at:at+wire.DigestSize], g.theirs.Digests[at:at+wire.DigestSize])
}

// allDiffer reports whether sums tell that all of a chunk differs. What is here was read as a whole: else there are digests of it,
// and no sums.
func (g *compared) allDiffer() bool {
	for i := range wire.Digests(g.chunk) {
		if g.mine.buf == nil || !g.differ(i) {
			return false
		}
	}
	return true
}

// mostDiffer reports whether sums would have told the same of most of a chunk, for less. Zeroes on the other side, as on a new
// disk, cost no digests here.
func (g *compared) mostDiffer() bool {
	if g.mine.sums == nil || g.theirs.Code != wire.OK {
		return false
	}
	n := 0
	for i := range wire.Digests(g.chunk) {
		if at := i * wire.DigestSize; g.differ(i) && !link.OfZeroes(g.theirs.Digests[at:at+wire.DigestSize]) {
			n++
		}
	}
	return n > wire.Digests(g.chunk)/2
}

func overlapsAny(all []blockdev.Range, r blockdev.Range) bool {
	return slices.ContainsFunc(all, r.Overlaps)
}

// maxBadBlocks is how many blocks of one chunk are found to be unreadable one by one; behind them the rest of the chunk
// counts as unreadable too, but for what a read waits for. Each may keep a dying disk busy for seconds.
const maxBadBlocks = 16

// readChunk reads a chunk and keeps it, without digests; where it cannot be read as a whole it is digestOf. Of a hole, of which
// a copy is rare, the digests are all there is.
func readChunk(dev blockdev.Device, chunk blockdev.Range, awaited []blockdev.Range) (d digests) {
	found, hole := link.ExtentAt(dev, blockdev.Range{Off: chunk.Off, Len: min(chunk.Len+3*resync.Window, dev.Size()-chunk.Off)})
	switch {
	case hole && found.End() >= chunk.End():
		return digests{sums: link.OfHole(chunk, link.AppendDigests)}
	case !hole:
		d.data = found
	}
	buf := blockdev.NewBuf(int(chunk.Len))
	if _, err := dev.ReadAt(buf.Bytes(), chunk.Off); err != nil {
		buf.Free()
		return digestOf(dev, chunk, awaited, link.Digest)
	}
	d.buf = buf
	return d
}

// digestOf goes block by block where the whole chunk cannot be read; what is awaited is tried in any case.
func digestOf(dev blockdev.Device, chunk blockdev.Range, awaited []blockdev.Range, digest func(blockdev.Device, blockdev.Range) ([]byte, error)) (d digests) {
	if d.sums, d.err = digest(dev, chunk); d.err == nil || errors.Is(d.err, blockdev.ErrClosed) || errors.Is(d.err, blockdev.ErrRange) {
		return d
	}
	d = digests{sums: make([]byte, 0, wire.Digests(chunk)*wire.DigestSize)}
	failed := 0
	for off := chunk.Off; off < chunk.End(); off += blockdev.BlockSize {
		block := blockdev.Range{Off: off, Len: min(blockdev.BlockSize, chunk.End()-off)}
		sum, err := []byte(nil), error(nil)
		if failed < maxBadBlocks || overlapsAny(awaited, block) {
			if sum, err = digest(dev, block); err != nil {
				failed++
				d.tried = appendRange(d.tried, block)
			}
		}
		if sum == nil || err != nil {
			sum = make([]byte, wire.DigestSize)
			d.bad = appendRange(d.bad, block)
		}
		d.sums = append(d.sums, sum...)
	}
	return d
}

// appendRange adds a range that lies behind all others, in one with the last where they touch.
func appendRange(all []blockdev.Range, r blockdev.Range) []blockdev.Range {
	if n := len(all); n > 0 && all[n-1].End() == r.Off {
		all[n-1].Len += r.Len
		return all
	}
	return append(all, r)
}

// copies makes one copy of each run of blocks that is wanted, with its content if there is one of the chunk.
func (t *Tenure) copies(chunk blockdev.Range, content *blockdev.Buf, wanted func(i int, block blockdev.Range) bool) (copies []*primary.Op) {
	var runs []blockdev.Range
	for i, off := 0, chunk.Off; off < chunk.End(); i, off = i+1, off+blockdev.BlockSize {
		if block := (blockdev.Range{Off: off, Len: min(blockdev.BlockSize, chunk.End()-off)}); wanted(i, block) {
			runs = appendRange(runs, block)
		}
	}
	for _, r := range runs {
		failpoint.Hit(failpoint.ResyncCopy)
		o := t.newOp(blockdev.OpWrite, r)
		if content != nil {
			o.keep(chunk, content)
		}
		copies = append(copies, &o.Op)
	}
	return copies
}

// keep takes what was read of a chunk for the content of a copy.
func (o *op) keep(chunk blockdev.Range, content *blockdev.Buf) {
	if o.Range == chunk {
		content.Ref()
		o.buf = content
	} else {
		from := o.Range.Off - chunk.Off
		o.buf = blockdev.NewBuf(int(o.Range.Len))
		copy(o.buf.Bytes(), content.Bytes()[from:from+o.Range.Len])
	}
	o.Kept = true
	o.sumCopy()
}
