package marks

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"

	"hacluster/blockdev"
	"hacluster/blockdev/backend/faultdev"
	"hacluster/blockdev/backend/memdev"
)

// faults.md K110, M58, M62: power fails before and after every write and flush, also within sectors. What was told to be
// durable is there.
func TestK110PowerCutAtEveryOperationKeepsEveryMark(t *testing.T) {
	for seed := range uint64(12) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { crashes(t, rand.New(rand.NewPCG(seed, 1))) })
	}
}

func crashes(t *testing.T, rng *rand.Rand) {
	s := &taped{Dev: created(t)}
	o := newOracle()
	cut := rand.New(rand.NewPCG(rng.Uint64(), 2)) // used by the goroutine that writes
	s.look = func() {
		if cut.IntN(3) == 0 {
			o.check(t, s.Dev, cut)
		}
	}
	f := open(t, s)
	regions := []int64{0, 1, 247, 248, 1983, 1984, 2000, 3999, 4000}
	for range 60 {
		r := regions[rng.IntN(len(regions))]
		slots := Slots(1 + rng.IntN(3))
		switch rng.IntN(8) {
		case 0:
			o.set(func() { o.marks[r] &^= slots })
			f.Clear(r, slots)
		case 1:
			i := rng.IntN(2)
			n := f.Slots()[i].Number
			if n.Promised++; rng.IntN(2) == 0 {
				n.Settled = n.Promised
			}
			if err := f.SetNumber(i, n); err != nil {
				t.Fatal(err)
			}
			o.set(func() { o.number[i] = n })
		case 2:
			if err := f.Sync(); err != nil {
				t.Fatal(err)
			}
		case 3:
			if i, ok := f.Lookup(Peer{Name: "delta"}); ok {
				o.set(func() { o.peers[i] = "" })
				if err := f.RemoveSlot(i); err != nil {
					t.Fatal(err)
				}
			} else if i, err := f.AddSlot(Peer{Name: "delta"}, false); err == nil {
				o.set(func() { o.peers[i] = "delta" })
			}
		default:
			marked(t, f, region(r), slots)
			o.set(func() { o.marks[r] |= slots })
		}
		if t.Failed() {
			return
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// faults.md M62, M63: each cell is damaged in turn, and its regions may differ; no other's are touched, nothing is refused. There
// is no log with a tail to be torn.
func TestM62DamagedCellMarksItsRegionsForEveryPeer(t *testing.T) {
	f, _, d := opened(t)
	marked(t, f, region(1984), Of(0))
	for _, at := range []int64{0, 4, 8, 16, 300, 511} {
		for _, cell := range []int64{0, 8, 16} {
			c := d.Clone(memdev.CrashOptions{})
			flip(t, c, tableAt+cell*cellSize+at)
			g := open(t, c)
			for r := range g.Regions() {
				want := Slots(0)
				if r == 1984 {
					want = Of(0)
				}
				if r/cellRegions == cell {
					want = Of(0) | Of(1)
				}
				if got := g.Marked(r); got != want {
					t.Fatalf("byte %d of cell %d: region %d is marked for %b, want %b", at, cell, r, got, want)
				}
			}
			if len(g.Damage()) == 0 {
				t.Errorf("byte %d of cell %d: nobody is told", at, cell)
			}
			g.Close()
			if h := open(t, c.Reopen()); len(h.Damage()) != 0 || h.Marked(cell*cellRegions) != 3 {
				t.Errorf("byte %d of cell %d: after it was written anew: %v", at, cell, h.Damage())
			} else {
				h.Close()
			}
		}
	}
}

func flip(t *testing.T, d *memdev.Dev, at int64) {
	t.Helper()
	var b [1]byte
	if _, err := d.ReadAt(b[:], at); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 0x40
	if _, err := d.WriteFUA(b[:], at); err != nil {
		t.Fatal(err)
	}
}

// A cell of the right form that belongs elsewhere: misplaced by a disk, or of an older life of the file.
func TestM62CellOfAnotherPlaceOrFileIsDamaged(t *testing.T) {
	d, other := created(t), created(t)
	cell := make([]byte, cellSize)
	for name, from := range map[string]struct {
		d  *memdev.Dev
		at int64
	}{"misplaced": {d, tableAt + cellSize}, "of another file": {other, tableAt}} {
		c := d.Clone(memdev.CrashOptions{})
		if _, err := from.d.ReadAt(cell, from.at); err != nil {
			t.Fatal(err)
		}
		if _, err := c.WriteAt(cell, tableAt); err != nil {
			t.Fatal(err)
		}
		f := open(t, c)
		if f.Marked(5) != 3 || f.Marked(cellRegions) != 0 || f.Empty() {
			t.Errorf("%s: regions are marked for %b and %b", name, f.Marked(5), f.Marked(cellRegions))
		}
		f.Close()
	}
}

func TestM62ShortFileMarksWhatIsMissing(t *testing.T) {
	d := created(t)
	short := memdev.New(memdev.Config{Size: tableAt + pageSize + 700})
	p := make([]byte, short.Size())
	if _, err := d.ReadAt(p, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := short.WriteAt(p, 0); err != nil {
		t.Fatal(err)
	}
	f := open(t, short)
	for r := range f.Regions() {
		want := Slots(3)
		if r < 10*cellRegions { // of the tenth cell the missing bytes are zeroes, and its checksum says that they were
			want = 0
		}
		if f.Marked(r) != want {
			t.Fatalf("region %d is marked for %b, want %b", r, f.Marked(r), want)
		}
	}
	if _, err := Open(memdev.New(memdev.Config{Size: 100}), testBinding()); !errors.Is(err, ErrNone) {
		t.Errorf("a file of 100 zeroes: %v", err)
	}
}

// faults.md M57, M58: whichever header rots, whatever byte of it, the other holds everything that was acknowledged. It is
// written anew. With both damaged everything may differ.
func TestM58EitherHeaderIsEnough(t *testing.T) {
	f, _, d := opened(t)
	for i, n := range []Number{{5, 5}, {9, 3}} {
		if err := f.SetNumber(i, n); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.SetEverything(1, true); err != nil {
		t.Fatal(err)
	}
	want := f.Slots()
	for at := int64(0); at < headerSize; at += 7 {
		for copy := range int64(2) {
			c := d.Clone(memdev.CrashOptions{})
			flip(t, c, copy*headerSize+at)
			if g := open(t, c); g.Slots() != want || len(g.Damage()) != 1 {
				t.Fatalf("byte %d of header %d: %v, %v", at, copy, g.Slots(), g.Damage())
			} else {
				g.Close()
			}
			g := open(t, c.Reopen())
			if len(g.Damage()) != 0 {
				t.Fatalf("byte %d of header %d was not repaired: %v", at, copy, g.Damage())
			}
			g.Close()
		}
	}
	flip(t, d, 500)
	flip(t, d, headerSize+40)
	if _, err := Open(d, testBinding()); !errors.Is(err, ErrCorrupt) {
		t.Errorf("both headers damaged: %v", err)
	}
}

// faults.md M65: nothing is written to a file of a newer program.
func TestM65NewerVersionIsRefusedUntouched(t *testing.T) {
	d := created(t)
	p := make([]byte, headerSize)
	if _, err := d.ReadAt(p, 0); err != nil {
		t.Fatal(err)
	}
	p[offVersion] = Version + 1
	resum(p)
	if _, err := d.WriteAt(p, headerSize); err != nil {
		t.Fatal(err)
	}
	before := content(t, d)
	if _, err := Open(d, testBinding()); !errors.Is(err, ErrVersion) {
		t.Errorf("a newer version: %v", err)
	}
	if !bytes.Equal(before, content(t, d)) {
		t.Error("it was written to")
	}
}

// faults.md D90, D92, D95: what waits is told, nothing is written or marked any more, what was durable stays ready.
func TestD92FailedGroupIsFinalAndTold(t *testing.T) {
	for name, rule := range map[string]faultdev.Rule{
		"write EIO":    {Op: blockdev.OpWrite, Err: syscall.EIO, Fail: true},
		"write ENOSPC": {Op: blockdev.OpWrite, Err: blockdev.ErrNoSpace, Fail: true},
		"short write":  {Op: blockdev.OpWrite, Short: true},
		"flush EIO":    {Op: blockdev.OpFlush, Err: syscall.EIO, Fail: true, Times: 1},
	} {
		f, fd, d := opened(t)
		marked(t, f, region(3), Of(0))
		fd.Add(rule)
		c := make(told, 1)
		if ready, err := f.Mark(region(4), Of(0), c); ready || err != nil {
			t.Fatalf("%s: a clean region: ready %t, %v", name, ready, err)
		}
		if err := <-c; !errors.Is(err, ErrFailed) || rule.Err != nil && !errors.Is(err, rule.Err) {
			t.Errorf("%s: told %v", name, err)
		}
		fd.Clear() // also when the disk works again: a failed flush is never retried as if it had not failed
		if _, err := f.Mark(region(4), Of(0), c); !errors.Is(err, ErrFailed) || !strings.Contains(err.Error(), "repair the disk") {
			t.Errorf("%s: a mark after that: %v", name, err)
		}
		if ready, err := f.Mark(region(3), Of(0), c); !ready || err != nil {
			t.Errorf("%s: a region that is durably marked: ready %t, %v", name, ready, err)
		}
		for _, err := range []error{f.SetNumber(0, Number{Promised: 1}), f.Sync(), f.Close()} {
			if !errors.Is(err, ErrFailed) {
				t.Errorf("%s: an update after that: %v", name, err)
			}
		}
		g := open(t, d.Clone(memdev.CrashOptions{}))
		if g.Marked(3) != Of(0) {
			t.Errorf("%s: the durable mark is gone", name)
		}
		g.Close()
	}
}

// faults.md D90, D92: a map that failed takes marks again once its disk works and all of it was written anew: what a failed flush
// left in memory only is on the disk then, and so is every mark that was asked for.
func TestD92RevivedMapHasAllOnTheDisk(t *testing.T) {
	for name, rule := range map[string]faultdev.Rule{
		"write EIO":   {Op: blockdev.OpWrite, Err: syscall.EIO},
		"short write": {Op: blockdev.OpWrite, Short: true},
		"flush EIO":   {Op: blockdev.OpFlush, Err: syscall.EIO},
	} {
		for _, header := range []bool{false, true} {
			f, fd, d := opened(t)
			marked(t, f, region(3), Of(0))
			h := fd.Add(rule)
			if header {
				if err := f.SetNumber(0, Number{Promised: 1}); !errors.Is(err, ErrFailed) {
					t.Fatalf("%s: %v", name, err)
				}
			} else {
				c := make(told, 1)
				if _, err := f.Mark(region(4), Of(0), c); err != nil {
					t.Fatal(err)
				}
				<-c
			}
			if err := f.Revive(); err == nil || f.Failed() == nil {
				t.Errorf("%s: revived on a disk that fails: %v", name, err)
			}
			h.Remove()
			if err := f.Revive(); err != nil || f.Failed() != nil {
				t.Fatalf("%s: revived: %v, %v", name, err, f.Failed())
			}
			g := open(t, d.Clone(memdev.CrashOptions{}))
			if g.Marked(3) != Of(0) || !header && g.Marked(4) != Of(0) || len(g.Damage()) > 0 {
				t.Errorf("%s: after a power cut regions 3 and 4 are marked %b and %b, damage %v", name, g.Marked(3), g.Marked(4), g.Damage())
			}
			g.Close()
			marked(t, f, region(5), Of(0))
			if err := f.SetNumber(0, Number{Promised: 2}); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			g = open(t, d.Clone(memdev.CrashOptions{}))
			if g.Marked(5) != Of(0) || g.Slots()[0].Number.Promised != 2 {
				t.Errorf("%s: what came after it is not there", name)
			}
			g.Close()
			if err := f.Close(); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

// faults.md D94: a hung disk is seen by its age, hot regions go on, what waits is neither told nor forgotten.
func TestD94HungFlushIsSeenAndHotRegionsGoOn(t *testing.T) {
	f, fd, _ := opened(t)
	marked(t, f, region(3), Of(0))
	if f.Outstanding() != 0 {
		t.Error("something is outstanding while nothing is")
	}
	h := fd.Add(faultdev.Rule{Op: blockdev.OpFlush, Stall: true})
	c := make(told, 2)
	if ready, err := f.Mark(region(4), Of(0), c); ready || err != nil {
		t.Fatal(ready, err)
	}
	for changed := h.Changed(); h.Waiting() == 0; changed = h.Changed() {
		<-changed
	}
	if f.Outstanding() <= 0 {
		t.Error("nothing is outstanding while a flush hangs")
	}
	if ready, err := f.Mark(region(3), Of(0), c); !ready || err != nil {
		t.Errorf("a hot region while the disk hangs: ready %t, %v", ready, err)
	}
	if ready, _ := f.Mark(region(4), Of(0), c); ready {
		t.Error("a mark counts before its flush returned")
	}
	h.Release()
	for range 2 {
		if err := <-c; err != nil {
			t.Error(err)
		}
	}
}

// faults.md M58: power fails while a damaged header is written anew: the whole one is not touched before.
func TestM58RepairOfAHeaderSparesTheOther(t *testing.T) {
	d := created(t)
	rng := rand.New(rand.NewPCG(3, 3))
	for damaged := range int64(2) {
		for range 20 {
			s := &taped{Dev: d.Clone(memdev.CrashOptions{})}
			flip(t, s.Dev, damaged*headerSize+80)
			s.look = func() {
				c := s.Dev.Clone(memdev.CrashOptions{Rand: rng, Mode: memdev.Torn})
				if f, err := Open(c, testBinding()); err != nil {
					t.Errorf("header %d was being repaired: %v", damaged, err)
				} else {
					f.Close()
				}
			}
			open(t, s).Close()
		}
	}
}
