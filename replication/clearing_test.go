package replication

import (
	"fmt"
	"testing"
	"time"

	"hacluster/blockdev"
	"hacluster/blockdev/backend/faultdev"
	"hacluster/blockdev/backend/memdev"
	"hacluster/blockdev/bitmap"
	"hacluster/blockdev/marks"
	"hacluster/heartbeat/cluster"
)

// regions counts the regions that a node has marked for a peer on stable storage.
func (n *labNode) regions(peer string) (all int) {
	for off := int64(0); off < n.l.conf.size; off += 4 << 20 {
		if n.stored(peer, off) {
			all++
		}
	}
	return all
}

// rest lets time go by until nothing is marked on either side.
func (r *returning) rest() {
	r.t.Helper()
	r.awaitPassing("all marks to be given back", clearEvery, func() bool {
		for range 20 {
			_ = r.a.marks.Sync()
			_ = r.b.marks.Sync()
		}
		return r.a.regions("b") == 0 && r.b.regions("a") == 0
	})
}

// What is equal and durable on both is given back on both, and a standby that is restarted then is compared where
// something was written since.
func TestMarksAreGivenBack(t *testing.T) {
	for seed := range seeds(3) {
		r := leave(t, seed)
		if r.a.regions("b") < 10 || r.b.regions("a") < 10 {
			t.Fatal("nothing is marked")
		}
		r.rest()
		r.write(20, 16<<20, 20<<20)
		r.b.crash()
		r.dropped()
		r.write(20, 24<<20, 28<<20)
		r.b.mem = r.b.mem.Reopen()
		differs := r.differing("a", "b")
		r.b.tally.reset()
		r.b.start()
		r.back(differs, 9<<20)
		r.rest()
	}
}

// After a resync of everything, that everything may differ is taken back.
func TestEverythingIsTakenBack(t *testing.T) {
	r := leave(t, 0)
	r.b.crash()
	r.dropped()
	r.b.table = nil // a new map is made; in the lab it says nothing, so we do
	r.b.cable.cut()
	r.b.start()
	slot, _ := r.b.marks.Lookup(marks.Peer{Name: "a"})
	if err := r.b.marks.SetEverything(slot, true); err != nil {
		t.Fatal(err)
	}
	r.b.cable.mend()
	r.await("the standby to be admitted", func() bool { return r.volume().IsMember("b") })
	r.rest()
}

// R14: the primary clears nothing before the standby has promised it on stable storage, and nothing that was written since.
func TestNothingIsClearedBeforeThePromise(t *testing.T) {
	r := leaveOf(t, 1, 4<<20)
	hang := r.b.tableFaults.Add(faultdev.Rule{Op: blockdev.OpFlush, Stall: true})
	r.awaitPassing("the promise to be on its way", clearEvery, func() bool { return hang.Waiting() > 0 })
	r.pass(clearEvery)
	_ = r.a.marks.Sync()
	if !r.a.stored("b", 0) {
		t.Fatal("the primary has cleared it before the promise")
	}
	r.write(1, 0, 4<<20) // it is marked: no mark has to be made for it
	hang.Release()
	r.await("the number to be settled", func() bool {
		_, a, _ := r.a.get().slot("b")
		_, b, _ := r.b.get().slot("a")
		return a.Number.Settled > 0 && b.Number == a.Number
	})
	_, _ = r.a.marks.Sync(), r.b.marks.Sync()
	if !r.a.stored("b", 0) || !r.b.stored("a", 0) {
		t.Errorf("cleared although it was written since: primary %t, standby %t", !r.a.stored("b", 0), !r.b.stored("a", 0))
	}
}

// R16: a standby whose data and map were restored together to before a clearing shows it by the number.
func TestRestoredMapIsToldByItsNumber(t *testing.T) {
	r := leave(t, 0)
	r.rest()
	data, table := r.b.mem.Clone(memdev.CrashOptions{}), r.b.table.Clone(memdev.CrashOptions{})
	r.write(50, 8<<20, 12<<20)
	r.flush()
	r.rest()
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

// Power cuts, kills and breaks at any moment of writing, flushing and clearing: whoever is resynced by the marks ends equal.
func TestClearingSurvivesPowerCutsAtAnyMoment(t *testing.T) {
	for seed := range seeds(8) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := leave(t, seed)
			for round := range 6 {
				for range 1 + r.rng.IntN(4) {
					r.write(5, 0, marksVolume)
					if r.rng.IntN(2) == 0 {
						r.flush()
					}
					if r.rng.IntN(2) == 0 {
						r.pass(clearEvery + clearEvery/10)
					}
				}
				switch r.rng.IntN(3) {
				case 0:
					r.b.power(r.rng)
				case 1:
					r.b.crash()
				case 2:
					r.b.cable.cut()
				}
				r.dropped()
				r.write(5, 0, marksVolume)
				if r.b.cable.up() {
					r.b.start()
				}
				r.b.cable.mend()
				r.await("the standby to be admitted", func() bool { return r.volume().IsMember("b") })
				r.same("a", "b")
				if round == 3 { // the roles change: the old primary lost what it had not flushed
					r.a.power(r.rng)
					r.promote("b", cluster.BasisUnchanged)
					r.b.grant()
					r.c = r.b.serving().client(t)
					r.await("the old primary to leave the set", func() bool { return !r.volume().IsMember("a") })
					r.a.start()
					r.await("the old primary to be admitted", func() bool { return r.volume().IsMember("a") })
					r.same("a", "b")
					r.a, r.b = r.b, r.a
					return
				}
			}
		})
	}
}

// A standby with a new map takes the number of the others at once when it is admitted: as primary it takes none of them for one
// that went back.
func TestReplacedMapHasTheNumberOfTheOthers(t *testing.T) {
	r := leaveOf(t, 0, 4<<20)
	r.rest()
	r.b.crash()
	r.dropped()
	r.b.table = nil // a new map is made; in the lab it says nothing, so we do
	r.b.cable.cut()
	r.b.start()
	slot, _ := r.b.marks.Lookup(marks.Peer{Name: "a"})
	if err := r.b.marks.SetEverything(slot, true); err != nil {
		t.Fatal(err)
	}
	tenure := r.a.get().Tenure()
	noUsualRound := func() {
		tenure.mu.Lock()
		defer tenure.mu.Unlock()
		if now := r.now(); tenure.clearAt > now {
			tenure.clearAt = now.Add(time.Hour)
		}
	}
	noUsualRound()
	r.b.cable.mend()
	r.await("the standby to be admitted", func() bool { return r.volume().IsMember("b") })
	r.await("its number to be that of the primary", func() bool {
		noUsualRound()
		_, a, _ := r.a.get().slot("b")
		_, b, _ := r.b.get().slot("a")
		return b.Number.Settled > 0 && b.Number == a.Number
	})
	r.same("a", "b")
	drops := r.drops()
	if err := r.a.get().HandOver(t.Context(), "b"); err != nil {
		t.Fatal(err)
	}
	r.b.serving()
	r.b.connected("a")
	r.await("the old primary's map to be known", func() bool { return r.b.ready(1) || r.drops() > drops })
	if n := r.drops(); n != drops {
		t.Errorf("the new primary dropped the old one")
	}
}

// With three replicas the one that was replaced has the others' number for it too, which may be higher than any that the primary
// took part in.
func TestReplacedMapHasTheNumberOfEachOther(t *testing.T) {
	l := formed(t, labConfig{size: marksVolume}, "a", "b", "c")
	a, b, c := l.nodes["a"], l.nodes["b"], l.nodes["c"]
	l.await("both maps to be known", func() bool { return a.ready(2) })
	b.crash()
	l.awaitPassing("the standby to be dropped", dropAfter, func() bool { return !l.volume().IsMember("b") })
	c.cable.cut()
	slot, _ := c.marks.Lookup(marks.Peer{Name: "b"})
	if err := c.marks.SetNumber(slot, marks.Number{Promised: 105, Settled: 105}); err != nil { // as a primary that we did not hear of left it
		t.Fatal(err)
	}
	c.cable.mend()
	l.await("the other to be heard", func() bool { return l.volume().IsMember("c") && a.ready(1) })
	b.table = nil
	b.start()
	for _, peer := range []string{"a", "c"} {
		slot, _ := b.marks.Lookup(marks.Peer{Name: peer})
		if err := b.marks.SetEverything(slot, true); err != nil { // in the lab a new map says nothing
			t.Fatal(err)
		}
	}
	l.await("one number of both for each other", func() bool {
		_, of, _ := b.get().slot("c")
		_, its, _ := c.get().slot("b")
		return l.volume().IsMember("b") && of.Number == its.Number && of.Number.Settled > 105
	})
}

// What was promised to a primary is not cleared in a later epoch: what was written since then as primary is not noted there.
func TestAPromiseEndsWithItsEpoch(t *testing.T) {
	r := leaveOf(t, 0, 4<<20)
	b := r.b.get()
	b.mu.Lock()
	s := &session{r: b, epoch: b.vol.Epoch}
	b.mu.Unlock()
	r.a.crash()
	r.promote("b", cluster.BasisUnchanged)
	r.b.grant()
	r.b.serving()
	slot, _ := r.b.marks.Lookup(marks.Peer{Name: "a"})
	p := promise{s: s, n: 9, slots: []int{slot}}
	chosen := bitmap.New(r.b.marks.Regions())
	chosen.Set(0, 1)
	b.mu.Lock()
	b.session, b.promised = s, p // as if its reader had not been running since
	b.regs.Promise(p.n, chosen)
	b.mu.Unlock()
	s.settle(p)
	_ = r.b.marks.Sync()
	if !r.b.stored("a", 0) {
		t.Error("cleared by a promise of an older epoch")
	}
	b.mu.Lock()
	b.session = nil
	b.mu.Unlock()
	r.a.mem = r.a.mem.Reopen()
	r.a.start()
}

// ready reports whether a round of clearing would take n standbys in, and none is under way. A test that lets time go by
// only then never outruns a standby: one that is asked for an answer has all the time it needs.
func (n *labNode) ready(standbys int) bool {
	t := n.get().Tenure()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.clearing != nil || len(t.core.Clearable()) != standbys {
		return false
	}
	for _, name := range t.core.Peers() {
		if t.core.Peer(name).UnackedSince != 0 {
			return false
		}
	}
	return true
}

// R14: with two standbys the primary waits for both promises.
func TestNothingIsClearedBeforeTheLastPromise(t *testing.T) {
	l := formed(t, labConfig{size: marksVolume}, "a", "b", "c")
	a, b, c := l.nodes["a"], l.nodes["b"], l.nodes["c"]
	client := a.serving().client(t)
	l.await("both maps to be known", func() bool { return a.ready(2) })
	if err := client.write(0, pattern(4096, 1)); err != nil {
		t.Fatal(err)
	}
	if err := client.flush(); err != nil {
		t.Fatal(err)
	}
	hang := c.tableFaults.Add(faultdev.Rule{Op: blockdev.OpFlush, Stall: true})
	l.await("one of two promises", func() bool {
		if a.ready(2) {
			l.pass(clearEvery)
		}
		_, s, _ := b.get().slot("a")
		return hang.Waiting() > 0 && s.Number.Promised > 0
	})
	for range 20 {
		l.pass(clearEvery / 10)
		_, _ = a.marks.Sync(), b.marks.Sync()
	}
	if _, s, _ := a.get().slot("b"); s.Number.Settled > 0 || !a.stored("b", 0) || !b.stored("a", 0) {
		t.Errorf("cleared although one standby has not promised it: %+v", s)
	}
	hang.Release()
	l.awaitPassing("all marks to be given back", clearEvery, func() bool {
		_, _, _ = a.marks.Sync(), b.marks.Sync(), c.marks.Sync()
		return !a.stored("b", 0) && !a.stored("c", 0) && !b.stored("c", 0) && !c.stored("a", 0)
	})
}

// A Settled that is lost with its stream leaves its regions marked on the standby, and a later round takes them back.
func TestARoundWhoseEndWasLostIsMadeAgain(t *testing.T) {
	r := leaveOf(t, 2, 4<<20)
	r.await("the map to be known", func() bool { return r.a.ready(1) })
	hang := r.a.tableFaults.Add(faultdev.Rule{Op: blockdev.OpFlush, Stall: true})
	r.await("the promise to be there", func() bool {
		if r.a.ready(1) {
			r.pass(clearEvery)
		}
		return hang.Waiting() > 0
	})
	r.b.cable.hang()
	hang.Release()
	r.await("the primary to clear", func() bool { _ = r.a.marks.Sync(); return !r.a.stored("b", 0) })
	r.b.cable.snap()
	r.b.cable.mend()
	if _ = r.b.marks.Sync(); !r.b.stored("a", 0) {
		t.Fatal("the standby has heard of it")
	}
	r.rest()
}

// That everything may differ is not taken back while what was found equal is durable on neither.
func TestEverythingIsNotTakenBackBeforeAFlush(t *testing.T) {
	r := leaveOf(t, 0, 4<<20) // no other region is marked
	r.b.crash()
	r.dropped()
	r.b.cable.cut()
	r.b.start()
	slot, _ := r.b.marks.Lookup(marks.Peer{Name: "a"})
	if err := r.b.marks.SetEverything(slot, true); err != nil {
		t.Fatal(err)
	}
	r.b.cable.mend()
	hang := r.a.faults.Add(faultdev.Rule{Op: blockdev.OpFlush, Stall: true})
	r.await("the standby to be admitted", func() bool { return r.volume().IsMember("b") })
	r.awaitPassing("a flush of its own", clearEvery/5, func() bool { return hang.Waiting() > 0 })
	for range 50 {
		r.passAnswered(clearEvery / 5)
		time.Sleep(time.Millisecond) // a round goes there and back meanwhile
	}
	if _, s, _ := r.b.get().slot("a"); !s.Everything {
		t.Error("it is taken back")
	}
	hang.Release()
	r.rest()
}
