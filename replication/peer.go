package replication

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"hacluster/blockdev"
	"hacluster/blockdev/bitmap"
	"hacluster/blockdev/failpoint"
	"hacluster/heartbeat/cluster"
	"hacluster/replication/link"
	"hacluster/replication/maps"
	"hacluster/replication/primary"
	"hacluster/replication/resync"
	"hacluster/replication/wire"
)

// peerLink keeps one stream to one peer for as long as the tenure lasts, and makes another when it breaks.
type peerLink struct {
	t     *Tenure
	node  string
	wake  chan struct{} // to the copier: there may be chunks to compare; room for one
	back  chan struct{} // to run: the peer answered another volume; room for one
	doubt atomic.Bool   // another volume got no answer; set by the Crowd, taken by tick
	pace  resync.Pace   // of resyncs; the copier's own, of which one lives at a time
	acks  *Histogram    // from queueing an entry to its acknowledgement
	ended chan struct{} // closed when run has returned
	after chan struct{} // nil, or ended of the link to an earlier replica of the node

	// Under t.mu:
	stop   context.CancelFunc // nil: it has not begun
	parted bool               // the node holds no replica any more, or another
	outbox *link.Outbox       // of the stream that is up; nil: none
	sender *link.Sender
	stream uint64
	looks  int // digest requests of verifies in this stream that it has not answered
	pings  uint64
	probe  probe
	number maps.Number    // of the clearings that it has stored with us, as its greeting said
	hot    *bitmap.Bitmap // regions that it may have marked, of what it said; nil: it was not asked
	whole  bool           // it said that everything may differ
	told   settledNews    // the last Settled of the stream that is up
	way    way
	lender *link.Lender // of the stream that is up: what others that go by way of it need not be sent; nil: none do

	theirs *bitmap.Bitmap // of the stream that is up: what came of the peer's map; who receives owns it

	mu     sync.Mutex
	reason string // of the last disconnect or refusal
	resync resyncing
	queued bool // its resync waits for those of other volumes
	bad    unreadable
}

// Pauses between attempts to connect. A member is asked often, for writes wait for it until it is dropped.
const (
	firstPause   = 20 * time.Millisecond
	memberPause  = 60 * time.Millisecond
	longestPause = 500 * time.Millisecond
)

func (p *peerLink) run(ctx context.Context) {
	defer close(p.ended)
	if p.after != nil {
		<-p.after // it has been stopped
	}
	pause, crowd := firstPause, p.t.r.cfg.Crowd
	if crowd.isDown(p.node) { // another volume that began at the same time has found out: a thousand need not
		p.rest(ctx, pause)
	}
	for ctx.Err() == nil {
		began := time.Now()
		p.connect(ctx)
		if time.Since(began) > longestPause {
			pause = firstPause // it held for a while: not one that is accepted and closed again and again
		}
		pause = p.rest(ctx, pause)
	}
}

// rest waits until the next attempt, and is the pause after that.
func (p *peerLink) rest(ctx context.Context, pause time.Duration) time.Duration {
	crowd, tries := p.t.r.cfg.Crowd, int64(dialsPerSec)
	if p.member() {
		pause, tries = min(pause, memberPause), memberDialsPerSec
	}
	wait := pause
	if crowd.isDown(p.node) {
		wait = crowd.pace(pause, tries)
	}
	select {
	case <-ctx.Done():
	case <-p.back:
	case <-time.After(wait):
	}
	return min(2*pause, longestPause)
}

func (p *peerLink) member() bool {
	p.t.mu.Lock()
	defer p.t.mu.Unlock()
	return p.t.core.Peer(p.node).Member
}

// connect opens a stream and serves it to its end.
func (p *peerLink) connect(ctx context.Context) {
	t, cfg := p.t, &p.t.r.cfg
	now := t.r.node.Now()
	t.mu.Lock()
	if p.parted {
		t.mu.Unlock()
		return
	}
	stream, by := t.core.NextStream(p.node), p.nextWayLocked(now)
	t.mu.Unlock()
	hello := wire.Hello{Cluster: cfg.ClusterID, Volume: cfg.VolumeID, VolumeName: cfg.Volume.Name, Size: cfg.Volume.Size,
		BlockSize: blockdev.BlockSize, Epoch: uint64(t.epoch), Primary: cfg.Node, Process: cfg.Process, Stream: stream, Target: p.node}
	greet, cancel := context.WithTimeout(ctx, max(2*t.r.timers.drop(), time.Second))
	sender, reply, err := t.r.node.Greet(greet, p.node, by, hello)
	cancel()
	if err != nil && p.wayFailed(by, err) {
		return
	}
	if ctx.Err() == nil { // else the tenure ended, which says nothing of the node
		t.r.cfg.Crowd.greeted(p.node, err)
	}
	if err != nil {
		p.refused(err)
		return
	}
	g := greetingOf(reply)
	g.Reads = sender.Version() >= wire.VersionAsked && by == "" // one that is far is not asked, and who carries its stream on has enough to do
	g.WentBack = p.judge(reply)
	t.mu.Lock()
	p.number = maps.Number{Promised: reply.Promised, Settled: reply.Clearing}
	t.mu.Unlock()
	p.serve(ctx, stream, by, sender, g)
}

func greetingOf(r wire.HelloReply) primary.Greeting {
	return primary.Greeting{Process: r.Process, LastNum: r.LastSeq,
		Incarnation:  cluster.Incarnation{Boot: hex.EncodeToString(r.Boot[:]), Attachment: r.Attachment},
		Inconsistent: r.Flags&wire.ReplicaInconsistent != 0, Failed: r.Flags&wire.ReplicaFailed != 0,
		Keeps: r.Flags&wire.ReplicaKeeps != 0}
}

// refused notes why there is no stream. A standby that knows a newer epoch ends this tenure's right to answer at once;
// the committed state, which follows, ends the tenure (R11).
func (p *peerLink) refused(err error) {
	var no *link.RefusedError
	if errors.As(err, &no) {
		switch {
		case no.Reply.Code == wire.RefusedOlderEpoch && cluster.Epoch(no.Reply.Epoch) > p.t.epoch:
			if p.t.gate.close() {
				p.t.cutClients()
			}
		case no.Reply.Code == wire.RefusedOtherPrimary:
			p.t.r.alarm(fmt.Sprintf("%s refused the stream of %s in epoch %d, which it takes for another's: %v", p.node, p.t.r.cfg.Node, p.t.epoch, err))
		}
	}
	p.note(err.Error(), "standby does not take the stream")
}

func (p *peerLink) note(reason, msg string) {
	p.mu.Lock()
	first := reason != p.reason
	p.reason = reason
	p.mu.Unlock()
	if first { // the same again is not worth a line
		p.t.r.log.Warn(msg, "peer", p.node, "epoch", p.t.epoch, "why", reason)
	}
}

// outboxLimits are beyond what frontends admit at a time and what a resync target may be behind: a stream that reaches
// them is closed, and the next one replays.
var outboxLimits = link.OutboxLimits{Bytes: 1 << 30, Frames: 1 << 16}

func (p *peerLink) serve(ctx context.Context, stream uint64, by string, sender *link.Sender, g primary.Greeting) {
	t := p.t
	ctx, cancel := context.WithCancel(ctx)
	outbox := link.NewOutbox(sender, outboxLimits)
	t.mu.Lock()
	p.goesLocked(t.r.node.Now(), by, sender)
	p.outbox, p.sender, p.stream, p.probe, p.theirs = outbox, sender, stream, probe{}, nil
	p.looks = 0
	t.mu.Unlock()
	var goes sync.WaitGroup
	goes.Go(func() {
		if err := outbox.Run(ctx); err != nil {
			sender.Close()
		}
	})
	copier := newCopier(p, stream, outbox, sender, sender.Version())
	goes.Go(func() { copier.run(ctx) })
	t.with(func(now primary.Instant) { t.core.Up(now, p.node, stream, g) })
	t.verifyChanged()
	t.look() // a short resync has its events too
	stop := context.AfterFunc(ctx, sender.Close)
	err := p.receive(stream, sender, outbox, copier)
	stop()
	t.mu.Lock()
	p.outbox, p.sender, p.lender = nil, nil, nil
	p.overLocked(t.r.node.Now(), !errors.Is(err, link.ErrClosed))
	p.untoldLocked()
	t.abortClearingLocked()
	t.mu.Unlock()
	t.with(func(now primary.Instant) { t.core.Down(now, p.node, stream) })
	t.verifyChanged()
	cancel()
	sender.Close()
	goes.Wait()
	if !errors.Is(err, link.ErrClosed) { // else who closed it said why
		p.note(err.Error(), "stream to the standby ended")
	}
}

func (p *peerLink) receive(stream uint64, sender *link.Sender, outbox *link.Outbox, c *copier) error {
	t := p.t
	for {
		replies, err := sender.Recv()
		if err != nil {
			return err
		}
		for i := range replies {
			switch replies[i].Kind {
			case wire.DigestReply:
				if !t.verifyAnswer(p.node, stream, replies[i]) {
					c.reply(replies[i])
				}
			case wire.MarksReply:
				p.piece(stream, outbox, &replies[i])
			case wire.ReadReply:
				if replies[i].ID&wire.Asked != 0 {
					p.answered(stream, &replies[i])
				}
			}
		}
		now := t.r.node.Now()
		failpoint.Hit(failpoint.PrimaryAcked)
		t.mu.Lock()
		if t.ended {
			t.mu.Unlock()
			return link.ErrClosed
		}
		for i := range replies {
			p.hear(now, stream, &replies[i])
		}
		acts := t.takeLocked()
		t.mu.Unlock()
		t.run(acts, loop)
	}
}

func (p *peerLink) hear(now primary.Instant, stream uint64, r *wire.Reply) {
	core := p.t.core
	switch r.Kind {
	case wire.Ack:
		core.Acked(now, p.node, stream, r.Seq)
		p.probe.acked(r.Seq, p.acks)
	case wire.Received:
		core.Received(now, p.node, stream, r.Seq)
	case wire.Pong:
		core.Alive(now, p.node, stream)
	case wire.ReadReply:
		if r.ID&wire.Asked == 0 {
			p.readReplyLocked(now, stream, r)
		}
	case wire.Promised:
		p.t.promisedLocked(p.node, r.ID)
	case wire.Nack:
		if r.Code == wire.Stopping {
			core.Leaving(now, p.node, stream)
			return
		}
		core.Refused(now, p.node, stream, r.Code == wire.BadChecksum, r.Code.String()+": "+r.Text)
	}
}

// queueLocked puts what the Core sends into the stream's outbox, in the Core's order. The outbox is to be flushed
// without the lock; nil: nothing is to be sent.
func (p *peerLink) queueLocked(a *primary.Action) *link.Outbox {
	if p.outbox == nil {
		return nil // the stream broke; the Core hears of it
	}
	if a.Kind == primary.Send && !a.Op.IsCopy() {
		p.probe.sent(a.Num)
	}
	if a.Kind == primary.Send && a.Op.IsCopy() && p.hot != nil { // it marks what is copied to it
		unit := p.t.r.cfg.Marks.RegionSize()
		p.hot.Set(a.Op.Range.Off/unit, (a.Op.Range.End()+unit-1)/unit)
	}
	f := p.frame(a)
	if err := p.outbox.Put(f); err != nil {
		p.sender.Close() // full or ended: the next stream replays
		return nil
	}
	if p.lender != nil && f.Kind == wire.Write && f.ID != 0 {
		p.lender.Put(f.ID, f.PayloadLen())
	}
	return p.outbox
}

func (p *peerLink) frame(a *primary.Action) wire.Frame {
	switch a.Kind {
	case primary.Begin:
		f := wire.Frame{Kind: wire.Begin, ID: a.Num}
		if a.Resync {
			f.Flags = wire.Resync
		}
		return f
	case primary.Ping:
		p.pings++
		return wire.Frame{Kind: wire.Ping, ID: p.pings}
	case primary.AskMap:
		return wire.Frame{Kind: wire.Marks}
	case primary.Fetch:
		return wire.Frame{Kind: wire.Read, ID: a.Num, Range: a.Op.Range}
	case primary.Ask:
		return wire.Frame{Kind: wire.Read, ID: a.Num | wire.Asked, Range: a.Op.Range}
	case primary.Look:
		return wire.Frame{Kind: wire.Digest, Flags: wire.Ordered | wire.FromDisk, ID: a.Op.Owner.(*op).look.id, Range: a.Op.Range}
	}
	f := wire.Frame{Seq: a.Num, Range: a.Op.Range}
	if p.sender.Version() >= wire.VersionPlace {
		f.ID = a.Op.Place()
	}
	if a.Op.Closing() {
		f.Kind = wire.Close
		return f
	}
	o := a.Op.Owner.(*op)
	switch {
	case o.Kind == blockdev.OpFlush || o.IsVoid():
		f.Kind, f.Range = wire.Flush, blockdev.Range{}
	case o.Kind == blockdev.OpZero:
		f.Kind = wire.Zero
		if o.Unmap {
			f.Flags |= wire.Unmap
		}
	case o.Kind == blockdev.OpWrite:
		f.Kind, f.Buf, f.Sum = wire.Write, o.buf, o.sum
		if o.zero {
			f.Kind, f.Buf, f.Sum, f.Flags = wire.Zero, nil, 0, wire.Unmap
		}
		if o.IsCopy() {
			f.Flags |= wire.Resync
		}
	}
	if o.FUA {
		f.Flags |= wire.FUA
	}
	if (o.FUA || f.Kind == wire.Flush) && p.t.core.Fences(p.node) && p.sender.Version() >= wire.VersionFence {
		f.Flags |= wire.Fence
	}
	return f
}

// disconnect closes the stream, for a reason that the log shows once.
func (p *peerLink) disconnect(reason string) {
	p.note(reason, "stream to the standby closed")
	p.t.mu.Lock()
	defer p.t.mu.Unlock()
	p.closeLocked()
}

func (p *peerLink) closeLocked() {
	if p.sender != nil {
		p.sender.Close()
	}
}

// compare reminds the copier that there may be work.
func (p *peerLink) compare() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}
