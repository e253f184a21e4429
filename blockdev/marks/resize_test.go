package marks

import (
	"errors"
	"path/filepath"
	"testing"

	"hacluster/blockdev"
)

func grownBinding(size int64) Binding {
	b := testBinding()
	b.Size = size
	return b
}

// openAt opens the map of a volume of the given size.
func openAt(t *testing.T, path string, size int64) *File {
	t.Helper()
	s, err := OpenPath(path)
	if err != nil {
		t.Fatal(err)
	}
	f, err := Open(s, grownBinding(size))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func TestMarksNumbersAndIncarnationSurviveAnotherSize(t *testing.T) { // R14, R16
	for name, c := range map[string]struct {
		size   int64
		beyond bool
	}{
		"a little":                    {testVolume + minRegion, false},
		"within the last region":      {testVolume + 4096, true},
		"with content behind the end": {testVolume + 9*minRegion, true},
		"to larger regions":           {3 << 40, false}, // 16 MiB
		"to larger regions, content":  {3 << 40, true},
		"a little less":               {testVolume - minRegion, false},
		"less within the last region": {testVolume - 4096, false},
		"a mark behind the new end":   {500 * minRegion, false},
		"within a marked region":      {1000*minRegion + 4096, false},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "marks")
			if err := CreatePath(path, testNew()); err != nil {
				t.Fatal(err)
			}
			f := openAt(t, path, testVolume)
			marked(t, f, region(3), 1)
			marked(t, f, region(1000), 2)
			if err := f.SetNumber(1, Number{Promised: 9, Settled: 8}); err != nil {
				t.Fatal(err)
			}
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
			for range 2 { // a crash before the superblock follows has it done again
				if err := ResizePath(path, testBinding(), c.size, c.beyond); err != nil {
					t.Fatal(err)
				}
			}
			f = openAt(t, path, c.size)
			if len(f.Damage()) > 0 || f.RegionSize() != regionSize(c.size) || f.Slots()[1].Number != (Number{9, 8}) || f.Before() != testBinding().Incarnation {
				t.Errorf("damage %v, regions of %d, slots %v, before %v", f.Damage(), f.RegionSize(), f.Slots()[1], f.Before())
			}
			for r := range f.Regions() {
				off, want := r*f.RegionSize(), Slots(0)
				covers := func(at int64) bool { return at >= off && at < off+f.RegionSize() }
				if covers(3 * minRegion) {
					want |= 1
				}
				if covers(1000 * minRegion) {
					want |= 2
				}
				if c.beyond && off+f.RegionSize() > testVolume {
					want |= 3
				}
				if f.Marked(r) != want || f.Durable(r) != want {
					t.Fatalf("region %d is marked for %b, durably %b, want %b", r, f.Marked(r), f.Durable(r), want)
				}
			}
			marked(t, f, blockdev.Range{Off: c.size - 4096, Len: 4096}, 3)
		})
	}
}

func TestMapThatIsNotOfTheVolumeIsNotResized(t *testing.T) {
	path := filepath.Join(t.TempDir(), "marks")
	if err := ResizePath(path, testBinding(), 2*testVolume, false); !errors.Is(err, ErrNone) {
		t.Errorf("none: %v", err)
	}
	if err := CreatePath(path, testNew()); err != nil {
		t.Fatal(err)
	}
	other := testBinding()
	other.Node = "beta"
	if err := ResizePath(path, other, 2*testVolume, false); err == nil {
		t.Error("another node's map grew")
	}
	f := openAt(t, path, testVolume)
	if !f.Empty() {
		t.Error("a refused growth changed it")
	}
}

// What a large region was marked for, each of the small ones in it is; the last one is cut at the new end.
func TestSmallerVolumeHasItsLargeRegionsMarkedInSmallOnes(t *testing.T) { // R14
	const was = 3 << 40 // regions of 16 MiB
	path := filepath.Join(t.TempDir(), "marks")
	if err := CreatePath(path, New{Binding: grownBinding(was), Peers: []Peer{{Name: "beta"}, {Name: "gamma"}}}); err != nil {
		t.Fatal(err)
	}
	f := openAt(t, path, was)
	large := f.RegionSize()
	marked(t, f, blockdev.Range{Off: 2*large + 4096, Len: 4096}, 1)
	marked(t, f, blockdev.Range{Off: testVolume, Len: 4096}, 2)
	marked(t, f, blockdev.Range{Off: 1 << 40, Len: 4096}, 3)
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := ResizePath(path, grownBinding(was), testVolume, false); err != nil {
			t.Fatal(err)
		}
	}
	f = openAt(t, path, testVolume)
	if large != 4*minRegion || f.RegionSize() != minRegion {
		t.Fatalf("regions of %d, then of %d: this tests nothing", large, f.RegionSize())
	}
	for r := range f.Regions() {
		want := Slots(0)
		if r/4 == 2 {
			want |= 1
		}
		if r/4 == testVolume/large {
			want |= 2
		}
		if f.Marked(r) != want {
			t.Errorf("region %d is marked for %b, want %b", r, f.Marked(r), want)
		}
	}
}
