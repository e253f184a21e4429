package replication

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"hacluster/blockdev"
	"hacluster/blockdev/backend/faultdev"
	"hacluster/heartbeat/cluster"
	"hacluster/replication/resync"
)

// left is a lab whose primary a acknowledged writes alone and is lost; b, which lacks them, was promoted by force and is
// written to.
type left struct {
	*behind
	had []byte // what a held then
}

func leftBehind(t *testing.T, seed uint64) *left {
	t.Helper()
	l := formed(t, labConfig{inline: seed%2 == 0, undo: true, rescue: true}, "a", "b")
	r := &left{behind: &behind{returning: &returning{lab: l, a: l.nodes["a"], b: l.nodes["b"], rng: rand.New(rand.NewPCG(seed, 23))}}}
	r.c = r.a.serving().client(t)
	r.a.connected("b")
	r.write(100, 0, volumeSize)
	r.b.cable.cut()
	r.dropped()
	r.await("b to be quiet", r.b.quiet)
	r.write(100, 0, volumeSize) // acknowledged by a alone
	r.flush()
	r.a.cable.cut()
	r.a.expire()
	r.promote("b", cluster.BasisForced)
	r.b.grant()
	r.b.serving()
	r.await("a to be quiet", r.a.quiet)
	r.had = r.a.content()
	r.c = r.b.serving().client(t)
	r.write(50, 0, volumeSize)
	return r
}

func (r *left) join() {
	r.b.cable.mend()
	r.a.cable.mend()
}

func (r *left) admitted() {
	r.t.Helper()
	r.await("a to be admitted", func() bool { return r.volume().IsMember("a") })
}

// image is the one image of a.
func (r *left) image() string {
	r.t.Helper()
	all := r.a.get().RescueImages()
	if len(all) != 1 || all[0].Closed.IsZero() || all[0].Bytes == 0 {
		r.t.Fatalf("rescue images of a: %+v, want one that is closed", all)
	}
	return all[0].ID
}

// R19, faults.md K110: the resync of a held replica is interrupted anywhere, by anything, and goes on. In the end every
// acknowledged write that the replica had, and the new epoch lacks, is in its rescue image.
func TestWhatAHeldReplicaHasIsKeptAsideBeforeItsResyncOverwritesIt(t *testing.T) {
	for seed := range uint64(10) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := leftBehind(t, seed)
			for range r.rng.IntN(3) {
				h := r.a.faults.Add(faultdev.Rule{Op: blockdev.OpWrite, Skip: r.rng.Int64N(12), Stall: true})
				r.join()
				for changed := h.Changed(); h.Waiting() == 0; changed = h.Changed() {
					<-changed
				}
				r.c.begin(writeReq(r.rng.Int64N(volumeSize/4096)*4096+512, pattern(1024, 0xee))) // also parts of blocks
				switch r.rng.IntN(3) {
				case 0:
					r.a.crash()
				case 1:
					r.a.power(nil)
				case 2:
					r.a.power(r.rng)
				}
				r.a.cable.cut()
				r.a.start()
				if rep := r.a.get().Report(); !rep.Inconsistent || rep.Point == nil || !r.volume().IsHeld("a") {
					t.Fatalf("in the middle of the resync: %+v, held %v", rep, r.volume().Held)
				}
			}
			r.join()
			r.admitted()
			if v := r.volume(); v.IsHeld("a") || !r.a.has("rescue image kept") {
				t.Fatalf("held %v after its admission; kept: %t", v.Held, r.a.has("rescue image kept"))
			}
			id, then := r.image(), r.b.content()
			for range 3 {
				if got := r.a.exported(id, false); !bytes.Equal(got, r.had) {
					t.Fatal("the image is not the volume that a had")
				}
				r.write(50, 0, volumeSize)
			}
			switch r.rng.IntN(3) { // and afterwards
			case 0: // it stops in order
				if err := r.a.halt(); err != nil {
					t.Fatal(err)
				}
				r.a.start()
				r.write(20, 0, volumeSize)
				if got := r.a.exported(id, false); !bytes.Equal(got, r.had) {
					t.Fatal("after a restart the image is not the volume that a had")
				}
			case 1:
				r.a.power(r.rng)
				r.a.start()
				if n := r.a.lacks(id, r.had, then); n > 0 || r.a.get().RescueImages()[0].Whole {
					t.Fatalf("after a power cut %d blocks that were rescued are not in the image: %+v", n, r.a.get().RescueImages())
				}
			case 2:
				if err := r.a.get().RemoveRescue(id, "a person"); err != nil || len(r.a.get().RescueImages()) != 0 {
					t.Fatalf("removed: %v", err)
				}
			}
			r.awaitPassing("a to be in sync, as what it is now", dropAfter/10, func() bool {
				g := r.b.peer("a")
				return g.Member && g.Connected && r.volume().Members["a"] == r.a.member()
			})
			r.same("a", "b")
		})
	}
}

// R19: without room for the image nothing more is overwritten; with room it goes on, and nothing is lacking.
func TestHeldReplicaWithoutRoomForItsImageWaits(t *testing.T) {
	const room = 20 * (512 + blockdev.BlockSize) // a record of 512 bytes before each run of blocks
	r := leftBehind(t, 31)
	r.a.rescue.room = 4096 + room
	r.join()
	r.await("the resync to wait", func() bool { return r.a.has("resync waits") })
	r.await("a to be quiet", r.a.quiet)
	held := r.a.content()
	rep := r.a.get().Report()
	if !r.volume().IsHeld("a") || rep.Doing == "" || rep.Failed {
		t.Fatalf("held %v, %+v", r.volume().Held, rep)
	}
	r.write(30, 0, volumeSize)
	if got := r.a.content(); !bytes.Equal(got, held) {
		t.Fatal("what waits for room is overwritten")
	}
	differ := 0 // of those that took room: zeroes are kept by a record of theirs
	for at := 0; at < len(held); at += blockdev.BlockSize {
		if had := r.had[at : at+blockdev.BlockSize]; !bytes.Equal(held[at:at+blockdev.BlockSize], had) && !isZero(had) {
			differ++
		}
	}
	if most := int(room / blockdev.BlockSize); differ > most {
		t.Fatalf("%d blocks were overwritten, there was room for at most %d", differ, most)
	}
	r.a.rescue.grow(64 << 20)
	r.pass(roomPause)
	r.await("a to be admitted, now that there is room", func() bool { return r.volume().IsMember("a") })
	if got := r.a.exported(r.image(), false); !bytes.Equal(got, r.had) {
		t.Fatal("the image is not the volume that a had")
	}
	r.same("a", "b")
}

// A person may do without the image: then the resync goes on, and what there is of the image stays, and says that it is not all.
func TestPersonMayDoWithoutTheImage(t *testing.T) { // R19
	r := leftBehind(t, 32)
	then := r.b.content()
	r.a.rescue.room = 4096 + 20*(512+blockdev.BlockSize)
	r.b.get().SetResync(resync.Limits{Max: 4 << 20}) // a chunk at a time: of a group that finds no room nothing is kept
	r.join()
	r.await("the resync to wait", func() bool { return r.a.has("resync waits") })
	r.consent("a")
	r.admitted()
	r.same("a", "b")
	differ := 0
	for at := 0; at < len(then); at += blockdev.BlockSize {
		if !bytes.Equal(then[at:at+blockdev.BlockSize], r.had[at:at+blockdev.BlockSize]) {
			differ++
		}
	}
	for range 2 {
		all := r.a.get().RescueImages()
		if len(all) != 1 || all[0].Whole || all[0].Complete || all[0].Bytes == 0 || all[0].Closed.IsZero() {
			t.Fatalf("images %+v, want one that is closed and not complete", all)
		}
		if lost, has := r.a.lacks(all[0].ID, r.had, then), int(all[0].Bytes/blockdev.BlockSize); lost == 0 || lost+has != differ {
			t.Fatalf("%d blocks are not in the image, %d are; %d were overwritten", lost, has, differ)
		}
		r.a.crash() // and stays so
		r.a.start()
	}
}

// R18, R19: what was overwritten by a resync that had begun before the promotion by force is in an area that is older than
// the writes which may be lost with it: a person decides.
func TestHeldReplicaInPiecesIsNotOverwrittenFurther(t *testing.T) {
	r := fallBehindOf(t, 2, labConfig{inline: true, undo: true, rescue: true})
	r.interrupt(3, func() { r.b.crash(); r.b.cable.cut(); r.b.start() })
	r.a.power(nil)
	r.a.start()
	r.promote("a", cluster.BasisForced)
	r.a.grant()
	if !r.volume().IsHeld("b") {
		t.Fatalf("held %v", r.volume().Held)
	}
	before := r.b.content()
	r.b.cable.mend()
	r.a.cable.mend()
	r.await("b to say why it waits", func() bool { return r.b.get().Report().Doing != "" })
	if !bytes.Equal(r.b.content(), before) {
		t.Fatal("it was overwritten")
	}
	r.consent("b")
	r.await("b to be admitted", func() bool { return r.volume().IsMember("b") })
	r.same("a", "b")
}

// A promotion by force in the middle of the resync leads back to what the replica had: the image is its way.
func TestHeldReplicaReturnsFromTheMiddleOfItsResync(t *testing.T) { // R18
	r := leftBehind(t, 33)
	h := r.a.faults.Add(faultdev.Rule{Op: blockdev.OpWrite, Skip: 5, Stall: true})
	r.join()
	for changed := h.Changed(); h.Waiting() == 0; changed = h.Changed() {
		<-changed
	}
	r.a.crash()
	r.a.cable.cut()
	r.a.start()
	r.b.cable.cut()
	r.b.expire()
	r.promote("a", cluster.BasisForced)
	r.a.grant()
	r.a.serving()
	if !bytes.Equal(r.a.content(), r.had) || len(r.a.get().RescueImages()) != 0 {
		t.Fatalf("it is not what a had, or the image is left: %+v", r.a.get().RescueImages())
	}
}

// R2, R19: a stream of an epoch that is over begins nothing: its image would count as begun before the promotion by force.
func TestStreamOfAnOlderEpochBeginsNoOverwriting(t *testing.T) {
	r := fallBehind(t, 1)
	b := r.b.get()
	b.mu.Lock()
	old := &session{r: b, epoch: b.vol.Epoch - 1}
	b.mu.Unlock()
	if err := old.beginOverwriting(); !errors.Is(err, errAwaits) {
		t.Errorf("it begins: %v", err)
	}
	if r.b.undo.there() || b.Report().Inconsistent || len(b.RescueImages()) > 0 {
		t.Error("something was made, or the replica is in pieces")
	}
}

// R19: a hold outlasts resyncs whose streams break before the admission. What the replica had of its own is in the image of the
// first one, so no further one makes another: not after a restart, in the middle of a resync, or when the image was deleted.
func TestFurtherResyncsOfOneHoldMakeNoFurtherImage(t *testing.T) {
	for seed := range uint64(2) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			r := leftBehind(t, 40+seed)
			tried := make(chan struct{}, 1)
			r.decide(func(c cluster.Command) error {
				if c.Admit == nil {
					return nil
				}
				select {
				case tried <- struct{}{}:
				default:
				}
				return errFault
			})
			again := func() { // it stops, somehow, and is behind once more
				switch r.a.cable.cut(); r.rng.IntN(3) {
				case 0:
					r.a.crash()
				case 1:
					r.a.power(nil)
				case 2:
					r.a.power(r.rng)
				}
				for range 10 {
					r.c.begin(writeReq(r.rng.Int64N(volumeSize/4096)*4096, pattern(4096, byte(1+r.rng.IntN(255)))))
				}
				r.a.start()
				select {
				case <-tried:
				default:
				}
			}
			ended := func() { // a resync has, and its admission fails
				r.awaitPassing("an admission", dropAfter, func() bool { return len(tried) > 0 })
			}
			r.join()
			ended()
			id, then := r.image(), r.b.content()
			for n := range 3 {
				again()
				if n%3 == 1 { // in the middle of the next resync: now it has an undo area
					h := r.a.faults.Add(faultdev.Rule{Op: blockdev.OpWrite, Skip: 2, Stall: true})
					r.a.cable.mend()
					for changed := h.Changed(); h.Waiting() == 0; changed = h.Changed() {
						<-changed
					}
					again()
				}
				if seed == 1 && n == 1 {
					if err := r.a.get().RemoveRescue(id, "a person"); err != nil {
						t.Fatal(err)
					}
				}
				r.a.cable.mend()
				ended()
				if !r.volume().IsHeld("a") {
					t.Fatal("it is not held any more")
				}
			}
			r.decide(nil)
			r.awaitPassing("a to be admitted", dropAfter/10, func() bool { return r.volume().IsMember("a") })
			if seed == 1 {
				if all := r.a.get().RescueImages(); len(all) != 0 {
					t.Fatalf("images %+v, want none", all)
				}
			} else if n := r.a.lacks(r.image(), r.had, then); n > 0 {
				t.Fatalf("%d blocks that were rescued are not in the image", n)
			}
			r.flush()
			r.same("a", "b")
		})
	}
}
