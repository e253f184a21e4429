package replication

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"hacluster/blockdev"
	"hacluster/blockdev/backend/faultdev"
	"hacluster/heartbeat/cluster"
	"hacluster/replication/link"
	"hacluster/replication/wire"
)

// R11, faults.md T83: without a lease nothing is answered; with a new one in the same epoch the same connections go on.
func TestLeaseLostAndRegainedCostsNoConnection(t *testing.T) {
	l := formed(t, labConfig{inline: true}, "a", "b")
	a := l.nodes["a"]
	ten := a.serving()
	c := ten.client(t)
	if err := c.write(0, pattern(4096, 1)); err != nil {
		t.Fatal(err)
	}
	held := l.nodes["b"].faults.Add(faultdev.Rule{Op: blockdev.OpWrite, Range: blockdev.Range{Off: 4096, Len: 4096}, Stall: true}) // the settling writes to block 0
	under := c.begin(writeReq(4096, pattern(4096, 2)))                                                                             // admitted with a lease
	l.await("the standby to write", func() bool { return held.Waiting() == 1 })
	a.expire()
	held.Remove()
	l.await("the write to be complete", func() bool { return a.peer("b").UnackedBytes == 0 })
	if s, _ := a.get().Serving(); !s.Suspended {
		t.Error("status does not say that the volume is suspended")
	}
	later := make(chan error, 1)
	go func() { later <- c.write(8192, pattern(4096, 3)) }()
	select {
	case err := <-under:
		t.Fatalf("answered (%v) without a lease", err)
	case err := <-later:
		t.Fatalf("admitted (%v) without a lease", err)
	case <-time.After(20 * time.Millisecond):
	}
	a.grant()
	if err := errors.Join(<-under, <-later); err != nil {
		t.Fatal(err)
	}
	if a.get().Tenure() != ten {
		t.Error("another tenure")
	}
	l.same("a", "b")
}

// R11: a suspension beyond the limit closes the connections; the node stays primary and serves new ones with the next
// lease.
func TestSuspensionBeyondTheLimitCutsTheClients(t *testing.T) {
	l := formed(t, labConfig{inline: true, suspend: 10 * dropAfter}, "a", "b")
	a := l.nodes["a"]
	ten := a.serving()
	old := ten.client(t)
	if err := old.write(0, pattern(4096, 1)); err != nil {
		t.Fatal(err)
	}
	ten.look()
	l.await("the tenure to look", func() bool { return len(ten.kick) == 0 }) // it counts from when it begins to look
	a.expire()
	waiting := make(chan error, 1)
	go func() { waiting <- old.write(4096, pattern(4096, 2)) }()
	l.pass(9 * dropAfter) // the rest is more than a pause of a loaded machine since the lease was seen
	time.Sleep(10 * time.Millisecond)
	select {
	case <-old.e.Gone():
		t.Fatal("cut before the limit")
	default:
	}
	l.pass(2 * dropAfter)
	if err := <-waiting; !errors.Is(err, errCut) {
		t.Fatalf("answered %v, want the connection to be closed", err)
	}
	fresh := ten.client(t)
	a.grant()
	if err := fresh.write(4096, pattern(4096, 3)); err != nil {
		t.Fatal(err)
	}
	if _, err := old.read(0, 512); err != nil && !errors.Is(err, errCut) {
		t.Errorf("the old connection: %v", err)
	}
}

// faults.md N38, X98: when the epoch moves, connections are cut; nothing that was under way is answered, then or later.
func TestHigherEpochCutsTheClients(t *testing.T) {
	l := formed(t, labConfig{inline: true}, "a", "b")
	a, b := l.nodes["a"], l.nodes["b"]
	c := a.serving().client(t)
	a.connected("b")
	held := b.faults.Add(faultdev.Rule{Op: blockdev.OpWrite, Stall: true})
	under := c.begin(writeReq(0, pattern(4096, 1)))
	l.await("the standby to write", func() bool { return held.Waiting() == 1 })
	a.expire()
	l.promote("b", cluster.BasisUnchanged)
	if err := <-under; !errors.Is(err, errCut) {
		t.Fatalf("answered %v", err)
	}
	a.grant() // a late one, of the old epoch
	if err := c.write(4096, pattern(4096, 2)); !errors.Is(err, errCut) {
		t.Fatalf("the old connection: %v", err)
	}
	time.Sleep(10 * time.Millisecond)
	if b.get().Tenure() != nil || b.get().Report().Epoch != 1 {
		t.Error("the epoch is taken with an operation of an older one on the device") // R2
	}
	held.Remove()
	b.grant()
	if err := b.serving().client(t).write(8192, pattern(4096, 3)); err != nil {
		t.Fatal(err)
	}
	l.await("the old primary to be resynced", func() bool { return l.volume().IsMember("a") })
	l.same("a", "b")
}

// R12, faults.md G42: a primary that has not heard of it learns of a higher epoch from the standby's refusal, and answers
// nothing more, whatever its lease says: no write rests on a clock.
func TestRefusalByAHigherEpochShutsTheGate(t *testing.T) {
	l := formed(t, labConfig{inline: true}, "a", "b")
	a, b := l.nodes["a"], l.nodes["b"]
	ten := a.serving()
	c := ten.client(t)
	a.connected("b")
	v := l.volume()
	v.Epoch, v.Primary, v.Process = 2, "b", 1
	v.Version++
	b.get().Applied(*v) // the standby alone has heard of it
	if err := c.write(0, pattern(4096, 1)); !errors.Is(err, errCut) {
		t.Fatalf("answered %v", err)
	}
	a.grant()
	if ten.gate.try() {
		t.Error("a renewed lease opens the gate of an epoch that has ended")
	}
}

// R9: a lease that was read before a give-up does not open the gate after it.
func TestLeaseReadBeforeAGiveUpDoesNotOpenTheGateAfterIt(t *testing.T) {
	for name, read := range map[string]func(g *gate){"told": (*gate).refresh, "asked": func(g *gate) { g.try() }} {
		t.Run(name, func(t *testing.T) { gateAfterAGiveUp(t, read) })
	}
}

func gateAfterAGiveUp(t *testing.T, ask func(*gate)) {
	var lease cluster.Instant = 100
	reading, read := make(chan struct{}), make(chan struct{})
	var g gate
	first := true
	g.init(func() cluster.Instant { return 1 }, func() cluster.Instant {
		now := lease
		if first {
			first = false
			close(reading)
			<-read
		}
		return now
	})
	done := make(chan struct{})
	go func() { ask(&g); close(done) }()
	<-reading
	lease = 0 // given up
	given := make(chan struct{})
	go func() { g.refresh(); close(given) }()
	time.Sleep(5 * time.Millisecond) // it would be through, if it did not wait for the one that reads
	close(read)
	<-done
	<-given
	if g.try() {
		t.Error("the gate is open after the give-up")
	}
}

// R11: a gate that is not told of each renewal asks when its lease is over, and never sooner than that goes by an old one.
func TestGateAsksWhetherALeaseThatRanOutWasRenewed(t *testing.T) {
	var now, lease cluster.Instant = 50, 100
	asked := 0
	var g gate
	g.init(func() cluster.Instant { return now }, func() cluster.Instant { asked++; return lease })
	g.refresh()
	for _, step := range []struct {
		now, lease cluster.Instant
		open       bool
		asked      int
	}{{99, 200, true, 1}, {100, 200, true, 2}, {199, 200, true, 2}, {200, 200, false, 3}, {201, 0, false, 4}, {202, 300, true, 5}} {
		now, lease = step.now, step.lease
		if open := g.try(); open != step.open || asked != step.asked {
			t.Errorf("at %d, with a lease until %d: open %t, asked %d times; want %t, %d", now, lease, open, asked, step.open, step.asked)
		}
	}
	g.close()
	if now = 203; g.try() {
		t.Error("open after it was shut for good")
	}
}

// Only those that have something to do are told of each renewal.
func TestRestingTenureIsNotToldOfRenewals(t *testing.T) {
	l := formed(t, labConfig{inline: true}, "a", "b")
	a := l.nodes["a"]
	ten := a.serving()
	a.connected("b")
	crowd := ten.r.cfg.Crowd
	told := func() bool {
		crowd.mu.Lock()
		defer crowd.mu.Unlock()
		_, ok := crowd.awake[ten]
		return ok
	}
	l.await("the tenure to rest", func() bool { return !told() })
	l.nodes["b"].halt()
	l.await("it to have something to do", told)
}

// R30, and faults.md F122: a hand-over under load loses nothing; the clients' connections are closed and the next
// primary goes on.
func TestHandOverUnderLoad(t *testing.T) {
	l := formed(t, labConfig{inline: true}, "a", "b")
	from, to := l.nodes["a"], l.nodes["b"]
	for range 4 {
		ten := from.serving()
		from.connected(to.name)
		w := startLoad(t, ten, 4)
		w.more(l, 50)
		if err := from.get().HandOver(t.Context(), to.name); err != nil {
			t.Fatal(err)
		}
		w.goes.Wait() // cut off
		l.durable("a", "b")
		from, to = to, from
	}
	w := startLoad(t, from.serving(), 2)
	w.more(l, 50)
	w.end()
	l.same("a", "b")
	if l.drops() != 0 {
		t.Errorf("%d drops", l.drops())
	}
}

// R30: when the leader does not heed the give-up, everything goes on with a lease asked for afterwards, on the same
// connections, and what waited is admitted.
func TestHandOverThatIsVoidResumes(t *testing.T) {
	l := formed(t, labConfig{inline: true}, "a", "b")
	a := l.nodes["a"]
	ten := a.serving()
	a.connected("b")
	for _, verdict := range []error{nil, errors.New("the volume is being moved")} {
		a.mu.Lock()
		a.onGiveUp = func(string, bool) error { return verdict }
		a.mu.Unlock()
		w := startLoad(t, ten, 4)
		w.more(l, 50)
		err := a.get().HandOver(t.Context(), "b")
		if !errors.Is(err, verdict) {
			t.Fatalf("hand-over: %v, want %v", err, verdict)
		}
		before := l.nodes["b"].content()
		time.Sleep(20 * time.Millisecond)
		if !bytes.Equal(before, l.nodes["b"].content()) {
			t.Fatal("something was written between the give-up and the next lease")
		}
		l.same("a", "b")
		a.grant()
		w.more(l, 50)
		w.end()
		l.same("a", "b")
		if w.cut.Load() != 0 {
			t.Error("a client was cut off")
		}
	}
}

// R10: a lease request that was sent after the give-up may reach the leader before it. The give-up is told again.
func TestGiveUpThatWasOvertakenIsToldAgain(t *testing.T) {
	l := formed(t, labConfig{inline: true}, "a", "b")
	a := l.nodes["a"]
	a.serving()
	a.connected("b")
	told := 0
	a.mu.Lock()
	a.onGiveUp = func(string, bool) error {
		if told++; told < 3 {
			return fmt.Errorf("told %d times: %w", told, ErrOvertaken)
		}
		return nil
	}
	a.mu.Unlock()
	if err := a.get().HandOver(t.Context(), "b"); err != nil || told != 3 {
		t.Fatalf("told %d times, %v", told, err)
	}
}

// R11: what waits for a hand-over that comes to nothing is discarded when its connection has closed meanwhile: the client
// may have read the old content by another one.
func TestAbandonedRequestsAreNotAdmittedAfterAVoidHandOver(t *testing.T) {
	l := formed(t, labConfig{inline: true}, "a", "b")
	a := l.nodes["a"]
	ten := a.serving()
	a.connected("b")
	given, void := make(chan struct{}), make(chan struct{})
	a.mu.Lock()
	a.onGiveUp = func(string, bool) error { close(given); <-void; return errFault }
	a.mu.Unlock()
	ended := make(chan *blockdev.Request, 2)
	submit := func(off int64, abandoned bool) *blockdev.Request {
		req := writeReq(off, pattern(4096, 9))
		req.Abandoned = func() bool { return abandoned }
		req.Done = func(r *blockdev.Request) { ended <- r }
		ten.Export().Submit(req)
		return req
	}
	handed := make(chan error, 1)
	go func() { handed <- a.get().HandOver(t.Context(), "b") }()
	<-given
	gone, here := submit(0, true), submit(4096, false)
	close(void)
	if err := <-handed; !errors.Is(err, errFault) {
		t.Fatal(err)
	}
	a.grant()
	for range 2 {
		req := <-ended
		if want := req == gone; errors.Is(req.Err, blockdev.ErrAbandoned) != want || !want && req.Err != nil {
			t.Errorf("%v of %v ended with %v", req.Op, req.Range, req.Err)
		}
		req.Buf.Free()
	}
	for _, name := range []string{"a", "b"} {
		p := l.nodes[name].content()
		if p[gone.Range.Off] != 0 || p[here.Range.Off] != 9 {
			t.Errorf("%s holds %d of the abandoned write and %d of the other", name, p[gone.Range.Off], p[here.Range.Off])
		}
	}
}

// R30: a lease that is renewed while the hand-over flushes lets nothing in: what would be in flight at the give-up might
// be on one member only, and both stay members.
func TestLeaseRenewedDuringAHandOverLetsNothingIn(t *testing.T) {
	l := formed(t, labConfig{inline: true}, "a", "b")
	a, b := l.nodes["a"], l.nodes["b"]
	ten := a.serving()
	a.connected("b")
	c := ten.client(t)
	held := a.faults.Add(faultdev.Rule{Op: blockdev.OpFlush, Stall: true})
	handed := make(chan error, 1)
	go func() { handed <- a.get().HandOver(context.Background(), "b") }()
	l.await("the last flush", func() bool { return held.Waiting() == 1 })
	a.grant()
	ten.resume()
	answer := c.begin(writeReq(0, pattern(4096, 1)))
	ten.mu.Lock()
	if n := ten.core.InFlight(); n != 1 {
		t.Errorf("%d operations are under way beside the last flush", n-1)
	}
	ten.mu.Unlock()
	held.Release()
	if err := <-handed; err != nil {
		t.Fatal(err)
	}
	if err := <-answer; !errors.Is(err, errCut) {
		t.Errorf("answered %v", err)
	}
	b.serving()
	l.same("a", "b")
}

// A hand-over that runs out of time while it drains gives nothing up, and lets go on.
func TestHandOverThatCannotDrainIsCalledOff(t *testing.T) {
	l := formed(t, labConfig{inline: true}, "a", "b")
	a, b := l.nodes["a"], l.nodes["b"]
	c := a.serving().client(t)
	a.connected("b")
	held := b.faults.Add(faultdev.Rule{Op: blockdev.OpWrite, Times: 1, Stall: true})
	under := c.begin(writeReq(0, pattern(4096, 1)))
	l.await("the standby to write", func() bool { return held.Waiting() == 1 })
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := a.get().HandOver(ctx, "b"); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("hand-over: %v", err)
	}
	if len(a.giveUps) != 0 {
		t.Error("given up with a write in flight")
	}
	if _, err := c.read(1<<20, 512); err != nil {
		t.Error(err)
	}
	after := c.begin(writeReq(1<<20, pattern(4096, 2)))
	held.Remove()
	if err := errors.Join(<-under, <-after); err != nil {
		t.Fatal(err)
	}
	l.same("a", "b")
	if err := a.get().HandOver(t.Context(), "b"); err != nil {
		t.Error(err)
	}
}

// greet sends one Hello to a node's replica, as node a would.
func greet(t *testing.T, l *lab, change func(*wire.Hello)) (wire.HelloReply, error) {
	t.Helper()
	v := l.volume()
	h := wire.Hello{Cluster: wire.ID{15: 1}, Volume: wire.ID{15: 7}, VolumeName: "v", Size: volumeSize, BlockSize: blockdev.BlockSize,
		Epoch: uint64(v.Epoch), Primary: "a", Process: 1, Stream: 1000, Target: "b"}
	change(&h)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	s, reply, err := l.nodes["a"].dial(ctx, l.nodes["b"], h)
	if s != nil {
		s.Close()
	}
	return reply, err
}

// faults.md G39, G42-G44, G48 and R2: who is answered.
func TestGreetingsThatAreRefused(t *testing.T) {
	l := formed(t, labConfig{inline: true}, "a", "b")
	a := l.nodes["a"]
	c := a.serving().client(t)
	a.connected("b")
	a.expire()
	a.get().Applied(*l.volume())
	for _, tc := range []struct {
		name string
		code wire.Refusal
		do   func(*wire.Hello)
	}{
		{"G39 another cluster", wire.RefusedCluster, func(h *wire.Hello) { h.Cluster[0]++ }},
		{"another node", wire.RefusedTarget, func(h *wire.Hello) { h.Target = "c" }},
		{"G42 an older epoch", wire.RefusedOlderEpoch, func(h *wire.Hello) { h.Epoch-- }},
		{"an older stream", wire.RefusedOlderEpoch, func(h *wire.Hello) { h.Stream = 1 }},
		{"G43 another primary in the same epoch", wire.RefusedOtherPrimary, func(h *wire.Hello) { h.Primary = "c" }},
		{"G43 another process in the same epoch", wire.RefusedOtherPrimary, func(h *wire.Hello) { h.Process++ }},
		{"G44 an epoch that Raft has not shown", wire.RefusedNewerEpoch, func(h *wire.Hello) { h.Epoch++ }},
		{"G48 another volume", wire.RefusedVolume, func(h *wire.Hello) { h.Volume[0]++ }},
		{"G48 another size", wire.RefusedSize, func(h *wire.Hello) { h.Size += 4096 }},
		{"G48 another block size", wire.RefusedBlockSize, func(h *wire.Hello) { h.BlockSize = 512 }},
		{"another generation", wire.RefusedGeneration, func(h *wire.Hello) { h.Generation = 1 }},
	} {
		reply, err := greet(t, l, tc.do)
		var refused *link.RefusedError
		if !errors.As(err, &refused) || reply.Code != tc.code || reply.Epoch != 1 && tc.code == wire.RefusedOlderEpoch {
			t.Errorf("%s: %v, epoch %d", tc.name, err, reply.Epoch)
		}
	}
	if n := l.nodes["b"].told("two primaries"); n != 1 { // G43: an alarm, and not once for each of them
		t.Errorf("%d alarms of two primaries, want 1", n)
	}
	l.clock.Add(int64(2 * mendEvery))
	if _, err := greet(t, l, func(h *wire.Hello) { h.Primary = "c" }); err == nil || l.nodes["b"].told("two primaries") != 2 {
		t.Errorf("after a while: %v, %d alarms", err, l.nodes["b"].told("two primaries"))
	}
	a.grant()
	if err := c.write(0, pattern(4096, 1)); err != nil { // none of it harmed the stream that is open
		t.Fatal(err)
	}
	l.same("a", "b")
}

// faults.md G46: a gap is refused; nothing is applied around it.
func TestGapInTheSequenceIsRefused(t *testing.T) {
	l := formed(t, labConfig{inline: true}, "a", "b")
	l.nodes["a"].cable.cut() // the test speaks for the primary
	l.nodes["a"].serving()
	l.nodes["a"].cable.mend()
	l.nodes["a"].expire()
	h := wire.Hello{Cluster: wire.ID{15: 1}, Volume: wire.ID{15: 7}, VolumeName: "v", Size: volumeSize, BlockSize: blockdev.BlockSize,
		Epoch: 1, Primary: "a", Process: 1, Stream: 1000, Target: "b"}
	s, _, err := l.nodes["a"].dial(t.Context(), l.nodes["b"], h)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	p := pattern(4096, 6)
	req := writeReq(0, p)
	frame := wire.Frame{Kind: wire.Write, Seq: 3, Range: req.Range, Buf: req.Buf, Sum: req.Sum}
	if err := s.Send([]wire.Frame{{Kind: wire.Begin, ID: 1}, frame}); err != nil {
		t.Fatal(err)
	}
	replies, err := s.Recv()
	if err != nil || replies[0].Kind != wire.Nack || replies[0].Code != wire.BadOrder {
		t.Fatalf("%v, %v; want a refusal for the order", replies, err)
	}
	if l.nodes["b"].content()[0] != 0 {
		t.Error("the entry behind the gap was applied")
	}
}
