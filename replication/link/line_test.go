package link

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"time"

	"hacluster/blockdev"
	"hacluster/replication/shape"
)

func dialOn(t testing.TB, addr string, line *Line) *Sender {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	s, _, err := DialOn(ctx, connect(t, addr), hello(), line)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// sendAll sends n writes of size bytes by way of an outbox and returns when all are acknowledged.
func sendAll(t *testing.T, s *Sender, n, size int) {
	t.Helper()
	out := NewOutbox(s, OutboxLimits{})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- out.Run(ctx) }()
	buf := fill(size, 1)
	defer buf.Free()
	for seq := range uint64(n) {
		f := writeFrame(seq+1, buf)
		f.Range = blockdev.Range{Len: int64(size)}
		if err := out.Put(f); err != nil {
			t.Fatal(err)
		}
		out.Flush()
	}
	for acked := uint64(0); acked < uint64(n); {
		replies, err := s.Recv()
		if err != nil {
			t.Fatal(err)
		}
		acked = replies[len(replies)-1].Seq
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// Two streams have the rate of the line together, not each, whether their messages are small or large; what arrives was checked.
func TestStreamsOfALineHaveItsRateTogether(t *testing.T) {
	const rate = 4_000_000
	line := NewLine()
	line.Set(shape.Settings{Rate: rate}, 0)
	addr := serve(t, boxedStandby)
	began := time.Now()
	var goes sync.WaitGroup
	for _, size := range []int{4096, 1 << 20} {
		s := dialOn(t, addr, line)
		goes.Go(func() { sendAll(t, s, 1<<20/size, size) })
	}
	goes.Wait()
	// What was not used before counts for 50 ms, what is owed at the end is two pieces.
	if least := time.Duration(float64(2<<20)/rate*float64(time.Second)) - 100*time.Millisecond; time.Since(began) < least {
		t.Fatalf("2 MiB took %v at %d bytes a second, %v at least are wanted", time.Since(began), rate, least)
	}
	f := line.Figures()
	if f.Rate != rate || f.Sent < 2<<20 || f.Sent > 2<<20+64<<10 || f.Waited == 0 {
		t.Fatalf("%+v", f)
	}
}

func TestPacedStreamOverTLS(t *testing.T) {
	dial := secured(t, boxedStandby)
	line := NewLine()
	line.Set(shape.Settings{Rate: 20_000_000}, 0)
	s, _, err := DialOn(context.Background(), dial(), hello(), line)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	sendAll(t, s, 8, 192<<10)
	if line.Figures().Waited == 0 {
		t.Fatal("nothing waited")
	}
}

// waits has a stream wait for its turn for hours.
func waits(t *testing.T, line *Line) (s *Sender, done chan error, stop context.CancelFunc) {
	t.Helper()
	line.Set(shape.Settings{Rate: 1000}, 0)
	s = dialOn(t, serve(t, boxedStandby), line)
	buf := fill(8<<20, 1)
	f := writeFrame(1, buf)
	f.Range = blockdev.Range{Len: 8 << 20}
	out := NewOutbox(s, OutboxLimits{})
	if err := out.Put(f); err != nil {
		t.Fatal(err)
	}
	buf.Free()
	done = make(chan error, 1)
	ctx, stop := context.WithCancel(context.Background())
	t.Cleanup(stop)
	go func() { done <- out.Run(ctx) }()
	out.Flush()
	eventually(t, "the stream to wait", func() bool {
		line.mu.Lock()
		defer line.mu.Unlock()
		return !line.shape.Free(time.Since(line.base))
	})
	return s, done, stop
}

func TestStreamThatWaitsForItsTurnEndsAtOnce(t *testing.T) {
	s, done, _ := waits(t, NewLine())
	s.Close()
	select {
	case err := <-done:
		if err == nil || !errors.Is(err, net.ErrClosed) {
			t.Fatalf("ended with %v", err)
		}
	case <-time.After(patience):
		t.Fatal("it still waits")
	}
}

func TestLimitThatIsLiftedFreesWhoWaits(t *testing.T) {
	line := NewLine()
	s, done, stop := waits(t, line)
	line.Set(shape.Settings{}, 0)
	replies, err := s.Recv()
	if err != nil || replies[0].Seq != 1 {
		t.Fatalf("%v %v", replies, err)
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
