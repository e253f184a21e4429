package primary

import (
	"testing"

	"hacluster/blockdev"
)

// A write or flush failed here, x has what was acknowledged, and s is back: what this disk shows may be no prefix of the order, and
// lack what was lost with the flush.
func TestPrimaryWhoseDiskFailedMakesNobodyAMemberWhileAnotherLives(t *testing.T) { // R13, R23
	fails := map[string]func(*rig) *Op{"write": func(g *rig) *Op { return g.write(0) }, "flush": (*rig).flush}
	for what, fail := range fails {
		g := newRig(t, "x")
		g.up("x")
		g.local(fail(g), errDisk)
		n := g.up("s")
		if at, ok := g.c.TakeChunk(g.now, "s", n, 0); ok {
			t.Fatalf("%s: %v of a disk that failed is compared with s", what, at)
		}
		if p := g.c.Peer("s"); p.Resyncing || !p.Spoilt {
			t.Fatalf("%s: a resync that stands still is shown as %+v", what, p)
		}
		g.drop("x") // by its own word: from here on there is nothing better than this disk
		g.compareAll("s", n)
		if acts := g.ack("s", n, g.last("s")); !admits(acts, "s") {
			t.Fatalf("%s: the only other replica is not admitted by the last member", what)
		}
	}
}

func TestResyncThatIsClosedWhenTheDiskFailsAdmitsNobody(t *testing.T) { // R13, R23
	for name, closed := range map[string]bool{"closed": true, "being closed": false} {
		g := newRig(t, "x")
		g.up("x")
		n := g.resync("s")
		behind := g.write(4096) // what it has to have before it is proposed
		if closed {
			g.ack("s", n, g.last("s")-1)
		}
		g.local(behind, errDisk)
		if !closed {
			g.ack("s", n, g.last("s")-1)
		}
		if acts := g.ack("s", n, g.last("s")); admits(acts, "s") {
			t.Fatalf("%s: proposed by a primary whose disk failed, while x has all", name)
		}
		if acts := g.pass(dropAfter / 2); admits(acts, "s") {
			t.Fatalf("%s: proposed after a while", name)
		}
		if acts := g.drop("x"); !admits(acts, "s") {
			t.Fatalf("%s: not proposed when no other member is left", name)
		}
	}
}

func TestCopyThatIsReadWhenTheDiskHasFailedIsNotSent(t *testing.T) { // R13, R23
	g := newRig(t, "x")
	g.up("x")
	n := g.up("s")
	at, _ := g.c.TakeChunk(g.now, "s", n, 0)
	cp := g.op(blockdev.OpWrite, at.Off, 4096)
	g.c.Compared(g.now, "s", n, at, []*Op{cp})
	g.take()
	g.local(g.write(8192), errDisk)
	if acts := g.local(cp, nil); has(acts, Send, "s") || !has(acts, Disconnect, "s") {
		t.Fatal("what was read of a disk that failed went to s")
	}
	if p := g.c.Peer("s"); p.Unreadable {
		t.Fatal("it can be read: it is set aside for nothing")
	}
}

// The target keeps its way back (R18): what it was copied may be what the flush lost.
func TestResyncIsNotClosedAfterTheFlushFailed(t *testing.T) { // R18, R23
	g := newRig(t, "x")
	g.up("x")
	n := g.up("s")
	for off := int64(0); off < volSize; off += chunk {
		at, _ := g.c.TakeChunk(g.now, "s", n, 0)
		var copies []*Op
		if off == 0 {
			copies = []*Op{g.op(blockdev.OpWrite, 0, 4096)}
		}
		g.c.Compared(g.now, "s", n, at, copies)
		for _, cp := range copies {
			g.local(cp, nil)
		}
	}
	g.local(g.flush(), errDisk)
	if g.ack("s", n, g.last("s")); g.c.peers["s"].closing {
		t.Fatal("closed by a primary whose flush failed, while x has all")
	}
	g.drop("x")
	if g.compareAll("s", n); !g.c.peers["s"].closing {
		t.Fatal("not closed when no other member is left")
	}
}

// What cannot be read hurts nobody who can be copied without it.
func TestPrimaryThatCannotReadGoesOnWithAResync(t *testing.T) {
	g := newRig(t, "x")
	g.up("x")
	g.c.ReadDone(g.op(blockdev.OpRead, 0, 4096), errDisk)
	g.take()
	if n := g.resync("s"); !admits(g.ack("s", n, g.last("s")), "s") {
		t.Fatal("not admitted, although all that was written is here")
	}
}
