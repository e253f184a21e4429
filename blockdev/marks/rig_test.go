package marks

import (
	"math/rand/v2"
	"sync"
	"testing"

	"hacluster/blockdev"
	"hacluster/blockdev/backend/faultdev"
	"hacluster/blockdev/backend/memdev"
	"hacluster/blockdev/meta"
)

const testVolume = 4000*minRegion + 5000 // three pages of cells, the last region is short

func testBinding() Binding {
	return Binding{Cluster: meta.ID{1}, Volume: meta.ID{2}, Node: "alpha", Size: testVolume,
		Incarnation: Incarnation{Boot: meta.ID{3}, Attachment: "file:17:4711.99:5", Start: 7}}
}

func testNew() New {
	return New{Binding: testBinding(), Peers: []Peer{{Name: "beta"}, {Name: "gamma"}}}
}

// created is a store with an empty map for beta (slot 0) and gamma (slot 1).
func created(t testing.TB) *memdev.Dev {
	t.Helper()
	d := memdev.New(memdev.Config{Size: Size(testVolume), Intermediate: 2})
	if err := Create(d, testNew()); err != nil {
		t.Fatal(err)
	}
	return d
}

func open(t testing.TB, s Store) *File {
	t.Helper()
	f, err := Open(s, testBinding())
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func opened(t testing.TB) (*File, *faultdev.Dev, *memdev.Dev) {
	t.Helper()
	d := created(t)
	fd := faultdev.New(d)
	f := open(t, fd)
	t.Cleanup(func() { fd.Clear(); f.Close() })
	return f, fd, d
}

// told waits for one Marked.
type told chan error

func (c told) Marked(err error) { c <- err }

// region is a block within a region; the last one has no room for more.
func region(i int64) blockdev.Range { return blockdev.Range{Off: i * minRegion, Len: 4096} }

// marked waits until it is durable.
func marked(t testing.TB, f *File, r blockdev.Range, s Slots) {
	t.Helper()
	c := make(told, 1)
	ready, err := f.Mark(r, s, c)
	if err == nil && !ready {
		err = <-c
	}
	if err != nil {
		t.Fatalf("mark %v: %v", r, err)
	}
}

// taped is a store that is looked at before and after each of its operations.
type taped struct {
	*memdev.Dev
	look func()
}

func (s *taped) WriteAt(p []byte, off int64) (int, error) {
	s.look()
	n, err := s.Dev.WriteAt(p, off)
	s.look()
	return n, err
}

func (s *taped) Flush() error {
	s.look()
	err := s.Dev.Flush()
	s.look()
	return err
}

// oracle is what must be on stable storage whenever the power goes.
type oracle struct {
	mu     sync.Mutex
	marks  map[int64]Slots
	number [MaxSlots]Number
	peers  [MaxSlots]string
}

func newOracle() *oracle {
	return &oracle{marks: map[int64]Slots{}, peers: [MaxSlots]string{"beta", "gamma"}}
}

func (o *oracle) set(change func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	change()
}

// check opens what a power cut leaves and looks for all of it.
func (o *oracle) check(t *testing.T, d *memdev.Dev, rng *rand.Rand) {
	o.mu.Lock()
	defer o.mu.Unlock()
	mode := memdev.Mode(rng.IntN(3))
	f, err := Open(d.Clone(memdev.CrashOptions{Rand: rng, Mode: mode}), testBinding())
	if err != nil {
		t.Errorf("after a power cut of mode %d: %v", mode, err)
		return
	}
	defer f.Close()
	for r, s := range o.marks {
		if got := f.Marked(r); got&s != s {
			t.Errorf("after a power cut of mode %d region %d is marked for %b, want %b", mode, r, got, s)
		}
	}
	for i, s := range f.Slots() {
		if s.Number.Promised < o.number[i].Promised || s.Number.Settled < o.number[i].Settled {
			t.Errorf("after a power cut of mode %d slot %d has clearing %v, want %v", mode, i, s.Number, o.number[i])
		}
		if o.peers[i] != "" && s.Peer != o.peers[i] {
			t.Errorf("after a power cut of mode %d slot %d is %q's, want %q", mode, i, s.Peer, o.peers[i])
		}
	}
}
