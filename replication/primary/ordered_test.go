package primary

import (
	"testing"

	"hacluster/heartbeat/cluster"
)

func (g *rig) paused(node string, is bool) []Action {
	return g.commit(func(v *cluster.Volume) {
		v.Paused = nil
		if is {
			v.Paused = []string{node}
		}
	})
}

func TestPausedTargetIsComparedNoFurtherAndStillGetsWrites(t *testing.T) {
	g := newRig(t)
	n := g.up("s")
	first, _ := g.c.TakeChunk(g.now, "s", n, 0)
	acts := g.paused("s", true)
	if _, ok := g.c.TakeChunk(g.now, "s", n, 0); ok || has(acts, Compare, "s") {
		t.Fatal("a chunk is compared in a pause")
	}
	g.c.Compared(g.now, "s", n, first, nil) // what was under way ends
	if has(g.take(), Compare, "s") {
		t.Fatal("work is announced in a pause")
	}
	op := g.write(0) // its chunk is equal by now
	if len(g.sent("s")) != 1 {
		t.Fatal("a write to what is equal does not reach a paused replica")
	}
	g.local(op, nil)
	g.wantDone(op)
	if p := g.c.Peer("s"); p.Resyncing || !p.Paused || p.RemainingBytes != volSize-chunk {
		t.Fatalf("%+v", p)
	}
	g.ack("s", n, g.last("s"))
	if acts = g.paused("s", false); !has(acts, Compare, "s") {
		t.Fatal("nothing goes on when the pause ends")
	}
	if at, ok := g.c.TakeChunk(g.now, "s", n, 0); !ok || at.Off != chunk {
		t.Fatalf("%v (%t) is compared next, want the chunk behind the one that was", at, ok)
	}
}

func TestPauseOutlivesTheTenureAndTheStream(t *testing.T) {
	g := newRig(t)
	g.paused("s", true)
	g.vol.Epoch++
	g.c = New(Config{Self: "p", DropAfter: dropAfter, Piece: chunk}, g.vol, g.now)
	for range 2 {
		n := g.up("s")
		if _, ok := g.c.TakeChunk(g.now, "s", n, 0); ok {
			t.Fatal("a chunk is compared in a pause that a former primary knew")
		}
		g.down("s", n)
	}
}

func TestPausedReplicaThatLacksNothingBecomesAMember(t *testing.T) {
	g := newRig(t)
	g.silent = true
	g.paused("s", true)
	n := g.up("s")
	g.c.Mapped(g.now, "s", n, nil)
	g.take()
	if acts := g.ack("s", n, g.last("s")); !admits(acts, "s") {
		t.Fatal("nothing is to be copied, and it is not admitted")
	}
}

func TestMemberIsNoConcernOfAPause(t *testing.T) {
	g := newRig(t, "s")
	n := g.up("s")
	g.paused("s", true)
	op := g.write(0)
	g.local(op, nil)
	g.wantOpen(op)
	g.ack("s", n, 1)
	g.wantDone(op)
}

func TestFullResyncOfAMemberIsBegunByItsDrop(t *testing.T) { // R4
	g := newRig(t, "s")
	n := g.up("s")
	acts := g.commit(func(v *cluster.Volume) { v.Full = []string{"s"} })
	if !drops(acts, "s") {
		t.Fatal("the primary does not send the member away")
	}
	op := g.write(0)
	g.local(op, nil)
	g.wantOpen(op) // it is a member until the entry is committed
	if acts = g.pass(dropAfter / 2); !drops(acts, "s") {
		t.Fatal("a proposal of unknown outcome is not repeated")
	}
	g.drop("s")
	g.wantDone(op)
	g.down("s", n)
	g.wholeOf("s", g.up("s"))
}

// wholeOf goes through a full resync of which the stream breaks once: it goes on where it was.
func (g *rig) wholeOf(node string, n uint64) {
	g.t.Helper()
	for off := int64(0); off < volSize; off += chunk {
		if off == 2*chunk {
			g.local(g.flush(), nil) // what is not durable on both by now is looked at once more (R14)
			g.ack(node, n, g.last(node))
			g.down(node, n)
			n = g.up(node)
		}
		at, ok := g.c.TakeChunk(g.now, node, n, 0)
		if !ok || at.Off != off || at.Len != chunk {
			g.t.Fatalf("chunk %v (%t), want all of the one at %d", at, ok, off)
		}
		g.c.Compared(g.now, node, n, at, nil)
		g.take()
	}
	acts := g.ack(node, n, g.last(node))
	if !admits(acts, node) {
		g.t.Fatal("all was compared, and it is not admitted")
	}
	for _, a := range acts {
		if a.Kind == Propose && !a.Command.Admit.Full {
			g.t.Fatal("the admission does not say that all was compared: it would be void")
		}
	}
}

func TestFullResyncBeginsAnewWhateverWasUnderWay(t *testing.T) {
	for name, prepare := range map[string]func(g *rig) uint64{
		"copying": func(g *rig) uint64 {
			n := g.up("s")
			at, _ := g.c.TakeChunk(g.now, "s", n, 0)
			g.c.Compared(g.now, "s", n, at, nil)
			g.take()
			return n
		},
		"closing": func(g *rig) uint64 { return g.resync("s") },
		"its admission is undecided": func(g *rig) uint64 {
			n := g.resync("s")
			g.ack("s", n, g.last("s"))
			return n
		},
		"gone with its admission undecided": func(g *rig) uint64 {
			n := g.resync("s")
			g.ack("s", n, g.last("s"))
			g.down("s", n)
			return n
		},
		"away": func(g *rig) uint64 { return 0 },
	} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t)
			n := prepare(g)
			g.commit(func(v *cluster.Volume) { v.Full = []string{"s"} })
			g.down("s", n)
			g.wholeOf("s", g.up("s"))
		})
	}
}
