package link

import (
	"context"
	"sync"

	"hacluster/replication/wire"
)

// OutboxLimits bound an Outbox; zero means the default.
type OutboxLimits struct {
	// Bytes of payload that wait or are being sent. Default 64 MiB.
	Bytes int
	// Frames that wait or are being sent. Default 16384.
	Frames int
	// MessageBytes of payload are put into one message, or a single frame of any size. Default 1 MiB: enough to hide
	// the cost of a message, little enough that a small write does not wait long behind it.
	MessageBytes int
}

// Outbox collects frames and sends all that wait as one message: a frame alone goes at once, and many share the cost
// of sending. Frames are sent in the order in which they were put.
type Outbox struct {
	limits OutboxLimits
	wake   chan struct{} // sent to by Put, received by Run; room for one: a reminder, not a count

	mu      sync.Mutex
	waiting []wire.Frame // each holds a reference to its Buf
	frames  int          // waiting or being sent
	bytes   int
	ended   bool // Run has returned
}

// NewOutbox returns an empty Outbox. Its Run must be called once, and frames put before wait for it.
func NewOutbox(limits OutboxLimits) *Outbox {
	def := func(v *int, d int) {
		if *v <= 0 {
			*v = d
		}
	}
	def(&limits.Bytes, 64<<20)
	def(&limits.Frames, 16384)
	def(&limits.MessageBytes, 1<<20)
	limits.MessageBytes = min(limits.MessageBytes, wire.MaxBatchPayload)
	return &Outbox{limits: limits, wake: make(chan struct{}, 1)}
}

// Put adds a frame and never waits. It takes its own reference to the frame's Buf. The error is ErrFull at a limit
// and ErrClosed after Run has returned; then the frame was not taken.
func (o *Outbox) Put(f wire.Frame) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := f.PayloadLen()
	if o.ended {
		return ErrClosed
	}
	if o.frames == o.limits.Frames || (o.frames > 0 && o.bytes+n > o.limits.Bytes) {
		return ErrFull
	}
	if f.Buf != nil {
		f.Buf.Ref()
	}
	o.waiting = append(o.waiting, f)
	o.frames++
	o.bytes += n
	select {
	case o.wake <- struct{}{}:
	default:
	}
	return nil
}

// Queued is the payload, in bytes, that was put and not yet sent.
func (o *Outbox) Queued() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.bytes
}

// Run sends what is put, with send, until ctx ends (nil) or send fails (its error). What then waits is dropped, and
// its references are given back.
func (o *Outbox) Run(ctx context.Context, send func([]wire.Frame) error) error {
	var taken, rest []wire.Frame // rest is what of taken is not sent yet
	defer func() { o.end(rest) }()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-o.wake:
		}
		taken = o.take(taken)
		for rest = taken; len(rest) > 0; {
			if ctx.Err() != nil {
				return nil
			}
			n := o.fill(rest)
			if err := send(rest[:n]); err != nil {
				return err
			}
			o.sent(rest[:n])
			rest = rest[n:]
		}
	}
}

// take swaps what waits for an empty slice.
func (o *Outbox) take(empty []wire.Frame) []wire.Frame {
	o.mu.Lock()
	defer o.mu.Unlock()
	taken := o.waiting
	o.waiting = empty[:0]
	return taken
}

// fill is the number of frames that go into the next message; at least one.
func (o *Outbox) fill(frames []wire.Frame) int {
	bytes := frames[0].PayloadLen()
	n := 1
	for n < min(len(frames), wire.MaxFrames) && bytes+frames[n].PayloadLen() <= o.limits.MessageBytes {
		bytes += frames[n].PayloadLen()
		n++
	}
	return n
}

func (o *Outbox) sent(frames []wire.Frame) {
	bytes := release(frames)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.frames -= len(frames)
	o.bytes -= bytes
}

func (o *Outbox) end(unsent []wire.Frame) {
	release(unsent)
	o.mu.Lock()
	defer o.mu.Unlock()
	release(o.waiting)
	o.waiting, o.frames, o.bytes, o.ended = nil, 0, 0, true
}

// release gives the references back and returns how many payload bytes that were.
func release(frames []wire.Frame) int {
	bytes := 0
	for i := range frames {
		bytes += frames[i].PayloadLen()
		if frames[i].Buf != nil {
			frames[i].Buf.Free()
		}
	}
	clear(frames)
	return bytes
}
