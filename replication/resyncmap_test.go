package replication

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"hacluster/blockdev"
	"hacluster/blockdev/backend/memdev"
	"hacluster/blockdev/marks"
	"hacluster/heartbeat/cluster"
	"hacluster/replication/resync"
)

// returning is a lab whose standby has left the set: what was written on both before is flushed, and may be in any region.
type returning struct {
	*lab
	a, b *labNode
	c    *clientConn
	rng  *rand.Rand
}

func leave(t *testing.T, seed uint64) *returning { return leaveOf(t, seed, marksVolume) }

// leaveOf has only the beginning of the volume written.
func leaveOf(t *testing.T, seed uint64, area int64) *returning {
	t.Helper()
	l := formed(t, labConfig{inline: seed%2 == 0, size: marksVolume}, "a", "b")
	r := &returning{lab: l, a: l.nodes["a"], b: l.nodes["b"], rng: rand.New(rand.NewPCG(seed, 9))}
	r.c = r.a.serving().client(t)
	r.a.connected("b")
	r.write(200, 0, area)
	r.flush()
	return r
}

func (r *returning) flush() {
	r.t.Helper()
	if err := r.c.flush(); err != nil {
		r.t.Fatal(err)
	}
}

// write writes n random blocks within [from, to).
func (r *returning) write(n int, from, to int64) {
	r.t.Helper()
	for range n {
		off := from + r.rng.Int64N((to-from)/blockdev.BlockSize)*blockdev.BlockSize
		if err := r.c.write(off, pattern(blockdev.BlockSize, byte(1+r.rng.IntN(255)))); err != nil {
			r.t.Fatal(err)
		}
	}
}

func (r *returning) dropped() {
	r.t.Helper()
	r.await("the standby to be dropped", func() bool { r.pass(2 * dropAfter); return !r.volume().IsMember("b") })
}

// differing is in how many bytes of blocks two nodes differ at this moment.
func (l *lab) differing(a, b string) (n int64) {
	for _, d := range memdev.Differing(l.nodes[a].mem, l.nodes[b].mem) {
		n += d.Len
	}
	return n
}

// back waits for the standby's admission and demands that little more than what differed was copied, and at most so many
// bytes of either were read to find it.
func (r *returning) back(differs, reads int64) {
	r.t.Helper()
	r.await("the standby to be admitted", func() bool { return r.volume().IsMember("b") })
	r.same("a", "b")
	if got := r.b.tally.written.Load(); got > differs*12/10 {
		r.t.Errorf("%d bytes were copied, %d differed", got, differs)
	}
	if got := r.b.tally.read.Load(); got > reads {
		r.t.Errorf("%d bytes were compared, want %d at most", got, reads)
	}
}

// R15: a standby that was cut off gets what was written meanwhile, and nothing else is looked at.
func TestStandbyThatWasCutOffGetsWhatItMissed(t *testing.T) {
	for seed := range seeds(4) {
		r := leave(t, seed)
		r.b.cable.cut()
		r.dropped()
		from := int64(20 << 20)
		r.write(100, from, from+4<<20)
		differs := r.differing("a", "b")
		if g := r.a.peer("b"); !g.Known || g.RemainingBytes < differs || g.RemainingBytes > 110*blockdev.BlockSize {
			t.Errorf("%d bytes differ, status: %+v", differs, g)
		}
		r.b.tally.reset()
		r.b.cable.mend()
		r.back(differs, 5<<20)
	}
}

// A standby that was restarted is compared where either of the two has marks on stable storage, and nowhere else.
func TestRestartedStandbyIsComparedWhereMarksAre(t *testing.T) {
	for seed := range seeds(4) {
		r := leaveOf(t, seed, 8<<20)
		r.b.crash()
		r.dropped()
		r.write(50, 16<<20, 20<<20)
		r.b.mem = r.b.mem.Reopen()
		differs := r.differing("a", "b")
		r.b.tally.reset()
		r.b.start()
		r.back(differs, 14<<20)
	}
}

// R25: what was acknowledged by a standby and not flushed may be lost with its machine: it is sent again.
func TestStandbyThatLostItsMemoryGetsWhatWasNotFlushed(t *testing.T) {
	for seed := range seeds(6) {
		r := leave(t, seed)
		r.write(60, 32<<20, 40<<20)
		r.b.power(r.rng)
		r.dropped()
		r.write(20, 48<<20, 50<<20)
		r.b.start()
		r.back(marksVolume, 2*marksVolume) // how much it lacks is not known before it is back
	}
}

// A map in memory is believed only of the process that it was kept with: data and metadata that went back together show
// nothing of what left it since (maps/DESIGN.md).
func TestMapInMemoryIsNotBelievedOfAnotherProcess(t *testing.T) {
	r := leave(t, 0)
	data, table := r.b.mem.Clone(memdev.CrashOptions{}), r.b.table.Clone(memdev.CrashOptions{})
	r.write(50, 8<<20, 12<<20)
	r.flush() // these leave the map in memory
	r.b.cable.cut()
	r.dropped()
	_ = r.b.halt()
	r.b.mem, r.b.table = data, table
	if r.differing("a", "b") == 0 {
		t.Fatal("nothing was lost")
	}
	r.b.cable.mend()
	r.b.start()
	r.back(marksVolume, 2*marksVolume)
}

// R15: what an old primary wrote and never sent is marked by itself only.
func TestOldPrimaryGivesUpWhatNobodyElseHas(t *testing.T) {
	for seed := range seeds(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := leaveOf(t, seed, 8<<20)
			hot := (2 + r.rng.Int64N(13)) << 22
			r.b.cable.hang()
			for i := range int64(8) { // on the primary only; nobody is told that they are done
				r.c.begin(writeReq(hot+i*40960, pattern(blockdev.BlockSize, 77)))
			}
			r.await("the primary to have written them", func() bool { return r.a.at(hot+7*40960, 1)[0] == 77 })
			if seed%2 == 0 {
				r.a.crash()
				r.a.mem = r.a.mem.Reopen()
			} else {
				r.a.power(r.rng)
			}
			r.b.cable.mend()
			r.promote("b", cluster.BasisUnchanged)
			r.b.grant()
			r.c = r.b.serving().client(t)
			r.await("the old primary to leave the set", func() bool { return !r.volume().IsMember("a") })
			r.write(10, 0, marksVolume)
			differs := r.differing("a", "b")
			if differs == 0 {
				t.Fatal("nothing differs")
			}
			r.a.tally.reset()
			r.a.start()
			r.await("the old primary to be admitted", func() bool { return r.volume().IsMember("a") })
			r.same("a", "b")
			if got := r.a.tally.written.Load(); got > differs*12/10 {
				t.Errorf("%d bytes were copied, %d differed", got, differs)
			}
		})
	}
}

// A stream that breaks in the middle of a resync, again and again, and writes that go on meanwhile, leave nothing out.
func TestResyncByTheMapUnderLoadAndBreaks(t *testing.T) {
	for seed := range seeds(4) {
		r := leave(t, seed)
		r.b.cable.cut()
		r.dropped()
		r.write(300, 0, marksVolume)
		w := startLoad(t, r.a.get().Tenure(), 3)
		r.b.cable.mend()
		for range 6 {
			w.more(r.lab, 30)
			if r.rng.IntN(3) == 0 {
				r.b.crash()
				r.b.start()
			} else {
				r.b.cable.snap()
			}
		}
		r.awaitPassing("the standby to be admitted", dropAfter/50, func() bool { return r.volume().IsMember("b") })
		w.more(r.lab, 50)
		w.end()
		r.same("a", "b")
	}
}

// A target takes space ahead for data that it lacks and where it has a hole, and for nothing else: neither for what is a hole
// at the primary, nor for zeroes that are written there.
func TestSpaceIsTakenAheadOfAResyncOfANewDisk(t *testing.T) {
	const size, mib = 208 << 20, int64(1 << 20)
	l := formed(t, labConfig{size: size}, "a", "b")
	a, b := l.nodes["a"], l.nodes["b"]
	a.connected("b")
	b.crash()
	l.awaitPassing("the standby to be dropped", dropAfter, func() bool { return !l.volume().IsMember("b") })
	for off := int64(0); off < 192*mib; off += mib {
		what := pattern(int(mib), byte(off>>20))
		switch {
		case off >= 56*mib && off < 80*mib:
			continue
		case off >= 100*mib:
			clear(what)
		}
		if _, err := a.mem.WriteAt(what, off); err != nil {
			t.Fatal(err)
		}
	}
	b.mem, b.table = memdev.New(memdev.Config{Size: size}), nil
	b.cable.cut()
	b.start()
	slot, _ := b.marks.Lookup(marks.Peer{Name: "a"})
	if err := b.marks.SetEverything(slot, true); err != nil { // in the lab a new map says nothing
		t.Fatal(err)
	}
	b.cable.mend()
	l.await("the standby to be admitted", func() bool { return l.volume().IsMember("b") })
	l.same("a", "b")
	b.tally.mu.Lock()
	defer b.tally.mu.Unlock()
	if len(b.tally.allocated) == 0 {
		t.Error("no space was taken ahead")
	}
	for _, r := range b.tally.allocated { // zeroes are known as that when a window of them has been compared
		if r.Len != resync.Window || r.Off%resync.Window != 0 || r.End() > 48*mib && r.Off < 80*mib || r.Off > 128*mib {
			t.Errorf("space was taken for %v", r)
		}
	}
}

// Without maps on one side everything is compared, as ever (R16).
func TestWithoutAMapEverythingIsCompared(t *testing.T) {
	r := leave(t, 0)
	r.b.power(nil)
	r.dropped()
	r.b.table = nil
	r.conf.unmarked = true // what starts from now on has no map
	copied := pattern(blockdev.BlockSize, 99)
	if _, err := r.b.mem.WriteAt(copied, 60<<20); err != nil { // nobody knows of this
		t.Fatal(err)
	}
	r.b.start()
	r.back(marksVolume, 2*marksVolume)
}

// R15: what a primary wrote alone is known to its next process, whose standby has no mark of it.
func TestPrimaryThatWasRestartedKnowsWhatItWroteAlone(t *testing.T) {
	for seed := range seeds(2) {
		r := leaveOf(t, seed, 4<<20)
		r.b.cable.cut()
		r.dropped()
		r.write(50, 40<<20, 44<<20)
		r.a.crash()
		r.a.mem = r.a.mem.Reopen()
		r.a.start()
		r.promote("a", cluster.BasisUnchanged)
		r.a.grant()
		r.c = r.a.serving().client(t)
		differs := r.differing("a", "b")
		if differs == 0 {
			t.Fatal("nothing differs")
		}
		r.b.tally.reset()
		r.b.cable.mend()
		r.back(differs, 12<<20)
	}
}

// R14: a standby marks what is copied to it as well: for a third replica that lacks it nobody else may be left who did.
func TestWhatWasCopiedIsMarkedForTheOthers(t *testing.T) {
	l := formed(t, labConfig{inline: true, size: marksVolume}, "a", "b", "c")
	a, b, c := l.nodes["a"], l.nodes["b"], l.nodes["c"]
	client := a.serving().client(t)
	a.connected("b")
	a.connected("c")
	b.cable.cut()
	c.cable.cut()
	l.await("both standbys to be dropped", func() bool {
		l.pass(2 * dropAfter)
		return !l.volume().IsMember("b") && !l.volume().IsMember("c")
	})
	if err := client.write(20<<20, pattern(4096, 5)); err != nil {
		t.Fatal(err)
	}
	b.cable.mend()
	l.await("one standby to be admitted", func() bool { return l.volume().IsMember("b") })
	a.cable.cut()
	a.crash()
	a.mem = a.mem.Reopen()
	c.cable.mend()
	l.promote("b", cluster.BasisUnchanged)
	b.grant()
	b.serving()
	l.await("the other standby to be admitted", func() bool { return l.volume().IsMember("c") })
	l.same("b", "c")
	a.start()
}

// R25: a member that was restarted, and of which nothing is known, is compared as a whole, without a resync.
func TestMembersOfWhichEverythingMayDifferAreCompared(t *testing.T) {
	for whose, other := range map[string]string{"a": "b", "b": "a"} {
		r := leaveOf(t, 0, 4<<20)
		n := r.nodes[whose]
		slot, _ := n.marks.Lookup(marks.Peer{Name: other})
		if err := n.marks.SetEverything(slot, true); err != nil {
			t.Fatal(err)
		}
		r.b.crash()
		r.b.mem = r.b.mem.Reopen()
		if _, err := r.b.mem.WriteAt(pattern(blockdev.BlockSize, 3), 60<<20); err != nil { // nobody knows of this
			t.Fatal(err)
		}
		r.b.start()
		r.await("the members to be equal", func() bool { return r.differing("a", "b") == 0 })
		if r.drops() > 0 {
			t.Error("it was resynced")
		}
		r.rest()
	}
}

// R16: a member that comes back restored, before it is missed, leaves the set.
func TestMemberThatWasRestoredIsDropped(t *testing.T) {
	r := leave(t, 0)
	r.rest()
	data, table := r.b.mem.Clone(memdev.CrashOptions{}), r.b.table.Clone(memdev.CrashOptions{})
	r.write(50, 8<<20, 12<<20)
	r.flush()
	r.rest()
	drops := r.drops()
	r.b.crash()
	r.b.mem, r.b.table = data, table
	if r.differing("a", "b") == 0 {
		t.Fatal("nothing was lost")
	}
	r.b.start()
	r.await("it to be dropped", func() bool { return r.drops() > drops })
	r.back(marksVolume, 2*marksVolume)
}
