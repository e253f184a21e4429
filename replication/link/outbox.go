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
	to     framer
	sender *Sender // to, if it is one
	pump   pump

	mu      sync.Mutex
	waiting []wire.Frame // each holds a reference to its Buf
	frames  int          // waiting or being sent
	bytes   int
	ended   bool // what is put now would never be sent

	// The owner's of pump:
	taken []wire.Frame // from waiting, as one slice
	rest  []wire.Frame // of taken: not yet in a message
	now   []wire.Frame // of taken: the message that is on its way
}

// framer makes messages of frames: a Sender.
type framer interface {
	begin(frames []wire.Frame) error
	output() output
}

// NewOutbox returns an empty Outbox for s. Its Run must be called once, and what a full socket does not take at once
// waits for it.
func NewOutbox(s *Sender, limits OutboxLimits) *Outbox {
	o := newOutbox(s, limits)
	o.sender = s
	return o
}

func newOutbox(to framer, limits OutboxLimits) *Outbox {
	def := func(v *int, d int) {
		if *v <= 0 {
			*v = d
		}
	}
	def(&limits.Bytes, 64<<20)
	def(&limits.Frames, 16384)
	def(&limits.MessageBytes, 1<<20)
	limits.MessageBytes = min(limits.MessageBytes, wire.MaxBatchPayload)
	o := &Outbox{limits: limits, to: to}
	o.pump = newPump(o)
	return o
}

// Put adds a frame and never waits. It takes its own reference to the frame's Buf. The frame goes with the next Flush.
// The error is ErrFull at a limit and ErrClosed after Run has returned; then the frame was not taken.
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
	return nil
}

// Flush sends what was put: at once and from here, if the socket has room and nobody else is sending. It never waits.
func (o *Outbox) Flush() { o.pump.flush() }

// Queued is the payload, in bytes, that was put and not yet sent.
func (o *Outbox) Queued() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.bytes
}

// Run sends what Flush could not, until ctx ends (nil) or sending fails (its error). What then waits is dropped, and
// its references are given back.
func (o *Outbox) Run(ctx context.Context) error { return o.pump.run(ctx) }

func (o *Outbox) out() output { return o.to.output() }

func (o *Outbox) load() (bool, error) {
	if len(o.rest) == 0 {
		o.mu.Lock()
		o.taken, o.waiting = o.waiting, o.taken[:0]
		o.mu.Unlock()
		o.rest = o.taken
	}
	if len(o.rest) == 0 {
		return false, nil
	}
	n := o.fill(o.rest)
	o.now, o.rest = o.rest[:n], o.rest[n:]
	return true, o.to.begin(o.now)
}

func (o *Outbox) slow() *Line {
	if o.sender == nil {
		return nil
	}
	return o.sender.Slow()
}

// fill is the number of frames that go into the next message; at least one. On a slow line messages are small: the peer
// answers each, and who hears nothing of it for long takes it for lost.
func (o *Outbox) fill(frames []wire.Frame) int {
	bytes, most := frames[0].PayloadLen(), min(o.limits.MessageBytes, o.slow().piece())
	n := 1
	for n < min(len(frames), wire.MaxFrames) && bytes+frames[n].PayloadLen() <= most {
		bytes += frames[n].PayloadLen()
		n++
	}
	return n
}

func (o *Outbox) sent() (more bool) {
	n, bytes := len(o.now), release(o.now)
	o.now = nil
	o.mu.Lock()
	defer o.mu.Unlock()
	o.frames -= n
	o.bytes -= bytes
	return len(o.rest) > 0 || len(o.waiting) > 0
}

func (o *Outbox) drop() {
	release(o.now)
	release(o.rest)
	o.now, o.rest = nil, nil
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
