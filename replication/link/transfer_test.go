package link

import (
	"bytes"
	"context"
	"fmt"
	"reflect"
	"sync"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc/mem"

	"hacluster/blockdev"
	"hacluster/replication/wire"
)

func TestWritesArriveInOrderAndTheirBuffersComeBack(t *testing.T) {
	const frames = 500
	var got []uint64
	var data [][]byte
	s := dial(t, serve(t, apply(func(f *wire.Frame) {
		got = append(got, f.Seq)
		data = append(data, bytes.Join(f.Payload, nil))
	})))
	box := NewOutbox(OutboxLimits{})
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := box.Run(ctx, s.Send); err != nil {
			t.Errorf("outbox: %v", err)
		}
	})
	var bufs []*blockdev.Buf
	for seq := uint64(1); seq <= frames; seq++ {
		bufs = append(bufs, fill(1<<(9+seq%8), byte(seq)))
		if err := box.Put(writeFrame(seq, bufs[seq-1])); err != nil {
			t.Fatal(err)
		}
	}
	awaitAck(t, s, frames)
	cancel()
	wg.Wait()
	for i := range got {
		if got[i] != uint64(i+1) || !bytes.Equal(data[i], bufs[i].Bytes()) {
			t.Fatalf("frame %d came as number %d with %d bytes, want %d", got[i], i+1, len(data[i]), len(bufs[i].Bytes()))
		}
	}
	mustReturn(t, bufs...)
}

func TestLargestWriteArrivesWhole(t *testing.T) {
	b := fill(wire.MaxWrite, 3)
	segments := make(chan int, 1)
	s := dial(t, serve(t, apply(func(f *wire.Frame) { segments <- len(f.Payload) })))
	if err := s.Send([]wire.Frame{writeFrame(1, b)}); err != nil {
		t.Fatal(err)
	}
	awaitAck(t, s, 1)
	if n := <-segments; n < 2 {
		t.Errorf("32 MiB came in %d segment: something flattened them", n)
	}
	mustReturn(t, b)
}

// countingPool knows how much of what it handed out has not come back.
type countingPool struct {
	mem.BufferPool
	out atomic.Int64
}

func (p *countingPool) Get(n int) *[]byte {
	p.out.Add(1)
	return p.BufferPool.Get(n)
}

func (p *countingPool) Put(b *[]byte) {
	p.out.Add(-1)
	p.BufferPool.Put(b)
}

func TestReceivedMemoryComesBack(t *testing.T) {
	pool := &countingPool{BufferPool: segments}
	segments = pool
	defer func() { segments = pool.BufferPool }()
	s := dial(t, serve(t, apply(nil)))
	b := fill(300_000, 1)
	for seq := uint64(1); seq <= 20; seq++ {
		if err := s.Send([]wire.Frame{writeFrame(seq, b)}); err != nil {
			t.Fatal(err)
		}
		awaitAck(t, s, seq)
	}
	// 19 pieces for each message: what is left is what transports keep for themselves.
	eventually(t, "received segments to come back", func() bool { return pool.out.Load() < 10 })
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
		b := fill(70000, byte(seq))
		if err := s.Send([]wire.Frame{writeFrame(seq, b)}); err != nil {
			t.Fatal(err)
		}
		b.Free()
	}
	awaitAck(t, s, 8)
}
