package primary

import (
	"slices"
	"strings"
	"testing"
	"time"

	"hacluster/blockdev"
	"hacluster/heartbeat/cluster"
)

// asyncRig is a rig whose only member is s, connected, in mode async with the bound.
func asyncRig(t *testing.T, b Bound) (g *rig, s uint64) {
	g = newRig(t, "s")
	g.commit(func(v *cluster.Volume) { v.Mode, v.Served = cluster.ModeAsync, "p" })
	g.c.SetBound(g.now, b)
	return g, g.up("s")
}

// wide is a bound that tests do not reach by chance.
var wide = Bound{Bytes: 1 << 20, Time: 5 * time.Second, Patience: 10 * time.Second}

func (g *rig) writeDone(off, n int64) *Op {
	op := g.admit(g.op(blockdev.OpWrite, off, n))
	g.local(op, nil)
	return op
}

func (g *rig) lagOf(node string) Progress { return g.c.Peer(node) }

func TestAsyncWriteIsAcknowledgedWhenItIsHere(t *testing.T) { // R3
	g, s := asyncRig(t, wide)
	a, fua := g.write(0), g.op(blockdev.OpWrite, 4096, 4096)
	fua.FUA = true
	g.admit(fua)
	flush := g.flush()
	g.wantOpen(a, fua, flush)
	for _, op := range []*Op{a, fua, flush} {
		g.local(op, nil)
		g.wantDone(op)
		if n := g.count(Release, op); n != 0 {
			t.Errorf("released %d times while the member has not written it", n)
		}
	}
	if got := g.sent("s"); !slices.Equal(got, []uint64{1, 2, 3}) {
		t.Errorf("sent %v", got)
	}
	g.ack("s", s, 3)
	g.wantDone(a, fua, flush)
	if n := g.count(Release, flush); n != 1 {
		t.Errorf("released %d times, want once", n)
	}
}

func TestAsyncWithoutABoundIsSync(t *testing.T) { // R13
	for _, b := range []Bound{{}, {Bytes: 1 << 20}, {Time: time.Second}} {
		g, s := asyncRig(t, b)
		op, flush := g.writeDone(0, 4096), g.flush()
		g.local(flush, nil)
		g.wantOpen(op, flush)
		g.ack("s", s, 2)
		g.wantDone(op, flush)
	}
}

func TestAsyncNeverAcknowledgesBeyondTheBoundInBytes(t *testing.T) { // R13
	g, s := asyncRig(t, Bound{Bytes: 64 << 10, Time: time.Hour, Patience: time.Hour})
	a := g.writeDone(0, 28<<10)
	b := g.writeDone(0, 36<<10) // to the byte
	g.wantDone(a, b)
	zero := g.admit(g.op(blockdev.OpZero, 0, 1))
	g.local(zero, nil)
	late := g.flush()
	g.local(late, nil)
	g.wantOpen(zero, late) // a flush has nothing to lose, but does not overtake
	p := g.lagOf("s")
	if p.LagBytes != 64<<10 || !p.AtBound || !p.Slowed || p.Filled != 1000 {
		t.Errorf("%+v", p)
	}
	g.ack("s", s, 1)
	g.wantDone(zero, late)
	if p := g.lagOf("s"); p.LagBytes != 36<<10+1 || p.AtBound {
		t.Errorf("%+v", p)
	}
	large := g.writeDone(0, 65<<10)
	g.wantOpen(large)
	g.ack("s", s, 4)
	g.wantOpen(large) // it would lack more than the bound even by this alone
	g.ack("s", s, 5)
	g.wantDone(large)
	if p := g.lagOf("s"); p.LagBytes != 0 || p.LagSince != 0 || p.Filled != 0 {
		t.Errorf("%+v", p)
	}
}

func TestAsyncNeverAcknowledgesBeyondTheBoundInTime(t *testing.T) { // R13
	g, s := asyncRig(t, Bound{Bytes: 1 << 30, Time: 2 * time.Second, Patience: time.Hour})
	first := g.now
	a := g.writeDone(0, 4096)
	g.pass(900 * time.Millisecond)
	b := g.writeDone(0, 4096)
	g.wantDone(a, b)
	g.now = first.Add(2*time.Second + 1)
	c, flush := g.writeDone(0, 4096), g.flush()
	g.local(flush, nil)
	g.wantOpen(c, flush)
	g.c.Tick(g.now)
	g.take()
	g.wantOpen(c, flush)
	if p := g.lagOf("s"); p.LagSince != first || !p.AtBound {
		t.Errorf("%+v, the first was at %v", p, first)
	}
	g.pass(300 * time.Millisecond)
	if p := g.lagOf("s"); p.Held != 300*time.Millisecond {
		t.Errorf("held for %v, want 300 ms", p.Held)
	}
	g.ack("s", s, 1) // the second is 1.1 s old, and what was acknowledged pays for one more
	g.wantDone(c)
	g.ack("s", s, 2)
	g.wantDone(flush)
}

// What is acknowledged out of the order of admission counts from when its client was told.
func TestAsyncAgeIsThatOfTheFirstAcknowledged(t *testing.T) {
	g, s := asyncRig(t, wide)
	slow, quick := g.write(0), g.write(8192)
	g.local(quick, nil)
	told := g.now
	g.pass(time.Second)
	g.local(slow, nil)
	g.ack("s", s, 1)
	if p := g.lagOf("s"); p.LagSince != told || p.LagBytes != 4096 {
		t.Errorf("%+v", p)
	}
	g.ack("s", s, 2)
	if p := g.lagOf("s"); p.LagSince != 0 || p.LagBytes != 0 || g.c.peers["s"].lag.told.len() != 0 {
		t.Errorf("%+v", p)
	}
}

// Beyond half of the bound writers come down to the speed of the member, and do not run into the bound.
func TestAsyncSlowsDownSmoothly(t *testing.T) { // R13
	const each, acks = 4096, 4000
	g, s := asyncRig(t, Bound{Bytes: 256 * each, Time: time.Hour, Patience: time.Hour})
	n, acked := 0, uint64(0)
	fill := func() { // 16 are always there to be written
		for n += 0; g.c.InFlight() < 16; n++ {
			g.writeDone(0, each)
		}
	}
	fill()
	if told := n - g.c.InFlight(); told != 128 {
		t.Fatalf("%d were acknowledged before anything was slowed", told)
	}
	var rates []int
	for range 8 {
		before := n - g.c.InFlight()
		for range acks / 80 {
			acked++
			g.ack("s", s, acked)
			fill()
			if p := g.lagOf("s"); p.LagBytes > 256*each {
				t.Fatalf("%d bytes behind", p.LagBytes)
			}
		}
		rates = append(rates, n-g.c.InFlight()-before)
	}
	t.Logf("acknowledged for each %d that the member wrote: %v", acks/80, rates)
	if rates[0] < 75 || rates[7] > 60 || rates[7] < 50 || !slices.IsSortedFunc(rates, func(a, b int) int { return b - a }) {
		t.Errorf("it is no slope: %v", rates)
	}
}

func TestAsyncPauseOfWritersIsFollowedByNoLeap(t *testing.T) {
	const each = 4096
	g, s := asyncRig(t, Bound{Bytes: 256 * each, Time: time.Hour, Patience: time.Hour})
	for range 136 { // 128 are told of at once
		g.writeDone(0, each)
	}
	for range 8 {
		g.ack("s", s, g.c.peers["s"].acked+1)
	}
	for range 40 { // all were told of by then, and the rest earns more credit than is kept
		if p := g.lagOf("s"); p.Slowed {
			g.ack("s", s, g.c.peers["s"].acked+1)
		}
	}
	if c := g.c.peers["s"].lag.credit; c > g.c.bound.most() {
		t.Errorf("a credit of %d bytes, at most %d are kept", c, g.c.bound.most())
	}
}

func TestAsyncMemberIsDroppedAfterPatience(t *testing.T) { // R4, R13
	b := Bound{Bytes: 8192, Time: time.Hour, Patience: 3 * time.Second}
	g, _ := asyncRig(t, b)
	ok := g.writeDone(0, 8192)
	held := g.writeDone(0, 4096)
	if acts := g.pass(2900 * time.Millisecond); drops(acts, "s") {
		t.Fatalf("dropped before: %v", acts)
	}
	g.wantDone(ok)
	acts := g.pass(200 * time.Millisecond)
	if !drops(acts, "s") {
		t.Fatal("not dropped after its patience")
	}
	for _, a := range acts {
		if a.Kind == Propose && !strings.Contains(a.Command.Drop.Reason, "8192 bytes that clients were told of, the oldest for 3") {
			t.Error(a.Command.Drop.Reason)
		}
	}
	g.wantOpen(held) // the drop is not committed
	g.drop("s")
	g.wantDone(held)
	if g.c.late != 0 {
		t.Errorf("%d are late", g.c.late)
	}

	// One that writes what it lacks, however slowly, keeps no operation waiting for so long.
	g, s := asyncRig(t, b)
	for n := uint64(1); n < 40; n++ {
		g.writeDone(0, 8192)
		if acts := g.pass(time.Second); drops(acts, "s") || has(acts, Disconnect, "s") {
			t.Fatalf("dropped although it goes on: %v", acts)
		}
		g.ack("s", s, n)
	}
}

func TestAsyncSilenceAloneIsNoReasonToDrop(t *testing.T) { // R13
	g, s := asyncRig(t, wide)
	g.writeDone(0, 4096)
	g.down("s", s)
	if acts := g.pass(14 * time.Second); drops(acts, "s") {
		t.Fatal("dropped although nobody waits for it")
	}
	if !drops(g.pass(2*time.Second), "s") {
		t.Fatal("what clients were told of is not there after the bound and the patience, and it is a member still")
	}
}

func TestAsyncProcessThatWasSentMoreDoesNotGoOn(t *testing.T) { // R13: it may hold what is no prefix
	g, s := asyncRig(t, wide)
	g.writeDone(0, 4096)
	g.ack("s", s, 1)
	g.down("s", s)
	member := func(process uint64) { // as no record says in async: this is the second line
		g.commit(func(v *cluster.Volume) { v.Members["s"] = cluster.Member{Incarnation: bootA, Process: process} })
	}
	member(2)
	if acts := g.begun(func() { s = g.greet("s", Greeting{Incarnation: bootA, Process: 2}) }); drops(acts, "s") || !has(acts, Begin, "s") {
		t.Fatalf("it has all, and is not taken: %v", acts)
	}
	g.writeDone(0, 4096)
	g.down("s", s)
	member(3)
	if acts := g.begun(func() { g.greet("s", Greeting{Incarnation: bootA, Process: 3}) }); !drops(acts, "s") || has(acts, Begin, "s") {
		t.Fatalf("it goes on: %v", acts)
	}
}

func TestAsyncHandOverWaitsForWhatTheMemberLacks(t *testing.T) { // R30
	g, s := asyncRig(t, wide)
	a, running := g.writeDone(0, 4096), g.write(4096)
	drained := func() bool { return has(g.log, Drained, "") }
	g.c.Drain()
	g.take()
	g.local(running, nil)
	g.wantDone(a)
	g.wantOpen(running)
	g.ack("s", s, 1)
	if drained() {
		t.Fatal("drained although the member lacks a write")
	}
	g.ack("s", s, 2)
	g.wantDone(running)
	if !drained() {
		t.Fatal("not drained")
	}
	flush := g.flush()
	g.local(flush, nil)
	g.wantOpen(flush) // it is to be durable there, too
	g.ack("s", s, 3)
	g.wantDone(flush)
	g.c.Resume()
	g.wantDone(g.writeDone(0, 4096))
}

func TestAsyncDrainWaitsForAcknowledgedWritesAlone(t *testing.T) { // R30
	g, s := asyncRig(t, wide)
	g.writeDone(0, 4096)
	g.c.Drain()
	if has(g.take(), Drained, "") {
		t.Fatal("drained although the member lacks an acknowledged write")
	}
	if !has(g.ack("s", s, 1), Drained, "") {
		t.Fatal("not drained")
	}
}

func TestAsyncModeCountsFromNowOnAndEndsAtOnce(t *testing.T) { // R13
	g, s, x := semisyncRig(t)
	op := g.write(0)
	g.local(op, nil)
	g.received("s", s, 1)
	g.received("x", x, 1)
	g.wantDone(op)
	g.c.SetBound(g.now, wide)
	g.commit(func(v *cluster.Volume) { v.Mode = cluster.ModeAsync })
	if p := g.lagOf("s"); p.LagBytes != 4096 || p.LagSince != g.now {
		t.Errorf("%+v", p)
	}
	quick := g.writeDone(0, 4096)
	g.wantDone(quick)
	g.commit(func(v *cluster.Volume) { v.Mode = cluster.ModeSync })
	after := g.writeDone(0, 4096)
	g.ack("s", s, 3)
	g.ack("x", x, 2)
	g.wantOpen(after)
	g.ack("x", x, 3)
	g.wantDone(after)
}

// A replica that is being admitted holds nobody up by what was acknowledged before it had to have it, and has all of that when its
// admission is proposed.
func TestAsyncLagOfOneThatIsBeingAdmitted(t *testing.T) { // R5
	g, s := asyncRig(t, Bound{Bytes: 8192, Time: time.Hour, Patience: time.Hour})
	x := g.resync("x")
	old := g.writeDone(0, 8192)
	g.wantDone(old)
	g.ack("s", s, g.last("s"))
	g.ack("x", x, 1) // closed
	if p := g.lagOf("x"); p.LagBytes != 0 {
		t.Errorf("%+v", p)
	}
	next := g.writeDone(0, 8192)
	g.wantDone(next)
	g.ack("s", s, g.last("s"))
	third := g.writeDone(0, 4096)
	g.wantOpen(third)
	acts := g.ack("x", x, 2)
	if p := g.lagOf("x"); !admits(acts, "x") || p.LagBytes != 8192 {
		t.Fatalf("%+v", p)
	}
	g.ack("x", x, 3)
	g.wantDone(third)
	g.admitMember("x", bootA)
	if p := g.lagOf("x"); p.LagBytes != 4096 {
		t.Errorf("%+v", p)
	}
}

func TestAsyncHoldsMemoryWithinTheRoom(t *testing.T) { // R28
	const each = 4096 + earlyWeight
	g, s := asyncRig(t, wide)
	share := &room{max: 2 * each}
	g.c.cfg.Room = share
	a, b, c := g.writeDone(0, 4096), g.writeDone(0, 4096), g.writeDone(0, 4096)
	g.wantDone(a, b)
	g.wantOpen(c)
	g.ack("s", s, 1)
	g.wantDone(c)
	g.ack("s", s, 3)
	if share.used != 0 || g.c.early != 0 {
		t.Errorf("%d bytes are held, %d counted", share.used, g.c.early)
	}
}

func TestAsyncHoldsNoMoreOperationsThanItMay(t *testing.T) { // R28
	g, s := asyncRig(t, wide)
	var last *Op
	for range maxAhead/2 + 1 {
		last = g.flush()
		g.local(last, nil)
		g.log = g.log[:0]
	}
	if g.c.late != 1 || !g.lagOf("s").Slowed {
		t.Errorf("%d wait", g.c.late)
	}
	g.ack("s", s, 1)
	g.wantDone(last)
}

func TestAsyncPrimaryWhoseDiskFailedAcknowledgesNothing(t *testing.T) { // R23
	g, s := asyncRig(t, wide)
	a, b := g.write(0), g.write(4096)
	g.local(a, errDisk)
	g.local(b, nil)
	g.wantOpen(a, b)
	if acts := g.pass(30 * time.Second); drops(acts, "s") {
		t.Error("the only other member is to leave")
	}
	g.ack("s", s, 2)
	g.wantOpen(a, b)
}

func TestAsyncBoundChangesOnline(t *testing.T) { // R13
	g, s := asyncRig(t, wide)
	a := g.writeDone(0, 64<<10)
	g.c.SetBound(g.now, Bound{Bytes: 4096, Time: time.Hour, Patience: time.Hour})
	b := g.writeDone(0, 4096)
	g.wantDone(a)
	g.wantOpen(b)
	g.c.SetBound(g.now, wide)
	g.take()
	g.wantDone(b)
	g.ack("s", s, 2)
	if p := g.lagOf("s"); p.LagBytes != 0 {
		t.Errorf("%+v", p)
	}
}

// After a hand-over all members stay. The node that handed over stops (a planned maintenance), so its stream never comes up, and
// reads of the new primary are held, for everything is unsettled. In sync the silent one is dropped after DropAfter.
func TestAsyncReadsDoNotWaitForWhoIsSilent(t *testing.T) { // R4, R29
	b := Bound{Bytes: 64 << 20, Time: 5 * time.Second, Patience: 10 * time.Second} // the defaults
	for _, mode := range []string{"sync", "async"} {
		g := newRig(t, "s")
		g.commit(func(v *cluster.Volume) {
			v.Served = "p"
			if mode == "async" {
				v.Mode = cluster.ModeAsync
			}
		})
		g.c.SetBound(g.now, b)
		r := g.op(blockdev.OpRead, 0, 4096)
		g.c.ReadDone(r, nil)
		g.take()
		g.wantOpen(r)
		var waited time.Duration
		for ; waited < time.Minute; waited += dropAfter / 5 {
			if drops(g.pass(dropAfter/5), "s") {
				break
			}
		}
		t.Logf("%s: a read waits %v for a member that is gone before its drop is proposed", mode, waited)
		if waited > 5*dropAfter {
			t.Errorf("%s: a read waits %v (DropAfter is %v)", mode, waited, dropAfter)
		}
	}
}

// A hand-over while the member is within its bound in time and behind by more than the patience: it makes progress all the time.
func TestAsyncHandOverDropsNoMemberThatGoesOn(t *testing.T) { // R30
	b := Bound{Bytes: 64 << 20, Time: 30 * time.Second, Patience: 2 * time.Second}
	g, s := asyncRig(t, b)
	for i := range int64(100) {
		g.writeDone(i*4096, 4096)
	}
	w := g.write(200 * 4096) // in flight when the hand-over begins
	g.c.Drain()
	g.local(w, nil)
	for i := range uint64(50) { // 100 ms each: all would be there after 10 s
		g.ack("s", s, i+1)
		if drops(g.pass(100*time.Millisecond), "s") {
			t.Fatalf("dropped %d ms after the hand-over began: %s", (i+1)*100, g.log[len(g.log)-1].Command.Drop.Reason)
		}
	}
}

// The volume was idle for longer than the patience, so the member acknowledged nothing for as long; it lacks what was acknowledged a
// moment ago. It answers, and is to have it before the role is given up (R23).
func TestAsyncFailedDiskAfterAPauseSendsOn(t *testing.T) { // R23
	g, s := asyncRig(t, Bound{Bytes: 1 << 20, Time: 5 * time.Second, Patience: 10 * time.Second})
	g.writeDone(0, 4096)
	g.ack("s", s, 1)
	for range 200 { // 12 s: it answers each ping
		g.pass(60 * time.Millisecond)
		g.c.Alive(g.now, "s", s)
	}
	told := g.writeDone(8192, 4096)
	g.wantDone(told)
	g.local(g.write(16384), errDisk)
	g.c.GivesUp(g.now, false)
	if !g.c.SendsOn(g.now) {
		t.Errorf("given up at once, and s lacks %d bytes that are on the way", g.lagOf("s").LagBytes)
	}
}

// A read fails here, and the role is to be handed on for it; before that comes about the member is dropped, the client is told of the
// error, and this primary goes on: nothing that was written has failed. A member that is admitted later is one in async.
func TestAsyncIsAsyncAgainAfterAReadThatNobodyCouldAnswer(t *testing.T) { // R23
	g, s := asyncRig(t, wide)
	r := g.op(blockdev.OpRead, 0, 4096)
	g.c.ReadDone(r, errDisk)
	g.take()
	if err := g.c.HandsOn(g.now); err == nil {
		t.Fatal("not handed on")
	}
	g.c.GivesUp(g.now, true) // as the tenure does
	g.drop("s")
	g.wantDone(r)
	if g.c.DiskError() != nil || g.c.HandsOn(g.now) != nil {
		t.Fatal("it counts still")
	}
	g.down("s", s)
	n := g.resync("s")
	g.ack("s", n, g.last("s"))
	g.admitMember("s", bootA)
	op := g.writeDone(8192, 4096)
	g.wantDone(op)
}

// mixedRig has s in a mode of the volume and x in async.
func mixedRig(t *testing.T, mode string, b Bound) (g *rig, s, x uint64) {
	g = newRig(t, "s", "x")
	g.commit(func(v *cluster.Volume) {
		v.Mode, v.Served = mode, "p"
		v.Replicas = []cluster.Replica{{Node: "p"}, {Node: "s"}, {Node: "x", Mode: cluster.ModeAsync}}
	})
	g.c.SetBound(g.now, b)
	return g, g.up("s"), g.up("x")
}

// A member that lacks nothing takes the role of a failed disk at once: what one in async lacks is not waited for.
func TestMixedFailedDiskDoesNotWaitForTheOneInAsync(t *testing.T) { // R23
	g, s, _ := mixedRig(t, cluster.ModeSync, wide)
	told := g.writeDone(0, 4096)
	g.ack("s", s, 1)
	g.wantDone(told)
	g.local(g.write(8192), errDisk)
	g.c.GivesUp(g.now, false)
	if g.c.SendsOn(g.now) {
		t.Error("the role waits for x, and s has everything")
	}
	g.down("s", s)
	g.drop("s")
	if !g.c.SendsOn(g.now) {
		t.Error("given up at once, and x lacks what a client was told of")
	}
}

// What a member in semisync has in memory only is bounded also where another is in async.
func TestMixedWhatIsInMemoryIsBounded(t *testing.T) { // R28
	g, s, x := mixedRig(t, cluster.ModeSemisync, Bound{Bytes: 1 << 30, Time: time.Hour, Patience: time.Hour})
	var ops []*Op
	for i := range uint64(maxEarlyBytes/(1<<20) + 8) {
		ops = append(ops, g.writeDone(0, 1<<20))
		g.received("s", s, i+1)
		g.ack("x", x, i+1)
	}
	g.wantDone(ops[:62]...)
	g.wantOpen(ops[64:]...)
	if g.c.early > maxEarlyBytes {
		t.Errorf("%d bytes are in memory", g.c.early)
	}
}
