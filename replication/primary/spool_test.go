package primary

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// spoolRig is a member in async with a window of two writes; the third write and what follows is spooled, and five may be in memory.
func spoolRig(t *testing.T) (g *rig, s uint64) {
	g, s = asyncRig(t, wide)
	const each = 4096
	g.c.UseSpool(SpoolSizes{Window: 2 * (each + earlyWeight), From: 2 * each, Most: 5 * each})
	g.c.SetBound(g.now, wide)
	return g, s
}

func asked(acts []Action, kind ActionKind) (ops []*Op) {
	for _, a := range acts {
		if a.Kind == kind {
			ops = append(ops, a.Op)
		}
	}
	return ops
}

func (g *rig) spooled(op *Op, err error) []Action {
	g.c.Spooled(g.now, op, err)
	return g.take()
}

func (g *rig) loaded(op *Op, err error) []Action {
	g.c.Loaded(g.now, op, err)
	return g.take()
}

// spoolTo has n writes told of, and those spooled that are to be.
func (g *rig) spoolTo(n int) (ops []*Op) {
	g.t.Helper()
	for i := range int64(n) {
		ops = append(ops, g.writeDone(i*4096, 4096))
		for _, op := range asked(g.log, Spool) {
			if op.place == leaving {
				g.spooled(op, nil)
			}
		}
	}
	g.wantDone(ops...)
	return ops
}

// R28: what clients were told of is in memory up to the window and From; the rest is in the spool.
func TestSpoolTakesWhatMemoryShallNotHold(t *testing.T) {
	g, _ := spoolRig(t)
	ops := g.spoolTo(20)
	if got := g.sent("s"); !slices.Equal(got, []uint64{1, 2}) {
		t.Errorf("sent %v, want the window of two", got)
	}
	if sp := g.c.Spooling(); sp.Memory != 2*4096 || sp.Bytes != 18*4096 || sp.Failed {
		t.Errorf("%+v", sp)
	}
	if early := int64(2*4096 + 20*earlyWeight); g.c.early != early {
		t.Errorf("%d bytes count, want %d", g.c.early, early)
	}
	g.drop("s")
	if g.c.early != 0 || g.c.Spooling() != (Spooling{}) {
		t.Errorf("without a member %d bytes count, %+v", g.c.early, g.c.Spooling())
	}
	for _, op := range ops {
		if g.count(Release, op) != 1 {
			t.Fatalf("operation %d is not released", op.seq)
		}
	}
}

// R13: what comes back from the spool is sent in its place, in whatever order the disk answers.
func TestSpoolKeepsTheOrder(t *testing.T) {
	g, s := spoolRig(t)
	g.spoolTo(12)
	next := uint64(1)
	for next <= 12 {
		loads := asked(g.ack("s", s, min(next+1, g.lastSent("s"))), Load)
		next = g.lastSent("s") + 1
		slices.Reverse(loads)
		for _, op := range loads {
			if acts := g.loaded(op, nil); len(loads) == 2 && op == loads[0] && has(acts, Send, "s") {
				t.Fatalf("operation %d is sent before the one in front of it", op.seq)
			}
		}
		if len(loads) == 0 && g.lastSent("s") < next {
			break
		}
		next = g.lastSent("s")
		if next == 12 {
			break
		}
	}
	want := uint64(1)
	for _, a := range g.log {
		if a.Kind != Send {
			continue
		}
		if a.Num != want || a.Op.seq != want {
			t.Fatalf("entry %d with operation %d is sent, %d is next", a.Num, a.Op.seq, want)
		}
		want++
	}
	if want != 13 {
		t.Fatalf("%d entries were sent", want-1)
	}
	g.ack("s", s, 12)
	if g.c.early != 0 || g.c.Spooling() != (Spooling{}) || g.lagOf("s").LagBytes != 0 {
		t.Errorf("with all acknowledged %d bytes count, %+v", g.c.early, g.c.Spooling())
	}
}

func (g *rig) lastSent(node string) uint64 {
	all := g.sent(node)
	return all[len(all)-1]
}

// A spool that fails or is full costs nothing but memory up to its limit: then writers wait. When it works again they go on.
func TestSpoolThatFailsHasWritersWaitAtTheLimitOfMemory(t *testing.T) {
	g, s := spoolRig(t)
	var ops []*Op
	for i := range int64(7) {
		op := g.writeDone(i*4096, 4096)
		ops = append(ops, op)
		if op.place == leaving {
			g.spooled(op, errDisk)
		}
	}
	g.wantDone(ops[:5]...)
	g.wantOpen(ops[5:]...)
	if !g.c.Spooling().Failed || g.c.late != 2 {
		t.Fatalf("%+v, %d wait", g.c.Spooling(), g.c.late)
	}
	if acts := g.pass(spoolRetry / 2); len(asked(acts, Spool)) != 0 {
		t.Error("it is tried again without a pause")
	}
	again := asked(g.pass(spoolRetry), Spool)
	if len(again) != 1 {
		t.Fatalf("%d operations are tried", len(again))
	}
	rest := asked(g.spooled(again[0], nil), Spool)
	if len(rest) == 0 {
		t.Fatal("the rest is not spooled")
	}
	g.wantDone(ops[5])
	for _, op := range rest {
		if op.place == leaving {
			g.spooled(op, nil)
		}
	}
	g.wantDone(ops...)
	g.ack("s", s, 2)
}

// R4: a spool that takes nothing holds writers for the patience at most; then the member leaves, and the reason says so.
func TestSpoolThatHangsHasTheMemberDroppedAfterThePatience(t *testing.T) {
	g, _ := asyncRig(t, Bound{Bytes: 1 << 30, Time: time.Hour, Patience: 2 * dropAfter})
	g.c.UseSpool(SpoolSizes{Window: 8192, From: 4096, Most: 8192})
	g.c.SetBound(g.now, Bound{Bytes: 1 << 30, Time: time.Hour, Patience: 2 * dropAfter})
	var ops []*Op
	for i := range int64(4) {
		ops = append(ops, g.writeDone(i*4096, 4096))
	}
	g.wantOpen(ops[2:]...)
	if drops(g.pass(dropAfter), "s") {
		t.Fatal("dropped before the patience")
	}
	acts := g.pass(2 * dropAfter)
	i := slices.IndexFunc(acts, func(a Action) bool { return a.Kind == Propose && a.Command.Drop != nil })
	if i < 0 || !strings.Contains(acts[i].Command.Drop.Reason, "the spool of p does not take them") {
		t.Fatalf("what is proposed: %+v", acts)
	}
	g.drop("s")
	g.wantDone(ops...)
}

// R4, R13: a member that cannot be sent what it lacks is sent nothing behind it, and leaves.
func TestSpoolThatLosesDataHasTheMemberDropped(t *testing.T) {
	g, s := spoolRig(t)
	g.spoolTo(8)
	loads := asked(g.ack("s", s, 2), Load)
	if len(loads) != 2 {
		t.Fatalf("%d are read", len(loads))
	}
	g.loaded(loads[1], nil)
	acts := g.loaded(loads[0], errDisk)
	if has(acts, Send, "s") || !has(acts, Disconnect, "s") || !drops(acts, "s") {
		t.Fatalf("%+v", acts)
	}
	n := g.c.NextStream("s")
	g.c.Up(g.now, "s", n, Greeting{Incarnation: bootA, Process: 1, LastNum: 2})
	if acts := g.take(); has(acts, Begin, "s") || !has(acts, Disconnect, "s") {
		t.Fatalf("it is sent something before it has left: %+v", acts)
	}
	w := g.writeDone(0, 4096)
	g.wantDone(w) // within the bound nobody waits for the drop
	g.drop("s")
	if g.c.early != 0 || g.c.Spooling() != (Spooling{}) {
		t.Errorf("%d bytes count, %+v", g.c.early, g.c.Spooling())
	}
	g.resync("s")
}

// A stream that breaks is replayed from memory: the window stays.
func TestSpoolIsNotReadAgainForAReplay(t *testing.T) {
	g, s := spoolRig(t)
	g.spoolTo(8)
	for _, op := range asked(g.ack("s", s, 2), Load) {
		g.loaded(op, nil)
	}
	g.down("s", s)
	n := g.c.NextStream("s")
	g.c.Up(g.now, "s", n, Greeting{Incarnation: bootA, Process: 1, LastNum: 2})
	acts := g.take()
	if !slices.Equal(g.sent("s"), []uint64{3, 4}) || len(asked(acts, Load)) != 0 {
		t.Errorf("%v is sent, %d are read", g.sent("s"), len(asked(acts, Load)))
	}
}

// R28: what comes back counts in the node's memory. Without room the window waits, but for one operation.
func TestSpoolComesBackWithinTheRoom(t *testing.T) {
	g, s := spoolRig(t)
	share := &room{max: 1 << 20}
	g.c.cfg.Room = share
	g.spoolTo(12)
	share.max = share.used
	loads := asked(g.ack("s", s, 2), Load)
	if len(loads) != 2 { // what was acknowledged gave room for both
		t.Fatalf("%d are read", len(loads))
	}
	share.max = 0
	for _, op := range loads {
		g.loaded(op, nil)
	}
	if loads = asked(g.ack("s", s, 4), Load); len(loads) != 1 {
		t.Fatalf("%d are read without room, want one", len(loads))
	}
	g.loaded(loads[0], nil)
	if g.lastSent("s") != 5 {
		t.Errorf("%d was sent last", g.lastSent("s"))
	}
}

// A resync target is sent all that clients write, whatever the window: it would never catch up.
func TestSpoolLimitsNoResyncTarget(t *testing.T) {
	g, _ := spoolRig(t)
	g.up("x")
	g.log = g.log[:0]
	for i := range int64(8) {
		g.writeDone(i*4096, 4096)
	}
	sent := 0
	for _, a := range g.log {
		if a.Kind == Send && a.Node == "x" {
			sent++
		}
	}
	if sent != 8 {
		t.Errorf("%d of 8 writes were sent", sent)
	}
}
