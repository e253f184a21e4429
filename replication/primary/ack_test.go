package primary

import (
	"errors"
	"testing"

	"hacluster/blockdev"
)

func TestWriteIsAcknowledgedOnlyWhenEveryMemberHasIt(t *testing.T) { // R3, R20
	for _, kind := range []blockdev.Op{blockdev.OpWrite, blockdev.OpZero, blockdev.OpFlush} {
		for _, order := range [][3]string{{"p", "s", "x"}, {"s", "p", "x"}, {"s", "x", "p"}, {"x", "p", "s"}} {
			g := newRig(t, "s", "x")
			streams := map[string]uint64{"s": g.up("s"), "x": g.up("x")}
			op := g.admit(g.op(kind, 0, 4096))
			for _, who := range order {
				g.wantOpen(op)
				if who == "p" {
					g.local(op, nil)
				} else {
					g.ack(who, streams[who], 1)
				}
			}
			g.wantDone(op)
			if g.count(Release, op) != 1 {
				t.Fatalf("%v, order %v: released %d times, want once", kind, order, g.count(Release, op))
			}
		}
	}
}

func TestPrefixAcknowledgementCompletesAllBehindIt(t *testing.T) {
	g := newRig(t, "s")
	n := g.up("s")
	a, b, c := g.write(0), g.write(4096), g.write(8192)
	g.local(c, nil)
	g.local(a, nil)
	g.ack("s", n, 2)
	g.wantDone(a)
	g.wantOpen(b, c)
	g.local(b, nil)
	g.wantDone(b)
	g.ack("s", n, 3)
	g.wantDone(c)
	if g.c.InFlight() != 0 {
		t.Fatalf("%d in flight, want none", g.c.InFlight())
	}
}

func TestReplicaThatIsNoMemberIsNotWaitedFor(t *testing.T) {
	g := newRig(t, "s")
	n := g.up("s")
	g.up("x") // a resync target
	op := g.write(0)
	g.local(op, nil)
	g.ack("s", n, 1)
	g.wantDone(op)
	if g.count(Release, op) != 0 {
		t.Fatal("the payload was given back while the resync target's stream still holds it")
	}
}

func TestOneHangingWriteDoesNotKeepTheMemoryOfLaterOnes(t *testing.T) { // R28
	g := newRig(t, "s")
	n := g.up("s")
	hang := g.write(0)
	for i := range 1000 {
		op := g.write(4096)
		g.local(op, nil)
		g.ack("s", n, uint64(i+2))
		if g.count(Release, op) != 1 {
			t.Fatalf("write %d is complete and its memory is kept behind the one that hangs", i)
		}
	}
	g.wantOpen(hang)
	if g.c.InFlight() != 1 {
		t.Fatalf("%d in flight, want 1", g.c.InFlight())
	}
	g.local(hang, nil)
	g.wantDone(hang)
	if g.c.inflight.len() != 0 {
		t.Fatalf("%d places kept with nothing in flight", g.c.inflight.len())
	}
}

func TestOverlappingWritesStartLocallyInTheOrderOfAdmission(t *testing.T) { // R33
	g := newRig(t, "s")
	g.up("s")
	a, b := g.write(0), g.write(2048)
	far := g.write(1 << 20)
	if g.count(StartLocal, a) != 1 || g.count(StartLocal, far) != 1 || g.count(StartLocal, b) != 0 {
		t.Fatal("a write started beside one that it overlaps, or one that overlaps nothing did not start")
	}
	g.local(a, nil)
	if g.count(StartLocal, b) != 1 {
		t.Fatal("the later write did not start after the earlier returned")
	}
	if got := g.sent("s"); len(got) != 3 || got[0] != 1 || got[1] != 2 || got[2] != 3 {
		t.Fatalf("sent %v, want 1 2 3: the peer keeps the order itself", got)
	}
}

func TestReadWaitsForTheWritesItMayHaveSeen(t *testing.T) { // R29
	g := newRig(t, "s")
	n := g.up("s")
	w1, w2 := g.write(0), g.write(4096)
	g.local(w1, nil)
	g.local(w2, nil)
	over, beside := g.op(blockdev.OpRead, 0, 8192), g.op(blockdev.OpRead, 8192, 4096)
	g.c.ReadDone(over, nil)
	g.c.ReadDone(beside, nil)
	g.take()
	g.wantDone(beside)
	g.wantOpen(over)
	g.ack("s", n, 1)
	g.wantOpen(over)
	g.ack("s", n, 2)
	g.wantDone(over, w1, w2)
	if g.count(Release, over) != 1 {
		t.Fatal("the read was not given back")
	}
}

func TestReadDoesNotWaitForAFlush(t *testing.T) {
	g := newRig(t, "s")
	g.up("s")
	g.admit(g.op(blockdev.OpFlush, 0, 4096))
	r := g.op(blockdev.OpRead, 0, 4096)
	g.c.ReadDone(r, nil)
	g.take()
	g.wantDone(r)
}

// faults.md D88: the error is the client's only when nobody else has the data.
func TestFailedReadIsLeftToTheNextPrimary(t *testing.T) { // R23
	g := newRig(t, "s")
	n := g.up("s")
	r := g.op(blockdev.OpRead, 0, 4096)
	g.c.ReadDone(r, errDisk)
	if acts := g.take(); !has(acts, HandOn, "") || has(acts, DiskFailed, "") {
		t.Fatal("nobody was told of the failure")
	}
	g.wantOpen(r)
	g.down("s", n)
	g.drop("s")
	g.wantDone(r)
	if !errors.Is(r.Err, errDisk) || g.count(Release, r) != 1 {
		t.Fatalf("read error %v, want %v; given back %d times", r.Err, errDisk, g.count(Release, r))
	}
	alone := g.op(blockdev.OpRead, 0, 4096)
	g.c.ReadDone(alone, errDisk)
	g.take()
	g.wantDone(alone)
}

// faults.md D89, D90
func TestPrimaryWhoseDiskFailedCompletesNothingWhileAMemberIsThere(t *testing.T) { // R23
	g := newRig(t, "s")
	n := g.up("s")
	bad, before, after := g.flush(), g.write(0), g.write(4096)
	acts := g.local(bad, errDisk)
	if !has(acts, DiskFailed, "") {
		t.Fatal("nobody was told of the failure")
	}
	g.local(before, nil)
	g.local(after, nil)
	g.ack("s", n, 3)
	g.wantOpen(bad, before, after)
	if !errors.Is(g.c.DiskError(), errDisk) {
		t.Fatalf("disk error %v", g.c.DiskError())
	}
	if acts := g.pass(10 * dropAfter); drops(acts, "s") {
		t.Fatal("the last other member is being dropped: what the failed flush lost may be there")
	}
}

func TestPrimaryWhoseDiskFailedStillDropsOneOfTwoMembers(t *testing.T) { // R23, R4
	g := newRig(t, "s", "x")
	g.up("s")
	op := g.write(0)
	g.local(op, errDisk)
	if acts := g.pass(3 * dropAfter); !drops(acts, "x") {
		t.Fatal("x never connected and is not dropped")
	}
}

func TestPrimaryWhoseDiskFailedAndWhoseLastMemberLeftReportsTheError(t *testing.T) { // R23
	g := newRig(t, "s")
	n := g.up("s")
	bad, good := g.write(0), g.write(4096)
	g.local(bad, errDisk)
	g.local(good, nil)
	g.ack("s", n, 2)
	g.wantOpen(bad, good)
	g.down("s", n)
	g.drop("s") // it was proposed before
	g.wantDone(bad, good)
	if !errors.Is(bad.Err, errDisk) || good.Err != nil {
		t.Fatalf("errors %v and %v, want %v and none", bad.Err, good.Err, errDisk)
	}
}

func TestFailedLocalWriteIsComparedAgain(t *testing.T) { // R23: the content of the range is undefined
	g := newRig(t)
	n := g.up("s")
	for range 3 {
		at, _ := g.c.TakeChunk(g.now, "s", n, 0)
		g.c.Compared(g.now, "s", n, at, nil)
	}
	g.local(g.write(0), errDisk)
	if p := g.c.Peer("s"); p.RemainingBytes != chunk+4096 {
		t.Fatalf("%d bytes are left to compare, want the last chunk and the block that failed", p.RemainingBytes)
	}
}

func TestSoleMemberReportsTheErrorOfItsDisk(t *testing.T) { // R23
	g := newRig(t)
	bad, good := g.write(0), g.write(4096)
	g.local(bad, errDisk)
	g.local(good, nil)
	g.wantDone(bad, good)
	if !errors.Is(bad.Err, errDisk) || good.Err != nil {
		t.Fatalf("errors %v and %v, want %v and none", bad.Err, good.Err, errDisk)
	}
}

func TestNoFlushSucceedsAfterOneThatFailed(t *testing.T) { // R23: a failed flush is not retried as if it had not failed
	fua := func(g *rig) *Op { op := g.op(blockdev.OpWrite, 0, 4096); op.FUA = true; return g.admit(op) }
	for name, first := range map[string]func(g *rig) *Op{"flush": (*rig).flush, "FUA": fua} {
		g := newRig(t)
		g.local(first(g), errDisk)
		for _, op := range []*Op{g.flush(), fua(g)} {
			g.local(op, nil)
			g.wantDone(op)
			if !errors.Is(op.Err, errDisk) {
				t.Errorf("after a failed %s, a later one ended with %v", name, op.Err)
			}
		}
		if w := g.write(4096); g.local(w, nil) != nil && w.Err != nil {
			t.Errorf("after a failed %s, a plain write ended with %v", name, w.Err)
		}
	}
}

func TestFailureIsToldAgainWhenThereIsSomebodyToHandOverTo(t *testing.T) { // R23
	g := newRig(t)
	g.local(g.write(0), errDisk)
	n := g.resync("s")
	g.ack("s", n, g.last("s"))
	if acts := g.admitMember("s", bootA); !has(acts, DiskFailed, "") {
		t.Fatal("a member that can take over was admitted and nobody was told")
	}
}

func TestDrainTellsOnceWhenNothingIsInFlight(t *testing.T) { // R30
	g := newRig(t, "s")
	n := g.up("s")
	op := g.write(0)
	g.c.Drain()
	if has(g.take(), Drained, "") {
		t.Fatal("drained with a write in flight")
	}
	if has(g.local(op, nil), Drained, "") {
		t.Fatal("drained before the member has the write")
	}
	if !has(g.ack("s", n, 1), Drained, "") {
		t.Fatal("not drained with nothing in flight")
	}
	op = g.flush()
	if has(g.local(op, nil), Drained, "") || has(g.ack("s", n, 2), Drained, "") {
		t.Fatal("drained a second time")
	}
	g.wantDone(op)
	g.c.Drain()
	if !has(g.take(), Drained, "") {
		t.Fatal("a Core at rest does not drain at once")
	}
}

func TestResumeTakesDrainBack(t *testing.T) { // R30
	g := newRig(t, "s")
	n := g.up("s")
	op := g.write(0)
	g.c.Drain()
	g.c.Resume()
	g.local(op, nil)
	if has(g.ack("s", n, 1), Drained, "") {
		t.Fatal("drained although the hand-over was void")
	}
}
