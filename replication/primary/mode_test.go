package primary

import (
	"strings"
	"testing"

	"hacluster/blockdev"
	"hacluster/heartbeat/cluster"
)

// modeRig has s and x as members, both connected, in a mode, with nothing to settle.
func modeRig(t *testing.T, mode string) (g *rig, s, x uint64) {
	g = newRig(t, "s", "x")
	g.commit(func(v *cluster.Volume) { v.Mode, v.Served = mode, "p" })
	g.c.SetBound(g.now, Bound{Bytes: 1 << 20, Time: 10 * dropAfter, Patience: dropAfter})
	return g, g.up("s"), g.up("x")
}

// changes notes a mode, and returns the barrier, admitted, if one was asked for.
func (g *rig) changes(to string) *Op {
	g.t.Helper()
	return g.barrier(g.commit(func(v *cluster.Volume) { v.NextMode = to }))
}

func (g *rig) barrier(acts []Action) *Op {
	for _, a := range acts {
		if a.Kind == Barrier {
			op := g.op(blockdev.OpFlush, 0, 0)
			if !g.c.AdmitBarrier(g.now, op) {
				g.t.Fatal("the barrier that was asked for is not wanted")
			}
			g.take()
			return op
		}
	}
	return nil
}

func setsMode(acts []Action) *cluster.SetMode {
	for _, a := range acts {
		if a.Kind == Propose && a.Command.SetMode != nil {
			return a.Command.SetMode
		}
	}
	return nil
}

// inForce commits what was proposed.
func (g *rig) inForce(m *cluster.SetMode) []Action {
	return g.commit(func(v *cluster.Volume) {
		for n, as := range m.Members {
			v.Members[n] = as
		}
		v.Mode, v.NextMode, v.Served = m.Mode, "", "p"
	})
}

func TestModeIsProposedWhenTheBarrierIsDurableOnEveryMember(t *testing.T) { // R13
	g, s, x := modeRig(t, cluster.ModeSync)
	before := g.write(0)
	b := g.changes(cluster.ModeSemisync)
	if b == nil || b.seq != before.seq+1 {
		t.Fatalf("no barrier behind what was admitted: %+v", b)
	}
	after := g.write(8192)
	for _, op := range []*Op{before, b, after} {
		g.local(op, nil)
	}
	g.received("s", s, 3)
	g.received("x", x, 3)
	for _, acts := range [][]Action{g.ack("s", s, 3), g.ack("x", x, 1)} {
		if setsMode(acts) != nil {
			t.Fatal("proposed before the barrier is durable on x")
		}
	}
	m := setsMode(g.ack("x", x, 2))
	if m == nil || m.Mode != cluster.ModeSemisync || m.Version != g.vol.Version || m.Epoch != 3 ||
		m.Members["s"] != (cluster.Member{Incarnation: bootA, Process: 1}) || len(m.Members) != 2 {
		t.Fatalf("proposed: %+v", m)
	}
	g.wantOpen(after) // undecided: by the stronger of both
	g.inForce(m)
	g.wantDone(after)
	if g.c.ModeWaits() != "" {
		t.Errorf("it waits for %s", g.c.ModeWaits())
	}
	if setsMode(g.pass(2*dropAfter)) != nil {
		t.Error("it is proposed again")
	}
}

func TestWhileAModeChangesTheStrongerOfBothAcknowledges(t *testing.T) { // R3, R5, R13
	for _, c := range []struct {
		from, to    string
		memory, lag bool // by what an operation is complete meanwhile
	}{
		{cluster.ModeSync, cluster.ModeAsync, false, false}, {cluster.ModeAsync, cluster.ModeSync, false, false},
		{cluster.ModeSync, cluster.ModeSemisync, false, false}, {cluster.ModeSemisync, cluster.ModeSync, false, false},
		{cluster.ModeSemisync, cluster.ModeAsync, true, false}, {cluster.ModeAsync, cluster.ModeSemisync, true, false},
	} {
		g, s, x := modeRig(t, c.from)
		b := g.changes(c.to)
		op := g.write(0)
		g.local(b, nil)
		g.local(op, nil)
		if g.completed(op) {
			t.Errorf("%s to %s: acknowledged while no member has it", c.from, c.to)
		}
		g.received("s", s, 2)
		g.received("x", x, 2)
		if g.completed(op) != c.memory {
			t.Errorf("%s to %s: in memory: %t", c.from, c.to, g.completed(op))
		}
		g.ack("s", s, 2)
		m := setsMode(g.ack("x", x, 2))
		g.wantDone(op)
		if m == nil {
			t.Fatalf("%s to %s: not proposed", c.from, c.to)
		}
		late := g.write(4096)
		g.local(late, nil)
		if g.completed(late) {
			t.Errorf("%s to %s: acknowledged by the weaker one before it is in force", c.from, c.to)
		}
		g.inForce(m)
		if got, want := g.completed(late), c.to == cluster.ModeAsync; got != want {
			t.Errorf("%s to %s: in force: acknowledged %t, want %t", c.from, c.to, got, want)
		}
	}
}

func TestWhatAsyncHadToldIsOnEveryMemberBeforeAStrongerModeIsProposed(t *testing.T) { // R13
	g, s, x := modeRig(t, cluster.ModeAsync)
	told := g.write(0)
	g.local(told, nil)
	g.wantDone(told)
	b := g.changes(cluster.ModeSync)
	g.local(b, nil)
	if n := g.lagOf("s").LagBytes; n != 4096 {
		t.Errorf("s lacks %d bytes that clients were told of", n)
	}
	if setsMode(g.ack("s", s, 2)) != nil {
		t.Error("x lacks what a client was told of")
	}
	if w := g.c.ModeWaits(); !strings.Contains(w, "x is to have all") {
		t.Errorf("it waits for %q", w)
	}
	if setsMode(g.ack("x", x, 2)) == nil {
		t.Error("not proposed")
	}
}

func TestFencesAreSentWhileEitherModeIsAsync(t *testing.T) { // R13
	g, s, x := modeRig(t, cluster.ModeSync)
	if g.c.Fences("s") {
		t.Error("in sync")
	}
	b := g.changes(cluster.ModeAsync)
	if !g.c.Fences("s") {
		t.Error("not while it changes to async: its members have to be in order when it is in force")
	}
	g.local(b, nil)
	g.ack("s", s, 1)
	g.inForce(setsMode(g.ack("x", x, 1)))
	if !g.c.Fences("s") {
		t.Error("not in async")
	}
	b = g.changes(cluster.ModeSync)
	if !g.c.Fences("s") {
		t.Error("not while it changes from async")
	}
	g.local(b, nil)
	g.ack("s", s, 2)
	g.inForce(setsMode(g.ack("x", x, 2)))
	if g.c.Fences("s") {
		t.Error("in sync again")
	}
}

// A barrier of before would not have been behind what the older process was sent.
func TestAnotherProcessStartsTheChangeAnew(t *testing.T) { // R25, R13
	g, s, x := modeRig(t, cluster.ModeSync)
	b := g.changes(cluster.ModeAsync)
	g.local(b, nil)
	g.ack("x", x, 1)
	g.write(0)
	g.down("s", s)
	s = g.greet("s", Greeting{Incarnation: bootA, Process: 2})
	g.compareAll("s", s)
	if setsMode(g.ack("s", s, 1)) != nil {
		t.Fatal("proposed: s has acknowledged the barrier, and not what its older process was sent behind it")
	}
	b2 := g.barrier(g.pass(dropAfter / 5))
	if b2 == nil {
		t.Fatal("no barrier anew")
	}
	g.local(b2, nil)
	g.ack("x", x, 3)
	m := setsMode(g.ack("s", s, 3))
	if m == nil || m.Members["s"].Process != 2 {
		t.Fatalf("proposed: %+v", m)
	}
}

func TestAnotherRecordStartsTheChangeAnew(t *testing.T) {
	g, s, x := modeRig(t, cluster.ModeSync)
	b := g.changes(cluster.ModeSemisync)
	g.local(b, nil)
	g.ack("s", s, 1)
	b2 := g.barrier(g.drop("x"))
	if b2 == nil {
		t.Fatal("no barrier anew")
	}
	if setsMode(g.log) != nil {
		t.Error("the old barrier counts")
	}
	g.local(b2, nil)
	m := setsMode(g.ack("s", s, 2))
	if m == nil || len(m.Members) != 1 {
		t.Errorf("proposed: %+v", m)
	}
	_ = x
}

func TestProposalOfTheModeIsRepeatedUntilARecordDecides(t *testing.T) { // R27
	g, s, x := modeRig(t, cluster.ModeSync)
	b := g.changes(cluster.ModeSemisync)
	g.local(b, nil)
	g.ack("s", s, 1)
	if setsMode(g.ack("x", x, 1)) == nil {
		t.Fatal("not proposed")
	}
	n := len(g.log)
	g.now = g.now.Add(dropAfter / 3)
	g.c.Tick(g.now)
	g.take()
	if setsMode(g.log[n:]) == nil {
		t.Error("not proposed again")
	}
	g.commit(func(v *cluster.Volume) { v.NextMode = "" }) // taken back
	n = len(g.log)
	g.now = g.now.Add(dropAfter / 3)
	g.c.Tick(g.now)
	g.take()
	if setsMode(g.log[n:]) != nil || g.c.ModeWaits() != "" {
		t.Error("it goes on after it was taken back")
	}
}

func TestChangeOfModeWaits(t *testing.T) {
	for name, c := range map[string]struct {
		keeps func(*rig, uint64)
		ends  func(*rig)
		says  string
	}{
		"a member is silent": {func(g *rig, s uint64) { g.down("s", s) }, func(g *rig) { g.up("s") }, "s is in sync and does not answer"},
		"handed over":        {func(g *rig, _ uint64) { g.c.Drain() }, func(g *rig) { g.c.Resume() }, "handed over"},
		"approaching":        {func(g *rig, _ uint64) { g.c.Approach() }, func(g *rig) { g.c.Resume() }, "handed over"},
		"disk failed":        {func(g *rig, _ uint64) { g.c.GivesUp(g.now, false) }, nil, "disk failed"},
		"one is settled": {
			func(g *rig, s uint64) { p := g.c.peers["s"]; p.settling, p.known = true, false; g.c.settling++ },
			func(g *rig) { p := g.c.peers["s"]; p.settling, p.known = false, true; g.c.settling-- }, "s is in sync and is being compared"},
	} {
		g, s, _ := modeRig(t, cluster.ModeSync)
		c.keeps(g, s)
		if g.changes(cluster.ModeSemisync) != nil || g.barrier(g.pass(dropAfter/5)) != nil {
			t.Errorf("%s: a barrier is begun", name)
		}
		if w := g.c.ModeWaits(); !strings.Contains(w, c.says) {
			t.Errorf("%s: it says that it waits for %q", name, w)
		}
		if c.ends == nil {
			continue
		}
		c.ends(g)
		if g.barrier(g.pass(dropAfter/5)) == nil {
			t.Errorf("%s: it does not go on when that has ended", name)
		}
	}
}

func TestBarrierIsNotAdmittedWhenTheRoleIsHandedOverMeanwhile(t *testing.T) { // R30
	g, _, _ := modeRig(t, cluster.ModeSync)
	acts := g.commit(func(v *cluster.Volume) { v.NextMode = cluster.ModeSemisync })
	g.c.Drain()
	for _, a := range acts {
		if a.Kind == Barrier && g.c.AdmitBarrier(g.now, g.op(blockdev.OpFlush, 0, 0)) {
			t.Error("admitted")
		}
	}
	g.c.Resume()
	if g.barrier(g.pass(dropAfter/5)) == nil {
		t.Error("it is not asked for again")
	}
}

func TestFailedBarrierProposesNothing(t *testing.T) { // R23
	g := newRig(t)
	b := g.changes(cluster.ModeSemisync)
	g.local(b, errDisk)
	g.wantDone(b)
	if setsMode(append(g.log, g.pass(dropAfter)...)) != nil {
		t.Error("the mode is changed by a primary whose flush failed")
	}
}

func TestPrimaryThatIsAloneChangesTheMode(t *testing.T) {
	g := newRig(t)
	b := g.changes(cluster.ModeAsync)
	if m := setsMode(g.local(b, nil)); m == nil || len(m.Members) != 0 {
		t.Errorf("proposed: %+v", m)
	}
}

func TestNextPrimaryGoesOnWithTheChange(t *testing.T) {
	g := newRig(t)
	vol := g.vol.Clone()
	vol.NextMode, vol.Mode, vol.Served = cluster.ModeSync, cluster.ModeAsync, "p"
	vol.Members["s"] = cluster.Member{Incarnation: bootA, Process: 1}
	g.vol = vol
	g.c = New(Config{Self: "p", DropAfter: dropAfter, Piece: chunk, Bound: Bound{Bytes: 1 << 20, Time: 1 << 40}}, vol, g.now)
	s := g.up("s")
	b := g.barrier(g.pass(dropAfter / 5))
	if b == nil {
		t.Fatal("no barrier")
	}
	op := g.write(0)
	g.local(op, nil)
	g.local(b, nil)
	g.wantOpen(op) // by the stronger one, from the beginning
	if setsMode(g.ack("s", s, 1)) == nil {
		t.Error("not proposed")
	}
}

// The record named process 1, by a proposal that was late: what process 2 acknowledges is nothing that the other could be promoted by.
func TestProcessThatTheNewModeDoesNotNameIsJudgedAnew(t *testing.T) { // R25
	g, s, x := modeRig(t, cluster.ModeSync)
	b := g.changes(cluster.ModeSemisync)
	g.local(b, nil)
	g.ack("s", s, 1)
	m := setsMode(g.ack("x", x, 1))
	g.down("s", s)
	s = g.greet("s", Greeting{Incarnation: bootA, Process: 2, LastNum: 1})
	if acts := g.inForce(m); !has(acts, Disconnect, "s") || has(acts, Disconnect, "x") {
		t.Errorf("%+v", acts)
	}
	n := len(g.log)
	g.greet("s", Greeting{Incarnation: bootA, Process: 2, LastNum: 1})
	if !drops(g.log[n:], "s") {
		t.Error("it is taken for the member")
	}
	_ = s
}

// What returned here while members had to have it is held by the bound alone, as soon as async is in force; a member that is silent
// then is none that writers wait for.
func TestWhatWaitedForMembersIsToldInAsync(t *testing.T) { // R3, R13
	g, s, x := modeRig(t, cluster.ModeSync)
	b := g.changes(cluster.ModeAsync)
	a, big := g.write(0), g.admit(g.op(blockdev.OpWrite, 1<<20, 1<<20))
	for _, op := range []*Op{b, a, big} {
		g.local(op, nil)
	}
	g.ack("s", s, 1)
	g.inForce(setsMode(g.ack("x", x, 1)))
	g.wantDone(a)
	g.wantOpen(big) // with it more than the bound
	g.ack("s", s, 2)
	g.ack("x", x, 2)
	g.wantDone(big)
}
