package replication

import (
	"bytes"
	"context"
	"errors"
	"slices"

	"hacluster/blockdev"
	"hacluster/blockdev/failpoint"
	"hacluster/replication/link"
	"hacluster/replication/primary"
	"hacluster/replication/wire"
)

// maxCompares is how many chunks of one target are being compared at a time: enough to keep both disks and the line
// busy, few enough that a foreground write does not wait long behind them.
const maxCompares = 4

// maxLooks is how many digest requests of verifies a member has not answered at a time, those of verifies that were stopped
// included.
const maxLooks = maxCompares - 1

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
	asked   map[uint64]blockdev.Range // digest requests on their way, by id; run's own
	lastID  uint64
	replies chan wire.Reply // sent by the receiver, received by run; as many as are asked
}

// digests are those of one chunk as it is here.
type digests struct {
	sums  []byte
	bad   []blockdev.Range // blocks that cannot be read; their places in sums mean nothing
	tried []blockdev.Range // of bad: the rest was given up unseen
	err   error
}

func newCopier(p *peerLink, stream uint64, outbox *link.Outbox) *copier {
	return &copier{p: p, t: p.t, stream: stream, outbox: outbox, asked: map[uint64]blockdev.Range{},
		replies: make(chan wire.Reply, maxCompares)}
}

// reply takes an answer to a digest request. More than was asked for is dropped.
func (c *copier) reply(r wire.Reply) {
	select {
	case c.replies <- r:
	default:
	}
}

func (c *copier) run(ctx context.Context) {
	for {
		c.ask()
		select {
		case <-ctx.Done():
			return
		case <-c.p.wake:
		case r := <-c.replies:
			c.answer(ctx, r)
		}
	}
}

func (c *copier) ask() {
	t := c.t
	for len(c.asked) < maxCompares {
		t.mu.Lock()
		chunk, ok := t.core.TakeChunk(t.r.node.Now(), c.p.node, c.stream)
		t.mu.Unlock()
		if !ok {
			return
		}
		c.lastID++
		c.asked[c.lastID] = chunk
		if err := c.outbox.Put(wire.Frame{Kind: wire.Digest, ID: c.lastID, Range: chunk}); err != nil {
			c.p.disconnect("a digest request cannot be sent: " + err.Error()) // the chunk goes back to the plan with it
			return
		}
		c.outbox.Flush()
	}
}

func (c *copier) answer(ctx context.Context, r wire.Reply) {
	chunk, ok := c.asked[r.ID]
	if !ok || r.Range != chunk {
		c.p.disconnect("it answered a digest request that was not made")
		return
	}
	delete(c.asked, r.ID)
	c.t.with(func(now primary.Instant) { c.t.core.Answered(now, c.p.node, c.stream) })
	if r.Code != wire.OK && r.Code != wire.ReadFailed {
		c.p.disconnect("it cannot compare: " + r.Code.String() + ": " + r.Text)
		return
	}
	mine, ok := c.digest(ctx, chunk)
	if !ok {
		return
	}
	if r.Code == wire.OK && len(mine.sums) != len(r.Digests) {
		c.p.disconnect("it answered with the digests of another range")
		return
	}
	t := c.t
	t.mu.Lock()
	all := t.core.CopyAll(c.p.node) || r.Code != wire.OK // what it cannot read may be mended by writing it
	t.mu.Unlock()
	c.p.noteUnreadable(chunk, mine.bad)
	failpoint.Hit(failpoint.ResyncCompare)
	copies := t.copies(chunk, func(i int, block blockdev.Range) bool {
		at := i * wire.DigestSize
		return !overlapsAny(mine.bad, block) && (all || !bytes.Equal(mine.sums[at:at+wire.DigestSize], r.Digests[at:at+wire.DigestSize]))
	})
	t.with(func(now primary.Instant) {
		if len(mine.bad) > 0 {
			t.core.Unreadable(now, c.p.node, c.stream, chunk, mine.bad, mine.tried)
		}
		t.core.Compared(now, c.p.node, c.stream, chunk, copies)
	})
}

func overlapsAny(all []blockdev.Range, r blockdev.Range) bool {
	return slices.ContainsFunc(all, r.Overlaps)
}

// digest reads our side of a chunk. A worker does it: a disk that hangs must not keep the tenure from ending.
func (c *copier) digest(ctx context.Context, chunk blockdev.Range) (d digests, ok bool) {
	dev, mine := c.t.r.dev, make(chan digests, 1) // of this chunk alone: whoever gave up waiting leaves its digest behind
	c.t.mu.Lock()
	awaited := c.t.core.Awaited(c.p.node, chunk)
	c.t.mu.Unlock()
	c.t.r.work.do(jobFunc(func() { mine <- digestOf(dev, chunk, awaited, link.Digest) }))
	select {
	case d := <-mine:
		if d.err != nil {
			c.p.disconnect("what is to be copied cannot be read here: " + d.err.Error())
		}
		return d, d.err == nil
	case <-ctx.Done():
		return d, false
	}
}

// maxBadBlocks is how many blocks of one chunk are found to be unreadable one by one; behind them the rest of the chunk
// counts as unreadable too, but for what a read waits for. Each may keep a dying disk busy for seconds.
const maxBadBlocks = 16

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

// copies makes one copy of each run of blocks that is wanted.
func (t *Tenure) copies(chunk blockdev.Range, wanted func(i int, block blockdev.Range) bool) (copies []*primary.Op) {
	var runs []blockdev.Range
	for i, off := 0, chunk.Off; off < chunk.End(); i, off = i+1, off+blockdev.BlockSize {
		if block := (blockdev.Range{Off: off, Len: min(blockdev.BlockSize, chunk.End()-off)}); wanted(i, block) {
			runs = appendRange(runs, block)
		}
	}
	for _, r := range runs {
		copies = append(copies, &t.newOp(blockdev.OpWrite, r).Op)
	}
	return copies
}
