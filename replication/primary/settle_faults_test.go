package primary

import (
	"testing"
	"time"

	"hacluster/blockdev"
)

// handsOver reports whether the failure of our own disk was told.
func handsOver(acts []Action) bool { return has(acts, HandOn, "") }

// faults.md D93: what cannot be read here is no fault of the member, which may be the only one that has it.
func TestMemberIsNotDroppedForWhatCannotBeReadHere(t *testing.T) { // R4, R23, R29
	g, n, marked := differ(t)
	g.mapped(n, marked)
	r := g.read(chunk+1<<19, 4096) // it was read: another block of the chunk is bad, or this one is by now
	at := len(g.log)
	for range 3 * 60 * 20 { // minutes: what was set aside is tried again meanwhile
		if c, ok := g.c.TakeChunk(g.now, "s", n, 0); ok {
			g.c.Answered(g.now, "s", n)
			if c.Off == chunk {
				g.c.Unreadable(g.now, "s", n, c, []blockdev.Range{c}, []blockdev.Range{c})
			}
			g.c.Compared(g.now, "s", n, c, nil)
			g.take()
		}
		g.c.Alive(g.now, "s", n)
		g.pass(50 * time.Millisecond)
	}
	acts := g.log[at:]
	if drops(acts, "s") {
		t.Error("a member is dropped because the primary's own disk cannot be read")
	}
	if !handsOver(acts) || g.c.DiskError() == nil {
		t.Error("a read waits for what cannot be read here, and nobody else is to answer it")
	}
	g.wantOpen(r)
}

// What cannot be read of one chunk is forgotten with it, also when its comparison came to nothing because the role was to be handed
// over for that: the next resync took blocks of another chunk for alike.
func TestWhatCannotBeReadIsOfItsChunkOnly(t *testing.T) { // R14, R5
	g, n, marked := differ(t)
	g.mapped(n, marked)
	last := blockdev.Range{Off: 2*chunk - 4096, Len: 4096}
	g.read(last.Off, last.Len)
	for g.c.DiskError() == nil {
		c, ok := g.c.TakeChunk(g.now, "s", n, 0)
		if !ok {
			t.Fatal("nothing is to be compared")
		}
		if c.Off == chunk {
			g.c.Unreadable(g.now, "s", n, c, []blockdev.Range{last}, []blockdev.Range{last})
		}
		g.c.Compared(g.now, "s", n, c, nil)
		g.take()
	}
	g.drop("s")
	n = g.greet("s", Greeting{Incarnation: bootB, Process: 2})
	g.mapped(n, []blockdev.Range{{Len: volSize}})
	at, ok := g.c.TakeChunk(g.now, "s", n, 0)
	if !ok || at.Overlaps(blockdev.Range{Off: chunk, Len: chunk}) {
		t.Fatalf("%v (%t) is compared first", at, ok)
	}
	g.c.Compared(g.now, "s", n, at, nil)
	g.take()
	for _, left := range []blockdev.Range{{Off: chunk, Len: 4096}, last, {Off: 2 * chunk, Len: 4096}} {
		if !g.c.peers["s"].m.Unsettled(left) {
			t.Errorf("%v counts as alike, and was not compared", left)
		}
	}
}

// What was given up unseen behind too many bad blocks is tried when a read waits for it.
func TestReadBehindManyBadBlocksIsTriedByItself(t *testing.T) { // R29
	for name, late := range map[string]bool{"it waits before": false, "it comes when the chunk is set aside": true} {
		t.Run(name, func(t *testing.T) {
			g, n, marked := differ(t)
			g.mapped(n, marked)
			want := blockdev.Range{Off: chunk + 1<<19, Len: 4096}
			tried, bad := blockdev.Range{Off: chunk, Len: 64 << 10}, blockdev.Range{Off: chunk, Len: chunk}
			unseen := func() (at blockdev.Range) {
				at, _ = g.c.TakeChunk(g.now, "s", n, 0)
				g.c.Unreadable(g.now, "s", n, at, []blockdev.Range{bad}, []blockdev.Range{tried})
				g.c.Compared(g.now, "s", n, at, nil)
				g.take()
				return at
			}
			var r *Op
			if late {
				unseen()
				r = g.read(want.Off, want.Len)
			} else {
				r = g.read(want.Off, want.Len)
				unseen()
			}
			g.wantOpen(r)
			if handsOver(g.log) {
				t.Fatal("it was not tried, and the role is handed over")
			}
			at, ok := g.c.TakeChunk(g.now, "s", n, 0)
			if !ok || at.Off != chunk {
				t.Fatalf("%v (%t) is looked at, want the chunk of the read at once", at, ok)
			}
			if got := g.c.Awaited("s", at); len(got) != 1 || got[0] != want {
				t.Fatalf("%v is tried in any case, want %v", got, want)
			}
			g.c.Unreadable(g.now, "s", n, at, []blockdev.Range{tried}, []blockdev.Range{tried})
			g.c.Compared(g.now, "s", n, at, nil)
			g.take()
			g.wantDone(r)
			if handsOver(g.log) {
				t.Error("the role is handed over although nobody waits for what is bad")
			}
		})
	}
}

// A member that lets nothing be compared is dropped although an unreadable chunk of ours is set aside.
func TestWhatIsSetAsideExcusesNoOtherChunk(t *testing.T) { // R26, R29
	g, n, marked := differ(t)
	g.mapped(n, marked)
	at, _ := g.c.TakeChunk(g.now, "s", n, 0)
	g.c.Unreadable(g.now, "s", n, at, []blockdev.Range{at}, []blockdev.Range{at})
	g.c.Compared(g.now, "s", n, at, nil)
	g.take()
	g.read(3*chunk, 4096)
	dropped := false
	for range 100 {
		dropped = dropped || drops(g.pass(dropAfter/10), "s")
		g.c.Alive(g.now, "s", n)
	}
	if !dropped || handsOver(g.log) {
		t.Errorf("dropped %t, handed over %t", dropped, handsOver(g.log))
	}
}

// A member that has answered is not dropped for the time that our own disk takes.
func TestTimeOfOurOwnDiskIsNotTheMembers(t *testing.T) { // R26, R29
	g, n, marked := differ(t)
	g.mapped(n, marked)
	r := g.read(chunk, 4096)
	at, _ := g.c.TakeChunk(g.now, "s", n, 0)
	slow := func(what string) {
		t.Helper()
		for range 100 {
			if drops(g.pass(dropAfter/10), "s") {
				t.Fatalf("dropped while %s is being read here", what)
			}
			g.c.Alive(g.now, "s", n)
		}
	}
	g.c.Answered(g.now, "s", n)
	slow("the chunk")
	cp := g.op(0, chunk, 4096)
	g.c.Compared(g.now, "s", n, at, []*Op{cp})
	g.take()
	slow("a copy")
	g.local(cp, nil)
	g.ack("s", n, g.last("s"))
	g.wantDone(r)
	g.read(3*chunk, 4096)
	g.c.TakeChunk(g.now, "s", n, 0)
	dropped := false
	for range 100 {
		dropped = dropped || drops(g.pass(dropAfter/10), "s")
		g.c.Alive(g.now, "s", n)
	}
	if !dropped {
		t.Error("it is never dropped afterwards")
	}
}

// What clients write to a member does not keep the chunks from being compared that reads wait for.
func TestLoadKeepsNoReadWaiting(t *testing.T) { // R29
	g, n, marked := differ(t)
	g.mapped(n, marked)
	var writes []*Op
	for range maxSettleBytes>>20 + 4 {
		writes = append(writes, g.admit(g.op(blockdev.OpWrite, 2*chunk, chunk)))
	}
	r := g.read(3*chunk, 4096)
	for i := range uint64(60) { // as many in flight at any time
		g.local(writes[0], nil)
		writes = append(writes[1:], g.admit(g.op(blockdev.OpWrite, 2*chunk, chunk)))
		g.ack("s", n, i+1)
		if c, ok := g.c.TakeChunk(g.now, "s", n, 0); ok {
			g.c.Compared(g.now, "s", n, c, nil)
			g.take()
		}
		if drops(g.pass(50*time.Millisecond), "s") {
			t.Fatal("a member is dropped because clients write much")
		}
	}
	g.wantDone(r)
	if left := g.c.UnsettledBytes(); left != 0 {
		t.Errorf("%d bytes are never settled while clients write", left)
	}
}

// A repair that cannot be read leaves its blocks behind: they are compared, or no mark of the member would ever leave.
func TestRepairThatCannotBeReadIsComparedLater(t *testing.T) { // R14
	for name, admitted := range map[string]bool{"since before the tenure": false, "admitted in it": true} {
		t.Run(name, func(t *testing.T) {
			var g *rig
			var n uint64
			if admitted {
				g = newRig(t)
				n = g.resync("s")
				g.ack("s", n, g.last("s"))
				g.admitMember("s", bootA)
			} else {
				g = newRig(t, "s")
				n = g.up("s")
			}
			cp := g.op(0, chunk, 4096)
			g.c.Repair(g.now, "s", cp)
			g.take()
			if _, ok := g.c.TakeChunk(g.now, "s", n, 0); ok {
				t.Fatal("it is compared while it is copied")
			}
			g.local(cp, errDisk)
			if acts := g.ack("s", n, g.last("s")); !has(acts, Compare, "s") {
				t.Fatal("nobody is told to compare what is behind")
			}
			at, ok := g.c.TakeChunk(g.now, "s", n, 0)
			if !ok || at != cp.Range {
				t.Fatalf("%v (%t) is compared, want %v", at, ok, cp.Range)
			}
			g.c.Compared(g.now, "s", n, at, nil)
			g.take()
			if len(g.c.Clearable()) != 1 {
				t.Error("no mark of the member leaves")
			}
		})
	}
}

// One block of a copy that cannot be read does not hold up its neighbours: the chunk is looked at again, block by block.
func TestCopyThatCannotBeReadIsComparedAtOnce(t *testing.T) { // R29
	g, n, marked := differ(t)
	g.mapped(n, marked)
	good, bad := blockdev.Range{Off: chunk, Len: 4096}, blockdev.Range{Off: chunk + 4096, Len: 4096}
	r := g.read(good.Off, good.Len)
	both := func() {
		t.Helper()
		at, ok := g.c.TakeChunk(g.now, "s", n, 0)
		if !ok || at.Off != chunk {
			t.Fatalf("%v (%t) is compared, want chunk 1", at, ok)
		}
		cp := g.op(0, chunk, 8192)
		g.c.Compared(g.now, "s", n, at, []*Op{cp})
		g.take()
		g.local(cp, errDisk)
		g.ack("s", n, g.last("s"))
		g.wantOpen(r)
	}
	both()
	at, ok := g.c.TakeChunk(g.now, "s", n, 0)
	if !ok || at.Off != chunk {
		t.Fatalf("%v (%t) is compared next, want the chunk again", at, ok)
	}
	g.c.Unreadable(g.now, "s", n, at, []blockdev.Range{bad}, []blockdev.Range{bad})
	cp := g.op(0, good.Off, good.Len)
	g.c.Compared(g.now, "s", n, at, []*Op{cp})
	g.take()
	g.local(cp, nil)
	g.ack("s", n, g.last("s"))
	g.wantDone(r)
	if handsOver(g.log) {
		t.Error("the role is handed over although nobody waits for what is bad")
	}
}

// What reads as a digest and never as a copy does not go round for ever.
func TestCopyThatCannotBeReadTwiceIsHandedOn(t *testing.T) { // R23, R29
	g, n, marked := differ(t)
	g.mapped(n, marked)
	g.read(chunk, 4096)
	for round := range 2 {
		at, ok := g.c.TakeChunk(g.now, "s", n, 0)
		if !ok || at.Off != chunk {
			t.Fatalf("round %d: %v (%t) is compared, want chunk 1", round, at, ok)
		}
		first, second := g.op(0, chunk, 4096), g.op(0, chunk+8192, 4096) // both of one look: they count once
		g.c.Compared(g.now, "s", n, at, []*Op{first, second})
		g.take()
		g.local(second, errDisk)
		g.local(first, errDisk)
		g.ack("s", n, g.last("s"))
		if got := handsOver(g.log); got != (round == 1) {
			t.Fatalf("round %d: handed over %t", round, got)
		}
	}
	if at, ok := g.c.TakeChunk(g.now, "s", n, 0); ok && at.Off == chunk {
		t.Error("it goes round")
	}
}

// After a failed flush the page cache may show what is older than what a member was told is durable: nothing that is read
// then goes to it, not from a comparison, nor from a copy that was under way.
func TestNothingOfAFailedDiskGoesToAMember(t *testing.T) { // R23
	g, n, marked := differ(t)
	g.mapped(n, marked)
	_, copies := g.compared(n, chunk)
	g.local(g.flush(), errDisk)
	g.local(copies[0], nil)
	for _, a := range g.log {
		if a.Kind == Send && a.Op.Kind != blockdev.OpFlush {
			t.Errorf("%v of the failed disk is sent", a.Op.Range)
		}
	}
	g, n, marked = differ(t)
	g.mapped(n, marked)
	at, _ := g.c.TakeChunk(g.now, "s", n, 0)
	g.local(g.flush(), errDisk)
	late := g.op(0, at.Off, 4096)
	g.c.Compared(g.now, "s", n, at, []*Op{late})
	if g.take(); g.count(StartLocal, late) > 0 {
		t.Error("what a comparison found is copied")
	}
	if at, ok := g.c.TakeChunk(g.now, "s", n, 0); ok {
		t.Errorf("%v is handed out to be compared", at)
	}
}
