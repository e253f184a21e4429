package link

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"hacluster/blockdev"
	"hacluster/replication/shape"
	"hacluster/replication/wire"
)

// relayTo is a node that carries streams on to the standby at addr.
func relayTo(t testing.TB, addr string, line *Line) (string, chan error) {
	t.Helper()
	return relayWith(t, addr, line, NewFeed())
}

func relayWith(t testing.TB, addr string, line *Line, feed *Feed) (string, chan error) {
	t.Helper()
	ended := make(chan error, 16)
	return serve(t, func(ctx context.Context, s *Session) error {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			return err
		}
		err = Relay(ctx, s, conn, line, feed)
		ended <- err
		return err
	}), ended
}

func TestRelayCarriesAStreamOn(t *testing.T) {
	var got atomic.Int64
	far := serve(t, apply(func(f *wire.Frame) { got.Add(int64(f.PayloadLen())) }))
	near, ended := relayTo(t, far, NewLine())
	s := dial(t, near)
	seq, bytes := uint64(0), int64(0)
	for _, size := range []int{4096, 512, 1 << 20, 64 << 10, 31 << 10, 4096} {
		b := fill(size, byte(seq))
		seq++
		bytes += int64(size)
		if err := s.Send([]wire.Frame{writeFrame(seq, b), {Kind: wire.Ping, ID: seq}}); err != nil {
			t.Fatal(err)
		}
		b.Free()
		awaitAck(t, s, seq)
	}
	if got.Load() != bytes {
		t.Fatalf("%d bytes of payload arrived, %d were sent", got.Load(), bytes)
	}
	s.Close()
	if err := receive(t, "the relay's end", ended); !errors.Is(err, ErrEnded) {
		t.Fatal(err)
	}
}

// A standby that does not answer the greeting does not keep a relay whose primary has given up.
func TestRelayDoesNotWaitForAGreetingForEver(t *testing.T) {
	stuck := make(chan struct{})
	far := serve(t, func(ctx context.Context, s *Session) error {
		select {
		case <-stuck:
		case <-ctx.Done():
		}
		return nil
	})
	defer close(stuck)
	near, ended := relayTo(t, far, NewLine())
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, _, err := Dial(ctx, connect(t, near), hello()); err == nil {
		t.Fatal("greeted by who says nothing")
	}
	if err := receive(t, "the relay's end", ended); err == nil {
		t.Fatal("no error")
	}
}

// What the standby says last reaches the primary: it decides what is made of the standby (R21, R23).
func TestRelayCarriesTheLastWordBack(t *testing.T) {
	far := serve(t, apply(nil))
	near, _ := relayTo(t, far, NewLine())
	s := dial(t, near)
	b := fill(4096, 1)
	defer b.Free()
	f := writeFrame(1, b)
	f.Sum++
	if err := s.Send([]wire.Frame{f}); err != nil {
		t.Fatal(err)
	}
	replies, err := s.Recv()
	if err != nil || replies[0].Kind != wire.Nack || replies[0].Code != wire.BadChecksum {
		t.Fatalf("%+v, %v", replies, err)
	}
	if _, err := s.Recv(); !errors.Is(err, ErrEnded) || !strings.Contains(err.Error(), "checksum") {
		t.Fatal(err)
	}
}

func TestRelayCarriesARefusalBack(t *testing.T) {
	far := serve(t, func(_ context.Context, s *Session) error {
		return s.Reply(wire.HelloReply{Node: "gamma", Code: wire.RefusedOlderEpoch, Epoch: 9, Text: "too late"})
	})
	near, _ := relayTo(t, far, NewLine())
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, reply, err := Dial(ctx, connect(t, near), hello())
	var no *RefusedError
	if !errors.As(err, &no) || reply.Code != wire.RefusedOlderEpoch || reply.Epoch != 9 || reply.Node != "gamma" {
		t.Fatalf("%+v, %v", reply, err)
	}
}

// Either end that goes takes the other one with it, also while the standby does not read.
func TestRelayEndsWithEitherEnd(t *testing.T) {
	defer func(d time.Duration) { stuckTime = d }(stuckTime)
	stuckTime = 100 * time.Millisecond
	stuck := make(chan struct{})
	defer close(stuck)
	over := make(chan struct{}, 1)
	far := serve(t, func(ctx context.Context, s *Session) error {
		if err := accept(s); err != nil {
			return err
		}
		defer func() { over <- struct{}{} }()
		if s.Hello().Stream == 3 {
			select { // reads nothing
			case <-stuck:
			case <-ctx.Done():
			}
			return nil
		}
		_, err := s.Recv()
		return err
	})
	near, ended := relayTo(t, far, NewLine())
	s := dial(t, near)
	box := NewOutbox(s, OutboxLimits{})
	stop := running(t, box.Run)
	b := fill(1<<20, 1)
	defer b.Free()
	for seq := range uint64(32) {
		put(t, box, writeFrame(seq+1, b))
	}
	box.Flush()
	s.Close()
	receive(t, "the end of a relay that waits for its standby", ended)
	stop()

	h := hello()
	h.Stream = 4
	s, _, err := Dial(t.Context(), connect(t, near), h)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Send([]wire.Frame{{Kind: wire.Ping, ID: 1}}); err != nil {
		t.Fatal(err)
	}
	receive(t, "the end of the standby's stream", over)
	receive(t, "the end of a relay whose standby has gone", ended)
	if _, err := s.Recv(); !errors.Is(err, ErrEnded) {
		t.Fatal(err)
	}
}

// The node that carries on compresses and keeps to the rate, as its own line is set; over TLS as well.
func TestRelayPacesAndCompresses(t *testing.T) {
	var got atomic.Int64
	dialFar := secured(t, apply(func(f *wire.Frame) { got.Add(int64(f.PayloadLen())) }))
	line := NewLine()
	line.Set(shape.Settings{Rate: 2_000_000, Compress: shape.On}, 0)
	near := serve(t, func(ctx context.Context, s *Session) error { return Relay(ctx, s, dialFar(), line, NewFeed()) })
	s := dial(t, near)
	b := blockdev.NewBuf(256 << 10) // zeroes
	defer b.Free()
	clear(b.Bytes())
	random := fill(256<<10, 3)
	defer random.Free()
	x := uint32(1)
	for i := range random.Bytes() {
		x = x*1664525 + 1013904223
		random.Bytes()[i] = byte(x >> 24)
	}
	for seq := uint64(1); seq <= 8; seq++ {
		buf := b
		if seq%4 == 0 {
			buf = random
		}
		if err := s.Send([]wire.Frame{writeFrame(seq, buf)}); err != nil {
			t.Fatal(err)
		}
		awaitAck(t, s, seq)
	}
	eventually(t, "the last message to be counted", func() bool { return line.Figures().Plain >= 8*256<<10 })
	if f := line.Figures(); got.Load() != 8*256<<10 || f.Sent > 3*256<<10 || f.Sent < 2*256<<10 || f.Waited == 0 {
		t.Fatalf("%d bytes arrived, %+v", got.Load(), f)
	}
}
