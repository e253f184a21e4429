package wire

import (
	"context"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pipe is a port whose frames the test puts and takes.
type pipe struct {
	in, out chan []byte
	closed  chan struct{}
}

func newPipe() *pipe {
	return &pipe{in: make(chan []byte, 1000), out: make(chan []byte, 3000), closed: make(chan struct{})}
}

func (p *pipe) Read(b []byte) (int, error) {
	select {
	case f := <-p.in:
		return copy(b, f), nil
	case <-p.closed:
		return 0, io.EOF
	}
}

func (p *pipe) Write(b []byte) (int, error) {
	p.out <- slices.Clone(b)
	return len(b), nil
}

func (p *pipe) Close() error {
	select {
	case <-p.closed:
	default:
		close(p.closed)
	}
	return nil
}

// carry sends n numbered frames through a wire and returns the numbers that arrive until want have.
func carry(t *testing.T, cfg Config, n, want int) ([]uint32, Stats) {
	t.Helper()
	a, b := newPipe(), newPipe()
	w := &Wire{cfg: cfg, ends: [2]port{a, b}}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- w.Run(ctx) }()
	for i := range n {
		a.in <- binary.BigEndian.AppendUint32(nil, uint32(i))
	}
	var got []uint32
	for len(got) < want {
		select {
		case f := <-b.out:
			got = append(got, binary.BigEndian.Uint32(f))
		case <-time.After(20 * time.Second):
			t.Fatalf("%d of %d frames arrived: %+v", len(got), want, w.Stats())
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return got, w.Stats()
}

func TestGoodCableKeepsFramesAndOrder(t *testing.T) {
	got, s := carry(t, Config{}, 500, 500)
	if !slices.IsSorted(got) || s != (Stats{Carried: 500}) {
		t.Errorf("%+v, in order: %v", s, slices.IsSorted(got))
	}
}

func TestDelayedFramesKeepTheirOrderAndComeLate(t *testing.T) {
	began := time.Now()
	got, s := carry(t, Config{Delay: 50 * time.Millisecond}, 500, 500)
	if took := time.Since(began); took < 50*time.Millisecond || !slices.IsSorted(got) || s.Delayed != 500 || s.Reordered != 0 {
		t.Errorf("%v, %+v, in order: %v", took, s, slices.IsSorted(got))
	}
}

// faults.md X105.
func TestX105ReorderedAndDoubledFramesAllArrive(t *testing.T) {
	got, s := carry(t, Config{Delay: 20 * time.Millisecond, Reorder: 25, Double: 100, Seed: 1}, 500, 1000)
	if s.Doubled != 500 || s.Reordered == 0 || slices.IsSorted(got) {
		t.Errorf("%+v, in order: %v", s, slices.IsSorted(got))
	}
	slices.Sort(got)
	for i, n := range got {
		if n != uint32(i/2) {
			t.Fatalf("frame %d did not arrive twice", i/2)
		}
	}
}

func TestLossyCableLosesAsOftenAsItShould(t *testing.T) {
	w := &Wire{cfg: Config{Loss: 30}}
	rnd, arrived := rand.New(rand.NewPCG(1, 1)), 0
	for range 10000 {
		arrived += len(w.fate(rnd))
	}
	if lost := int(w.lost.Load()); lost+arrived != 10000 || lost < 2800 || lost > 3200 {
		t.Errorf("%d of 10000 lost, %d arrived", lost, arrived)
	}
}

func TestNonsenseIsRefused(t *testing.T) {
	for _, bad := range []Config{{Loss: 101}, {Reorder: -1}, {Delay: -1}, {Jitter: 2 * time.Minute}} {
		if bad.Validate() == nil {
			t.Errorf("%+v was accepted", bad)
		}
	}
}

func TestQueueIsBounded(t *testing.T) {
	q := newQueue()
	for range maxQueue {
		if !q.put(frame{}) {
			t.Fatal("refused too early")
		}
	}
	if q.put(frame{}) {
		t.Error("it grows without bound")
	}
}
