package primary

import (
	"testing"

	"hacluster/blockdev"
)

// read has a read return from the local backing.
func (g *rig) read(off, n int64) *Op {
	op := g.op(blockdev.OpRead, off, n)
	g.c.ReadDone(op, nil)
	g.take()
	return op
}

// differ makes s a member of which chunks 1 and 3 may differ, and the map of which is not known yet.
func differ(t *testing.T) (g *rig, n uint64, marked []blockdev.Range) {
	t.Helper()
	g = newRig(t, "s")
	g.silent = true
	return g, g.up("s"), []blockdev.Range{{Off: chunk, Len: chunk}, {Off: 3 * chunk, Len: chunk}}
}

func (g *rig) mapped(n uint64, marked []blockdev.Range) {
	g.c.Mapped(g.now, "s", n, marked)
	g.take()
}

// compared takes the next chunk, in which the blocks at offsets differ, and returns their copies.
func (g *rig) compared(n uint64, offsets ...int64) (at blockdev.Range, copies []*Op) {
	g.t.Helper()
	at, ok := g.c.TakeChunk(g.now, "s", n, 0)
	if !ok {
		g.t.Fatal("nothing is handed out to compare")
	}
	for _, off := range offsets {
		copies = append(copies, g.op(0, off, 4096))
	}
	g.c.Compared(g.now, "s", n, at, copies)
	g.take()
	return at, copies
}

func TestReadWaitsUntilTheMapOfEachMemberIsKnown(t *testing.T) { // R29
	g, n, marked := differ(t)
	r := g.read(0, 4096)
	g.wantOpen(r)
	g.mapped(n, marked)
	g.wantDone(r)
	if g.count(Release, r) != 1 {
		t.Fatal("the read was not given back")
	}
}

func TestReadOfAnUnsettledBlockWaitsForItsCopy(t *testing.T) { // R29
	g, n, marked := differ(t)
	g.mapped(n, marked)
	at := int64(3*chunk + 8192)
	over, equal, beside := g.read(at, 4096), g.read(3*chunk, 4096), g.read(2*chunk, 4096)
	g.wantDone(beside)
	g.wantOpen(over, equal)
	got, copies := g.compared(n, at)
	if got.Off != 3*chunk {
		t.Fatalf("compares %v, want what the reads wait for before all others", got)
	}
	g.wantDone(equal)
	g.wantOpen(over)
	g.local(copies[0], nil)
	g.wantOpen(over)
	g.ack("s", n, g.last("s"))
	g.wantDone(over)
}

func TestWhatMayDifferInAMemberIsTold(t *testing.T) { // R29
	g, n, marked := differ(t)
	want := func(when string, bytes int64) {
		t.Helper()
		if has := g.c.Peer("s").SettlingBytes; has != bytes {
			t.Errorf("%s: %d bytes may differ, want %d", when, has, bytes)
		}
	}
	want("before its map is known", g.c.vol.Size)
	g.mapped(n, marked)
	want("by its map", 2*chunk)
	g.compared(n)
	want("when one of the two was compared", chunk)
	_, copies := g.compared(n, 3*chunk)
	want("while a block is copied", 4096)
	g.local(copies[0], nil)
	g.ack("s", n, g.last("s"))
	want("in the end", 0)
}

// A member that holds a newer state durably, after a power loss of all, must not show it again after the next one (R29, R20).
func TestWhatIsCopiedToSettleIsDurable(t *testing.T) {
	g, n, marked := differ(t)
	g.mapped(n, marked)
	if _, copies := g.compared(n, chunk); !copies[0].FUA {
		t.Error("a copy that settles a block may be lost with the member's memory")
	}
	x := g.up("x") // a target flushes before it is a member
	g.c.Mapped(g.now, "x", x, []blockdev.Range{{Len: volSize}})
	at, _ := g.c.TakeChunk(g.now, "x", x, 0)
	c := g.op(0, at.Off, 4096)
	if g.c.Compared(g.now, "x", x, at, []*Op{c}); c.FUA {
		t.Error("each copy of a resync waits for the target's disk")
	}
}

func TestReadWaitsBesideAChunkThatIsBeingCompared(t *testing.T) { // R29: settling on demand does not wait for all of it
	g, n, marked := differ(t)
	g.mapped(n, marked)
	first, ok := g.c.TakeChunk(g.now, "s", n, 0)
	if _, more := g.c.TakeChunk(g.now, "s", n, 0); !ok || more {
		t.Fatal("more than one chunk of a member is compared although nobody waits")
	}
	r := g.read(3*chunk, 4096)
	if !has(g.log, Compare, "s") {
		t.Fatal("nobody is told that there is something to compare")
	}
	g.compared(n)
	g.wantDone(r)
	g.c.Compared(g.now, "s", n, first, nil)
}

func TestWholeBlockThatIsWrittenIsSettled(t *testing.T) { // R29
	g, n, marked := differ(t)
	g.mapped(n, marked)
	w := g.write(chunk)
	r := g.read(chunk, 4096)
	g.local(w, nil)
	g.wantOpen(w, r)
	g.ack("s", n, g.last("s"))
	g.wantDone(w, r)
}

func TestBlockThatIsWrittenInPartIsSettledByTheNextRead(t *testing.T) { // R29
	g, n, marked := differ(t)
	g.mapped(n, marked)
	w := g.admit(g.op(blockdev.OpWrite, chunk, 512))
	g.local(w, nil)
	g.ack("s", n, g.last("s"))
	g.wantDone(w)
	r := g.read(chunk, 512)
	g.wantOpen(r)
	g.compared(n)
	g.wantDone(r)
}

func TestReadThatWasHeldStillWaitsForWritesBehindIt(t *testing.T) { // R29
	g, n, marked := differ(t)
	g.mapped(n, marked)
	r := g.read(chunk, 4096)
	w := g.write(chunk)
	g.local(w, nil)
	g.compared(n)
	g.wantOpen(r)
	g.ack("s", n, g.last("s"))
	g.wantDone(r)
}

func TestMemberThatLeavesIsNotSettled(t *testing.T) { // R29: or drops the member
	g, n, _ := differ(t)
	r := g.read(0, 4096)
	g.down("s", n)
	g.wantOpen(r)
	if acts := g.pass(2 * dropAfter); !drops(acts, "s") {
		t.Fatal("a member that is not there, and that a read waits for, is not dropped")
	}
	g.drop("s")
	g.wantDone(r)
}

func TestMemberThatLetsNothingBeComparedIsDropped(t *testing.T) { // R29, R26
	for name, known := range map[string]bool{"no map": false, "no digests": true} {
		g, n, marked := differ(t)
		if known {
			g.mapped(n, marked)
		}
		r := g.read(chunk, 4096)
		dropped := false
		for range 100 {
			dropped = dropped || drops(g.pass(dropAfter/10), "s")
			g.c.Alive(g.now, "s", n)
		}
		if !dropped {
			t.Fatalf("%s: reads wait for ever for a member that only answers pings", name)
		}
		g.drop("s")
		g.wantDone(r)
	}
}

func TestWhatReadsWaitForIsPreferredAfterABreakToo(t *testing.T) { // R29
	g, n, marked := differ(t)
	g.mapped(n, marked)
	r := g.read(3*chunk, 4096)
	g.c.TakeChunk(g.now, "s", n, 0)
	g.down("s", n)
	g.wantOpen(r)
	n = g.up("s")
	if at, _ := g.compared(n); at.Off != 3*chunk {
		t.Fatalf("compares %v first", at)
	}
	g.wantDone(r)
}

func TestOtherProcessOfAMemberIsAskedAnewBeforeItIsSettled(t *testing.T) { // R29
	g, n, marked := differ(t)
	g.mapped(n, marked)
	g.down("s", n)
	n = g.greet("s", Greeting{Incarnation: bootA, Process: 2})
	r := g.read(0, 4096)
	g.wantOpen(r)
	g.mapped(n, []blockdev.Range{{Len: chunk}})
	g.wantOpen(r)
	g.compared(n)
	g.wantDone(r)
}

func TestMemberWithoutAMapIsComparedWhole(t *testing.T) { // R29, R16
	g, n, _ := differ(t)
	r := g.read(0, 4096)
	g.c.Unmapped(g.now, "s", n)
	g.take()
	g.wantOpen(r)
	g.compared(n)
	g.wantDone(r)
	if g.c.UnsettledBytes() != volSize-chunk {
		t.Fatalf("%d bytes are unsettled", g.c.UnsettledBytes())
	}
}

func TestHoleThatMayDifferIsNone(t *testing.T) { // R29: a client that is told of zeroes was answered
	g, n, marked := differ(t)
	whole := blockdev.Range{Len: volSize}
	if got := g.c.Incomplete(whole, nil); len(got) != 1 || got[0] != whole {
		t.Fatalf("%v while nothing is known", got)
	}
	g.mapped(n, marked)
	if got := g.c.Incomplete(whole, nil); len(got) != 2 || got[0] != marked[0] || got[1] != marked[1] {
		t.Fatalf("%v, want %v", got, marked)
	}
}

func TestSettledMemberIsNotUnsettledAgain(t *testing.T) {
	g, n, _ := differ(t)
	g.mapped(n, nil)
	g.down("s", n)
	g.greet("s", Greeting{Incarnation: bootA, Process: 2}) // it goes on where it was
	g.wantDone(g.read(0, 4096))
}
