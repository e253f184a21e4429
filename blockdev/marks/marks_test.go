package marks

import (
	"bytes"
	"encoding/binary"
	"errors"
	"flag"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"hacluster/blockdev"
	"hacluster/blockdev/backend/faultdev"
	"hacluster/blockdev/backend/memdev"
	"hacluster/blockdev/meta"
)

func resum(p []byte) {
	binary.LittleEndian.PutUint32(p[offChecksum:], crc32.Checksum(p[:offChecksum], castagnoli))
}

func content(t testing.TB, d *memdev.Dev) []byte {
	t.Helper()
	p := make([]byte, d.Size())
	if _, err := d.ReadAt(p, 0); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestMarkIsReadyOnlyWhenDurableForAllThatWasAsked(t *testing.T) {
	f, _, d := opened(t)
	marked(t, f, region(3), Of(0))
	c := make(told, 1)
	for _, s := range []struct {
		r     blockdev.Range
		slots Slots
		ready bool
	}{
		{region(3), Of(0), true},
		{blockdev.Range{Off: 3 * minRegion, Len: minRegion}, Of(0), true},
		{blockdev.Range{Off: 3 * minRegion}, Of(1), true}, // nothing
		{region(3), Of(0) | Of(1), false},
		{blockdev.Range{Off: 4*minRegion - 1, Len: 2}, Of(0), false},
		{blockdev.Range{Off: 3*minRegion - 1, Len: 2}, Of(0), false},
	} {
		ready, err := f.Mark(s.r, s.slots, c)
		if err != nil || ready != s.ready {
			t.Errorf("mark %v for %b: ready %t, %v", s.r, s.slots, ready, err)
		}
		if !ready {
			if err := <-c; err != nil {
				t.Error(err)
			}
			if ready, err := f.Mark(s.r, s.slots, c); !ready || err != nil {
				t.Errorf("mark %v for %b once more: ready %t, %v", s.r, s.slots, ready, err)
			}
		}
	}
	g := open(t, d.Clone(memdev.CrashOptions{}))
	for r, want := range map[int64]Slots{2: 1, 3: 3, 4: 1, 5: 0} {
		if g.Marked(r) != want {
			t.Errorf("region %d is marked for %b, want %b", r, g.Marked(r), want)
		}
	}
	if f.Hot() != 3 || g.Hot() != 3 {
		t.Errorf("%d regions are hot, %d after the restart, want 3", f.Hot(), g.Hot())
	}
	for _, r := range []blockdev.Range{{Off: -1, Len: 2}, {Off: testVolume, Len: 1}, {Off: 0, Len: testVolume + 1}} {
		if _, err := f.Mark(r, 1, c); !errors.Is(err, blockdev.ErrRange) {
			t.Errorf("mark %v: %v", r, err)
		}
	}
}

// What gathers while a group is being written goes with one write and one flush.
func TestMarksThatWaitShareOneFlush(t *testing.T) {
	f, fd, _ := opened(t)
	first := fd.Add(faultdev.Rule{Op: blockdev.OpFlush, Stall: true, Times: 1})
	count := fd.Add(faultdev.Rule{Op: blockdev.OpFlush})
	writes := fd.Add(faultdev.Rule{Op: blockdev.OpWrite})
	c := make(told, 101)
	if _, err := f.Mark(region(0), 1, c); err != nil {
		t.Fatal(err)
	}
	for changed := first.Changed(); first.Waiting() == 0; changed = first.Changed() {
		<-changed
	}
	for i := range int64(100) {
		if _, err := f.Mark(region(1+i%50), 1, c); err != nil {
			t.Fatal(err)
		}
	}
	first.Release()
	for range 101 {
		if err := <-c; err != nil {
			t.Fatal(err)
		}
	}
	if count.Hits() != 2 || writes.Hits() != 2 {
		t.Errorf("%d flushes and %d writes for 101 marks, want 2 of each", count.Hits(), writes.Hits())
	}
}

func TestClearedRegionIsMarkedAnewOnDisk(t *testing.T) {
	f, fd, d := opened(t)
	marked(t, f, region(7), 3)
	flushes := fd.Add(faultdev.Rule{Op: blockdev.OpFlush})
	f.Clear(7, Of(0))
	if flushes.Hits() != 0 || f.Marked(7) != Of(1) || f.Empty() {
		t.Errorf("cleared with %d flushes, marked for %b", flushes.Hits(), f.Marked(7))
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	if g := open(t, d.Clone(memdev.CrashOptions{})); g.Marked(7) != Of(1) {
		t.Errorf("after the sync region 7 is marked for %b", g.Marked(7))
	}
	before := flushes.Hits()
	marked(t, f, region(7), Of(0))
	if flushes.Hits() == before {
		t.Error("a cleared region was marked without a flush")
	}
	if g := open(t, d.Clone(memdev.CrashOptions{})); g.Marked(7) != 3 {
		t.Errorf("region 7 is marked for %b", g.Marked(7))
	}
	f.Clear(7, 3)
	if f.Hot() != 0 || !f.Empty() {
		t.Error("nothing is marked, and the map is not empty")
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if g := open(t, d.Reopen()); !g.Empty() {
		t.Error("a clean stop left marks")
	}
}

// A region is cleared while the group with its mark is being written, and marked again: the second mark counts when it is
// on stable storage, and not before.
func TestClearOvertakesAGroup(t *testing.T) {
	f, fd, d := opened(t)
	h := fd.Add(faultdev.Rule{Op: blockdev.OpFlush, Stall: true, Times: 1})
	c := make(told, 2)
	if _, err := f.Mark(region(9), 1, c); err != nil {
		t.Fatal(err)
	}
	for changed := h.Changed(); h.Waiting() == 0; changed = h.Changed() {
		<-changed
	}
	f.Clear(9, 1)
	h.Release()
	<-c
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	if ready, err := f.Mark(region(9), 1, c); ready || err != nil {
		t.Fatalf("a region that was cleared: ready %t, %v", ready, err)
	}
	if err := <-c; err != nil {
		t.Fatal(err)
	}
	if g := open(t, d.Clone(memdev.CrashOptions{})); g.Marked(9) != 1 {
		t.Error("the second mark is not on stable storage")
	}
}

func TestSlotsKeepTheirPlaces(t *testing.T) {
	f, _, d := opened(t)
	marked(t, f, region(1), 3)
	if err := f.RemoveSlot(0); err != nil {
		t.Fatal(err)
	}
	if i, ok := f.Lookup(Peer{Name: "gamma"}); i != 1 || !ok {
		t.Errorf("gamma has slot %d, %t", i, ok)
	}
	if _, err := f.AddSlot(Peer{Name: "gamma"}, true); err == nil {
		t.Error("gamma got a second slot")
	}
	if i, err := f.AddSlot(Peer{Name: "delta"}, true); i != 2 || err != nil || f.Marked(1) != Of(1) {
		t.Errorf("delta: slot %d, %v, region 1 is marked for %b", i, err, f.Marked(1))
	}
	for i := 2; i < MaxSlots; i++ { // the one that was given up is taken last
		if _, err := f.AddSlot(Peer{Name: strings.Repeat("x", i)}, false); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := f.AddSlot(Peer{Name: "one more"}, false); !errors.Is(err, ErrSlots) {
		t.Errorf("a seventeenth peer: %v", err)
	}
	if err := f.SetNumber(5, Number{3, 2}); err != nil {
		t.Fatal(err)
	}
	for _, n := range []Number{{2, 2}, {3, 1}, {4, 5}} {
		if err := f.SetNumber(5, n); err == nil {
			t.Errorf("the clearing number went back to %v", n)
		}
	}
	g := open(t, d.Clone(memdev.CrashOptions{}))
	if g.Slots() != f.Slots() {
		t.Errorf("after a restart: %v, want %v", g.Slots(), f.Slots())
	}
	if !slices.Equal(ranges(g, 2), []blockdev.Range{{Len: testVolume}}) {
		t.Errorf("everything may differ from delta: %v", ranges(g, 2))
	}
	if err := f.SetNumber(0, Number{}); err != nil {
		t.Error(err)
	}
	if err := f.RemoveSlot(15); err != nil {
		t.Fatal(err)
	}
	if err := f.SetEverything(15, true); !errors.Is(err, ErrSlots) {
		t.Errorf("a free slot was changed: %v", err)
	}
}

func ranges(f *File, slot int) (out []blockdev.Range) {
	f.Each(slot, func(r blockdev.Range) bool { out = append(out, r); return true })
	return out
}

func TestEachTellsRunsUpToTheEnd(t *testing.T) {
	f, _, _ := opened(t)
	marked(t, f, blockdev.Range{Off: 3 * minRegion, Len: 2 * minRegion}, 1)
	marked(t, f, blockdev.Range{Off: testVolume - 1, Len: 1}, 1)
	want := []blockdev.Range{{Off: 3 * minRegion, Len: 2 * minRegion}, {Off: 4000 * minRegion, Len: 5000}}
	if got := ranges(f, 0); !slices.Equal(got, want) {
		t.Errorf("marked: %v, want %v", got, want)
	}
	if got := ranges(f, 1); got != nil {
		t.Errorf("marked for the other: %v", got)
	}
}

// faults.md M60, M66: a file of something else is refused with the field, and not written to.
func TestM60FileOfSomethingElseIsRefusedUntouched(t *testing.T) {
	for field, change := range map[string]func(*Binding){
		"cluster id": func(b *Binding) { b.Cluster[3]++ },
		"volume id":  func(b *Binding) { b.Volume[3]++ },
		"node":       func(b *Binding) { b.Node = "beta" },
		"size":       func(b *Binding) { b.Size++ },
		"attachment": func(b *Binding) { b.Incarnation.Attachment = "file:17:4712.99:5" },
	} {
		d := created(t)
		before := content(t, d)
		b := testBinding()
		change(&b)
		_, err := Open(d, b)
		if !errors.Is(err, meta.ErrMismatch) || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: %v", field, err)
		}
		if !bytes.Equal(before, content(t, d)) {
			t.Errorf("%s: it was written to", field)
		}
	}
	b := testBinding()
	b.Incarnation = Incarnation{Boot: meta.ID{9}, Attachment: "file:18:4711.99:6", Start: 8}
	f, err := Open(created(t), b)
	if err != nil {
		t.Fatalf("after a restart of the machine: %v", err)
	}
	f.Close()
}

func TestRegionGrowsWithTheVolume(t *testing.T) {
	const gib, tib = 1 << 30, 1 << 40
	for _, c := range []struct{ volume, region, file int64 }{
		{1, 4 << 20, 12 << 10},
		{64 * gib, 4 << 20, tableAt + 9*pageSize},
		{tib, 4 << 20, tableAt + 133*pageSize},
		{tib + 1, 8 << 20, tableAt + 67*pageSize},
		{16 * tib, 64 << 20, tableAt + 133*pageSize},
		{100 * tib, 64 << 20, tableAt + 826*pageSize}, // 3.4 MB
	} {
		if regionSize(c.volume) != c.region || fileSize(c.volume) != c.file {
			t.Errorf("%d: regions of %d, a file of %d; want %d and %d", c.volume, regionSize(c.volume), fileSize(c.volume), c.region, c.file)
		}
	}
	c := testNew()
	c.Size, c.Peers = MaxVolume+1, []Peer{{Name: "beta"}, {Name: "beta"}, {}}
	for _, want := range []string{"1125899906842625", "twice", `""`} {
		if err := c.validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
}

func TestFileOnDisk(t *testing.T) {
	path := filepath.Join(t.TempDir(), "marks")
	if _, err := OpenPath(path); !errors.Is(err, ErrNone) {
		t.Fatalf("no file: %v", err)
	}
	c := testNew()
	c.Everything = true
	if err := CreatePath(path, c); err != nil {
		t.Fatal(err)
	}
	s, err := OpenPath(path)
	if err != nil {
		t.Fatal(err)
	}
	f := open(t, s)
	if f.Empty() || !f.Slots()[1].Everything {
		t.Error("a map of a volume with content is not everything")
	}
	marked(t, f, region(3), 3)
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); !errors.Is(err, ErrClosed) {
		t.Errorf("closed twice: %v", err)
	}
	if _, err := f.Mark(region(4), 1, nil); !errors.Is(err, ErrClosed) {
		t.Errorf("marked when closed: %v", err)
	}
	if s, err = OpenPath(path); err != nil {
		t.Fatal(err)
	}
	f = open(t, s)
	if f.Marked(3) != 3 {
		t.Error("the mark is gone")
	}
	f.Close()
}

// Many goroutines mark and clear regions of their own; whoever was told "durable" finds it in a crash at that moment.
func TestConcurrentMarksAndClears(t *testing.T) {
	f, _, d := opened(t)
	var goes sync.WaitGroup
	for g := range int64(8) {
		goes.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(g), 5))
			c := make(told, 1)
			for range 200 {
				r := g + 8*rng.Int64N(40)
				if rng.IntN(3) == 0 {
					f.Clear(r, 1)
					continue
				}
				ready, err := f.Mark(region(r), 1, c)
				if err == nil && !ready {
					err = <-c
				}
				if err != nil {
					t.Error(err)
				}
				if p := make([]byte, cellSize); rng.IntN(20) == 0 {
					clone := d.Clone(memdev.CrashOptions{})
					if _, err := clone.ReadAt(p, tableAt+r/cellRegions*cellSize); err != nil || mask(p, int(r%cellRegions)) != 1 {
						t.Errorf("region %d is ready and not on stable storage (%v)", r, err)
					}
				}
			}
		})
	}
	goes.Wait()
}

var update = flag.Bool("update", false, "write the golden files anew")

func TestGoldenFilePinsTheFormat(t *testing.T) {
	d := created(t)
	f := open(t, d)
	marked(t, f, region(1), 2)
	marked(t, f, blockdev.Range{Off: 247 * minRegion, Len: 2 * minRegion}, 1)
	if err := f.SetNumber(1, Number{Promised: 0x0102030405060708, Settled: 3}); err != nil {
		t.Fatal(err)
	}
	if err := f.SetEverything(0, true); err != nil {
		t.Fatal(err)
	}
	f.mu.Lock()
	f.head.tag = 0x1122334455667788
	f.mu.Unlock()
	if err := f.SetNumber(0, Number{Promised: 77}); err != nil {
		t.Fatal(err)
	}
	f.Clear(1, 2)
	f.Close()
	got := content(t, d.Reopen())[:tableAt+2*cellSize]
	path := filepath.Join("testdata", "v1.golden")
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("the format changed: byte %d", firstDifference(got, want))
	}
}

// The header that pins version 2: what an older program reads is written as it did, and only what it would misread is not.
func TestHeaderWithANumberIsOfVersion2(t *testing.T) {
	h := header{tag: 0x1122334455667788, generation: 9, size: testVolume, region: minRegion, node: "alpha"}
	h.slots[0] = Slot{Peer: "beta", Number: Number{4, 3}}
	if v := h.encode()[offVersion]; v != 1 {
		t.Errorf("without a number it has version %d, want 1", v)
	}
	h.slots[1] = Slot{Peer: "gamma", Replica: 0x01020304, Everything: true}
	got, path := h.encode(), filepath.Join("testdata", "v2-header.golden")
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("the format changed: byte %d", firstDifference(got, want))
	}
	if back, err := decodeHeader(want); err != nil || back.slots != h.slots {
		t.Errorf("reads as %v, %v", back, err)
	}
	got[offVersion] = 1
	resum(got)
	if _, err := decodeHeader(got); err == nil || !strings.Contains(err.Error(), "version 2, it has 1") {
		t.Errorf("a number in version 1: %v", err)
	}
}

// A node that left and was added again is another replica: what was marked for the first says nothing of it (R16).
func TestSlotOfAnotherReplicaOfTheNodeIsAnother(t *testing.T) {
	f, _, d := opened(t)
	marked(t, f, region(1), 3)
	if err := f.SetNumber(1, Number{7, 7}); err != nil {
		t.Fatal(err)
	}
	peers := []Peer{{Name: "beta"}, {Name: "gamma", Replica: 4}}
	if _, ok := f.Lookup(peers[1]); ok {
		t.Error("the slot of an earlier gamma was found for the later one")
	}
	if err := f.Fit(peers); err != nil {
		t.Fatal(err)
	}
	g := open(t, d.Clone(memdev.CrashOptions{}))
	for name, f := range map[string]*File{"now": f, "after a crash": g} {
		i, ok := f.Lookup(peers[1])
		if want := (Slot{Peer: "gamma", Replica: 4, Everything: true}); !ok || f.Slots()[i] != want {
			t.Errorf("%s: gamma has slot %d, %t: %+v, want %+v", name, i, ok, f.Slots()[i], want)
		}
		if i, ok := f.Lookup(peers[0]); i != 0 || !ok || f.Marked(1)&Of(0) == 0 || f.Slots()[0].Everything {
			t.Errorf("%s: beta lost what was marked for it: %b, %+v", name, f.Marked(1), f.Slots()[i])
		}
		if _, ok := f.Lookup(Peer{Name: "gamma"}); ok {
			t.Errorf("%s: the earlier gamma has a slot still", name)
		}
	}
	if err := f.Fit(peers[:1]); err != nil || f.Slots()[1].Peer != "" || f.Marked(1) != Of(0) {
		t.Errorf("gamma left: %v, slots %v, region 1 is marked for %b", err, f.Slots(), f.Marked(1))
	}
}

func firstDifference(a, b []byte) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}

func FuzzDecodeHeader(f *testing.F) {
	h := header{tag: 3, size: testVolume, region: minRegion, node: "alpha"}
	h.slots[2] = Slot{Peer: "beta", Number: Number{4, 3}}
	f.Add(h.encode())
	h.slots[2].Replica = 5
	f.Add(h.encode())
	f.Fuzz(func(t *testing.T, p []byte) {
		p = append(p, make([]byte, headerSize)...)[:headerSize]
		copy(p, magic[:])
		if v := binary.LittleEndian.Uint32(p[offVersion:]); v < 1 || v > Version {
			binary.LittleEndian.PutUint32(p[offVersion:], Version)
		}
		resum(p)
		h, err := decodeHeader(p)
		if err == nil && !bytes.Equal(h.encode(), p) {
			t.Fatal("what was decoded does not encode to itself")
		}
	})
}

// R16: a map is believed of a backing that is surely the one it was kept for: another disk under the same path shows
// nothing of itself. What is doubted stays so, whatever the next opening is.
func TestMapOfABackingThatMayBeAnotherMeansEverything(t *testing.T) {
	for name, c := range map[string]struct {
		then, now string
		boot      byte
		doubt     string
		want      bool
	}{
		"file, another boot":                 {"file:17:4711.99:5", "file:18:4711.99:6", 9, "", false},
		"file, same boot":                    {"file:17:4711:5", "file:17:4711:5", 3, "", false},
		"file of unknown birth":              {"file:17:4711:5", "file:17:4711:5", 9, "", true},
		"file whose birth was unknown":       {"file:17:4711:5", "file:17:4711.99:5", 9, "", true},
		"block device, same boot":            {"blk:8:16:5", "blk:8:16:5", 3, "", false},
		"block device, attached anew":        {"blk:8:16:5", "blk:8:16:6", 3, "", true},
		"block device, another boot":         {"blk:8:16:5", "blk:8:16:5", 9, "", true},
		"same boot, but the caller knows":    {"file:17:4711.99:5", "file:17:4711.99:5", 3, "it was restored", true},
		"nothing was known of the backing":   {"", "blk:8:16:5", 9, "", true},
		"nothing is, and it has not moved":   {"", "", 3, "", false},
		"file, and the filesystem was moved": {"file:17:4711.99:5", "file:99:4711.99", 9, "", false},
	} {
		d := memdev.New(memdev.Config{Size: Size(testVolume)})
		b := testBinding()
		b.Incarnation.Attachment = c.then
		if err := Create(d, New{Binding: b, Peers: []Peer{{Name: "beta"}, {Name: "gamma"}}}); err != nil {
			t.Fatal(err)
		}
		b.Incarnation.Attachment, b.Incarnation.Boot, b.Doubt = c.now, meta.ID{c.boot}, c.doubt
		for _, opening := range []string{"first", "next"} {
			f, err := Open(d.Reopen(), b)
			if err != nil {
				t.Fatal(err)
			}
			for i, s := range f.Slots() {
				if s.Everything != (c.want && s.Peer != "") {
					t.Errorf("%s: %s opening: slot %d: %+v", name, opening, i, s)
				}
			}
			if opening == "first" && c.want != (len(f.Damage()) > 0) {
				t.Errorf("%s: told: %q", name, f.Damage())
			}
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
			b.Doubt = ""
		}
	}
}

// What is marked ahead is durable with the group of what asked for it, and nobody is told of it.
func TestMarkAheadGoesWithTheSameGroup(t *testing.T) {
	f, _, _ := opened(t)
	c := make(told, 8)
	width := func(int64) int64 { return 8 }
	if ready, err := f.MarkAhead(region(13), width, 1, c); ready || err != nil {
		t.Fatal(ready, err)
	}
	if err := <-c; err != nil {
		t.Fatal(err)
	}
	for i := range f.Regions() {
		if got, want := f.Durable(i) == 1, i >= 8 && i < 16; got != want {
			t.Errorf("region %d is durable: %t, want %t", i, got, want)
		}
	}
	if ready, err := f.MarkAhead(region(8), func(int64) int64 { t.Error("asked although it is marked"); return 1 }, 1, c); !ready || err != nil {
		t.Error(ready, err)
	}
	if f.Hot() != 8 {
		t.Errorf("%d regions are hot", f.Hot())
	}
}
