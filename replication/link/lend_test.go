package link

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"sync"
	"testing"

	"hacluster/blockdev"
	"hacluster/replication/shape"
	"hacluster/replication/wire"
)

// cascade is a primary with a stream to a near standby, and one to a far standby that the near one carries on.
type cascade struct {
	t            *testing.T
	near, far    *Sender
	line, beyond *Line // of the far stream, as far as the near standby and from there on
	lender       *Lender
	feed         *Feed
	ended        chan error

	mu  sync.Mutex
	got map[uint64][]byte // by place: what the far standby has
}

// newCascade: the far standby acknowledges when ack lets it.
func newCascade(t *testing.T, ack chan struct{}) *cascade {
	c := &cascade{t: t, lender: new(Lender), feed: NewFeed(), line: NewLine(), beyond: NewLine(), got: map[uint64][]byte{}}
	t.Cleanup(c.feed.Close)
	keep := serve(t, func(ctx context.Context, s *Session) error {
		if err := accept(s); err != nil {
			return err
		}
		for {
			b, err := s.Recv()
			if err != nil {
				return err
			}
			for i := range b.Frames {
				if f := &b.Frames[i]; f.Kind == wire.Write && f.ID != 0 {
					c.feed.Keep(b, f)
				}
			}
			last := b.Frames[len(b.Frames)-1].Seq
			b.Free()
			if err := s.Send(wire.Reply{Kind: wire.Ack, Seq: last}); err != nil {
				return err
			}
		}
	})
	end := serve(t, apply(func(f *wire.Frame) {
		if ack != nil {
			<-ack
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.got[f.ID] = bytes.Join(f.Payload, nil)
	}))
	c.feed.Begin()
	by, ended := relayWith(t, end, c.beyond, c.feed)
	c.ended = ended
	c.near = dial(t, keep)
	c.far = dialOn(t, by, c.line)
	c.far.LendFrom(c.lender)
	return c
}

// placed is the write with that place, of so many bytes.
func placed(place uint64, b *blockdev.Buf) wire.Frame {
	f := writeFrame(place, b)
	f.ID = place
	return f
}

func (c *cascade) toNear(f wire.Frame) {
	c.t.Helper()
	c.lender.Put(f.ID, f.PayloadLen())
	if err := c.near.Send([]wire.Frame{f}); err != nil {
		c.t.Fatal(err)
	}
	awaitAck(c.t, c.near, f.Seq)
}

func (c *cascade) toFar(f ...wire.Frame) {
	c.t.Helper()
	if err := c.far.Send(f); err != nil {
		c.t.Fatal(err)
	}
}

func (c *cascade) has(place uint64, b *blockdev.Buf) {
	c.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if !bytes.Equal(c.got[place], b.Bytes()) {
		c.t.Fatalf("the far standby has %d bytes for place %d, which are not the %d that were written", len(c.got[place]), place, len(b.Bytes()))
	}
}

// What the near standby has been sent is not sent to it again, whichever of the two streams is ahead.
func TestPayloadsAreLent(t *testing.T) {
	c := newCascade(t, nil)
	b0, b1, b2, b3 := fill(4096, 1), fill(4096, 2), fill(1<<20, 3), fill(60<<10, 4)
	c.toNear(placed(1, b0))
	c.toFar(placed(1, b0))
	awaitAck(t, c.far, 1)
	c.has(1, b0)
	total := 4096
	c.lender.Put(2, 4096) // put, and not there yet
	c.lender.Put(3, 1<<20)
	c.lender.Put(4, 60<<10)
	c.toFar(placed(2, b1), placed(3, b2))
	c.toFar(placed(4, b3))
	for place, b := range []*blockdev.Buf{2: b1, 3: b2, 4: b3} {
		if b != nil {
			if err := c.near.Send([]wire.Frame{placed(uint64(place), b)}); err != nil {
				t.Fatal(err)
			}
			awaitAck(t, c.near, uint64(place))
			total += len(b.Bytes())
		}
	}
	awaitAck(t, c.far, 4)
	c.has(2, b1)
	c.has(3, b2)
	c.has(4, b3)
	eventually(t, "the messages to be counted", func() bool { return c.line.Figures().Plain >= uint64(total) })
	if f := c.line.Figures(); f.Sent > 2048 {
		t.Fatalf("%d bytes of payload were all lent, and %+v", total, f)
	}
	c.feed.Close()
	for _, b := range []*blockdev.Buf{b0, b1, b2, b3} {
		mustReturn(t, b)
		b.Free()
	}
}

// What the near standby was not sent, or long ago, goes with its payload.
func TestOnlyWhatWasPutOfLateIsLent(t *testing.T) {
	c := newCascade(t, nil)
	b := fill(4096, 1)
	defer b.Free()
	none := placed(1, b)
	none.ID = 0 // a copy
	c.toFar(none)
	awaitAck(t, c.far, 1)
	c.lender.Put(2, 4096)
	c.lender.Forget()
	c.toFar(placed(2, b)) // before the relay began to keep
	awaitAck(t, c.far, 2)
	c.lender.Put(3, 4096)
	c.lender.Put(4, lendWindow)
	c.toFar(placed(3, b)) // long ago
	awaitAck(t, c.far, 3)
	c.has(3, b)
	if f := c.line.Figures(); f.Sent < 3*4096 {
		t.Fatalf("%+v", f)
	}
}

// A stream that lags is sent its payloads, until all of them are acknowledged: what is lent must not wait behind them for long.
func TestLaggingStreamIsSentPayloads(t *testing.T) {
	ack := make(chan struct{}, 64)
	c := newCascade(t, ack)
	b := fill(1<<20, 1)
	defer b.Free()
	const most = lendWindow >> 20
	place := uint64(0)
	send := func() (sent uint64) {
		place++
		was := c.line.Figures()
		c.toNear(placed(place, b))
		c.toFar(placed(place, b))
		eventually(t, "the message to be counted", func() bool { return c.line.Figures().Plain > was.Plain })
		return c.line.Figures().Sent - was.Sent
	}
	for range most {
		if n := send(); n > 1024 {
			t.Fatalf("write %d took %d bytes", place, n)
		}
	}
	for range 2 {
		if n := send(); n < 1<<20 {
			t.Fatalf("write %d, with %d MiB not acknowledged, took %d bytes", place, most, n)
		}
	}
	for range most + 1 {
		ack <- struct{}{}
	}
	awaitAck(t, c.far, place-1)
	if n := send(); n < 1<<20 {
		t.Fatalf("write %d, behind one that was sent in full, took %d bytes", place, n)
	}
	for range 2 {
		ack <- struct{}{}
	}
	awaitAck(t, c.far, place)
	if n := send(); n > 1024 {
		t.Fatalf("write %d took %d bytes", place, n)
	}
	ack <- struct{}{}
	awaitAck(t, c.far, place)
	c.has(place, b)
}

// What is not kept any more ends the stream with a word about it: the next one is another one.
func TestFeedKeepsItsLimit(t *testing.T) {
	c := newCascade(t, nil)
	b := fill(1<<20, 1)
	defer b.Free()
	c.lender.Put(1, 1<<20)
	for place := uint64(1); place <= feedLimit>>20+1; place++ {
		if err := c.near.Send([]wire.Frame{placed(place, b)}); err != nil {
			t.Fatal(err)
		}
		awaitAck(t, c.near, place)
	}
	if _, err := c.feed.take(t.Context(), 2, 1<<20); err != nil {
		t.Fatal(err)
	}
	c.toFar(placed(1, b))
	if err := receive(t, "the relay's end", c.ended); err == nil || !strings.Contains(err.Error(), "not kept any more") {
		t.Fatal(err)
	}
	if _, err := c.far.Recv(); !errors.Is(err, ErrEnded) || !strings.Contains(err.Error(), "not kept any more") {
		t.Fatal(err)
	}
}

// A relay does not wait for a payload of a stream that has ended.
func TestFeedEndsWithItsStream(t *testing.T) {
	c := newCascade(t, nil)
	b := fill(4096, 1)
	defer b.Free()
	c.lender.Put(1, 4096)
	c.toFar(placed(1, b))
	c.feed.Close()
	if err := receive(t, "the relay's end", c.ended); err == nil || !strings.Contains(err.Error(), "has ended") {
		t.Fatal(err)
	}
}

// A standby takes no message whose payloads were left out.
func TestLentMessageIsNotForAStandby(t *testing.T) {
	far := serve(t, apply(nil))
	s := dial(t, far)
	l := new(Lender)
	s.LendFrom(l)
	b := fill(4096, 1)
	defer b.Free()
	l.Put(1, 4096)
	if err := s.Send([]wire.Frame{placed(1, b)}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Recv(); !errors.Is(err, ErrEnded) {
		t.Fatal(err)
	}
}

// Many small messages are lent only as far as they are read ahead: their payloads are not kept until a slow line gets to them.
func TestSmallMessagesAreLentAsFarAsTheyAreRead(t *testing.T) {
	ack := make(chan struct{}, 1<<14)
	c := newCascade(t, ack)
	c.beyond.Set(shape.Settings{Rate: 200_000}, 0)
	small, large := fill(512, 1), fill(1<<20, 2)
	defer small.Free()
	defer large.Free()
	const n = 2*queueMost + 100
	for p := uint64(1); p <= n; p++ {
		c.toNear(placed(p, small))
		c.toFar(placed(p, small))
	}
	eventually(t, "what is lent to be read", func() bool { return c.line.Figures().Plain >= n*512 })
	for p := uint64(n + 1); p <= n+feedLimit>>20+2; p++ { // the near one goes on
		if err := c.near.Send([]wire.Frame{placed(p, large)}); err != nil {
			t.Fatal(err)
		}
		awaitAck(t, c.near, p)
	}
	c.beyond.Set(shape.Settings{}, 0)
	for range n {
		ack <- struct{}{}
	}
	awaitAck(t, c.far, n)
	c.has(n, small)
}

// Copies of a resync that came in one message with a write are not kept with it.
func TestFeedKeepsNoCopies(t *testing.T) {
	c := newCascade(t, nil)
	large, small := fill(1<<20-4096, 1), fill(4096, 2)
	defer large.Free()
	defer small.Free()
	const n = 64
	for i := uint64(0); i < n; i++ {
		f := writeFrame(2*i+2, small)
		f.ID = i + 1
		if err := c.near.Send([]wire.Frame{writeFrame(2*i+1, large), f}); err != nil {
			t.Fatal(err)
		}
		awaitAck(t, c.near, 2*i+2)
	}
	c.feed.mu.Lock()
	defer c.feed.mu.Unlock()
	if len(c.feed.kept) != n || c.feed.bytes != n*4096 {
		t.Fatalf("%d writes of %d bytes are kept, want %d of 4096 each", len(c.feed.kept), c.feed.bytes, n)
	}
	for _, k := range c.feed.kept {
		if k.batch != nil {
			t.Fatalf("a message of %d bytes is kept for a write of %d", len(k.batch.buf.Bytes()), k.n)
		}
	}
}

// What nobody is carried on needs is not kept.
func TestFeedWithoutUsersKeepsNothing(t *testing.T) {
	c := newCascade(t, nil)
	b := fill(4096, 1)
	defer b.Free()
	c.toNear(placed(1, b))
	c.feed.End()
	c.toNear(placed(2, b))
	if n := len(c.feed.kept); n != 0 {
		t.Fatalf("%d writes are kept", n)
	}
	c.feed.Begin()
	c.toNear(placed(3, b))
	c.toFar(placed(3, b))
	awaitAck(t, c.far, 3)
	c.has(3, b)
}
