package nbdclient_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"hacluster/blockdev"
	"hacluster/blockdev/frontend/nbd/nbdclient"
	"hacluster/blockdev/frontend/nbd/nbdproto"
	"hacluster/blockdev/frontend/nbd/nbdtest"
)

func open(t testing.TB, cfg nbdclient.ReconnectConfig, uris ...string) *nbdclient.Reconnecting {
	t.Helper()
	cfg.Log = quiet
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	r, err := nbdclient.Open(ctx, uris, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

// Like faults.md N38, from the application's side: writers go on while the role moves to and fro, no write that was
// answered is lost, and each block has the last value that its writer was told is written.
func TestWritersSurviveManyFailovers(t *testing.T) {
	dev := nbdtest.NewMem(testSize)
	a, b := newNode(t), newNode(t)
	e := a.lead(t, dev)
	r := open(t, nbdclient.ReconnectConfig{Pause: time.Millisecond}, b.uri(), a.uri())
	var stop atomic.Bool
	var wg sync.WaitGroup
	last := make([]uint64, 16)
	for g := range last {
		wg.Go(func() {
			p := make([]byte, 4096)
			for n := uint64(1); !stop.Load(); n++ {
				binary.LittleEndian.PutUint64(p, n)
				if _, err := r.WriteAt(p, int64(g)*4096); err != nil {
					t.Error(err)
					return
				}
				last[g] = n
				got := make([]byte, 4096)
				if _, err := r.ReadAt(got, int64(g)*4096); err != nil || !bytes.Equal(got, p) {
					t.Errorf("block %d after write %d: content %d, %v", g, n, binary.LittleEndian.Uint64(got), err)
					return
				}
			}
		})
	}
	for i := range 10 {
		from, to := a, b
		if i%2 == 1 {
			from, to = b, a
		}
		answers := r.Stats().Answers
		eventually(t, "some writes are answered", func() bool { return r.Stats().Answers > answers+50 })
		from.exports.Leave("vol", "the other")
		e.Close() // what the old primary has begun has ended before the new one serves, as epochs see to (R2)
		e = to.lead(t, dev)
	}
	answers := r.Stats().Answers
	eventually(t, "writes go on", func() bool { return r.Stats().Answers > answers+50 })
	stop.Store(true)
	wg.Wait()
	got := dev.Snapshot()
	for g, n := range last {
		if v := binary.LittleEndian.Uint64(got[g*4096:]); v != n {
			t.Errorf("block %d holds write %d, %d was answered", g, v, n)
		}
	}
	s := r.Stats()
	if s.Reconnects < 10 || len(s.Errors) != 0 || s.Unanswered != 0 || s.LongestPause <= 0 || s.LongestPause > patience {
		t.Errorf("stats %+v", s)
	}
}

func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for tick := time.NewTicker(time.Millisecond); !cond(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("did not happen: %s", what)
		}
	}
}

// held is a device whose writes wait for the test, and which notes their order.
type held struct {
	*nbdtest.Mem
	started chan byte
	let     chan struct{}
}

func (h *held) WriteAt(p []byte, off int64) (int, error) {
	h.started <- p[0]
	<-h.let
	return h.Mem.WriteAt(p, off)
}

func TestOverlappingOperationsKeepTheirOrder(t *testing.T) {
	dev := &held{nbdtest.NewMem(testSize), make(chan byte, 10), make(chan struct{})}
	n := newNode(t)
	n.lead(t, dev)
	r := open(t, nbdclient.ReconnectConfig{}, n.uri())
	let := sync.OnceFunc(func() { close(dev.let) })
	t.Cleanup(let)
	var wg sync.WaitGroup
	write := func(seed byte, off int64) {
		wg.Go(func() {
			if _, err := r.WriteAt(fill(4096, seed), off); err != nil {
				t.Error(err)
			}
		})
	}
	write(1, 0)
	if got := <-dev.started; got != 1 {
		t.Fatal(got)
	}
	write(3, 8192) // does not overlap: goes on beside it
	if got := <-dev.started; got != 3 {
		t.Fatal(got)
	}
	write(2, 2048)
	wg.Go(func() {
		got := make([]byte, 1)
		if _, err := r.ReadAt(got, 100); err != nil || got[0] != 1 {
			t.Errorf("read %d, %v: it came after the first write", got, err)
		}
	})
	select {
	case got := <-dev.started:
		t.Fatalf("write %d was sent while one that overlaps it was in flight", got)
	case <-time.After(50 * time.Millisecond):
	}
	let()
	wg.Wait()
	if got := dev.Snapshot(); got[2047] != 1 || got[2048] != 2 || got[6143] != 2 {
		t.Fatal("the later write did not win")
	}
}

func TestRepetitionDoesNotOvertakeALaterWrite(t *testing.T) {
	// The first primary loses the role while a write is in flight; the application's next write to the same place, made
	// from another goroutine meanwhile, must end up on top.
	for seed := range uint64(8) {
		rng := rand.New(rand.NewPCG(7, seed))
		dev := nbdtest.NewMem(testSize)
		a, b := newNode(t), newNode(t)
		e := a.lead(t, dev)
		r := open(t, nbdclient.ReconnectConfig{Pause: time.Millisecond}, a.uri(), b.uri())
		e.Suspend()
		first := make(chan error)
		go func() {
			_, err := r.WriteAt(fill(4096, 1), 0)
			first <- err
		}()
		eventually(t, "the first write has arrived", func() bool { return a.Stats().BytesInFlight > 0 })
		second, begun := make(chan error), make(chan struct{})
		go func() {
			close(begun)
			_, err := r.WriteAt(fill(4096, 2), 0)
			second <- err
		}()
		<-begun
		if rng.IntN(2) == 0 {
			e.Resume()
		}
		a.exports.Leave("vol", "b")
		e.Close()
		b.lead(t, dev)
		if err := errors.Join(<-first, <-second); err != nil {
			t.Fatal(err)
		}
		if got := dev.Snapshot()[0]; got != 2 {
			t.Fatalf("seed %d: the content is %d", seed, got)
		}
	}
}

func TestTimeLimitBoundsAnOperation(t *testing.T) {
	n := newNode(t)
	e := n.lead(t, nbdtest.NewMem(testSize))
	r := open(t, nbdclient.ReconnectConfig{Limit: 100 * time.Millisecond, Pause: time.Millisecond}, n.uri())
	e.Suspend() // served, but silent
	p := fill(2<<20, 1)
	if _, err := r.WriteAt(p, 0); !errors.Is(err, nbdclient.ErrTimeLimit) {
		t.Fatalf("suspended: %v", err)
	}
	clear(p) // the buffer is ours again: the race detector watches
	n.exports.Leave("vol", "nobody")
	flushes := int64(0)
	eventually(t, "the error says why: where the limit is over before the first server has answered, it cannot", func() bool {
		err := r.Flush()
		if flushes++; !errors.Is(err, nbdclient.ErrTimeLimit) {
			t.Fatalf("no primary: %v", err)
		}
		return errors.Is(err, blockdev.ErrNotPrimary)
	})
	if s := r.Stats(); s.Unanswered != 1+flushes || s.LongestPause < 100*time.Millisecond {
		t.Fatalf("stats %+v", s)
	}
}

func TestErrorNumbersGoToTheCallerAndAreCounted(t *testing.T) {
	n, dev := newNode(t), nbdtest.NewMem(testSize)
	dev.Fail = func(op blockdev.Op, _ blockdev.Range) error {
		if op == blockdev.OpWrite {
			return blockdev.ErrNoSpace
		}
		return nil
	}
	n.lead(t, dev)
	r := open(t, nbdclient.ReconnectConfig{}, n.uri())
	for range 3 {
		if _, err := r.WriteAt(fill(512, 1), 0); !errors.Is(err, nbdproto.ENOSPC) {
			t.Fatal(err)
		}
	}
	if s := r.Stats(); s.Errors[nbdproto.ENOSPC] != 3 || s.Answers != 3 || s.Reconnects != 0 {
		t.Fatalf("stats %+v", s)
	}
}

func TestSilentServerIsGivenUp(t *testing.T) {
	dev := nbdtest.NewMem(testSize)
	a, b := newNode(t), newNode(t)
	e := a.lead(t, dev)
	r := open(t, nbdclient.ReconnectConfig{Silence: 50 * time.Millisecond, Pause: time.Millisecond}, a.uri(), b.uri())
	e.Suspend() // as a stopped process: the connection stays, nothing is answered
	done := make(chan error)
	go func() {
		_, err := r.WriteAt(fill(4096, 1), 0)
		done <- err
	}()
	eventually(t, "the connection is given up", func() bool { return r.Stats().Reconnects > 0 })
	a.exports.Leave("vol", "b")
	b.lead(t, dev)
	if err := <-done; err != nil || r.Server() != b.uri() {
		t.Fatalf("%v on %q", err, r.Server())
	}
}

func TestCloseEndsWaitingOperations(t *testing.T) {
	n := newNode(t)
	e := n.lead(t, nbdtest.NewMem(testSize))
	cfg := nbdclient.ReconnectConfig{Pause: time.Millisecond, Client: nbdclient.Config{CloseTimeout: 20 * time.Millisecond}}
	r := open(t, cfg, n.uri())
	e.Suspend()
	done := make(chan error)
	go func() {
		_, err := r.WriteAt(fill(4096, 1), 0)
		done <- err
	}()
	eventually(t, "the server has it", func() bool { return n.Stats().BytesInFlight > 0 })
	r.Close()
	if err := <-done; !errors.Is(err, nbdclient.ErrConnectionLost) {
		t.Fatal(err)
	}
	if err := r.Flush(); !errors.Is(err, blockdev.ErrClosed) || errors.Is(err, nbdclient.ErrConnectionLost) {
		t.Fatal(err)
	}
}

func TestOpenTriesEachServer(t *testing.T) {
	n := newNode(t)
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if _, err := nbdclient.Open(ctx, []string{n.uri(), "nbd+unix:///vol?socket=/nowhere"}, nbdclient.ReconnectConfig{Log: quiet}); err == nil {
		t.Fatal("nobody serves")
	}
	if _, err := nbdclient.Open(ctx, nil, nbdclient.ReconnectConfig{}); err == nil {
		t.Fatal("no server is named")
	}
	n.lead(t, nbdtest.NewMem(testSize))
	r := open(t, nbdclient.ReconnectConfig{}, "nbd+unix:///vol?socket=/nowhere", n.uri())
	if r.Size() != testSize || r.Server() != n.uri() {
		t.Fatal(r.Size(), r.Server())
	}
}

// Who looks at each connection before it is used sees what it says of itself, also of the ones that follow.
func TestConnectionsAreLookedAtBeforeTheyAreUsed(t *testing.T) {
	dev := nbdtest.NewMem(testSize)
	a := newNode(t)
	e := a.lead(t, dev)
	e.SetDescription("good")
	var seen, refused atomic.Int64
	r := open(t, nbdclient.ReconnectConfig{Pause: time.Millisecond, Accept: func(c *nbdclient.Client) error {
		seen.Add(1)
		if c.Description() != "good" {
			refused.Add(1)
			return errors.New("not the one before")
		}
		return nil
	}}, a.uri())
	p := make([]byte, 4096)
	if _, err := r.WriteAt(p, 0); err != nil || seen.Load() != 1 {
		t.Fatalf("%v after %d looks", err, seen.Load())
	}
	e.Close()
	e = a.lead(t, dev)
	e.SetDescription("bad")
	done := make(chan error, 1)
	go func() { _, err := r.WriteAt(p, 0); done <- err }()
	eventually(t, "it is refused, again and again", func() bool { return refused.Load() > 2 })
	select {
	case err := <-done:
		t.Fatalf("a request ended over a connection that was refused: %v", err)
	default:
	}
	e.SetDescription("good")
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// What waits for a connection, and what comes later, ends with what End says.
func TestEndEndsWhatWaits(t *testing.T) {
	a := newNode(t)
	e := a.lead(t, nbdtest.NewMem(testSize))
	r := open(t, nbdclient.ReconnectConfig{Limit: time.Hour, Pause: time.Hour}, a.uri())
	e.Suspend()
	inFlight, waiting, why := make(chan error, 1), make(chan error, 1), errors.New("the volume is elsewhere")
	go func() { _, err := r.ReadAt(make([]byte, 4096), 0); inFlight <- err }()
	eventually(t, "a request is in flight", func() bool { return len(inFlight) == 0 && r.Server() != "" })
	a.exports.Leave("vol", "the other")
	e.Close()
	eventually(t, "the connection is lost", func() bool { return r.Server() == "" })
	go func() { waiting <- r.Flush() }()
	r.End(why)
	for name, c := range map[string]chan error{"in flight": inFlight, "waiting": waiting} {
		if err := <-c; !errors.Is(err, why) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := r.WriteAt(make([]byte, 4096), 0); !errors.Is(err, why) {
		t.Errorf("later: %v", err)
	}
}
