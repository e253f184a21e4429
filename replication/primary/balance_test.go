package primary

import (
	"testing"

	"hacluster/blockdev"
	"hacluster/heartbeat/cluster"
)

// balanced is a rig whose members may be asked for reads, and whose own disk is slow.
func balanced(t *testing.T) (g *rig, s, x uint64) {
	t.Helper()
	g = newRig(t, "s", "x")
	g.vol.Mode = cluster.ModeSync
	g.c = New(Config{Self: "p", DropAfter: dropAfter, Piece: chunk}, g.vol, g.now)
	g.c.SetBalance(true)
	reads := Greeting{Incarnation: bootA, Process: 1, Reads: true}
	s, x = g.greet("s", reads), g.greet("x", reads)
	slowDisk(g)
	return g, s, x
}

func slowDisk(g *rig) { g.c.here.nanos = 1000 } // of each byte

// read begins one; node is who was asked, as which number, empty: nobody.
func (g *rig) ask(off int64) (op *Op, node string, num uint64) {
	op = g.op(blockdev.OpRead, off, 4096)
	slowDisk(g)
	asked := g.c.BeginRead(g.now, op)
	for _, a := range g.take() {
		if a.Kind == Ask && a.Op == op {
			node, num = a.Node, a.Num
		}
	}
	if asked != (node != "") {
		g.t.Fatalf("asked %t, of %q", asked, node)
	}
	return op, node, num
}

// here checks that a read is left to the local backing now, once, and not answered yet.
func (g *rig) here(op *Op) {
	g.t.Helper()
	g.take()
	if n := g.count(Reread, op); n != 1 || g.completed(op) {
		g.t.Fatalf("it was left to the local backing %d times, complete %t", n, g.completed(op))
	}
	g.c.ReadHere(g.now, op)
	g.c.ReadDone(op, nil)
	g.take()
	if !g.completed(op) {
		g.t.Fatal("it is not complete when it was read here")
	}
}

func TestReadIsAnsweredByAMember(t *testing.T) {
	g, s, _ := balanced(t)
	op, node, num := g.ask(0)
	if node != "s" {
		t.Fatalf("%q was asked", node)
	}
	if g.c.TakeRead(g.now, "s", s, num+1) != nil || g.c.TakeRead(g.now, "x", s, num) != nil || g.c.TakeRead(g.now, "s", s, num) != op {
		t.Fatal("the answer was not taken for that read alone")
	}
	if g.c.TakeRead(g.now, "s", s, num) != nil {
		t.Fatal("it was taken a second time")
	}
	if !g.c.ReadThere(g.now, op, nil) || len(g.take()) != 2 || !g.completed(op) {
		t.Fatalf("%v", g.log)
	}
}

// Whatever makes a member's answer doubtful between the question and the answer has the read done here.
func TestAnswerOfWhoIsNoMemberAnyMoreCountsForNothing(t *testing.T) {
	for what, happens := range map[string]func(g *rig, s uint64){
		"it was dropped":               func(g *rig, _ uint64) { g.drop("s") },
		"its stream ended":             func(g *rig, s uint64) { g.down("s", s) },
		"it could not write":           func(g *rig, s uint64) { g.c.Refused(g.now, "s", s, false, "disk failed") },
		"a write of it is under way":   func(g *rig, _ uint64) { g.write(0) },
		"the mode became a weaker one": func(g *rig, _ uint64) { g.commit(func(v *cluster.Volume) { v.Mode = cluster.ModeSemisync }) },
	} {
		t.Run(what, func(t *testing.T) {
			g, s, _ := balanced(t)
			op, _, num := g.ask(0)
			happens(g, s)
			if taken := g.c.TakeRead(g.now, "s", s, num); taken != nil {
				g.c.ReadThere(g.now, taken, nil)
			}
			if what == "a write of it is under way" { // it is read here, and waits for the write (R29)
				if g.take(); g.count(Reread, op) != 1 || g.completed(op) {
					t.Fatal("it was answered")
				}
				return
			}
			g.here(op)

			g, s, _ = balanced(t)
			if op, _, num = g.ask(0); g.c.TakeRead(g.now, "s", s, num) != op {
				t.Fatal("not taken")
			}
			happens(g, s) // while what it answered is copied to the client
			if g.c.ReadThere(g.now, op, nil) {
				t.Fatal("it was answered with that")
			}
			g.here(op)
		})
	}
}

func TestReadIsAskedOfNobodyWhoMayLackSomething(t *testing.T) {
	for what, with := range map[string]func(t *testing.T) *rig{
		"a write is under way there": func(t *testing.T) *rig {
			g, _, _ := balanced(t)
			g.write(0)
			return g
		},
		"the volume is in semisync": func(t *testing.T) *rig {
			g, _, _ := balanced(t)
			g.commit(func(v *cluster.Volume) { v.Mode = cluster.ModeSemisync })
			return g
		},
		"no member is left": func(t *testing.T) *rig {
			g, _, _ := balanced(t)
			g.drop("s")
			g.drop("x")
			return g
		},
		"they are of an older version": func(t *testing.T) *rig {
			g := newRig(t, "s", "x")
			g.vol.Mode = cluster.ModeSync
			g.c = New(Config{Self: "p", DropAfter: dropAfter, Piece: chunk}, g.vol, g.now)
			g.c.SetBalance(true)
			g.up("s")
			g.up("x")
			return g
		},
		"a resync runs": func(t *testing.T) *rig {
			g, _, _ := balanced(t)
			g.drop("s")
			g.drop("x")
			g.greet("s", Greeting{Incarnation: bootA, Process: 1, Reads: true})
			return g
		},
		"blocks are not settled": func(t *testing.T) *rig {
			g := newRig(t, "s", "x")
			g.vol.Mode, g.marked = cluster.ModeSync, []blockdev.Range{{Len: volSize}}
			g.c = New(Config{Self: "p", DropAfter: dropAfter, Piece: chunk}, g.vol, g.now)
			g.c.SetBalance(true)
			g.greet("s", Greeting{Incarnation: bootA, Process: 1, Reads: true})
			g.greet("x", Greeting{Incarnation: bootA, Process: 1, Reads: true})
			return g
		},
		"the role is being handed over": func(t *testing.T) *rig {
			g, _, _ := balanced(t)
			g.c.Drain()
			return g
		},
		"it is off": func(t *testing.T) *rig {
			g, _, _ := balanced(t)
			g.c.SetBalance(false)
			return g
		},
	} {
		t.Run(what, func(t *testing.T) {
			g := with(t)
			if !g.c.Balances() && what == "it is off" {
				return
			}
			if _, node, _ := g.ask(0); node != "" {
				t.Errorf("%s was asked", node)
			}
		})
	}
}

// A member is asked for eight reads at most, those included that were given up; what it does not answer in time is read here.
func TestMemberIsAskedForSoManyReadsAndWaitedForSoLong(t *testing.T) {
	g, s, _ := balanced(t)
	g.drop("x")
	first, node, num := g.ask(0)
	if node != "s" {
		t.Fatal("it was not asked")
	}
	g.c.peers["s"].reads.nanos = 0.001 // a fast one
	for i := range MaxAsked + 3 {
		g.c.peers["s"].reads.at = g.now
		if _, node, _ := g.ask(int64(i+1) * 4096); (node == "s") != (i < MaxAsked-1) {
			t.Fatalf("read %d: %q was asked", i+2, node)
		}
	}
	g.now = g.now.Add(dropAfter / 4)
	g.c.Tick(g.now)
	g.here(first)
	if g.c.TakeRead(g.now, "s", s, num) != nil {
		t.Error("the late answer was taken")
	}
	if _, node, _ := g.ask(0); node != "" {
		t.Error("it is asked again at once")
	}
	g.now = g.now.Add(readPause)
	g.c.Alive(g.now, "s", s)
	if _, node, _ := g.ask(0); node != "s" || g.c.Asked("s") != MaxAsked {
		t.Errorf("after the pause %q is asked, %d reads are under way", node, g.c.Asked("s"))
	}
}

// A disk that answers at once is left alone, and so is a member that would not be much faster.
func TestReadsStayWhereTheyAreFast(t *testing.T) {
	g, _, _ := balanced(t)
	measured := func(here, there float64) (node string) {
		for _, n := range []string{"s", "x"} {
			g.c.peers[n].reads.nanos, g.c.peers[n].reads.at = there, g.now
		}
		op := g.op(blockdev.OpRead, 0, 4096)
		g.c.here.nanos = here
		if !g.c.BeginRead(g.now, op) {
			g.c.ReadHere(g.now, op)
			g.c.ReadDone(op, nil)
			g.take()
			return ""
		}
		for _, a := range g.take() {
			if a.Kind == Ask {
				return a.Node
			}
		}
		return ""
	}
	slow := float64(slowRead) / float64(readLoad(blockdev.Range{Len: 4096}))
	for _, c := range []struct {
		here, there float64
		want        string
	}{{slow * 0.9, 0.001, ""}, {slow * 4, slow * 3, ""}, {slow * 4, slow, "s"}, {slow * 4, slow * 1.9, "x"}} {
		if got := measured(c.here, c.there); got != c.want {
			t.Errorf("%v here and %v there: %q is asked, want %q", c.here/slow, c.there/slow, got, c.want)
		}
	}
	g, _, _ = balanced(t)
	for _, p := range g.c.peers {
		p.reads.nanos, p.reads.at = slow*1e6, g.now
	}
	g.now = g.now.Add(measureEvery)
	for _, want := range []string{"s", "x", ""} { // each is measured again, once
		if _, node, _ := g.ask(0); node != want {
			t.Errorf("%q is asked, want %q", node, want)
		}
	}
}

// A read that began here while members answered reads is counted off also when they do not any more.
func TestReadIsCountedOffWhenMembersAnswerNoMore(t *testing.T) {
	g := newRig(t)
	g.c.SetBalance(true)
	op := g.op(blockdev.OpRead, 0, 4096)
	if g.c.BeginRead(g.now, op) || !op.IsCounted() {
		t.Fatal("it is asked of a member, or not counted")
	}
	g.c.SetBalance(false)
	g.c.ReadHere(g.now+second, op)
	if op.IsCounted() || g.c.here.load != 0 {
		t.Errorf("a load of %d stays", g.c.here.load)
	}
}
