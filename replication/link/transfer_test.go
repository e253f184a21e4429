package link

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"reflect"
	"sync"
	"testing"
	"unsafe"

	"hacluster/blockdev"
	"hacluster/replication/wire"
)

func TestWritesArriveInOrderAndTheirBuffersComeBack(t *testing.T) {
	const frames = 500
	var mu sync.Mutex // what comes through a socket is no order for the race detector
	var got []uint64
	var data [][]byte
	s := dial(t, serve(t, apply(func(f *wire.Frame) {
		mu.Lock()
		defer mu.Unlock()
		got = append(got, f.Seq)
		data = append(data, bytes.Join(f.Payload, nil))
	})))
	box := NewOutbox(s, OutboxLimits{})
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := box.Run(ctx); err != nil {
			t.Errorf("outbox: %v", err)
		}
	})
	var bufs []*blockdev.Buf
	for seq := uint64(1); seq <= frames; seq++ {
		bufs = append(bufs, fill(1<<(9+seq%8), byte(seq)))
		if err := box.Put(writeFrame(seq, bufs[seq-1])); err != nil {
			t.Fatal(err)
		}
		if seq%7 != 0 { // several to a message, now and then
			box.Flush()
		}
	}
	box.Flush()
	awaitAck(t, s, frames)
	cancel()
	wg.Wait()
	mu.Lock()
	defer mu.Unlock()
	for i := range got {
		if got[i] != uint64(i+1) || !bytes.Equal(data[i], bufs[i].Bytes()) {
			t.Fatalf("frame %d came as number %d with %d bytes, want %d", got[i], i+1, len(data[i]), len(bufs[i].Bytes()))
		}
	}
	mustReturn(t, bufs...)
}

// A large payload is read into memory of its own that a disk takes without a copy.
func TestLargestWriteArrivesWholeAndAligned(t *testing.T) {
	b := fill(wire.MaxWrite, 3)
	aligned := make(chan bool, 1)
	s := dial(t, serve(t, apply(func(f *wire.Frame) {
		aligned <- len(f.Payload) == 1 && uintptr(unsafe.Pointer(&f.Payload[0][0]))%blockdev.BlockSize == 0
	})))
	if err := s.Send([]wire.Frame{writeFrame(1, b)}); err != nil {
		t.Fatal(err)
	}
	awaitAck(t, s, 1)
	if !<-aligned {
		t.Error("the payload is in pieces or not aligned")
	}
	mustReturn(t, b)
}

// Messages of all sizes, whose borders fall anywhere in what a read brings, arrive as they were sent.
func TestMessagesOfAllSizesFollowEachOther(t *testing.T) {
	sizes := []int{512, largePayload - 1, 4096, largePayload, 1, 70_000, 8192, largePayload + 1, 4096, 4096, 1 << 20, 512}
	for name, wrap := range map[string]func(net.Conn) net.Conn{
		"socket": func(c net.Conn) net.Conn { return c },
		"stream": func(c net.Conn) net.Conn { return struct{ net.Conn }{c} },
	} {
		s, _, err := Dial(t.Context(), wrap(connect(t, serve(t, apply(nil)))), hello())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.Close)
		seq := uint64(0)
		for range 20 {
			for _, n := range sizes {
				seq++
				b := fill(n, byte(seq))
				if err := s.Send([]wire.Frame{writeFrame(seq, b), {Kind: wire.Ping, ID: seq}}); err != nil {
					t.Fatal(err)
				}
				b.Free()
			}
		}
		t.Run(name, func(t *testing.T) { awaitAck(t, s, seq) })
	}
}

func TestReceivedMemoryIsUsedAgain(t *testing.T) {
	seen := make(chan *chunk, 100)
	addr := serve(t, func(_ context.Context, s *Session) error {
		if err := accept(s); err != nil {
			return err
		}
		for {
			b, err := s.Recv()
			if err != nil {
				return err
			}
			seen <- s.in.c
			last := b.Frames[len(b.Frames)-1].Seq
			b.Free()
			if err := s.Send(wire.Reply{Kind: wire.Ack, Seq: last}); err != nil {
				return err
			}
		}
	})
	s := dial(t, addr)
	b := fill(20_000, 1)
	for seq := uint64(1); seq <= 100; seq++ {
		if err := s.Send([]wire.Frame{writeFrame(seq, b)}); err != nil {
			t.Fatal(err)
		}
		awaitAck(t, s, seq)
	}
	first := <-seen
	for range 99 {
		if c := <-seen; c != first {
			t.Fatal("another chunk was used though the one before was free")
		}
	}
}

func TestDigestsAndPongsComeBack(t *testing.T) {
	digests := bytes.Repeat([]byte("0123456789abcdef"), 4096)
	want := []wire.Reply{
		{Kind: wire.DigestReply, ID: 1, Range: blockdev.Range{Len: wire.MaxDigestRange}, Digests: digests},
		{Kind: wire.DigestReply, ID: 2, Range: blockdev.Range{Len: 4096}, Code: wire.ReadFailed, Text: "no"},
		{Kind: wire.Pong, ID: 3},
	}
	s := dial(t, serve(t, answer(want)))
	if err := s.Send([]wire.Frame{{Kind: wire.Ping, ID: 3}}); err != nil {
		t.Fatal(err)
	}
	got, err := s.Recv()
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v: got %v, want %v", err, brief(got), brief(want))
	}
}

func brief(rs []wire.Reply) (s []string) {
	for _, r := range rs {
		s = append(s, fmt.Sprintf("%v %d %v %d bytes %v %q", r.Kind, r.ID, r.Range, len(r.Digests), r.Code, r.Text))
	}
	return s
}

func TestBatchOutlivesTheNextOnesWhileReferenced(t *testing.T) {
	var kept []*Batch
	s := dial(t, serve(t, func(_ context.Context, s *Session) error {
		if err := accept(s); err != nil {
			return err
		}
		for len(kept) < 8 {
			b, err := s.Recv()
			if err != nil {
				return err
			}
			b.Ref()
			b.Free()
			kept = append(kept, b)
		}
		for i, b := range kept {
			if err := b.Frames[0].Verify(); err != nil || b.Frames[0].Seq != uint64(i+1) {
				t.Errorf("kept batch %d: frame %d, %v", i, b.Frames[0].Seq, err)
			}
			b.Free()
		}
		return s.Send(wire.Reply{Kind: wire.Ack, Seq: 8})
	}))
	for seq := uint64(1); seq <= 8; seq++ {
		b := fill(10000, byte(seq))
		if err := s.Send([]wire.Frame{writeFrame(seq, b)}); err != nil {
			t.Fatal(err)
		}
		b.Free()
	}
	awaitAck(t, s, 8)
}
