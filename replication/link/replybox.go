package link

import (
	"context"
	"sync"
	"sync/atomic"

	"hacluster/replication/wire"
)

// maxWaitingReplies bounds a ReplyBox, besides its two acknowledgements. A primary that does not read its replies has
// no claim to more; 1024 digest replies of the largest range are 64 MiB.
const maxWaitingReplies = 1024

// ReplyBox collects a standby's replies and sends all that wait as one message. Acknowledgements are prefixes, of what is
// written and of what is received, so only the newest of either waits.
type ReplyBox struct {
	to    replier
	pump  pump
	begun atomic.Bool // by Run: the answer to the greeting is through

	mu      sync.Mutex
	acks    [2]prefix // of what is written, and of what is received: sent only if it tells more than the first
	waiting []wire.Reply
	under   int // replies of the message that is on its way
	ended   bool
	empty   chan struct{} // closed when nothing waits any more, or at the end; nil: nobody waits for that

	now []wire.Reply // the owner's of pump: the message that is on its way
}

// The places of ReplyBox.acks.
const (
	ackWritten = iota
	ackReceived
)

// prefix is an acknowledgement of all up to a sequence number.
type prefix struct{ newest, sent uint64 }

// replier makes messages of replies: a Session.
type replier interface {
	begin(replies []wire.Reply) error
	output() output
}

// NewReplyBox returns an empty ReplyBox for s. Its Run must be called once, and what a full socket does not take at
// once waits for it.
func NewReplyBox(s *Session) *ReplyBox { return newReplyBox(s) }

func newReplyBox(to replier) *ReplyBox {
	b := &ReplyBox{to: to}
	b.pump = newPump(b)
	return b
}

// Ack says that all frames up to seq are written. It never waits; a seq below an earlier one says nothing new. It goes
// with the next Flush.
func (b *ReplyBox) Ack(seq uint64) { b.acknowledge(ackWritten, seq) }

// Received says that all frames up to seq are taken. It is told like Ack, and not at all when an Ack says as much.
func (b *ReplyBox) Received(seq uint64) { b.acknowledge(ackReceived, seq) }

func (b *ReplyBox) acknowledge(what int, seq uint64) {
	b.mu.Lock()
	b.acks[what].newest = max(b.acks[what].newest, seq)
	b.mu.Unlock()
}

// acksLocked appends what the newest acknowledgements say that was not said before.
func (b *ReplyBox) acksLocked(to []wire.Reply) []wire.Reply {
	w, r := &b.acks[ackWritten], &b.acks[ackReceived]
	if w.newest > w.sent {
		w.sent = w.newest
		to = append(to, wire.Reply{Kind: wire.Ack, Seq: w.sent})
	}
	r.sent = max(r.sent, w.sent)
	if r.newest > r.sent {
		r.sent = r.newest
		to = append(to, wire.Reply{Kind: wire.Received, Seq: r.sent})
	}
	return to
}

// unsaidLocked reports whether acksLocked would append anything.
func (b *ReplyBox) unsaidLocked() bool {
	w, r := b.acks[ackWritten], b.acks[ackReceived]
	return w.newest > w.sent || r.newest > max(r.sent, w.sent)
}

// Put adds another reply and never waits. It goes with the next Flush. The error is ErrFull at the limit and ErrClosed
// after Run has returned; the reply's Buf is given back and its Done called then too.
func (b *ReplyBox) Put(r wire.Reply) error {
	switch r.Kind {
	case wire.Ack:
		b.Ack(r.Seq)
		return nil
	case wire.Received:
		b.Received(r.Seq)
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ended {
		releaseReply(&r)
		return ErrClosed
	}
	if len(b.waiting) == maxWaitingReplies {
		releaseReply(&r)
		return ErrFull
	}
	b.waiting = append(b.waiting, r)
	return nil
}

// releaseReply ends what goes with a reply.
func releaseReply(r *wire.Reply) {
	if r.Buf != nil {
		r.Buf.Free()
	}
	if r.Done != nil {
		r.Done()
	}
}

// Flush sends what was put: at once and from here, if the socket has room and nobody else is sending. It never waits.
// Before Run it leaves that to Run: the answer to the greeting may be on its way through the same output.
func (b *ReplyBox) Flush() {
	if !b.begun.Load() {
		b.pump.remind()
		return
	}
	b.pump.flush()
}

// Drain waits until all that was put is handed to the connection, or never will be, or ctx ends.
func (b *ReplyBox) Drain(ctx context.Context) {
	b.mu.Lock()
	if b.ended || len(b.waiting) == 0 && b.under == 0 {
		b.mu.Unlock()
		return
	}
	if b.empty == nil {
		b.empty = make(chan struct{})
	}
	empty := b.empty
	b.mu.Unlock()
	select {
	case <-empty:
	case <-ctx.Done():
	}
}

// Run sends what Flush could not, until ctx ends (nil) or sending fails (its error). It comes after Session.Reply.
func (b *ReplyBox) Run(ctx context.Context) error {
	b.begun.Store(true)
	return b.pump.run(ctx)
}

func (b *ReplyBox) out() output { return b.to.output() }

// load takes what fits into one message, the acknowledgement first.
func (b *ReplyBox) load() (bool, error) {
	b.mu.Lock()
	b.now = b.acksLocked(b.now[:0])
	n, blobs := 0, 0
	for n < len(b.waiting) && len(b.now)+n < wire.MaxFrames {
		r := &b.waiting[n]
		blobs += len(r.Digests) + len(r.Map) + len(r.Data) + min(len(r.Text), wire.MaxText)
		if blobs > wire.MaxBlobs {
			break
		}
		n++
	}
	b.now = append(b.now, b.waiting[:n]...)
	rest := copy(b.waiting, b.waiting[n:])
	clear(b.waiting[rest:])
	b.waiting = b.waiting[:rest]
	b.under = len(b.now)
	b.mu.Unlock()
	if len(b.now) == 0 {
		return false, nil
	}
	err := b.to.begin(b.now) // it copies
	for i := range b.now {
		releaseReply(&b.now[i])
	}
	return true, err
}

func (b *ReplyBox) sent() (more bool) {
	clear(b.now)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.under = 0
	if len(b.waiting) == 0 {
		b.emptyLocked()
	}
	return len(b.waiting) > 0 || b.unsaidLocked()
}

func (b *ReplyBox) drop() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := range b.waiting {
		releaseReply(&b.waiting[i])
	}
	b.waiting, b.ended = nil, true
	b.emptyLocked()
}

func (b *ReplyBox) emptyLocked() {
	if b.empty != nil {
		close(b.empty)
		b.empty = nil
	}
}
