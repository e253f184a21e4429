package primary

import (
	"slices"
	"testing"

	"hacluster/blockdev"
	"hacluster/heartbeat/cluster"
	"hacluster/replication/resync"
)

func TestResyncComparesEveryChunkThenClosesThenAdmits(t *testing.T) { // R5, R16
	g := newRig(t)
	n := g.up("s")
	for off := int64(0); off < volSize; off += chunk {
		at, ok := g.c.TakeChunk(g.now, "s", n, 0)
		if !ok || at.Off != off || at.Len != chunk {
			t.Fatalf("chunk %v (%t), want the one at %d", at, ok, off)
		}
		if g.c.peers["s"].closing {
			t.Fatal("closed with chunks left")
		}
		g.c.Compared(g.now, "s", n, at, nil)
		g.take()
	}
	if !g.c.peers["s"].closing || len(g.sent("s")) != 1 {
		t.Fatal("nothing is left and the resync is not being closed")
	}
	acts := g.ack("s", n, g.last("s"))
	if !admits(acts, "s") {
		t.Fatal("closed, caught up, and not proposed")
	}
	for _, a := range acts {
		if a.Kind == Propose && a.Command.Admit.Member != (cluster.Member{Incarnation: bootA, Process: 1}) {
			t.Fatalf("proposed %+v, want the incarnation under which the resync ran", a.Command.Admit.Member)
		}
	}
}

func TestAcknowledgingTakesTheUnionWhileAnAdmissionIsUndecided(t *testing.T) { // R5
	g := newRig(t)
	n := g.resync("s")
	before := g.write(0)
	g.local(before, nil)
	g.wantDone(before) // not waited for yet
	closing := g.last("s") - 1
	acts := g.ack("s", n, closing)
	if admits(acts, "s") {
		t.Fatal("proposed before it has every write that was acknowledged without it")
	}
	during := g.write(0)
	g.local(during, nil)
	g.wantOpen(during) // from the closing on it is waited for
	if acts = g.ack("s", n, closing+1); !admits(acts, "s") {
		t.Fatal("not proposed although it has every write that was acknowledged without it")
	}
	g.wantOpen(during)
	g.ack("s", n, closing+2)
	g.wantDone(during)
	undecided := g.write(0)
	g.local(undecided, nil)
	g.down("s", n)
	g.wantOpen(undecided) // also when it is gone: the entry may be committed
	g.drop("s")
	g.wantDone(undecided)
}

func TestSilentTargetWithAnUndecidedAdmissionIsDropped(t *testing.T) { // R5, R27
	g := newRig(t)
	n := g.resync("s")
	g.ack("s", n, g.last("s"))
	op := g.write(0)
	g.local(op, nil)
	if acts := g.pass(dropAfter * 3 / 2); !drops(acts, "s") {
		t.Fatal("the write waits for a replica whose admission is undecided, and nothing decides it")
	}
	acts := g.drop("s") // finds nothing to do, and makes the admission void
	if admits(acts, "s") {
		t.Fatal("a silent target is proposed again at once")
	}
	g.wantDone(op)
	if !has(acts, Disconnect, "s") {
		t.Fatal("a silent target whose admission is void keeps its stream")
	}
}

func TestUndecidedAdmissionReplaysAfterTheStreamBroke(t *testing.T) { // R5
	g := newRig(t)
	n := g.resync("s")
	g.ack("s", n, g.last("s"))
	op := g.write(0)
	g.local(op, nil)
	g.down("s", n)
	n = g.greet("s", Greeting{Incarnation: bootA, Process: 1, LastNum: g.last("s") - 1})
	if got := g.sent("s"); !slices.Equal(got, []uint64{g.last("s")}) {
		t.Fatalf("replayed %v, want the write that it lacks: its admission may be committed", got)
	}
	g.ack("s", n, g.last("s"))
	g.admitMember("s", bootA)
	g.wantDone(op)
}

func TestVoidAdmissionOfATargetThatIsGoneLeavesItsEntriesToThePlan(t *testing.T) { // R5, R17
	g := newRig(t)
	n := g.resync("s")
	g.ack("s", n, g.last("s"))
	g.local(g.flush(), nil)
	g.ack("s", n, g.last("s"))
	op := g.write(2 * chunk)
	g.local(op, nil)
	g.down("s", n)
	g.drop("s")
	g.wantDone(op)
	if g.count(Release, op) != 1 {
		t.Fatal("the entry is kept for a replica that nobody waits for")
	}
	if p := g.c.Peer("s"); p.UnackedBytes != 0 {
		t.Fatalf("%+v", p)
	}
	n = g.up("s")
	if at, ok := g.c.TakeChunk(g.now, "s", n, 0); !ok || at.Off != 2*chunk {
		t.Fatalf("chunk %v (%t) is compared, want the one of the write that it lacks", at, ok)
	}
}

func TestAdmissionIsProposedOnceForAllThatFollows(t *testing.T) {
	g := newRig(t)
	n := g.resync("s")
	g.ack("s", n, g.last("s"))
	for range 5 {
		g.local(g.write(0), nil)
		if acts := g.ack("s", n, g.last("s")); admits(acts, "s") {
			t.Fatal("proposed again by each acknowledgement")
		}
	}
}

func TestOvertakenAdmissionIsProposedOnTheNewVersion(t *testing.T) { // R7, R27
	g := newRig(t, "x")
	g.up("x")
	n := g.resync("s")
	g.ack("s", n, g.last("s"))
	acts := g.drop("x")
	if !admits(acts, "s") {
		t.Fatal("a target that stays caught up is not proposed on the new version")
	}
	op := g.write(0)
	g.local(op, nil)
	g.wantOpen(op)
}

func TestTargetWhosePartInUnseenEntriesIsUnknownIsLookedAtAgain(t *testing.T) {
	g := newRig(t)
	n := g.resync("s")
	g.ack("s", n, g.last("s"))
	acts := g.commit(func(v *cluster.Volume) { v.Version++ }) // admitted and dropped again, for all we know
	if admits(acts, "s") || !has(acts, Disconnect, "s") {
		t.Fatal("proposed again without another look")
	}
}

func TestAdmissionIsProposedAgainUntilDecided(t *testing.T) { // R27
	g := newRig(t)
	n := g.resync("s")
	g.ack("s", n, g.last("s"))
	times := 0
	for range 10 {
		for _, a := range g.pass(dropAfter / 4) {
			if a.Kind == Propose && a.Command.Admit != nil {
				times++
			}
		}
		g.c.Alive(g.now, "s", n)
		g.take()
	}
	if times < 3 || times > 11 {
		t.Fatalf("proposed %d times in ten pauses", times)
	}
}

func TestAdmittedTargetIsAMemberWithEverythingInFlight(t *testing.T) {
	g := newRig(t)
	n := g.resync("s")
	g.ack("s", n, g.last("s"))
	op := g.write(0)
	g.local(op, nil)
	g.admitMember("s", bootA)
	g.wantOpen(op)
	g.down("s", n)
	n = g.greet("s", Greeting{Incarnation: bootA, Process: 1, LastNum: g.last("s") - 1})
	g.wantOpen(op)
	g.ack("s", n, g.last("s"))
	g.wantDone(op)
	if p := g.c.Peer("s"); p.Resyncing || !p.Member {
		t.Fatalf("progress %+v of a member", p)
	}
}

// copyOf starts the copy of one chunk that differs in its first block.
func copyOf(g *rig, node string, stream uint64) (*Op, blockdev.Range) {
	g.t.Helper()
	at, ok := g.c.TakeChunk(g.now, node, stream, 0)
	if !ok {
		g.t.Fatal("no chunk to compare")
	}
	cp := g.op(0, at.Off, 4096)
	g.c.Compared(g.now, node, stream, at, []*Op{cp})
	g.take()
	return cp, at
}

func TestCopyAndWriteOfABlockExcludeEachOtherAndTheLastWriteWins(t *testing.T) { // R17
	g := newRig(t)
	before := g.write(0)
	n := g.up("s")
	cp, _ := copyOf(g, "s", n)
	after := g.write(0)
	if g.count(StartLocal, cp) != 0 {
		t.Fatal("the copy is read beside a write of the block")
	}
	g.local(before, nil)
	if g.count(StartLocal, cp) != 1 || g.count(StartLocal, after) != 0 {
		t.Fatal("after the earlier write: the copy is to be read, the later write to wait")
	}
	if got := g.sent("s"); len(got) != 1 {
		t.Fatalf("sent %v: what follows the copy has to wait for its content", got)
	}
	g.local(cp, nil)
	if g.count(StartLocal, after) != 1 {
		t.Fatal("the later write does not start after the copy was read")
	}
	if got := g.sent("s"); !slices.Equal(got, []uint64{1, 2, 3}) {
		t.Fatalf("sent %v, want the write, the copy, the later write", got)
	}
	g.ack("s", n, 2)
	if g.count(Release, cp) != 1 {
		t.Fatal("the copy's memory was not given back")
	}
	g.wantOpen(after)
}

func TestChunkIsDoneWhenItsLastCopyIsAcknowledged(t *testing.T) {
	g := newRig(t)
	n := g.up("s")
	at, _ := g.c.TakeChunk(g.now, "s", n, 0)
	a, b := g.op(0, at.Off, 4096), g.op(0, at.Off+8192, 4096)
	g.c.Compared(g.now, "s", n, at, []*Op{a, b})
	g.take()
	g.local(b, nil)
	g.local(a, nil)
	for num, want := range []int64{volSize - chunk + 8192, volSize - chunk + 4096, volSize - chunk} {
		if num > 0 {
			g.ack("s", n, uint64(num))
		}
		if p := g.c.Peer("s"); p.RemainingBytes != want {
			t.Fatalf("after %d acknowledgements %d bytes are left, want %d", num, p.RemainingBytes, want)
		}
	}
	g.compareAll("s", n)
	if !g.c.peers["s"].closing {
		t.Fatal("all chunks are done and the resync is not being closed")
	}
}

// faults.md G52
func TestAcknowledgementOfACopyThatWasNotSentBreaksTheStream(t *testing.T) {
	g := newRig(t)
	n := g.up("s")
	copyOf(g, "s", n)
	if acts := g.ack("s", n, 1); !has(acts, Disconnect, "s") {
		t.Fatal("a copy that has not been read yet was acknowledged, and the stream goes on")
	}
}

func TestWriteInFlightAtTheStartOfAResyncGoesToTheTarget(t *testing.T) { // R17
	g := newRig(t, "x")
	x := g.up("x")
	a, b := g.write(0), g.write(4096)
	g.local(b, nil)
	g.ack("x", x, 1)
	n := g.up("s")
	if got := g.sent("s"); len(got) != 1 {
		t.Fatalf("sent %v, want the write that has not returned here; the other is behind, and copied", got)
	}
	if !g.c.Behind("s", b.Range) {
		t.Fatal("nothing copies what is not sent")
	}
	g.local(a, nil)
	g.ack("x", x, 2)
	g.wantDone(a, b)
	g.compareAll("s", n)
	g.ack("s", n, g.last("s"))
	if !admits(g.log, "s") {
		t.Fatal("not admitted")
	}
}

// The last of the operations in flight at Up is complete already: the target never gets it, and has to be admitted all
// the same.
func TestTargetIsAdmittedThoughTheNewestOperationCompletedBeforeItCame(t *testing.T) {
	g := newRig(t)
	hang := g.write(0)
	g.local(g.write(4096), nil)
	n := g.up("s")
	g.compareAll("s", n)
	g.local(hang, nil)
	if g.ack("s", n, g.last("s")); !admits(g.log, "s") {
		t.Fatal("the target waits for an operation that it will never get")
	}
}

func TestBrokenResyncLeavesEverythingUnacknowledgedToBeComparedAgain(t *testing.T) { // R15, R17
	g := newRig(t)
	n := g.up("s")
	for range 3 {
		at, _ := g.c.TakeChunk(g.now, "s", n, 0)
		g.c.Compared(g.now, "s", n, at, nil)
	}
	g.local(g.flush(), nil) // what is equal is durable on both
	g.ack("s", n, g.last("s"))
	op := g.write(2 * chunk)
	g.local(op, nil)
	g.wantDone(op)
	g.down("s", n)
	if g.count(Release, op) != 1 {
		t.Fatal("the broken stream keeps the payload")
	}
	away := g.write(0) // while it is away
	g.local(away, nil)
	n = g.up("s")
	var got []int64
	for {
		at, ok := g.c.TakeChunk(g.now, "s", n, 0)
		if !ok {
			break
		}
		got = append(got, at.Off/chunk)
	}
	if slices.Sort(got); !slices.Equal(got, []int64{0, 2, 3}) {
		t.Fatalf("chunks %v are compared again, want all but 1", got)
	}
}

func TestTargetOfAnotherIncarnationStartsOver(t *testing.T) { // R2, R25: what was copied may be lost
	for name, hello := range map[string]Greeting{
		"other incarnation": {Incarnation: bootB},
		"failed flush":      {Incarnation: bootA, Failed: true},
	} {
		g := newRig(t)
		n := g.up("s")
		g.compareAll("s", n)
		g.down("s", n)
		g.greet("s", hello)
		if p := g.c.Peer("s"); p.RemainingBytes != volSize {
			t.Errorf("%s: %d bytes are left to compare, want all %d", name, p.RemainingBytes, volSize)
		}
	}
}

func TestTargetThatRefusedAnEntryStartsOver(t *testing.T) { // R23
	for _, admitting := range []bool{false, true} {
		g := newRig(t)
		n := g.resync("s")
		if admitting {
			g.ack("s", n, g.last("s"))
		}
		g.write(0)
		g.c.Refused(g.now, "s", n, false, "flush failed")
		g.take()
		if admitting {
			g.drop("s")
		}
		g.up("s")
		if p := g.c.Peer("s"); p.RemainingBytes != volSize || p.Member {
			t.Errorf("admission proposed %t: %+v, want everything to be compared", admitting, p)
		}
	}
}

func TestComparisonOfAnOlderStreamCountsForNothing(t *testing.T) { // R2
	g := newRig(t)
	old := g.up("s")
	at, _ := g.c.TakeChunk(g.now, "s", old, 0)
	g.down("s", old)
	n := g.up("s")
	cp := g.op(0, 0, 4096)
	g.c.Compared(g.now, "s", old, at, []*Op{cp})
	g.take()
	if g.count(Release, cp) != 1 || g.count(StartLocal, cp) != 0 {
		t.Fatal("a copy of an older stream is not given back at once")
	}
	if _, ok := g.c.TakeChunk(g.now, "s", old, 0); ok {
		t.Fatal("an older stream is handed a chunk")
	}
	if p := g.c.Peer("s"); p.RemainingBytes != volSize {
		t.Fatal("an older stream's comparison counted")
	}
	if _, ok := g.c.TakeChunk(g.now, "s", n, 0); !ok {
		t.Fatal("the new stream gets no chunk")
	}
}

func TestUnreadableCopyEndsTheStreamAndGivesEverythingBack(t *testing.T) {
	g := newRig(t)
	n := g.up("s")
	cp, _ := copyOf(g, "s", n)
	if acts := g.local(cp, errDisk); !has(acts, Disconnect, "s") {
		t.Fatal("what cannot be read was sent, or the resync goes on without it")
	}
	if g.count(Release, cp) != 1 {
		t.Fatal("the copy was not given back")
	}
	if g.c.DiskError() != nil {
		t.Fatal("a read error is taken for a failed write")
	}
}

func TestCopyReadAfterItsStreamBrokeIsGivenBackOnce(t *testing.T) {
	for name, err := range map[string]error{"read": nil, "unreadable": errDisk} {
		g := newRig(t)
		n := g.up("s")
		cp, _ := copyOf(g, "s", n)
		g.down("s", n)
		if g.count(Release, cp) != 0 {
			t.Fatalf("%s: given back while it is being read", name)
		}
		n = g.up("s")
		acts := g.local(cp, err)
		if g.count(Release, cp) != 1 || has(acts, Disconnect, "s") || has(acts, Send, "s") {
			t.Errorf("%s: released %d times, %v", name, g.count(Release, cp), acts)
		}
		_ = n
	}
}

func TestTargetTooFarBehindIsLeftToTheResync(t *testing.T) { // R28
	g := newRig(t)
	g.c.cfg.Backlog = 1 << 20
	g.up("s")
	var ops []*Op
	for range 300 { // 1.2 MiB
		op := g.write(chunk)
		g.local(op, nil)
		ops = append(ops, op)
	}
	if !has(g.log, Disconnect, "s") {
		t.Fatal("the backlog of a replica that nobody waits for grows without bound")
	}
	for _, op := range ops {
		if g.count(Release, op) != 1 {
			t.Fatalf("operation %d keeps its memory", op.seq)
		}
	}
	if p := g.c.Peer("s"); p.UnackedBytes != 0 {
		t.Fatalf("%d bytes are kept", p.UnackedBytes)
	}
}

func TestNoChunkIsHandedOutWhileTooMuchIsUnderWay(t *testing.T) { // R28
	g := newRig(t)
	n := g.up("s")
	for {
		at, ok := g.c.TakeChunk(g.now, "s", n, 0)
		if !ok {
			break
		}
		var copies []*Op
		for range 10 { // many times the chunk, to reach the limit with a small volume
			copies = append(copies, g.op(0, at.Off, at.Len))
		}
		g.c.Compared(g.now, "s", n, at, copies)
		g.take()
	}
	if p := g.c.Peer("s"); p.RemainingBytes != volSize || p.UnackedBytes > maxCopyBytes+10*chunk+200 {
		t.Fatalf("%+v under way, the limit is %d", p, maxCopyBytes)
	}
	if p := g.c.peers["s"]; p.bytes < maxCopyBytes {
		t.Fatalf("the limit was not reached: %d bytes", p.bytes)
	}
}

func TestSilentTargetIsDisconnectedAndNobodyWaitsForIt(t *testing.T) {
	g := newRig(t)
	g.up("s")
	op := g.write(0)
	g.local(op, nil)
	g.wantDone(op)
	acts := g.pass(5 * dropAfter)
	if !has(acts, Disconnect, "s") || drops(acts, "s") {
		t.Fatal("a silent target keeps its stream, or a replica that is no member is dropped")
	}
}

func TestTargetThatFallsSilentWhileCatchingUpIsNotWaitedForAnyLonger(t *testing.T) {
	g := newRig(t)
	n := g.resync("s")
	g.write(0)
	g.ack("s", n, g.last("s")-1) // closed; it owes the write, nothing is proposed
	op := g.write(0)
	g.local(op, nil)
	g.wantOpen(op)
	if acts := g.pass(dropAfter * 3 / 2); drops(acts, "s") || !has(acts, Disconnect, "s") {
		t.Fatal("nothing was proposed, so nothing is to be dropped: it goes back to the resync")
	}
	g.wantDone(op)
}

// A member is compared without a pause: reads may wait for it (R29).
func TestOnlyAResyncWaitsForClients(t *testing.T) {
	g := newRig(t)
	if _, paced := g.c.Copying("s"); paced {
		t.Error("paced before anything is compared")
	}
	n := g.up("s")
	if bytes, paced := g.c.Copying("s"); bytes != 0 || !paced {
		t.Errorf("%d bytes, paced %t", bytes, paced)
	}
	copyOf(g, "s", n)
	if bytes, paced := g.c.Copying("s"); bytes != 4096 || !paced {
		t.Errorf("%d bytes, paced %t, while 4096 are being copied", bytes, paced)
	}
	g.down("s", n)
	if bytes, paced := g.c.Copying("s"); bytes != 0 || paced {
		t.Errorf("%d bytes, paced %t, without a stream", bytes, paced)
	}
	p := g.c.peers["s"]
	p.member, p.connected, p.plan = true, true, resync.NewPlan(volSize, chunk)
	p.plan.Touch(blockdev.Range{Len: 1})
	if _, paced := g.c.Copying("s"); paced {
		t.Error("the comparison of a member is paced")
	}
}
