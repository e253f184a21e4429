package primary

import (
	"slices"
	"testing"
)

// What was read for the comparison is sent without being read again, at its place in the order of all writes; when a write
// came between, or was under way before, it is read anew.
func TestCopyKeepsWhatWasReadUnlessAWriteCameBetween(t *testing.T) { // R17, R33
	for _, c := range []struct {
		name                string
		before, early, late bool // a write is under way when the chunk is handed out, comes while it is read, comes after
		elsewhere           bool // those writes touch another chunk
		again               bool
	}{
		{name: "nothing", again: false},
		{name: "under way", before: true, again: true},
		{name: "between", early: true, again: true},
		{name: "after", late: true, again: false},
		{name: "under way elsewhere", before: true, elsewhere: true, again: false},
		{name: "between elsewhere", early: true, elsewhere: true, again: false},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := newRig(t)
			off := int64(0)
			if c.elsewhere {
				off = 2 * chunk
			}
			var before *Op
			if c.before {
				before = g.write(off)
			}
			n := g.up("s")
			at, ok := g.c.TakeChunk(g.now, "s", n, 0)
			if !ok || at.Off != 0 {
				t.Fatalf("took %v, %t", at, ok)
			}
			if c.before {
				g.local(before, nil) // it returned while the chunk was read
			}
			if c.early {
				g.local(g.write(off), nil)
			}
			cp := g.op(0, 0, 4096)
			cp.Kept = true
			g.c.Compared(g.now, "s", n, at, []*Op{cp})
			g.take()
			if got := g.count(StartLocal, cp) == 1; got != c.again || cp.Kept == c.again {
				t.Fatalf("it is read anew: %t, want %t", got, c.again)
			}
			if c.late {
				g.write(off)
			}
			if c.again {
				g.local(cp, nil)
			}
			want := []uint64{1}
			for _, wrote := range []bool{c.before, c.early, c.late} {
				if wrote {
					want = append(want, uint64(len(want)+1))
				}
			}
			if got := g.sent("s"); !slices.Equal(got, want) {
				t.Fatalf("sent %v, want %v", got, want)
			}
			g.ack("s", n, want[len(want)-1])
			if g.count(Release, cp) != 1 {
				t.Fatal("the copy's memory was not given back")
			}
		})
	}
}

// A stream that broke takes what was read with it: the chunk is handed out anew, and what the first reading gave may be older
// than what the second one watches for.
func TestWhatWasReadForABrokenStreamCountsForNoOther(t *testing.T) { // R17
	g := newRig(t)
	old := g.up("s")
	at, _ := g.c.TakeChunk(g.now, "s", old, 0)
	g.down("s", old)
	g.local(g.write(at.Off), nil)
	n := g.up("s")
	again, ok := g.c.TakeChunk(g.now, "s", n, 0)
	if !ok || again != at {
		t.Fatalf("took %v, %t", again, ok)
	}
	cp := g.op(0, at.Off, 4096)
	cp.Kept = true
	g.c.Compared(g.now, "s", old, at, []*Op{cp})
	g.take()
	if g.count(Release, cp) != 1 || g.count(Send, cp) != 0 {
		t.Fatal("what was read for the old stream is sent on the new one")
	}
}
