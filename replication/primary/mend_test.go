package primary

import (
	"testing"
	"time"

	"hacluster/blockdev"
)

// failRead hands in a read of one block that the local disk cannot carry out, with the operation that is to mend it.
func (g *rig) failRead(off int64) (read, mend *Op, acts []Action) {
	read, mend = g.op(blockdev.OpRead, off, 4096), g.op(blockdev.OpWrite, off, 4096)
	g.c.ReadFailed(g.now, read, errDisk, []*Op{mend})
	return read, mend, g.take()
}

// fetch answers for node what it was asked for as entry num.
func (g *rig) fetch(node string, stream, num uint64, err error) []Action {
	g.t.Helper()
	op := g.c.Fetching(node, stream, num)
	if op == nil {
		g.t.Fatalf("%s was not asked for entry %d", node, num)
	}
	g.c.Fetched(g.now, node, op, err)
	return g.take()
}

func started(acts []Action, op *Op) bool {
	for _, a := range acts {
		if a.Kind == StartLocal && a.Op == op {
			return true
		}
	}
	return false
}

// faults.md D88: the read is answered when the block is on every member, the primary included.
func TestD88FailedReadIsMendedFromAMember(t *testing.T) {
	g := newRig(t, "s")
	n := g.up("s")
	before := g.write(0)
	g.local(before, nil)
	read, mend, acts := g.failRead(0)
	if has(acts, Fetch, "s") || has(acts, HandOn, "") {
		t.Fatal("the member is asked before it has what comes before")
	}
	behind := g.write(0)
	if acts := g.ack("s", n, 1); !has(acts, Fetch, "s") {
		t.Fatal("the member is not asked")
	}
	if sent := g.sent("s"); len(sent) != 1 {
		t.Fatalf("sent %v: what is behind the mend must not be there when it is read", sent)
	}
	acts = g.fetch("s", n, 2, nil)
	if !started(acts, mend) || started(acts, behind) {
		t.Fatal("it is not written here, or what follows does not wait for it")
	}
	if sent := g.sent("s"); len(sent) != 3 {
		t.Fatalf("sent %v", sent)
	}
	if !started(g.local(mend, nil), behind) {
		t.Fatal("what follows it does not start")
	}
	g.local(behind, nil)
	g.wantOpen(read, behind)
	g.ack("s", n, 2)
	g.wantDone(read, mend)
	g.wantOpen(behind)
	g.ack("s", n, 3)
	g.wantDone(read, mend, behind)
	if read.Err != nil || g.count(Release, mend) != 1 || g.count(Release, read) != 1 {
		t.Fatal("it ends with an error, or is not released once")
	}
}

// With no member left that can read it the role is handed on, and the client hears of the error only when nobody else can have
// the block.
func TestD88ReadThatNobodyCanMendIsLeftToTheNextPrimary(t *testing.T) {
	g := newRig(t, "s")
	n := g.up("s")
	read, mend, _ := g.failRead(0)
	behind := g.write(8192)
	g.local(behind, nil)
	g.fetch("s", n, 1, errDisk)
	if !has(g.log, HandOn, "") || g.count(StartLocal, mend) != 1 || !mend.IsVoid() {
		t.Fatal("the failure is not told, or the place is not left empty")
	}
	g.local(mend, nil)
	g.wantOpen(read)
	g.drop("s")
	g.wantDone(read, mend, behind)
	if read.Err == nil {
		t.Error("the client is told that it succeeded")
	}
}

// A member that is busy is no reason to give the role up: it is waited for as long as it makes progress, and has the whole
// time to answer once it is asked.
func TestMendWaitsForAMemberThatMakesProgress(t *testing.T) {
	g := newRig(t, "s")
	n := g.up("s")
	for range 30 {
		g.local(g.write(0), nil)
	}
	read, mend, _ := g.failRead(chunk)
	for i := range uint64(30) {
		if has(g.log, Fetch, "s") {
			t.Fatal("asked before it has what comes before")
		}
		g.pass(dropAfter / 10) // three times DropAfter in all
		g.ack("s", n, i+1)
	}
	if !has(g.log, Fetch, "s") {
		t.Fatal("not asked")
	}
	g.pass(dropAfter - dropAfter/10)
	if has(g.log, HandOn, "") || drops(g.log, "s") || mend.IsVoid() {
		t.Fatal("it was not waited for")
	}
	g.fetch("s", n, 31, nil)
	g.local(mend, nil)
	g.ack("s", n, 31)
	if g.wantDone(read); read.Err != nil {
		t.Error(read.Err)
	}
}

// The only member that could answer is silent: it is dropped like any that owes an answer, and then the client of a primary
// that is alone is told what it cannot read (R4, R23). The disk does not count as failed: so the drop is possible, and no other
// operation waits for more than that.
func TestD88SilentMemberIsDroppedAndTheReadAloneFails(t *testing.T) {
	alive := func(g *rig, n uint64, d time.Duration) {
		for range 10 {
			g.pass(d / 10)
			g.c.Alive(g.now, "s", n)
		}
	}
	for name, silent := range map[string]func(g *rig, stream uint64){
		"asked":                   func(g *rig, n uint64) { g.pass(dropAfter) },
		"asked, it answers pings": func(g *rig, n uint64) { alive(g, n, dropAfter) },
		"not there":               func(g *rig, n uint64) { g.down("s", n); g.pass(dropAfter) },
		"stops":                   func(g *rig, n uint64) { g.c.Leaving(g.now, "s", n); g.take() },
		"asked again in each stream": func(g *rig, n uint64) {
			for range 12 {
				g.pass(dropAfter / 5)
				g.down("s", n)
				n = g.up("s")
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t, "s")
			n := g.up("s")
			read, mend, _ := g.failRead(0)
			behind := g.write(8192)
			g.local(behind, nil)
			silent(g, n)
			if !drops(g.log, "s") {
				t.Fatal("its drop is not proposed")
			}
			if mend.IsVoid() {
				t.Fatal("given up before the drop is decided")
			}
			g.wantOpen(read, behind)
			g.drop("s")
			if !mend.IsVoid() || g.count(StartLocal, mend) != 1 {
				t.Fatal("the place is not left empty")
			}
			g.local(mend, nil)
			g.wantDone(read, mend, behind)
			if read.Err == nil {
				t.Error("the client is told that it succeeded")
			}
			if has(g.log, HandOn, "") || g.c.DiskError() != nil {
				t.Error("the disk counts as failed")
			}
			after := g.write(0)
			if g.local(after, nil); after.Err != nil {
				t.Error(after.Err)
			}
			g.wantDone(after)
		})
	}
}

// R17: a place that was left empty writes nothing, also at a target whose stream begins while it is on its way: what it lacks of
// the block is not taken for written.
func TestEmptyPlaceOfAMendLeavesTheBlockBehind(t *testing.T) {
	g := newRig(t, "x")
	x := g.up("x")
	_, mend, _ := g.failRead(0)
	g.fetch("x", x, 1, errDisk)
	if !mend.IsVoid() {
		t.Fatal("it was not given up")
	}
	s := g.up("s")
	g.local(mend, nil)
	g.ack("s", s, g.last("s"))
	if got := g.c.peers["s"].m.Behind(); got != volSize {
		t.Errorf("%d of %d bytes are behind", got, volSize)
	}
}

// The member that is asked next has its own time to answer.
func TestMendAsksAnotherMemberWhenOneIsDropped(t *testing.T) {
	g := newRig(t, "s", "x")
	n := g.up("s")
	x := g.up("x")
	read, mend, _ := g.failRead(0)
	for range 10 {
		g.pass(dropAfter / 10)
		g.c.Alive(g.now, "x", x)
	}
	if !drops(g.log, "s") || drops(g.log, "x") || has(g.log, Fetch, "x") {
		t.Fatal("who was asked is to be dropped, and nobody else")
	}
	if g.drop("s"); !has(g.log, Fetch, "x") || g.c.Fetching("s", n, 1) != nil {
		t.Fatal("the other one is not asked")
	}
	g.pass(dropAfter - dropAfter/10)
	if drops(g.log, "x") {
		t.Fatal("dropped for the time of another one")
	}
	g.fetch("x", x, 1, nil)
	g.local(mend, nil)
	g.ack("x", x, 1)
	if g.wantDone(read); read.Err != nil || has(g.log, HandOn, "") {
		t.Error("it was not mended")
	}
}

// R23: the member that leaves was the last that could be asked, so the disk has failed with the record that drops it: what
// waited for that member alone is not answered any more.
func TestD88NothingIsAnsweredByTheRecordThatEndsAMend(t *testing.T) {
	g := newRig(t, "s", "x")
	g.up("s")
	x := g.up("x")
	before := g.write(8192)
	g.local(before, nil)
	read, mend, _ := g.failRead(0)
	g.ack("x", x, 1)
	g.fetch("x", x, 2, errDisk)
	g.drop("s")
	if !mend.IsVoid() || g.c.DiskError() == nil {
		t.Fatal("the mend was not given up")
	}
	g.wantOpen(read, before)
	g.drop("x") // it is alone now: its client hears of the error
	g.local(mend, nil)
	if g.wantDone(before, read); before.Err != nil || read.Err == nil {
		t.Errorf("the write ended with %v, the read with %v", before.Err, read.Err)
	}
}

// R29: of a block that is not settled a member may hold another state than a read that is held has seen.
func TestUnsettledBlockIsNotMended(t *testing.T) {
	g := newRig(t, "s", "x")
	g.up("s") // x was not heard of yet
	_, mend, acts := g.failRead(0)
	if has(acts, Fetch, "s") || !has(acts, HandOn, "") || g.count(Release, mend) != 1 {
		t.Error("a member was asked")
	}
}

// The answer of a stream that broke is not waited for, nor taken.
func TestMendIsAskedForAnewInTheNextStream(t *testing.T) {
	g := newRig(t, "s", "x")
	n := g.up("s")
	g.down("x", g.up("x"))
	_, mend, acts := g.failRead(0)
	if !has(acts, Fetch, "s") {
		t.Fatal("not asked")
	}
	g.down("s", n)
	if acts := g.log; has(acts, Fetch, "x") {
		t.Fatal("x is not connected")
	}
	x := g.up("x")
	if !has(g.log, Fetch, "x") {
		t.Fatal("the other member is not asked")
	}
	if g.c.Fetching("s", n, 1) != nil {
		t.Error("an answer of the broken stream would count")
	}
	g.fetch("x", x, 1, errDisk)
	again := g.up("s")
	if g.c.Fetching("s", again, 1) != mend {
		t.Fatal("not asked in the new stream")
	}
	g.fetch("s", again, 1, nil)
	g.local(mend, nil)
	g.ack("s", again, 1)
	g.ack("x", x, 1)
	g.wantDone(mend)
}

// R23: a disk that does not take the block is handed on like any other that fails a write.
func TestMendThatCannotBeWrittenIsAWriteError(t *testing.T) {
	g := newRig(t, "s")
	n := g.up("s")
	read, mend, _ := g.failRead(0)
	g.fetch("s", n, 1, nil)
	if acts := g.local(mend, errDisk); !has(acts, DiskFailed, "") {
		t.Fatal("the failure is not told")
	}
	g.ack("s", n, 1)
	g.wantOpen(read, mend)
	g.drop("s")
	g.wantDone(read, mend)
	if read.Err != nil {
		t.Error("the read has its content from the member")
	}
}

// What a mend holds up is not owed by the member (R4).
func TestMendTakesNoTimeFromAMember(t *testing.T) {
	g := newRig(t, "s", "x")
	n := g.up("s")
	x := g.up("x")
	g.failRead(0)
	g.local(g.write(8192), nil)
	g.pass(dropAfter - dropAfter/10)
	g.c.Alive(g.now, "s", n)
	g.c.Alive(g.now, "x", x)
	if !has(g.log, Fetch, "s") {
		t.Fatal("not asked")
	}
	g.fetch("s", n, 1, nil)
	if acts := g.pass(dropAfter / 2); drops(acts, "s") || drops(acts, "x") {
		t.Error("dropped for what was held up")
	}
	if acts := g.pass(time.Duration(dropAfter)); !drops(acts, "x") {
		t.Error("a member that is silent from then on is not dropped")
	}
}
