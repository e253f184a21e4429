package marks

import (
	"math/rand/v2"
	"sync"
	"testing"

	"hacluster/blockdev"
	"hacluster/blockdev/backend/memdev"
)

const benchVolume = 64 << 30

func benchFile(b *testing.B, s Store) *File {
	c := testNew()
	c.Size = benchVolume
	if s == nil {
		s = memdev.New(memdev.Config{Size: Size(benchVolume)})
	}
	if err := Create(s, c); err != nil {
		b.Fatal(err)
	}
	f, err := Open(s, c.Binding)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { f.Close() })
	return f
}

func randomBlock(rng *rand.Rand) blockdev.Range {
	return blockdev.Range{Off: rng.Int64N(benchVolume/4096) * 4096, Len: 4096}
}

func TestMarkOfAHotRegionAllocatesNothing(t *testing.T) {
	f, _, _ := opened(t)
	marked(t, f, region(3), 3)
	c := make(told, 1)
	if n := testing.AllocsPerRun(100, func() {
		if ready, err := f.Mark(region(3), 3, c); !ready || err != nil {
			t.Fatal(ready, err)
		}
	}); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}

// A hot region costs one atomic load and a division: a few nanoseconds.
func BenchmarkMarkHot(b *testing.B) {
	f := benchFile(b, nil)
	marked(b, f, blockdev.Range{Len: benchVolume}, 3)
	rng := rand.New(rand.NewPCG(1, 1))
	var rs [1024]blockdev.Range
	for i := range rs {
		rs[i] = randomBlock(rng)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if ready, err := f.Mark(rs[i%len(rs)], 3, nil); !ready || err != nil {
			b.Fatal(ready, err)
		}
	}
}

// counted counts what reaches the disk.
type counted struct {
	Store
	mu              sync.Mutex
	writes, flushes int
}

func (s *counted) WriteAt(p []byte, off int64) (int, error) {
	s.mu.Lock()
	s.writes++
	s.mu.Unlock()
	return s.Store.WriteAt(p, off)
}

func (s *counted) Flush() error {
	s.mu.Lock()
	s.flushes++
	s.mu.Unlock()
	return s.Store.Flush()
}

// Random writes of 4 KiB over a sparse 64 GiB with 32 in flight, on a file: at first each finds a clean region and shares
// a flush with those that wait too; after 16384 regions nothing touches the disk any more. flushes/op is the average over
// the benchmark's writes, cold ones and hot ones.
func BenchmarkRandomWritesGroup(b *testing.B) {
	path := b.TempDir() + "/marks"
	c := testNew()
	c.Size = benchVolume
	if err := CreatePath(path, c); err != nil {
		b.Fatal(err)
	}
	file, err := OpenPath(path)
	if err != nil {
		b.Fatal(err)
	}
	s := &counted{Store: file}
	f, err := Open(s, c.Binding)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { f.Close() })
	const depth = 32
	done := make(told, depth)
	rng := rand.New(rand.NewPCG(1, 1))
	s.writes, s.flushes = 0, 0
	waits := 0
	b.ReportAllocs()
	b.ResetTimer()
	for i, flight := 0, 0; i < b.N; i++ {
		if ready, err := f.Mark(randomBlock(rng), 3, done); err != nil {
			b.Fatal(err)
		} else if !ready {
			flight++
			waits++
		}
		if flight == depth || i == b.N-1 {
			for ; flight > 0; flight-- {
				if err := <-done; err != nil {
					b.Fatal(err)
				}
			}
		}
	}
	b.ReportMetric(float64(s.flushes)/float64(b.N), "flushes/op")
	b.ReportMetric(float64(waits)/float64(max(s.flushes, 1)), "marks/flush")
	b.ReportMetric(float64(s.writes)/float64(max(s.flushes, 1)), "writes/flush")
}
