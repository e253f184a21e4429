package primary

import (
	"slices"
	"testing"
)

// Reads that members answer, in the random schedules. A read has to be answered with nothing older than what was acknowledged, or
// answered to another read, when it began; with nothing of a write that is not on every member (R29, random_checks_test.go); and never
// with what a write has left in a block that failed, or may fail yet.

// torn is the content of a block while it is written, until the write has succeeded.
const torn = 1 << 61

// readSeeds is where the seeds begin of runs in which there are more members, more reads and fewer writes and faults: else there is
// seldom a member to ask, and in most blocks a write under way.
const readSeeds = 1 << 41

// most is how many operations are open at a time.
func (w *world) most() int {
	if w.balance.often {
		return 3
	}
	return 12
}

type balanceWorld struct {
	often  bool
	asked  []askedRead
	begun  map[*Op]uint64 // reads: the least that they may be answered with
	told   content        // what reads were answered with
	there  int            // reads that a member answered
	undone int            // answers that came and were not taken
}

// askedRead is a question for a read, or the answer, on its way.
type askedRead struct {
	s        *side
	stream   uint64
	num      uint64
	op       *Op
	answered bool
	taken    bool
	seen     uint64
	during   *entryOf // a write of the block that was being carried out meanwhile
}

// beginRead has the Core decide. The local disk is a slow one, often.
func (w *world) beginRead(op *Op, block int64) (asked bool) {
	if w.balance.begun == nil {
		w.balance.begun = map[*Op]uint64{}
	}
	w.balance.begun[op] = max(w.acked[block], w.balance.told[block])
	if !w.c.Balances() {
		return false
	}
	if w.rng.IntN(4) > 0 {
		w.c.here.nanos = 1e6
	}
	return w.c.BeginRead(w.now, op)
}

// askedStep lets a member read, or an answer come.
func (w *world) askedStep() {
	if len(w.balance.asked) == 0 || w.rng.IntN(4) > 0 {
		return
	}
	i := w.rng.IntN(len(w.balance.asked))
	a := &w.balance.asked[i]
	block := a.op.Range.Off / worldBlock
	if !a.answered {
		if !w.calm && w.rng.IntN(8) == 0 {
			return // it takes its time
		}
		a.answered, a.seen = true, a.s.dev[block]
		for _, e := range a.s.running {
			if e.Range.Overlaps(a.op.Range) && w.rng.IntN(2) == 0 {
				a.during = e
			}
		}
		if !a.s.recv.MayRead(a.stream) {
			w.balance.asked = slices.Delete(w.balance.asked, i, i+1) // its stream is over
		}
		return
	}
	if !a.taken && (a.s.conn == nil || a.s.conn.stream != a.stream || a.s.conn.over) {
		w.balance.asked = slices.Delete(w.balance.asked, i, i+1) // it is not received any more
		return
	}
	if !a.taken {
		op := w.c.TakeRead(w.now, a.s.name, a.stream, a.num)
		if op == nil {
			w.balance.asked = slices.Delete(w.balance.asked, i, i+1)
			w.balance.undone++
			return
		}
		if op != a.op {
			w.fail("the answer to another read was taken for it")
		}
		a.taken = true // it is copied to the client, while all goes on
		return
	}
	done := *a
	w.balance.asked = slices.Delete(w.balance.asked, i, i+1)
	var err error
	if !w.calm && w.rng.IntN(20) == 0 {
		err = errDisk
	}
	seen := content{}
	if seen[block] = done.seen; done.during != nil && !done.during.done {
		seen[block] = torn // it may yet fail, or has: then anything may be there
	}
	w.waiting[done.op] = seen
	if w.c.ReadThere(w.now, done.op, err) {
		w.balance.there++
	} else {
		w.balance.undone++
	}
	w.actions()
}

// readCompletes checks what a read is answered with.
func (w *world) readCompletes(op *Op) {
	block := op.Range.Off / worldBlock
	seen, least := w.waiting[op][block], w.balance.begun[op]
	if seen == torn {
		w.fail("R29: a read of block %d was answered with what a write under way at %s had left there", block, op.readBy)
	}
	if seen < least {
		w.fail("a read of block %d at %q was answered with write %d, and %d was acknowledged or read before it began", block, op.readBy, seen, least)
	}
	if seen != other {
		w.balance.told.raise(block, seen)
	}
}

func TestRandomSchedulesOfReadsAtMembers(t *testing.T) {
	seeds := schedules()
	var completed, drops, there, undone, rested int
	for i := range seeds {
		w, err := runWorld(readSeeds + i)
		if err != nil {
			t.Fatal(err)
		}
		completed, drops, there, undone = completed+w.completed, drops+w.drops, there+w.balance.there, undone+w.balance.undone
		if w.atRest() {
			rested++
		}
	}
	t.Logf("%d operations, %d drops, %d reads answered by members, %d of their answers not taken, %d at rest", completed, drops, there, undone, rested)
	if n := int(seeds); completed < 20*n || drops < n/4 || there < n || undone < n/4 || rested < n/2 {
		t.Fatal("the schedules do not reach what they are for")
	}
}
