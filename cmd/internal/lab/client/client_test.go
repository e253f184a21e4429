package client

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"hacluster/blockdev"
	"hacluster/blockdev/frontend/nbd"
	"hacluster/blockdev/frontend/nbd/nbdtest"
	"hacluster/cmd/internal/lab/history"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	patience = 30 * time.Second
	testSize = 8 << 20
)

// server is a server of the volume whose role the test decides.
type server struct {
	t       *testing.T
	exports *nbdtest.Exports
	Server
	export *nbdtest.Export
}

func newServer(t *testing.T, node string) *server {
	t.Helper()
	s := &server{t: t, exports: nbdtest.NewExports()}
	socket := filepath.Join(t.TempDir(), "s")
	s.Server = Server{node, "nbd+unix:///vol?socket=" + socket}
	s.exports.Leave("vol", "elsewhere")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	n, err := nbd.New(s.exports, nbd.Config{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- n.Serve(context.Background(), l) }()
	t.Cleanup(func() {
		n.Close()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return s
}

func (s *server) lead(dev blockdev.Device) {
	s.export = nbdtest.SyncExport(dev, 4)
	s.exports.Serve("vol", s.export)
	s.t.Cleanup(s.export.Close)
}

func (s *server) leave() {
	s.exports.Leave("vol", "elsewhere")
	s.export.Close()
}

// under runs a load on two servers, does what the test does meanwhile, and returns the record.
func under(t *testing.T, a, b *server, during func(c *Client, ctx context.Context)) Record {
	t.Helper()
	c := New(Config{Servers: []Server{a.Server, b.Server}, Blocks: 4, Silence: 300 * time.Millisecond})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	load, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.Run(load)
	}()
	during(c, ctx)
	stop()
	<-done
	if err := c.ReadAll(ctx); err != nil {
		t.Fatal(err)
	}
	return c.Record()
}

func wait(t *testing.T, c *Client, ctx context.Context, server string) {
	t.Helper()
	for range 20 {
		if err := c.WaitAnswer(ctx, server, history.Clock()); err != nil {
			t.Fatal(err)
		}
	}
}

// waitForAll waits until a server has answered each worker and its own probe: then all of them are connected to it.
func waitForAll(t *testing.T, c *Client, ctx context.Context, server string) {
	t.Helper()
	missing := map[string]bool{"probe-" + server: true}
	for i := range 4 {
		missing[fmt.Sprint("writer", i)], missing[fmt.Sprint("reader", i)] = true, true
	}
	for seen := 0; len(missing) > 0; {
		if err := c.WaitAnswer(ctx, server, history.Clock()); err != nil {
			t.Fatalf("%v; not answered yet: %v", err, slices.Sorted(maps.Keys(missing)))
		}
		c.mu.Lock()
		for ; seen < len(c.ops); seen++ {
			if o := c.ops[seen]; o.Server == server && !o.Unknown {
				delete(missing, o.Who)
			}
		}
		c.mu.Unlock()
	}
}

var moved = []history.Tenure{{Epoch: 1, Node: "a"}, {Epoch: 2, Node: "b"}}

func TestRecordOfAMoveIsLinearizable(t *testing.T) {
	a, b, dev := newServer(t, "a"), newServer(t, "b"), nbdtest.NewMem(testSize)
	a.lead(dev)
	r := under(t, a, b, func(c *Client, ctx context.Context) {
		waitForAll(t, c, ctx, "a")
		wait(t, c, ctx, "a")
		a.leave()
		b.lead(dev)
		waitForAll(t, c, ctx, "b")
		wait(t, c, ctx, "b")
	})
	if bad, undecided := history.Registers(r.Ops, time.Minute); len(bad)+len(undecided)+len(r.Broken)+len(r.Errors) > 0 {
		t.Errorf("%v, undecided %v, broken %v, errors %v", bad, undecided, r.Broken, r.Errors)
	}
	if bad := history.Primaries(r.Ops, moved); len(bad) > 0 {
		t.Error(bad)
	}
	if n := history.Lost(r.Ops); n > 0 || r.Dials < 18 { // eight workers and a probe, twice
		t.Errorf("%d lost, %d connections", n, r.Dials)
	}
}

// The new primary has an empty copy: what was acknowledged is lost, and both judgements say so.
func TestLossIsSeen(t *testing.T) {
	a, b := newServer(t, "a"), newServer(t, "b")
	a.lead(nbdtest.NewMem(testSize))
	r := under(t, a, b, func(c *Client, ctx context.Context) {
		wait(t, c, ctx, "a")
		a.leave()
		b.lead(nbdtest.NewMem(testSize))
		wait(t, c, ctx, "b")
	})
	if bad, _ := history.Registers(r.Ops, time.Minute); len(bad) == 0 || !strings.Contains(bad[0].Why, "stale") {
		t.Errorf("%v", bad)
	}
	if history.Lost(r.Ops) == 0 {
		t.Error("nothing is lost")
	}
}

// The old primary goes on answering beside the new one: the probe that insists on it shows that.
func TestTwoPrimariesAreSeen(t *testing.T) {
	a, b, dev := newServer(t, "a"), newServer(t, "b"), nbdtest.NewMem(testSize)
	a.lead(dev)
	r := under(t, a, b, func(c *Client, ctx context.Context) {
		wait(t, c, ctx, "a")
		b.lead(dev)
		wait(t, c, ctx, "b")
		wait(t, c, ctx, "a")
	})
	if bad := history.Primaries(r.Ops, moved); len(bad) == 0 {
		t.Error("nobody objects")
	}
}

// A server that stands still is left by the workers, whose operations stay unknown, and waited for by its probe.
func TestSilentServerIsLeft(t *testing.T) {
	a, b, dev := newServer(t, "a"), newServer(t, "b"), nbdtest.NewMem(testSize)
	a.lead(dev)
	r := under(t, a, b, func(c *Client, ctx context.Context) {
		wait(t, c, ctx, "a")
		a.export.Suspend()
		b.lead(dev)
		wait(t, c, ctx, "b")
		a.leave()
	})
	unknown := 0
	for _, o := range r.Ops {
		if o.Unknown {
			unknown++
		}
	}
	if bad, undecided := history.Registers(r.Ops, time.Minute); unknown == 0 || len(bad)+len(undecided) > 0 {
		t.Errorf("%d unknown, %v, undecided %v", unknown, bad, undecided)
	}
}

func TestStamp(t *testing.T) {
	p := make([]byte, BlockSize)
	stamp(p, history.Op{Who: "writer1", Block: 7, Seq: 9})
	if seq, err := ReadStamp(p, 7); seq != 9 || err != nil {
		t.Fatal(seq, err)
	}
	if _, err := ReadStamp(p, 8); err == nil {
		t.Error("a block at the wrong place passes")
	}
	for _, i := range []int{0, 9, 100, BlockSize - 1} {
		p[i] ^= 1
		if _, err := ReadStamp(p, 7); err == nil {
			t.Errorf("byte %d is wrong, and passes", i)
		}
		p[i] ^= 1
	}
	copy(p[2048:], zeroes[:])
	if _, err := ReadStamp(p, 7); err == nil {
		t.Error("half a block passes")
	}
	if seq, err := ReadStamp(zeroes[:], 7); seq != 0 || err != nil {
		t.Fatal(seq, err)
	}
}

// While a load is paused nothing is under way and nothing begins; a server that does not answer leaves its probes waiting.
func TestPausedLoadStandsStill(t *testing.T) {
	a, b, dev := newServer(t, "a"), newServer(t, "b"), nbdtest.NewMem(testSize)
	a.lead(dev)
	under(t, a, b, func(c *Client, ctx context.Context) {
		waitForAll(t, c, ctx, "a")
		unanswered, resume := c.Pause()
		sent := c.nextSeq()
		if unanswered != 0 {
			t.Errorf("%d operations are under way", unanswered)
		}
		for range 10 { // ten times what a worker rests
			time.Sleep(c.cfg.Think)
		}
		if next := c.nextSeq(); next != sent+1 {
			t.Errorf("%d writes began", next-sent-1)
		}
		resume()
		wait(t, c, ctx, "a")
		a.export.Suspend()
		for unanswered, resume = c.Pause(); unanswered == 0 && ctx.Err() == nil; unanswered, resume = c.Pause() {
			resume()
			time.Sleep(c.cfg.Think)
		}
		if unanswered == 0 {
			t.Error("nobody waits for a server that does not answer")
		}
		b.lead(dev)
		resume()
		wait(t, c, ctx, "b")
		a.leave()
	})
}

// A write may be on a disk before it is answered, and one that hangs is never settled while the server stands still.
func TestWriteUnderWayIsInTheRecord(t *testing.T) {
	c := New(Config{})
	o := history.Op{Who: "probe-a", Kind: history.Write, Block: 7, Seq: c.nextSeq(), Sent: 3}
	c.sends(o)
	read := []history.Op{{Kind: history.Read, Block: 7, Seq: o.Seq, Sent: 4, Answered: 5}}
	if ops := c.Record().Ops; len(ops) != 1 || !ops[0].Unknown || len(history.Lacks(ops, read)) > 0 {
		t.Errorf("under way: %v; %v", ops, history.Lacks(ops, read))
	}
	o.Answered = 6
	c.note(o)
	if ops := c.Record().Ops; len(ops) != 1 || ops[0].Unknown {
		t.Errorf("answered: %v", ops)
	}
}
