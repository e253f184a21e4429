package primary

import (
	"testing"
	"time"

	"hacluster/blockdev"
)

// quietRig has one member that has all, and nothing to do.
func quietRig(t *testing.T, every time.Duration) (*rig, uint64) {
	t.Helper()
	g := newRig(t, "s")
	s := g.up("s")
	g.c.SetPingEvery(every)
	if !g.c.Rests() {
		t.Fatal("it does not rest")
	}
	return g, s
}

// A member that is asked seldom is not dropped for having said nothing, also when time is let act seldom; and once it is asked, it has
// as long as ever to answer.
func TestMemberThatIsAskedSeldomIsNotTakenForSilent(t *testing.T) { // R4
	g, s := quietRig(t, 20*dropAfter)
	for range 3 {
		g.now = g.now.Add(19 * dropAfter)
		g.c.Tick(g.now)
		if acts := g.take(); drops(acts, "s") || has(acts, Ping, "s") {
			t.Fatalf("after a rest: %+v", acts)
		}
		g.now = g.now.Add(dropAfter)
		g.c.Tick(g.now)
		if acts := g.take(); drops(acts, "s") || !has(acts, Ping, "s") {
			t.Fatalf("when it is due: %+v", acts)
		}
		if g.c.Rests() {
			t.Fatal("it rests while an answer is awaited")
		}
		if acts := g.pass(dropAfter / 2); drops(acts, "s") {
			t.Fatal("dropped before it could answer")
		}
		g.c.Alive(g.now, "s", s)
		if !g.c.Rests() {
			t.Fatal("it does not rest any more")
		}
	}
	g.now = g.now.Add(20 * dropAfter)
	if acts := g.pass(dropAfter); !drops(acts, "s") {
		t.Error("one that does not answer is not dropped within DropAfter of being asked")
	}
}

// What another volume found is a reason to ask, and none to drop.
func TestDoubtfulMemberIsAskedAtOnce(t *testing.T) {
	g, s := quietRig(t, 100*dropAfter)
	g.now = g.now.Add(10 * dropAfter)
	g.c.Doubt(g.now, "s")
	if acts := g.take(); !has(acts, Ping, "s") || drops(acts, "s") {
		t.Fatalf("%+v", acts)
	}
	g.c.Doubt(g.now, "s")
	if acts := g.take(); has(acts, Ping, "s") {
		t.Error("asked twice")
	}
	g.c.Alive(g.now, "s", s)
	if acts := g.pass(10 * dropAfter); drops(acts, "s") {
		t.Error("dropped although it answered")
	}
	g.c.Doubt(g.now, "s")
	g.take()
	if acts := g.pass(dropAfter); !drops(acts, "s") {
		t.Error("one that does not answer is not dropped within DropAfter")
	}
	g.c.Doubt(g.now, "x") // not connected
	if acts := g.take(); has(acts, Ping, "x") {
		t.Error("one that is not there is asked")
	}
}

// A write ends the rest, and a member that does not answer it is dropped as soon as ever, however long it was not asked (R4).
func TestNothingRestsThatTimeHasToActOn(t *testing.T) {
	g, _ := quietRig(t, 100*dropAfter)
	g.now = g.now.Add(30 * dropAfter)
	op := g.write(0)
	if g.c.Rests() {
		t.Fatal("it rests with a write in flight")
	}
	g.local(op, nil)
	if acts := g.pass(dropAfter - dropAfter/10); drops(acts, "s") {
		t.Error("dropped before DropAfter")
	}
	if acts := g.pass(dropAfter / 5); !drops(acts, "s") {
		t.Error("not dropped after DropAfter")
	}
	for name, harm := range map[string]func(g *rig, s uint64){
		"a read that is left to others":       func(g *rig, s uint64) { g.c.ReadDone(g.op(blockdev.OpRead, 0, 4096), errDisk) },
		"a drain":                             func(g *rig, s uint64) { g.write(0); g.c.Drain() },
		"a stream that is down":               func(g *rig, s uint64) { g.down("s", s) },
		"marks that wait for a flush":         func(g *rig, s uint64) { g.local(g.write(0), nil); g.ack("s", s, 1) },
		"a replica that is to be resynced":    func(g *rig, s uint64) { g.up("x") },
		"a change of the mode":                func(g *rig, s uint64) { g.vol.NextMode = "async"; g.drop("nobody") },
		"a member that has said that it ends": func(g *rig, s uint64) { g.c.Leaving(g.now, "s", s) },
	} {
		g, s := quietRig(t, 100*dropAfter)
		if harm(g, s); g.c.Rests() {
			t.Errorf("%s: it rests", name)
		}
	}
}
