package link

import (
	"context"
	"fmt"
	"testing"

	"hacluster/blockdev"
)

// A round trip over loopback: Outbox, Sender, a standby that verifies and acknowledges through its ReplyBox, Recv.
// Allocations are of both sides: none. Expected: a 4 KiB round trip costs two wake-ups, some 20 us; many in flight share
// messages and cost a few us each; 1 MiB is bound by copying and CRC.
func BenchmarkRoundTrip(b *testing.B) {
	for _, c := range []struct{ size, inFlight int }{{4 << 10, 1}, {4 << 10, 32}, {64 << 10, 1}, {64 << 10, 32}, {1 << 20, 1}, {1 << 20, 4}} {
		b.Run(fmt.Sprintf("%dKiB/%d", c.size>>10, c.inFlight), func(b *testing.B) { benchRoundTrip(b, c.size, c.inFlight) })
	}
}

func boxedStandby(ctx context.Context, s *Session) error {
	if err := accept(s); err != nil {
		return err
	}
	box := NewReplyBox(s)
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- box.Run(ctx) }()
	defer func() { <-done }()
	defer cancel()
	for {
		batch, err := s.Recv()
		if err != nil {
			return err
		}
		for i := range batch.Frames {
			if err := batch.Frames[i].Verify(); err != nil {
				return err
			}
			box.Ack(batch.Frames[i].Seq)
		}
		batch.Free()
		if !s.Buffered() {
			box.Flush()
		}
	}
}

func benchRoundTrip(b *testing.B, size, inFlight int) {
	roundTrips(b, dial(b, serve(b, boxedStandby)), fill(size, 1), inFlight)
}

func roundTrips(b *testing.B, s *Sender, buf *blockdev.Buf, inFlight int) {
	size := len(buf.Bytes())
	out := NewOutbox(s, OutboxLimits{})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- out.Run(ctx) }()
	f := writeFrame(1, buf)
	f.Range = blockdev.Range{Len: int64(size)}
	b.SetBytes(int64(size))
	b.ReportAllocs()
	b.ResetTimer()
	acked := uint64(0)
	for seq := uint64(1); acked < uint64(b.N); {
		for ; seq <= uint64(b.N) && seq-acked <= uint64(inFlight); seq++ {
			f.Seq = seq
			if err := out.Put(f); err != nil {
				b.Fatal(err)
			}
		}
		out.Flush()
		replies, err := s.Recv()
		if err != nil {
			b.Fatal(err)
		}
		acked = replies[len(replies)-1].Seq
	}
	b.StopTimer()
	cancel()
	if err := <-done; err != nil {
		b.Error(err)
	}
	s.Close()
}

// Expected: the speed of SHA-256 with the processor's instructions, and one allocation, the result.
func BenchmarkDigest(b *testing.B) {
	dev := &image{data: make([]byte, 1<<20), bad: -1}
	b.SetBytes(1 << 20)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Digest(dev, blockdev.Range{Len: 1 << 20}); err != nil {
			b.Fatal(err)
		}
	}
}
