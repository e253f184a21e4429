package primary

import (
	"fmt"
	"os"
	"strconv"
	"testing"
)

// The driver: one Core, two standbys made of standby.Receiver and order.Queue, a committed record, and chance. A
// block's content is the seq of the write that it holds. After every step:
//   - every committed member that is what the set names holds each acknowledged write, and durably each that was
//     acknowledged and flushed (R3, R4, R5, R20); a third of the seeds play semisync, where what its process has in memory counts,
//     and a third async, where it is a prefix, and what it lacks within the bound (random_async_test.go); in some of the others
//     each replica has a mode of its own
//   - what a read was answered with is on every such member (R29)
//   - minSeen and the number in flight are what a recount gives; nothing released is still referred to
//
// At the end the faults stop: everything has to complete, every replica to become a member, all contents to be equal.

const (
	worldBlocks = 12
	worldBlock  = 4096
	worldChunk  = 3 * worldBlock
)

func runWorld(seed uint64) (w *world, err error) {
	w = newWorld(seed)
	step := 0
	defer func() {
		if r := recover(); r != nil {
			b, ok := r.(broken)
			if !ok {
				panic(fmt.Sprintf("seed %d step %d: %v", seed, step, r))
			}
			err = fmt.Errorf("seed %d step %d: %s", seed, step, b.text)
		}
	}()
	for ; step < 600; step++ {
		w.step()
	}
	if w.broken || w.c.DiskError() != nil {
		return w, nil // it would hand over
	}
	for _, p := range w.c.peers {
		p.asideAt = 0 // what could not be read can be from now on, and is tried
	}
	for w.calm = true; step < 100_000 && w.c.DiskError() == nil; step++ {
		if w.step(); w.atRest() {
			break
		}
	}
	if w.c.DiskError() == nil && !w.atRest() {
		return w, fmt.Errorf("seed %d: not at rest: %d open, %d reads, members %v, %+v %+v", seed, len(w.open), len(w.waiting), w.vol().Members, w.c.Peer("s"), w.c.Peer("x"))
	}
	return w, nil
}

// schedules is how many the test draws: HACLUSTER_SCHEDULES, else 400.
func schedules() uint64 {
	if n, err := strconv.ParseUint(os.Getenv("HACLUSTER_SCHEDULES"), 10, 64); err == nil {
		return n
	}
	if testing.Short() {
		return 50
	}
	return 400
}

func TestRandomSchedulesLoseNothingAndComeToRest(t *testing.T) {
	seeds := schedules()
	var completed, drops, broke, admits, mended, reread, rested, early, late, full, handed, changed int
	for seed := range seeds {
		w, err := runWorld(seed)
		if err != nil {
			t.Fatal(err)
		}
		completed += w.completed
		early += w.early
		drops += w.drops
		mended += w.mended
		changed += w.changed
		if a := w.async; a != nil {
			late, full, handed = late+a.late, full+a.full, handed+a.handed
		}
		reread += w.reread
		if w.atRest() {
			rested++
		}
		if w.broken {
			broke++
		}
		if len(w.vol().Members) == 3 {
			admits++
		}
	}
	t.Logf("%d operations, %d drops, %d runs to rest, %d at rest, %d with a broken disk, %d blocks mended, %d reads tried again, %d acknowledged early, %d held by a bound, %d up to its last byte, %d hand-overs, %d changes of the mode", completed, drops, admits, rested, broke, mended, reread, early, late, full, handed, changed)
	if n := int(seeds); completed < 20*n || drops < n/2 || broke == 0 || mended < n/16 || rested < n/2 || early < n/4 || late < n || full < n/100 || handed < n/16 || changed < n/8 {
		t.Fatal("the schedules do not reach what they are for")
	}
}
