package link

import (
	"context"
	"errors"
	"hash/crc32"
	"log/slog"
	"net"
	"reflect"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"hacluster/blockdev"
	"hacluster/replication/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds what must happen soon; no test passes by its running out.
const patience = 30 * time.Second

type handlerFunc func(ctx context.Context, s *Session) error

func (f handlerFunc) Replicate(ctx context.Context, s *Session) error { return f(ctx, s) }

// serve runs a server on a loopback port and returns its address.
func serve(t testing.TB, h handlerFunc) string {
	t.Helper()
	return serveWith(t, NewServer(h, slog.New(slog.DiscardHandler)))
}

func serveWith(t testing.TB, s *Server) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serveOn(t, s, l)
	return l.Addr().String()
}

func serveOn(t testing.TB, s *Server, l net.Listener) {
	t.Helper()
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := s.Serve(l); err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	t.Cleanup(func() {
		l.Close()
		s.Close()
		wg.Wait()
	})
}

func connect(t testing.TB, addr string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func hello() wire.Hello {
	return wire.Hello{
		Cluster: wire.ID{1}, Volume: wire.ID{2}, VolumeName: "pgdata", Size: 1 << 30, BlockSize: blockdev.BlockSize,
		Epoch: 7, Primary: "alpha", Process: 1, Stream: 3, Target: "beta",
	}
}

func dial(t testing.TB, addr string) *Sender {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	s, _, err := Dial(ctx, connect(t, addr), hello())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func accept(s *Session) error { return s.Reply(wire.HelloReply{Node: "beta"}) }

func fill(n int, seed byte) *blockdev.Buf {
	b := blockdev.NewBuf(n)
	for i := range b.Bytes() {
		b.Bytes()[i] = seed + byte(i) + byte(i>>8)
	}
	return b
}

func writeFrame(seq uint64, b *blockdev.Buf) wire.Frame {
	n := len(b.Bytes())
	return wire.Frame{
		Kind: wire.Write, Seq: seq, Range: blockdev.Range{Off: 4096 * int64(seq), Len: int64(n)},
		Sum: crc32.Checksum(b.Bytes(), crc32.MakeTable(crc32.Castagnoli)), Buf: b,
	}
}

func refs(b *blockdev.Buf) int64 {
	return reflect.ValueOf(b).Elem().FieldByName("refs").FieldByName("v").Int()
}

// mustReturn waits until the test's own reference to each Buf is the last one.
func mustReturn(t *testing.T, bufs ...*blockdev.Buf) {
	t.Helper()
	eventually(t, "all references to come back", func() bool {
		for _, b := range bufs {
			if refs(b) != 1 {
				return false
			}
		}
		return true
	})
}

// eventually waits for what happens inside, which tells nobody.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); !ok(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("waited %v in vain for %s", patience, what)
		}
	}
}

func receive[T any](t *testing.T, what string, ch <-chan T) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(patience):
		t.Fatalf("waited %v in vain for %s", patience, what)
		panic("unreachable")
	}
}

// apply is a standby that checks and acknowledges everything, and hands each frame to fn.
func apply(fn func(*wire.Frame)) handlerFunc {
	return func(ctx context.Context, s *Session) error {
		if err := accept(s); err != nil {
			return err
		}
		for {
			b, err := s.Recv()
			if err != nil {
				return err
			}
			var last uint64
			for i := range b.Frames {
				f := &b.Frames[i]
				if err := f.Verify(); err != nil {
					nack := wire.Reply{Kind: wire.Nack, Seq: f.Seq, Code: wire.BadChecksum, Text: err.Error()}
					b.Free()
					return errors.Join(err, s.Send(nack))
				}
				if fn != nil {
					fn(f)
				}
				last = max(last, f.Seq)
			}
			b.Free()
			if err := s.Send(wire.Reply{Kind: wire.Ack, Seq: last}); err != nil {
				return err
			}
		}
	}
}

// awaitAck reads replies until seq is acknowledged.
func awaitAck(t testing.TB, s *Sender, seq uint64) {
	t.Helper()
	for {
		replies, err := s.Recv()
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range replies {
			if r.Kind != wire.Ack {
				t.Fatalf("%v %d: %v %s", r.Kind, r.Seq, r.Code, r.Text)
			}
			if r.Seq == seq {
				return
			}
		}
	}
}
