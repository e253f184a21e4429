package replication

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"
	"time"

	"hacluster/blockdev"
	"hacluster/blockdev/backend/faultdev"
	"hacluster/blockdev/undo"
	"hacluster/heartbeat/cluster"
)

// behind is a lab whose standby b has left the set, quiet, and lacks what a wrote since.
type behind struct {
	*returning
	point []byte // what b held when it left
}

func fallBehind(t *testing.T, seed uint64) *behind {
	t.Helper()
	return fallBehindOf(t, seed, labConfig{inline: seed%2 == 0, undo: true})
}

func fallBehindOf(t *testing.T, seed uint64, conf labConfig) *behind {
	t.Helper()
	l := formed(t, conf, "a", "b")
	r := &behind{returning: &returning{lab: l, a: l.nodes["a"], b: l.nodes["b"], rng: rand.New(rand.NewPCG(seed, 19))}}
	r.c = r.a.serving().client(t)
	r.a.connected("b")
	r.write(150, 0, volumeSize)
	if seed%3 != 0 {
		r.flush() // else b holds what a power cut would have taken
	}
	r.b.cable.cut()
	r.dropped()
	r.await("b to be quiet", r.b.quiet)
	r.point = r.b.content()
	r.write(150, 0, volumeSize)
	for range 10 { // and trims
		at := blockdev.Range{Off: r.rng.Int64N(volumeSize-1<<20) / 4096 * 4096, Len: 64 << 10}
		if err := r.c.do(&blockdev.Request{Op: blockdev.OpZero, Range: at, Unmap: true}); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

// interrupt lets the resync go on until b has made so many writes and the next one hangs, and a client writes meanwhile.
// Then b stops, as how says.
func (r *behind) interrupt(writes int64, how func()) {
	r.t.Helper()
	h := r.b.faults.Add(faultdev.Rule{Op: blockdev.OpWrite, Skip: writes, Stall: true})
	r.b.cable.mend()
	for changed := h.Changed(); h.Waiting() == 0; changed = h.Changed() {
		<-changed
	}
	for range 5 {
		r.c.begin(writeReq(r.rng.Int64N(volumeSize/4096)*4096+512, pattern(1024, 0xee))) // also parts of blocks
	}
	how()
}

// force has b promoted by a person's word, whose lease begins with it.
func (r *behind) force() {
	r.t.Helper()
	r.a.expire()
	r.promote("b", cluster.BasisForced)
	r.b.grant()
}

func (r *behind) atPoint() {
	r.t.Helper()
	got := r.b.content()
	for at := 0; at < len(got); at += blockdev.BlockSize {
		if !bytes.Equal(got[at:at+blockdev.BlockSize], r.point[at:at+blockdev.BlockSize]) {
			r.t.Fatalf("block %d is not what it was when b left", at/blockdev.BlockSize)
		}
	}
}

// R18: a resync that is interrupted anywhere, by anything, and perhaps again, leaves a way back to the last consistent
// point, and a forced promotion takes it. What was rolled back is equal again after the next resync (R14).
func TestForcedStandbyReturnsToItsLastConsistentPoint(t *testing.T) {
	for seed := range seeds(12) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := fallBehind(t, seed)
			stop := func() {
				switch r.rng.IntN(3) {
				case 0:
					r.b.crash()
				case 1:
					r.b.power(nil)
				case 2:
					r.b.power(r.rng)
				}
				r.b.cable.cut()
				r.b.start()
			}
			for range 1 + r.rng.IntN(2) {
				r.interrupt(r.rng.Int64N(12), stop)
				rep := r.b.get().Report()
				if !rep.Inconsistent || rep.Usable() || rep.Point == nil || !rep.Promotable() {
					t.Fatalf("in the middle of a resync: %+v", rep)
				}
				if p := rep.Point; p.Epoch != labPoint.Epoch || p.AtMillis != labPoint.AtMillis || p.Bytes == 0 {
					t.Fatalf("point %+v", p)
				}
			}
			if n := r.b.undo.areas(); n != 1 {
				t.Fatalf("%d undo areas were made for one point", n)
			}
			r.a.cable.cut()
			if r.rng.IntN(2) == 0 { // it dies on its way back, and is promoted again
				h := r.b.faults.Add(faultdev.Rule{Op: blockdev.OpWrite, Skip: r.rng.Int64N(3), Stall: true})
				r.force()
				r.await("the way back to stand still, or to end", func() bool { return h.Waiting() > 0 || r.b.has("rollback ended") })
				if h.Waiting() > 0 {
					r.b.power(r.rng)
					r.b.start()
					r.force()
				}
				h.Release()
			} else {
				r.force()
			}
			r.b.serving()
			r.atPoint()
			r.durable("b")
			if r.b.undo.there() || !r.b.has("rollback ended") || r.b.get().Report().Inconsistent {
				t.Fatalf("after the way back: area %t, %+v", r.b.undo.there(), r.b.get().Report())
			}
			r.b.cable.mend()
			r.a.cable.mend()
			r.consent("a")
			r.await("a to be admitted", func() bool { return r.volume().IsMember("a") })
			r.same("a", "b")
		})
	}
}

// What the target read for its digests is what its undo area gets: nothing is read twice.
func TestOldContentIsReadOnceInAResync(t *testing.T) { // R18
	r := fallBehind(t, 1)
	r.b.tally.reset()
	r.b.cable.mend()
	r.await("b to be admitted", func() bool { return r.volume().IsMember("b") })
	r.same("a", "b")
	if n := r.b.undo.areas(); n != 1 {
		t.Fatalf("%d undo areas were made", n)
	}
	if read, compared := r.b.tally.read.Load(), r.a.peer("b").ComparedBytes; read > compared {
		t.Errorf("%d bytes of the target were read, %d were compared", read, compared)
	}
}

// An interrupted resync goes on where it was; when it has ended there is no way back any more, and a member never takes it.
func TestMemberIsNeverRolledBack(t *testing.T) { // R18
	for seed := range seeds(4) {
		r := fallBehind(t, seed)
		r.interrupt(3, func() { r.b.crash(); r.b.start() })
		r.await("b to be admitted", func() bool { return r.volume().IsMember("b") })
		if r.b.undo.there() || r.b.get().Report().Point != nil {
			t.Fatal("the undo area outlives its resync")
		}
		r.write(20, 0, volumeSize)
		r.flush()
		want := r.a.content()
		r.a.crash()
		r.promote("b", cluster.BasisUnchanged)
		r.b.grant()
		r.b.serving()
		if !bytes.Equal(want, r.b.content()) || r.b.has("rollback began") {
			t.Fatal("a member was rolled back")
		}
	}
}

// What is found beside a replica that is whole is over: the process died between the two.
func TestDeathBetweenTheClosingAndTheEndOfTheArea(t *testing.T) { // R18
	r := fallBehind(t, 1)
	r.b.undo.set(func(u *labUndo) { u.stuck = errFault })
	r.b.cable.mend()
	r.await("b to stop: its area cannot be removed", func() bool { return r.b.get().Report().Problem != "" })
	if i, _ := r.b.sb.health(); i || !r.b.undo.there() || r.volume().IsMember("b") {
		t.Fatalf("inconsistent %t, area %t", i, r.b.undo.there())
	}
	r.b.crash()
	r.b.undo.set(func(u *labUndo) { u.stuck = nil })
	r.b.start()
	if rep := r.b.get().Report(); rep.Point != nil || rep.Inconsistent {
		t.Fatalf("the way back is taken for one: %+v", rep)
	}
	r.await("b to be admitted", func() bool { return r.volume().IsMember("b") })
	r.same("a", "b")
}

// R18: nothing is overwritten before its old content is durable.
func TestOverwriteWaitsForTheOldContent(t *testing.T) {
	r := fallBehind(t, 2)
	var h *faultdev.Handle
	made := make(chan bool)
	r.b.undo.set(func(u *labUndo) {
		u.newFault = func(d *faultdev.Dev) {
			h = d.Add(faultdev.Rule{Op: blockdev.OpFlush, Stall: true})
			close(made)
		}
	})
	r.b.cable.mend()
	<-made
	for changed := h.Changed(); h.Waiting() == 0; changed = h.Changed() {
		<-changed
	}
	for range 20 { // whoever does not wait has every chance to
		time.Sleep(5 * time.Millisecond)
		r.atPoint()
	}
	h.Release()
	r.await("b to be admitted", func() bool { return r.volume().IsMember("b") })
	r.same("a", "b")
}

// R18: without room the replica is marked before the first overwrite that is not logged, says so, and cannot be promoted;
// the resync goes on and mends it.
func TestWithoutRoomTheResyncGoesOnWithoutAWayBack(t *testing.T) {
	for name, c := range map[string]func(*behind){
		"from the start": func(r *behind) { r.b.undo.set(func(u *labUndo) { u.refuse = undo.ErrNoRoom }) },
		"in the middle": func(r *behind) {
			r.interrupt(3, func() { r.b.crash(); r.b.cable.cut(); r.b.start() })
			r.write(200, 0, volumeSize) // most of it is not logged yet
			r.b.undo.set(func(u *labUndo) { u.faults.Add(faultdev.Rule{Op: blockdev.OpWrite, Err: undo.ErrNoRoom, Fail: true}) })
		},
		"for a disk error": func(r *behind) {
			r.b.undo.set(func(u *labUndo) {
				u.newFault = func(d *faultdev.Dev) { d.Add(faultdev.Rule{Op: blockdev.OpFlush, Err: syscall.EIO, Fail: true}) }
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := fallBehind(t, 3)
			c(r)
			r.interrupt(60, func() { // chunks are copied in any order: among so many some were not logged before
				r.await("b to say so", func() bool { return r.b.has("no way back") })
				r.b.crash()
				r.b.cable.cut()
				r.b.start()
			})
			rep := r.b.get().Report()
			if !r.b.has("no way back") || r.b.undo.there() || !rep.Inconsistent || rep.Promotable() {
				t.Fatalf("events %v, area %t, %+v", r.b.events, r.b.undo.there(), rep)
			}
			r.force() // the leader would not
			r.await("b to say that it does not serve", func() bool { return strings.Contains(r.b.get().Report().Doing, "no undo area") })
			if r.b.get().Tenure() != nil {
				t.Fatal("a replica in pieces serves")
			}
		})
	}
	r := fallBehind(t, 4)
	r.b.undo.set(func(u *labUndo) { u.refuse = undo.ErrNoRoom })
	r.b.cable.mend()
	r.await("b to be admitted", func() bool { return r.volume().IsMember("b") })
	r.same("a", "b")
	if r.b.get().Report().Inconsistent {
		t.Fatal("it stays in pieces")
	}
}

// An area that cannot be given up durably keeps the replica from going on: the next process would take it for the whole way.
func TestAreaThatCannotBeGivenUpEndsTheResync(t *testing.T) { // R18
	r := fallBehind(t, 5)
	r.b.undo.set(func(u *labUndo) {
		u.stuck = errFault
		u.newFault = func(d *faultdev.Dev) { d.Add(faultdev.Rule{Op: blockdev.OpWrite, Err: syscall.EIO, Fail: true}) }
	})
	r.b.cable.mend()
	r.await("b to be out of service", func() bool { return strings.Contains(r.b.get().Report().Problem, "way back") })
	r.atPoint()
	if r.volume().IsMember("b") {
		t.Fatal("it was admitted")
	}
}
