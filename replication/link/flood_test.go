package link

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"testing"
	"time"

	"hacluster/blockdev"
	"hacluster/replication/wire"
)

// faults.md G56: connections that owe their greeting are capped; one more closes the oldest, so that a good one gets
// through however many are silent.
func TestG56HalfOpenGreetingsAreCappedAndDoNotKeepAnyoneOut(t *testing.T) {
	s := NewServer(apply(nil), slog.New(slog.DiscardHandler))
	s.owing = 8
	addr := serveWith(t, s)
	var silent []net.Conn
	for range 50 {
		silent = append(silent, connect(t, addr))
	}
	for i, c := range silent[:50-s.owing] {
		if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("silent connection %d: %v, want its end", i, err)
		}
	}
	st := dial(t, addr)
	if err := st.Send([]wire.Frame{{Kind: wire.Flush, Seq: 1}}); err != nil {
		t.Fatal(err)
	}
	awaitAck(t, st, 1)
}

// faults.md G56: streams are capped; those that are open stay, and there is room again when one ends.
func TestG56StreamsAreCapped(t *testing.T) {
	s := NewServer(apply(nil), slog.New(slog.DiscardHandler))
	s.streams = 4
	addr := serveWith(t, s)
	var open []*Sender
	for range s.streams {
		open = append(open, dial(t, addr))
	}
	if _, _, err := Dial(t.Context(), connect(t, addr), hello()); !errors.Is(err, ErrEnded) {
		t.Errorf("one more: %v, want %v", err, ErrEnded)
	}
	open[0].Close()
	eventually(t, "room for another stream", func() bool {
		st, _, err := Dial(t.Context(), connect(t, addr), hello())
		if err == nil {
			st.Close()
		}
		return err == nil
	})
	if err := open[1].Send([]wire.Frame{{Kind: wire.Flush, Seq: 1}}); err != nil {
		t.Fatal(err)
	}
	awaitAck(t, open[1], 1)
}

// R28: a primary that never reads its replies costs the standby what two sockets hold and one box, no more.
func TestPrimaryThatNeverReadsHoldsUpNobodyElse(t *testing.T) {
	full := make(chan error, 1)
	addr := serve(t, func(ctx context.Context, s *Session) error {
		if err := accept(s); err != nil {
			return err
		}
		box := NewReplyBox(s)
		ctx, cancel := context.WithCancel(ctx)
		done := make(chan error, 1)
		go func() { done <- box.Run(ctx) }()
		defer func() { s.Close(); cancel(); <-done }()
		digests := wire.Reply{Kind: wire.DigestReply, Range: blockdev.Range{Len: wire.MaxDigestRange},
			Digests: make([]byte, wire.MaxDigestRange/blockdev.BlockSize*wire.DigestSize)}
		for {
			if err := box.Put(digests); err != nil {
				full <- err
				return err
			}
			box.Flush()
		}
	})
	conn := connect(t, addr)
	if _, err := conn.Write(prefixed(helloBytes(t, hello()))); err != nil {
		t.Fatal(err)
	}
	if err := receive(t, "the box to be full", full); !errors.Is(err, ErrFull) {
		t.Errorf("%v, want %v", err, ErrFull)
	}
	n, err := io.Copy(io.Discard, conn)
	if err != nil || n > 64<<20 {
		t.Errorf("%d bytes were on their way, %v", n, err)
	}
}
