package link

import (
	"context"
	"errors"
	"sync"
	"testing"

	"hacluster/blockdev"
	"hacluster/replication/wire"
)

// line is what boxes send on, in the place of a stream. send gets each message whole.
type line struct {
	tries  bool            // messages can be tried
	full   func() bool     // a message that is tried does not go; nil: it does
	send   func(int) error // how many frames or replies
	frames []wire.Frame
	items  []wire.Reply
	n      int
}

func (l *line) output() output { return l }
func (l *line) begin([][]byte) {}
func (l *line) canTry() bool   { return l.tries }
func (l *line) finish() error  { return l.send(l.n) }
func (l *line) try() (bool, error) {
	if l.full != nil && l.full() {
		return false, nil
	}
	return true, l.send(l.n)
}

// frameLine and replyLine are the two kinds of line.
type frameLine struct{ *line }

func (l frameLine) begin(fs []wire.Frame) error { l.frames, l.n = fs, len(fs); return nil }

type replyLine struct{ *line }

func (l replyLine) begin(rs []wire.Reply) error {
	l.items, l.n = append([]wire.Reply(nil), rs...), len(rs)
	return nil
}

// running starts run and returns what ends it and waits for it.
func running(t *testing.T, run func(context.Context) error) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	return sync.OnceValue(func() error {
		cancel()
		return receive(t, "Run", done)
	})
}

func flushes(from, to uint64) (fs []wire.Frame) {
	for seq := from; seq <= to; seq++ {
		fs = append(fs, wire.Frame{Kind: wire.Flush, Seq: seq})
	}
	return fs
}

func put(t *testing.T, o *Outbox, frames ...wire.Frame) {
	t.Helper()
	for _, f := range frames {
		if err := o.Put(f); err != nil {
			t.Fatal(err)
		}
	}
}

// A frame alone goes at once; what comes while a message is being sent goes together in the next.
func TestOutboxSendsTogetherWhatWaited(t *testing.T) {
	sizes, proceed := make(chan int), make(chan struct{})
	o := newOutbox(frameLine{&line{send: func(n int) error {
		sizes <- n
		<-proceed
		return nil
	}}}, OutboxLimits{})
	stop := running(t, o.Run)
	put(t, o, flushes(1, 1)...)
	o.Flush()
	if n := receive(t, "the first message", sizes); n != 1 {
		t.Errorf("first message has %d frames, want 1", n)
	}
	put(t, o, flushes(2, 301)...)
	o.Flush()
	for _, want := range []int{wire.MaxFrames, 300 - wire.MaxFrames} {
		proceed <- struct{}{}
		if n := receive(t, "the next message", sizes); n != want {
			t.Errorf("next message has %d frames, want %d", n, want)
		}
	}
	proceed <- struct{}{}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// Who flushes sends; what others put meanwhile goes along, for a while; then it is the writer goroutine's.
func TestFlushSendsItselfAndNotForOthersForEver(t *testing.T) {
	var o *Outbox
	var sizes []int
	more := 0
	l := &line{tries: true, send: func(n int) error {
		sizes = append(sizes, n)
		if more > 0 { // another one comes while this message is being sent
			more--
			put(t, o, flushes(1, 1)...)
			o.Flush()
		}
		return nil
	}}
	o = newOutbox(frameLine{l}, OutboxLimits{})
	put(t, o, flushes(1, 3)...)
	o.Flush()
	if !equal(sizes, []int{3}) || o.frames != 0 {
		t.Errorf("messages of %v frames before Run, %d are left", sizes, o.frames)
	}
	sizes, more = nil, 2*maxTurns
	put(t, o, flushes(1, 1)...)
	o.Flush()
	if len(sizes) != maxTurns || o.frames != 1 || o.pump.owner != handed {
		t.Errorf("%d messages were sent by one flush, %d frames are left, owner %d", len(sizes), o.frames, o.pump.owner)
	}
	ctx, cancel := context.WithCancel(t.Context())
	l.send = func(int) error { cancel(); return nil }
	if err := o.Run(ctx); err != nil || o.frames != 0 {
		t.Errorf("Run: %v, %d frames are left", err, o.frames)
	}
}

// What the socket does not take is finished by the writer goroutine, and nothing overtakes it.
func TestFullSocketLeavesTheMessageToTheWriter(t *testing.T) {
	b := blockdev.NewBuf(4096)
	f := wire.Frame{Kind: wire.Write, Seq: 1, Range: blockdev.Range{Len: 4096}, Buf: b}
	var sizes []int
	full := true
	ctx, cancel := context.WithCancel(t.Context())
	l := &line{tries: true, full: func() bool { return full }}
	o := newOutbox(frameLine{l}, OutboxLimits{})
	l.send = func(n int) error {
		if sizes = append(sizes, n); len(sizes) == 2 {
			cancel()
		}
		return nil
	}
	put(t, o, f)
	o.Flush()
	full = false
	put(t, o, f, f)
	o.Flush()
	if len(sizes) != 0 || refs(b) != 4 {
		t.Errorf("messages of %v frames went past the one that waits; %d references", sizes, refs(b))
	}
	if err := o.Run(ctx); err != nil || !equal(sizes, []int{1, 2}) || refs(b) != 1 {
		t.Errorf("Run: %v, messages of %v frames, %d references", err, sizes, refs(b))
	}
}

// An error that a direct sender meets ends Run, and everything is given back.
func TestErrorOfADirectSenderEndsRun(t *testing.T) {
	failure := errors.New("no route")
	b := blockdev.NewBuf(4096)
	o := newOutbox(frameLine{&line{tries: true, send: func(int) error { return failure }}}, OutboxLimits{})
	put(t, o, wire.Frame{Kind: wire.Write, Seq: 1, Range: blockdev.Range{Len: 4096}, Buf: b})
	o.Flush()
	if err := o.Run(t.Context()); err != failure || refs(b) != 1 {
		t.Errorf("Run: %v, want %v; %d references", err, failure, refs(b))
	}
	o.Flush() // after the end: nothing happens
}

// A direct sender that is in the middle of a message when Run ends clears away itself.
func TestRunEndsWhileADirectSenderSends(t *testing.T) {
	b := blockdev.NewBuf(4096)
	ctx, cancel := context.WithCancel(t.Context())
	var o *Outbox
	o = newOutbox(frameLine{&line{tries: true, send: func(int) error {
		cancel()
		err := o.Run(ctx)
		if refs(b) != 3 {
			t.Errorf("%d references while the message is being sent", refs(b))
		}
		return err
	}}}, OutboxLimits{MessageBytes: 1})
	f := wire.Frame{Kind: wire.Write, Seq: 1, Range: blockdev.Range{Len: 4096}, Buf: b}
	put(t, o, f, f)
	o.Flush()
	if err := o.Put(f); !errors.Is(err, ErrClosed) || refs(b) != 1 {
		t.Errorf("after the end: %v, %d references", err, refs(b))
	}
}

func TestOutboxMessagesStayWithinTheirBytes(t *testing.T) {
	const half = 512 << 10
	b := blockdev.NewBuf(half)
	big := blockdev.NewBuf(8 << 20)
	frame := func(seq uint64, b *blockdev.Buf) wire.Frame {
		return wire.Frame{Kind: wire.Write, Seq: seq, Range: blockdev.Range{Len: int64(len(b.Bytes()))}, Buf: b}
	}
	var got []int
	o := newOutbox(frameLine{&line{tries: true, send: func(n int) error {
		got = append(got, n)
		return nil
	}}}, OutboxLimits{})
	put(t, o, frame(1, b), frame(2, b), frame(3, b), frame(4, big), frame(5, b))
	o.Flush()
	if want := []int{2, 1, 1, 1}; !equal(got, want) {
		t.Errorf("messages of %v frames, want %v", got, want)
	}
	if o.Queued() != 0 || refs(b) != 1 || refs(big) != 1 {
		t.Errorf("%d bytes queued, %d and %d references left", o.Queued(), refs(b), refs(big))
	}
}

func equal(a, b []int) bool {
	for i := range a {
		if i >= len(b) || a[i] != b[i] {
			return false
		}
	}
	return len(a) == len(b)
}

func TestOutboxRefusesBeyondItsLimits(t *testing.T) {
	b := blockdev.NewBuf(4096)
	f := wire.Frame{Kind: wire.Write, Seq: 1, Range: blockdev.Range{Len: 4096}, Buf: b}
	for name, c := range map[string]struct {
		limits OutboxLimits
		frames []wire.Frame
	}{
		"bytes":  {OutboxLimits{Bytes: 10000}, []wire.Frame{f, f}},
		"frames": {OutboxLimits{Frames: 3}, []wire.Frame{f, f, f}},
	} {
		failure := errors.New("no route")
		o := newOutbox(frameLine{&line{send: func(int) error { return failure }}}, c.limits)
		put(t, o, c.frames...)
		if err := o.Put(f); !errors.Is(err, ErrFull) {
			t.Errorf("%s: %v, want %v", name, err, ErrFull)
		}
		o.Flush()
		if err := o.Run(t.Context()); err != failure {
			t.Errorf("%s: Run: %v, want %v", name, err, failure)
		}
		if err := o.Put(f); !errors.Is(err, ErrClosed) {
			t.Errorf("%s: after Run: %v, want %v", name, err, ErrClosed)
		}
		if refs(b) != 1 || o.Queued() != 0 {
			t.Errorf("%s: %d references and %d bytes are left behind", name, refs(b), o.Queued())
		}
	}
	// One frame over the limit is not refused for ever: it goes when nothing else waits.
	if err := newOutbox(frameLine{&line{}}, OutboxLimits{Bytes: 100}).Put(f); err != nil {
		t.Errorf("large frame into an empty box: %v", err)
	}
	b.Free()
}

func TestOutboxHasRoomAgainForWhatWasSent(t *testing.T) {
	b := blockdev.NewBuf(4096)
	f := wire.Frame{Kind: wire.Write, Seq: 1, Range: blockdev.Range{Len: 4096}, Buf: b}
	var o *Outbox
	messages := 0
	ctx, cancel := context.WithCancel(t.Context())
	o = newOutbox(frameLine{&line{send: func(int) error {
		if messages++; messages < 2 {
			return nil
		}
		cancel()
		put(t, o, f) // the first one has left
		if err := o.Put(f); !errors.Is(err, ErrFull) {
			t.Errorf("while the second is being sent: %v, want %v", err, ErrFull)
		}
		return nil
	}}}, OutboxLimits{Frames: 3, MessageBytes: 1})
	put(t, o, f, f, f)
	o.Flush()
	if err := o.Run(ctx); err != nil || refs(b) != 1 {
		t.Errorf("Run: %v, %d references are left behind", err, refs(b)-1)
	}
}

func TestOutboxRunEndsWithItsContextAndDropsWhatWaits(t *testing.T) {
	o := newOutbox(frameLine{&line{send: func(int) error { return errors.New("sent after the end") }}}, OutboxLimits{})
	b := blockdev.NewBuf(4096)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	put(t, o, wire.Frame{Kind: wire.Write, Seq: 1, Range: blockdev.Range{Len: 4096}, Buf: b})
	o.Flush()
	if err := o.Run(ctx); err != nil {
		t.Error(err)
	}
	if refs(b) != 1 {
		t.Errorf("%d references are left behind", refs(b)-1)
	}
}

func TestReplyBoxSendsOnlyTheNewestAck(t *testing.T) {
	got, proceed := make(chan []wire.Reply), make(chan struct{})
	l := &line{}
	l.send = func(int) error {
		got <- l.items
		<-proceed
		return nil
	}
	b := newReplyBox(replyLine{l})
	stop := running(t, b.Run)
	b.Ack(1)
	b.Flush()
	if rs := receive(t, "the first ack", got); len(rs) != 1 || rs[0].Seq != 1 {
		t.Errorf("first message: %v", brief(rs))
	}
	for seq := uint64(2); seq <= 100; seq++ {
		b.Ack(seq)
	}
	b.Ack(50)
	if err := b.Put(wire.Reply{Kind: wire.Pong, ID: 5}); err != nil {
		t.Fatal(err)
	}
	b.Flush()
	proceed <- struct{}{}
	if rs := receive(t, "the next acks", got); len(rs) != 2 || rs[0].Seq != 100 || rs[1].ID != 5 {
		t.Errorf("second message: %v", brief(rs))
	}
	proceed <- struct{}{}
	b.Drain(t.Context())
	b.Ack(100) // nothing new: not sent again
	b.Flush()
	b.Ack(101)
	b.Flush()
	if rs := receive(t, "the last ack", got); len(rs) != 1 || rs[0].Seq != 101 {
		t.Errorf("third message: %v", brief(rs))
	}
	proceed <- struct{}{}
	b.Drain(t.Context())
	b.Received(101) // an ack said as much
	b.Flush()
	b.Received(103)
	b.Received(102)
	b.Flush()
	if rs := receive(t, "what was received", got); len(rs) != 1 || rs[0].Kind != wire.Received || rs[0].Seq != 103 {
		t.Errorf("fourth message: %v", brief(rs))
	}
	b.Received(105)
	b.Ack(104)
	proceed <- struct{}{}
	if rs := receive(t, "both", got); len(rs) != 2 || rs[0].Kind != wire.Ack || rs[0].Seq != 104 || rs[1].Kind != wire.Received || rs[1].Seq != 105 {
		t.Errorf("fifth message: %v", brief(rs))
	}
	b.Received(105)
	b.Ack(105)
	proceed <- struct{}{}
	if rs := receive(t, "the ack of what was received", got); len(rs) != 1 || rs[0].Kind != wire.Ack || rs[0].Seq != 105 {
		t.Errorf("sixth message: %v", brief(rs))
	}
	proceed <- struct{}{}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

func TestReplyBoxSplitsWhatDoesNotFitAndRefusesBeyondItsLimit(t *testing.T) {
	l, n := &line{}, 0
	ctx, cancel := context.WithCancel(t.Context())
	l.send = func(k int) error {
		if n += k; n == maxWaitingReplies {
			cancel()
		}
		_, err := wire.AppendReplies(nil, wire.Replies{Items: l.items})
		return err
	}
	b := newReplyBox(replyLine{l})
	digests := wire.Reply{Kind: wire.DigestReply, Range: blockdev.Range{Len: wire.MaxDigestRange}, Digests: make([]byte, wire.MaxDigestRange/256)}
	for range maxWaitingReplies {
		if err := b.Put(digests); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Put(digests); !errors.Is(err, ErrFull) {
		t.Errorf("one more: %v, want %v", err, ErrFull)
	}
	b.Flush()
	if err := b.Run(ctx); err != nil || n != maxWaitingReplies {
		t.Errorf("%d replies sent: %v", n, err)
	}
	if err := b.Put(digests); !errors.Is(err, ErrClosed) {
		t.Errorf("after Run: %v, want %v", err, ErrClosed)
	}
}

// What a reply holds is given back when it is on its way, and when it never will be.
func TestReplyBoxGivesBackWhatRepliesHold(t *testing.T) {
	l := &line{tries: true, send: func(int) error { return nil }}
	b := newReplyBox(replyLine{l})
	held := 0
	put := func() error {
		held++
		buf := blockdev.NewBuf(4096)
		return b.Put(wire.Reply{Kind: wire.ReadReply, Range: blockdev.Range{Len: 4096}, Data: buf.Bytes(), Buf: buf, Done: func() { held-- }})
	}
	for range maxWaitingReplies {
		if err := put(); err != nil {
			t.Fatal(err)
		}
	}
	if err := put(); !errors.Is(err, ErrFull) || held != maxWaitingReplies {
		t.Errorf("one more: %v, and %d are held", err, held)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := b.Run(ctx); err != nil || held != 0 {
		t.Errorf("%v, and %d are held at the end", err, held)
	}
	if err := put(); !errors.Is(err, ErrClosed) || held != 0 {
		t.Errorf("after the end: %v, and %d are held", err, held)
	}
}

// Drain returns when a refusal is on its way, and does not wait for a stream that has ended.
func TestDrainWaitsForWhatWasPut(t *testing.T) {
	l, full := &line{tries: true, send: func(int) error { return nil }}, true
	l.full = func() bool { return full }
	b := newReplyBox(replyLine{l})
	if err := b.Put(wire.Reply{Kind: wire.Nack, Seq: 1, Code: wire.WriteFailed}); err != nil {
		t.Fatal(err)
	}
	b.Flush()
	drained := make(chan struct{})
	go func() { b.Drain(context.Background()); close(drained) }()
	eventually(t, "Drain to wait", func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		return b.empty != nil
	})
	select {
	case <-drained:
		t.Error("drained while the message waits for the socket")
	default:
	}
	stop := running(t, b.Run)
	receive(t, "Drain", drained)
	if err := stop(); err != nil {
		t.Error(err)
	}
	if err := b.Put(wire.Reply{Kind: wire.Pong}); !errors.Is(err, ErrClosed) {
		t.Errorf("after Run: %v", err)
	}
	b.Drain(context.Background())
}
