package link

import (
	"context"
	"sync"

	"hacluster/replication/wire"
)

// maxWaitingReplies bounds a ReplyBox, besides its one acknowledgement. A primary that does not read its replies has
// no claim to more; 1024 digest replies of the largest range are 64 MiB.
const maxWaitingReplies = 1024

// ReplyBox collects a standby's replies and sends all that wait as one message. Acknowledgements are prefixes, so
// only the newest waits.
type ReplyBox struct {
	wake chan struct{} // sent to by Ack and Put, received by Run; room for one: a reminder, not a count

	mu      sync.Mutex
	ack     uint64 // newest
	sent    uint64 // last one taken to be sent
	waiting []wire.Reply
	ended   bool // Run has returned
}

// NewReplyBox returns an empty ReplyBox. Its Run must be called once, and replies put before wait for it.
func NewReplyBox() *ReplyBox { return &ReplyBox{wake: make(chan struct{}, 1)} }

// Ack says that all frames up to seq are written. It never waits; a seq below an earlier one says nothing new.
func (b *ReplyBox) Ack(seq uint64) {
	b.mu.Lock()
	b.ack = max(b.ack, seq)
	b.mu.Unlock()
	b.remind()
}

// Put adds another reply and never waits. The error is ErrFull at the limit and ErrClosed after Run has returned.
func (b *ReplyBox) Put(r wire.Reply) error {
	if r.Kind == wire.Ack {
		b.Ack(r.Seq)
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ended {
		return ErrClosed
	}
	if len(b.waiting) == maxWaitingReplies {
		return ErrFull
	}
	b.waiting = append(b.waiting, r)
	b.remind()
	return nil
}

func (b *ReplyBox) remind() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// Run sends what is put, with send, until ctx ends (nil) or send fails (its error).
func (b *ReplyBox) Run(ctx context.Context, send func(...wire.Reply) error) error {
	defer b.end()
	var batch []wire.Reply
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-b.wake:
		}
		for batch = b.take(batch); len(batch) > 0; batch = b.take(batch) {
			if ctx.Err() != nil {
				return nil
			}
			if err := send(batch...); err != nil {
				return err
			}
		}
	}
}

// take moves what fits into one message to batch, the acknowledgement first.
func (b *ReplyBox) take(batch []wire.Reply) []wire.Reply {
	b.mu.Lock()
	defer b.mu.Unlock()
	clear(batch)
	batch = batch[:0]
	if b.ack > b.sent {
		b.sent = b.ack
		batch = append(batch, wire.Reply{Kind: wire.Ack, Seq: b.ack})
	}
	n, blobs := 0, 0
	for n < len(b.waiting) && len(batch)+n < wire.MaxFrames {
		r := &b.waiting[n]
		blobs += len(r.Digests) + min(len(r.Text), wire.MaxText)
		if blobs > wire.MaxBlobs {
			break
		}
		n++
	}
	batch = append(batch, b.waiting[:n]...)
	rest := copy(b.waiting, b.waiting[n:])
	clear(b.waiting[rest:])
	b.waiting = b.waiting[:rest]
	return batch
}

func (b *ReplyBox) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.waiting, b.ended = nil, true
}
