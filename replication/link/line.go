package link

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"hacluster/replication/shape"
	"hacluster/replication/wire"
)

// Line is the way from this node to one other, as all streams to that node share it: how fast they may send together, and
// what they have sent. It may be used by any number of goroutines, and waits for nothing. A nil Line has no limit.
type Line struct {
	base   time.Time
	rate   atomic.Int64  // in force, in bytes a second; 0: no limit
	how    atomic.Uint32 // shape.Compress
	plain  atomic.Uint64 // bytes of messages, as they are
	sent   atomic.Uint64 // and as they were sent
	waited atomic.Int64  // ns, of all senders together

	mu      sync.Mutex
	shape   shape.Line
	changed chan struct{} // closed and replaced when another rate is in force: who waits sends at once
}

// NewLine makes one without a limit.
func NewLine() *Line { return &Line{base: time.Now(), changed: make(chan struct{})} }

// LineFigures are what a Line tells.
type LineFigures struct {
	Rate   int64  // in force, in bytes a second; 0: no limit
	Plain  uint64 // bytes of messages, as they are
	Sent   uint64 // and as they were sent, some of them compressed
	Waited time.Duration
}

// Figures are for status and metrics.
func (l *Line) Figures() LineFigures {
	l.mu.Lock()
	defer l.mu.Unlock()
	return LineFigures{Rate: l.shape.Rate(), Plain: l.plain.Load(), Sent: l.sent.Load(), Waited: time.Duration(l.waited.Load())}
}

// Set changes the settings at once, also for streams that are up; at is the moment of the week, by which the calendar goes.
// The caller repeats it each minute.
func (l *Line) Set(s shape.Settings, at shape.Minute) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.how.Store(uint32(s.Compress))
	was := l.shape.Rate()
	l.shape.Set(time.Since(l.base), s, at)
	if l.shape.Rate() != was {
		l.rate.Store(l.shape.Rate())
		close(l.changed)
		l.changed = make(chan struct{})
	}
}

// compress is how messages are compressed.
func (l *Line) compress() shape.Compress { return shape.Compress(l.how.Load()) }

// RestOfResync is how long no resync may take a further chunk, and how large one may be.
func (l *Line) RestOfResync() (rest time.Duration, most int64) {
	if l == nil || l.rate.Load() == 0 {
		return 0, wire.MaxWrite
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.shape.Rest(time.Since(l.base)), int64(l.shape.Piece())
}

// Copied counts what a resync is about to send, or with less than 0 does not send after all.
func (l *Line) Copied(n int64) {
	if l == nil || l.rate.Load() == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.shape.Copied(n)
}

// piece is how much may be sent at a time.
func (l *Line) piece() int {
	if l == nil || l.rate.Load() == 0 {
		return wire.MaxWrite
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.shape.Piece()
}

// takeFree takes n bytes if nobody has to wait for them.
func (l *Line) takeFree(n int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Since(l.base)
	if n > l.shape.Piece() || !l.shape.Free(now) {
		return false
	}
	l.shape.Send(now, n)
	return true
}

// take takes up to n bytes, and says how long they wait, or until changed is closed.
func (l *Line) take(n int) (taken int, wait time.Duration, changed <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	taken = min(n, l.shape.Piece())
	return taken, l.shape.Send(time.Since(l.base), taken), l.changed
}

// owed is how long it takes until nothing is owed, or until changed is closed.
func (l *Line) owed() (wait time.Duration, changed <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.shape.Owed(time.Since(l.base)), l.changed
}

// unsent gives back what was taken and is not sent.
func (l *Line) unsent(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.shape.Unsent(n)
}

// pacedOutput sends messages at the pace of a line: in pieces, and between them it waits, in the writer goroutine only.
// Without a limit it hands them on as they are.
type pacedOutput struct {
	to     output
	line   *Line
	packer *packer         // told when a message is through; nil: the peer knows no compression
	gone   <-chan struct{} // closed when the stream is: nothing waits any more

	pieces [][]byte // not handed to to yet
	left   int      // bytes of them
	now    [][]byte // handed to it
	begun  bool     // to has something to send
	timer  *time.Timer
	plain  int           // bytes of the message, as it is
	size   int           // and as it is sent
	took   time.Duration // to send it so far
}

func (o *pacedOutput) begin(pieces [][]byte) {
	n := 0
	for _, p := range pieces {
		n += len(p)
	}
	o.size, o.took = n, 0
	if o.line.rate.Load() != 0 {
		o.pieces, o.left, o.begun = pieces, n, false
		return
	}
	o.pieces, o.left, o.begun = nil, 0, true
	o.to.begin(pieces)
}

// canTry: what is compressed is left to the writer goroutine. Who puts a write has other things to do.
func (o *pacedOutput) canTry() bool {
	return o.to.canTry() && (o.packer == nil || !o.packer.on.Load())
}

func (o *pacedOutput) try() (done bool, err error) {
	began := o.start()
	done, err = o.tryOnce()
	o.stop(began, done)
	return done, err
}

func (o *pacedOutput) finish() error {
	began := o.start()
	err := o.finishAll()
	o.stop(began, err == nil)
	return err
}

// start and stop measure what a message takes to be sent, where that is asked for.
func (o *pacedOutput) start() (began time.Time) {
	if o.packer != nil && o.line.compress() == shape.Auto {
		began = time.Now()
	}
	return began
}

func (o *pacedOutput) stop(began time.Time, done bool) {
	if done {
		o.line.plain.Add(uint64(o.plain))
		o.line.sent.Add(uint64(o.size))
	}
	if o.packer == nil {
		return
	}
	if !began.IsZero() {
		o.took += time.Since(began)
	}
	if done {
		o.packer.through(o.size, o.took)
	}
}

func (o *pacedOutput) tryOnce() (done bool, err error) {
	if o.left > 0 {
		if !o.line.takeFree(o.left) {
			return false, nil
		}
		o.next(o.left)
	}
	return o.to.try()
}

func (o *pacedOutput) finishAll() error {
	for {
		if o.begun {
			if err := o.to.finish(); err != nil {
				return err
			}
			o.begun = false
		}
		if o.left == 0 {
			return nil
		}
		n, wait, changed := o.line.take(o.left)
		for wait > 0 {
			turn, closed := o.wait(wait, changed)
			if closed {
				o.line.unsent(n)
				return net.ErrClosed
			}
			if wait = 0; !turn { // at another rate it takes more or less
				wait, changed = o.line.owed()
			}
		}
		o.next(n)
	}
}

// next hands the next n bytes on.
func (o *pacedOutput) next(n int) {
	o.left -= n
	o.now = o.now[:0]
	for n > 0 {
		p := o.pieces[0]
		if n < len(p) {
			o.now = append(o.now, p[:n])
			o.pieces[0] = p[n:]
			break
		}
		o.now = append(o.now, p)
		o.pieces = o.pieces[1:]
		n -= len(p)
	}
	o.begun = true
	o.to.begin(o.now)
}

// wait waits until it is this stream's turn, or the rate has changed, or the stream is closed.
func (o *pacedOutput) wait(d time.Duration, changed <-chan struct{}) (turn, closed bool) {
	began := time.Now()
	if o.timer == nil {
		o.timer = time.NewTimer(d)
	} else {
		o.timer.Reset(d)
	}
	defer func() {
		o.timer.Stop()
		o.line.waited.Add(int64(time.Since(began)))
	}()
	select {
	case <-o.timer.C:
		return true, false
	case <-changed:
		return false, false
	case <-o.gone:
		return false, true
	}
}

// DialOn is Dial for a stream that shares a line with others; nil: with none.
func DialOn(ctx context.Context, conn net.Conn, hello wire.Hello, line *Line) (*Sender, wire.HelloReply, error) {
	s, reply, err := Dial(ctx, conn, hello)
	if err == nil && line != nil {
		s.line = line
		if s.version >= wire.VersionPacked {
			s.packer = &packer{line: line}
		}
		s.paced = &pacedOutput{to: s.to, line: line, packer: s.packer, gone: s.gone}
		s.to = s.paced
	}
	return s, reply, err
}

// SetBeyond tells of the line on which the stream is carried on by the node at the other end (Relay). That one keeps to its rate;
// here messages are as small as it wants them, and a resync leaves what is reserved. It comes before NewOutbox.
func (s *Sender) SetBeyond(l *Line) { s.beyond = l }

// Slow is the line whose rate counts for how much is put into a message, and for a resync: the one beyond, if that has any, or what
// the stream shares with others; nil: there is none.
func (s *Sender) Slow() *Line {
	if s.beyond != nil && s.beyond.rate.Load() != 0 {
		return s.beyond
	}
	return s.line
}
