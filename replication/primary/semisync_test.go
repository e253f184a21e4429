package primary

import (
	"testing"

	"hacluster/blockdev"
	"hacluster/heartbeat/cluster"
)

// semisyncRig is a rig whose members are s and x, both connected, in mode semisync.
func semisyncRig(t *testing.T) (g *rig, s, x uint64) {
	g = newRig(t, "s", "x")
	g.commit(func(v *cluster.Volume) { v.Mode, v.Served = cluster.ModeSemisync, "p" })
	return g, g.up("s"), g.up("x")
}

func (g *rig) received(node string, stream, num uint64) []Action {
	g.c.Received(g.now, node, stream, num)
	return g.take()
}

func TestSemisyncWriteIsAcknowledgedWhenEveryMemberHasItInMemory(t *testing.T) { // R3
	g, s, x := semisyncRig(t)
	a, b := g.write(0), g.write(8192)
	g.local(b, nil)
	g.received("s", s, 2)
	g.received("x", x, 1)
	g.wantOpen(a, b) // a is not written here, b is not at x
	g.local(a, nil)
	g.wantDone(a)
	g.wantOpen(b)
	g.received("x", x, 2)
	g.wantDone(b)
	if n := g.count(Release, a); n != 0 {
		t.Errorf("released %d times while the members have not written it", n)
	}
	g.ack("s", s, 2)
	g.ack("x", x, 2)
	g.wantDone(a, b)
	if n := g.count(Release, a); n != 1 {
		t.Errorf("released %d times, want once", n)
	}
}

func TestSyncWriteIsNotAcknowledgedByMemory(t *testing.T) { // R3
	g := newRig(t, "s")
	s := g.up("s")
	op := g.write(0)
	g.local(op, nil)
	g.received("s", s, 1)
	g.wantOpen(op)
	g.ack("s", s, 1)
	g.wantDone(op)
}

func TestSemisyncFlushAndDurableWritesWaitForTheDisk(t *testing.T) { // R20
	g, s, x := semisyncRig(t)
	fua := g.op(blockdev.OpWrite, 0, 4096)
	fua.FUA = true
	g.admit(fua)
	flush, later := g.flush(), g.write(8192)
	for _, op := range []*Op{fua, flush, later} {
		g.local(op, nil)
	}
	g.received("s", s, 3)
	g.received("x", x, 3)
	g.wantOpen(fua, flush)
	g.wantDone(later)
	g.ack("s", s, 2)
	g.wantOpen(fua, flush)
	g.ack("x", x, 1)
	g.wantDone(fua)
	g.wantOpen(flush)
	g.ack("x", x, 2)
	g.wantDone(fua, flush, later)
}

func TestSemisyncMarkStaysUntilTheMemberHasWritten(t *testing.T) { // R14
	g, s, x := semisyncRig(t)
	op := g.write(0)
	g.local(op, nil)
	g.received("s", s, 1)
	g.received("x", x, 1)
	g.wantDone(op)
	g.drop("x")
	flush := g.flush()
	g.local(flush, nil)
	g.received("s", s, 2)
	m := g.c.peers["s"].m
	if m.Live() == 0 {
		t.Error("the block lost its mark before the member had written and flushed it")
	}
	g.ack("s", s, 2)
	if m.Live() == 0 {
		t.Error("a flush that was begun before the member had written counts for the block")
	}
	g.local(g.flush(), nil)
	g.ack("s", s, 3)
	if m.Live() != 0 {
		t.Error("the block keeps its mark, although both have written and flushed")
	}
}

func TestSemisyncMemberIsOneProcess(t *testing.T) { // R25
	g, s, x := semisyncRig(t)
	op := g.write(0)
	g.local(op, nil)
	g.received("x", x, 1)
	g.down("s", s)
	acts := g.begun(func() { g.greet("s", Greeting{Incarnation: bootA, Process: 2}) })
	if !drops(acts, "s") || !has(acts, Disconnect, "s") {
		t.Fatalf("a new process goes on as the member: %v", acts)
	}
	g.wantOpen(op)
	g.drop("s")
	g.wantDone(op)
	// A new process that stopped cleanly before is the member from the entry on that says so, when it was sent nothing more.
	g.ack("x", x, 1)
	g.down("x", x)
	g.commit(func(v *cluster.Volume) { v.Members["x"] = cluster.Member{Incarnation: bootA, Process: 5} })
	if acts := g.begun(func() { g.greet("x", Greeting{Incarnation: bootA, Process: 5}) }); drops(acts, "x") || !has(acts, Begin, "x") {
		t.Errorf("the member that the set names is not taken: %v", acts)
	}
}

func TestSemisyncWhatWasReceivedCountsInItsStreamOnly(t *testing.T) { // R4
	g, s, x := semisyncRig(t)
	op := g.write(0)
	g.received("s", s, 1)
	g.received("x", x, 1)
	g.down("s", s)
	g.local(op, nil)
	g.wantOpen(op) // the process of s may be gone, and nobody has said so yet
	s = g.up("s")
	g.wantOpen(op)
	g.received("s", s, 1)
	g.wantDone(op)
}

// What a member has in memory only holds up a durable write, and nothing behind it. A target that comes then would have the older
// one over the newer, of which clients were told, if it was sent to it; it needs two other replicas.
func TestSemisyncTargetIsNotSentAWriteThatALaterOneOvertook(t *testing.T) { // R5, R17
	g := newRig(t, "s")
	g.commit(func(v *cluster.Volume) { v.Mode, v.Served = cluster.ModeSemisync, "p" })
	s := g.up("s")
	fua := g.op(blockdev.OpWrite, 0, 4096)
	fua.FUA = true
	g.admit(fua)
	later := g.write(0)
	g.local(fua, nil)
	g.local(later, nil)
	g.received("s", s, 2)
	g.wantOpen(fua)
	g.wantDone(later)
	x := g.up("x")
	if got := g.sent("x"); len(got) != 0 {
		t.Fatalf("entries %v were sent: the older write over the newer", got)
	}
	if !g.c.Behind("x", fua.Range) {
		t.Fatal("the block is not behind: nothing copies it")
	}
	g.compareAll("x", x)
	g.ack("x", x, g.last("x"))
	if !admits(g.log, "x") {
		t.Fatal("not admitted")
	}
	g.admitMember("x", bootA)
	g.drop("s")
	g.wantDone(fua) // x has it since its resync was closed, durably, and is sent nothing that it could acknowledge
}

// room is a Room that counts what is taken.
type room struct{ max, used int64 }

func (r *room) Take(n int64) bool {
	if r.used+n > r.max {
		return false
	}
	r.used += n
	return true
}

func (r *room) Give(n int64) { r.used -= n }

func (r *room) Back(n int64, must bool) bool {
	if !must {
		return r.Take(n)
	}
	r.used += n
	return true
}

func (r *room) Returned(n int64) { r.Give(n) }

func (r *room) Tight() bool { return r.used > r.max/2 }

// A member that is held up by one write takes any number behind it: what of that clients were told of is bounded, of a volume and
// of all volumes of a node; beyond that writes wait for its disk.
func TestSemisyncHoldsNoMoreThanItMay(t *testing.T) { // R28
	const each = 4096 + earlyWeight
	g, s, x := semisyncRig(t)
	share := &room{max: 3*each + each/2}
	g.c.cfg.Room = share
	var ops []*Op
	for i := range int64(5) {
		ops = append(ops, g.write(i*4096))
	}
	for _, op := range ops[:4] {
		g.local(op, nil)
	}
	g.received("s", s, 5)
	g.received("x", x, 5)
	g.wantDone(ops[:3]...)
	g.wantOpen(ops[3:]...) // one waits for room, one for the disk here
	g.ack("s", s, 2)
	g.local(ops[4], nil)
	g.wantOpen(ops[3:]...) // x holds up what s has written
	g.ack("x", x, 2)
	if share.used != each {
		t.Errorf("%d bytes are held for one write of %d", share.used, each)
	}
	g.wantOpen(ops[3]) // in sync it would wait for as long
	g.ack("s", s, 4)
	g.ack("x", x, 4)
	g.wantDone(ops[:4]...)
	g.drop("x")
	g.drop("s")
	g.wantDone(ops...)
	if share.used != 0 || g.c.early != 0 {
		t.Errorf("%d bytes are held for writes that nobody needs, %d counted", share.used, g.c.early)
	}

	g, s, x = semisyncRig(t)
	share = &room{max: 1 << 40}
	g.c.cfg.Room = share
	ops = nil
	for range maxEarlyBytes/(1<<20) + 1 {
		ops = append(ops, g.admit(g.op(blockdev.OpWrite, 0, 1<<20)))
		g.local(ops[len(ops)-1], nil)
	}
	g.received("s", s, uint64(len(ops)))
	g.received("x", x, uint64(len(ops)))
	g.wantDone(ops[:62]...)
	g.wantOpen(ops[64:]...)
	if share.used > maxEarlyBytes || share.used != g.c.early {
		t.Errorf("%d bytes are held of one volume, %d counted", share.used, g.c.early)
	}
	if g.c.End(); share.used != 0 {
		t.Errorf("%d bytes are held for a tenure that has ended", share.used)
	}
}

func TestSemisyncReceiptOfWhatWasNotSentBreaksTheStream(t *testing.T) {
	g, s, _ := semisyncRig(t)
	g.write(0)
	if acts := g.received("s", s, 2); !has(acts, Disconnect, "s") {
		t.Errorf("believed: %v", acts)
	}
}

func TestStrongerModeCountsAtOnce(t *testing.T) { // R13
	g, s, x := semisyncRig(t)
	op := g.write(0)
	g.received("s", s, 1)
	g.received("x", x, 1)
	g.commit(func(v *cluster.Volume) { v.Mode = cluster.ModeSync })
	g.local(op, nil)
	g.wantOpen(op)
	g.ack("s", s, 1)
	g.ack("x", x, 1)
	g.wantDone(op)
}

// begun is what f makes the Core ask for.
func (g *rig) begun(f func()) []Action {
	n := len(g.log)
	f()
	return g.log[n:]
}

// A standby has a write in memory, which its client is told of, and writes an older one and that one to the same block. It stops in
// order, and its acknowledgements are lost. Its next process, the member by its clean-stop mark, is not sent both again: were it promoted
// between the two, the older one would be what it has.
func TestSemisyncProcessThatWasSentMoreDoesNotGoOn(t *testing.T) { // R3
	g := newRig(t, "s")
	g.commit(func(v *cluster.Volume) { v.Mode, v.Served = cluster.ModeSemisync, "p" })
	s := g.up("s")
	for n := range uint64(2) {
		op := g.write(0)
		g.local(op, nil)
		g.received("s", s, n+1)
		g.wantDone(op)
	}
	g.down("s", s)
	member := func(process uint64) {
		g.commit(func(v *cluster.Volume) { v.Members["s"] = cluster.Member{Incarnation: bootA, Process: process} })
	}
	member(2)
	if acts := g.begun(func() { g.greet("s", Greeting{Incarnation: bootA, Process: 2}) }); !drops(acts, "s") || has(acts, Begin, "s") {
		t.Fatalf("it goes on: %v", acts)
	}
}
