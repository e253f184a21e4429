package replication

import (
	"bytes"
	"context"

	"hacluster/blockdev"
	"hacluster/blockdev/failpoint"
	"hacluster/replication/link"
	"hacluster/replication/primary"
	"hacluster/replication/wire"
)

// maxCompares is how many chunks of one target are being compared at a time: enough to keep both disks and the line
// busy, few enough that a foreground write does not wait long behind them.
const maxCompares = 4

// copier compares the chunks of a resync with the target's digests and has the Core copy what differs. One for each
// stream; it does nothing while the peer is a member.
type copier struct {
	p       *peerLink
	t       *Tenure
	stream  uint64
	outbox  *link.Outbox
	asked   map[uint64]blockdev.Range // digest requests on their way, by id; run's own
	lastID  uint64
	replies chan wire.Reply // sent by the receiver, received by run; as many as are asked
}

type digests struct {
	sums []byte
	err  error
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
		chunk, ok := t.core.TakeChunk(c.p.node, c.stream)
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
	if r.Code != wire.OK {
		c.p.disconnect("it cannot read what is to be compared: " + r.Text)
		return
	}
	mine, ok := c.digest(ctx, chunk)
	if !ok {
		return
	}
	if len(mine) != len(r.Digests) {
		c.p.disconnect("it answered with the digests of another range")
		return
	}
	t := c.t
	t.mu.Lock()
	if t.core.CopyAll(c.p.node) {
		mine = nil
	}
	t.mu.Unlock()
	failpoint.Hit(failpoint.ResyncCompare)
	copies := t.differing(chunk, mine, r.Digests)
	t.with(func(now primary.Instant) { t.core.Compared(now, c.p.node, c.stream, chunk, copies) })
}

// digest reads our side of a chunk. A worker does it: a disk that hangs must not keep the tenure from ending.
func (c *copier) digest(ctx context.Context, chunk blockdev.Range) (sums []byte, ok bool) {
	dev, mine := c.t.r.dev, make(chan digests, 1) // of this chunk alone: whoever gave up waiting leaves its digest behind
	c.t.r.work.do(jobFunc(func() {
		sums, err := link.Digest(dev, chunk)
		mine <- digests{sums, err}
	}))
	select {
	case d := <-mine:
		if d.err != nil {
			c.p.disconnect("what is to be copied cannot be read here: " + d.err.Error())
		}
		return d.sums, d.err == nil
	case <-ctx.Done():
		return nil, false
	}
}

// differing makes one copy of each run of blocks whose digests differ; with a nil, one of the whole chunk.
func (t *Tenure) differing(chunk blockdev.Range, a, b []byte) (copies []*primary.Op) {
	if a == nil {
		return []*primary.Op{&t.newOp(blockdev.OpWrite, chunk).Op}
	}
	var run blockdev.Range
	flush := func() {
		if run.Len > 0 {
			copies = append(copies, &t.newOp(blockdev.OpWrite, run).Op)
		}
		run = blockdev.Range{}
	}
	for i := 0; i < len(a); i += wire.DigestSize {
		if bytes.Equal(a[i:i+wire.DigestSize], b[i:i+wire.DigestSize]) {
			flush()
			continue
		}
		off := chunk.Off + int64(i/wire.DigestSize)*blockdev.BlockSize
		n := min(blockdev.BlockSize, chunk.End()-off)
		if run.Len == 0 {
			run.Off = off
		}
		run.Len += n
	}
	flush()
	return copies
}
