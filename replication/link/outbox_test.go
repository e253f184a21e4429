package link

import (
	"context"
	"errors"
	"sync"
	"testing"

	"hacluster/blockdev"
	"hacluster/replication/wire"
)

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
	o := NewOutbox(OutboxLimits{})
	sizes, proceed := make(chan int), make(chan struct{})
	stop := running(t, func(ctx context.Context) error {
		return o.Run(ctx, func(fs []wire.Frame) error {
			sizes <- len(fs)
			<-proceed
			return nil
		})
	})
	put(t, o, flushes(1, 1)...)
	if n := receive(t, "the first message", sizes); n != 1 {
		t.Errorf("first message has %d frames, want 1", n)
	}
	put(t, o, flushes(2, 301)...)
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

func TestOutboxMessagesStayWithinTheirBytes(t *testing.T) {
	const half = 512 << 10
	o := NewOutbox(OutboxLimits{})
	b := blockdev.NewBuf(half)
	big := blockdev.NewBuf(8 << 20)
	frame := func(seq uint64, b *blockdev.Buf) wire.Frame {
		return wire.Frame{Kind: wire.Write, Seq: seq, Range: blockdev.Range{Len: int64(len(b.Bytes()))}, Buf: b}
	}
	put(t, o, frame(1, b), frame(2, b), frame(3, b), frame(4, big), frame(5, b))
	var got []int
	ctx, cancel := context.WithCancel(t.Context())
	if err := o.Run(ctx, func(fs []wire.Frame) error {
		got = append(got, len(fs))
		if fs[len(fs)-1].Seq == 5 {
			cancel()
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
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
		o := NewOutbox(c.limits)
		put(t, o, c.frames...)
		if err := o.Put(f); !errors.Is(err, ErrFull) {
			t.Errorf("%s: %v, want %v", name, err, ErrFull)
		}
		failure := errors.New("no route")
		if err := o.Run(t.Context(), func([]wire.Frame) error { return failure }); err != failure {
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
	if err := NewOutbox(OutboxLimits{Bytes: 100}).Put(f); err != nil {
		t.Errorf("large frame into an empty box: %v", err)
	}
	b.Free()
}

func TestOutboxHasRoomAgainForWhatWasSent(t *testing.T) {
	o := NewOutbox(OutboxLimits{Frames: 3, MessageBytes: 1})
	b := blockdev.NewBuf(4096)
	f := wire.Frame{Kind: wire.Write, Seq: 1, Range: blockdev.Range{Len: 4096}, Buf: b}
	put(t, o, f, f, f)
	messages := 0
	ctx, cancel := context.WithCancel(t.Context())
	if err := o.Run(ctx, func([]wire.Frame) error {
		if messages++; messages < 2 {
			return nil
		}
		cancel()
		put(t, o, f) // the first one has left
		if err := o.Put(f); !errors.Is(err, ErrFull) {
			t.Errorf("while the second is being sent: %v, want %v", err, ErrFull)
		}
		return nil
	}); err != nil || refs(b) != 1 {
		t.Errorf("Run: %v, %d references are left behind", err, refs(b)-1)
	}
}

func TestOutboxRunEndsWithItsContextAndDropsWhatWaits(t *testing.T) {
	o := NewOutbox(OutboxLimits{})
	b := blockdev.NewBuf(4096)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	put(t, o, wire.Frame{Kind: wire.Write, Seq: 1, Range: blockdev.Range{Len: 4096}, Buf: b})
	if err := o.Run(ctx, func([]wire.Frame) error { return errors.New("sent after the end") }); err != nil {
		t.Error(err)
	}
	if refs(b) != 1 {
		t.Errorf("%d references are left behind", refs(b)-1)
	}
}

func TestReplyBoxSendsOnlyTheNewestAck(t *testing.T) {
	b := NewReplyBox()
	got, proceed := make(chan []wire.Reply), make(chan struct{})
	stop := running(t, func(ctx context.Context) error {
		return b.Run(ctx, func(rs ...wire.Reply) error {
			got <- append([]wire.Reply(nil), rs...)
			<-proceed
			return nil
		})
	})
	b.Ack(1)
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
	proceed <- struct{}{}
	if rs := receive(t, "the next acks", got); len(rs) != 2 || rs[0].Seq != 100 || rs[1].ID != 5 {
		t.Errorf("second message: %v", brief(rs))
	}
	proceed <- struct{}{}
	b.Ack(100) // nothing new: not sent again
	b.Ack(101)
	if rs := receive(t, "the last ack", got); len(rs) != 1 || rs[0].Seq != 101 {
		t.Errorf("third message: %v", brief(rs))
	}
	proceed <- struct{}{}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

func TestReplyBoxSplitsWhatDoesNotFitAndRefusesBeyondItsLimit(t *testing.T) {
	b := NewReplyBox()
	digests := wire.Reply{Kind: wire.DigestReply, Range: blockdev.Range{Len: wire.MaxDigestRange}, Digests: make([]byte, wire.MaxDigestRange/256)}
	for range maxWaitingReplies {
		if err := b.Put(digests); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Put(digests); !errors.Is(err, ErrFull) {
		t.Errorf("one more: %v, want %v", err, ErrFull)
	}
	n := 0
	ctx, cancel := context.WithCancel(t.Context())
	if err := b.Run(ctx, func(rs ...wire.Reply) error {
		if n += len(rs); n == maxWaitingReplies {
			cancel()
		}
		_, err := wire.AppendReplies(nil, wire.Replies{Items: rs})
		return err
	}); err != nil || n != maxWaitingReplies {
		t.Errorf("%d replies sent: %v", n, err)
	}
	if err := b.Put(digests); !errors.Is(err, ErrClosed) {
		t.Errorf("after Run: %v, want %v", err, ErrClosed)
	}
}
