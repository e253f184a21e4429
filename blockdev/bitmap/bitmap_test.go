package bitmap

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// lengths cross every boundary: none, within a word, a word, within a leaf, a leaf, several, a short last one.
var lengths = []int64{0, 1, 63, 64, 65, 1000, leafBits - 1, leafBits, leafBits + 1, 3*leafBits + 17}

func TestRandomOperationsAgreeWithAMap(t *testing.T) {
	for _, n := range lengths {
		for seed := range uint64(3) {
			t.Run(fmt.Sprintf("n=%d/seed=%d", n, seed), func(t *testing.T) { against(t, n, seed) })
		}
	}
}

func against(t *testing.T, n int64, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, uint64(n)))
	b, oracle := New(n), map[int64]bool{}
	for step := range 60 {
		from, to := someRange(rng, n)
		set := rng.IntN(2) == 0
		if set {
			b.Set(from, to)
		} else {
			b.Clear(from, to)
		}
		for i := from; i < to; i++ {
			if set {
				oracle[i] = true
			} else {
				delete(oracle, i)
			}
		}
		if int64(len(oracle)) != b.Count() {
			t.Fatalf("step %d: Count() = %d, want %d", step, b.Count(), len(oracle))
		}
	}
	compare(t, b, oracle)
	sound(t, b)
}

// sound: no line that is said to be empty holds a bit, and what is kept for the next use is all zeroes.
func sound(t *testing.T, b *Bitmap) {
	t.Helper()
	for i, d := range b.dirs {
		for j := 0; d != nil && j < dirLeaves; j++ {
			for k := 0; d.leaves[j] != nil && k < 64; k++ {
				if d.lines[j]&(1<<k) == 0 && slices.Max(d.leaves[j].line(k)) != 0 {
					t.Fatalf("dir %d, leaf %d: line %d has bits and is said to be empty", i, j, k)
				}
			}
		}
	}
	for _, l := range b.spare {
		if *l != (leaf{}) {
			t.Fatal("a spare leaf has bits")
		}
	}
	for _, d := range b.spareDirs {
		if *d != (dir{}) {
			t.Fatal("a spare dir is not empty")
		}
	}
}

func someRange(rng *rand.Rand, n int64) (from, to int64) {
	from = rng.Int64N(n + 1)
	switch rng.IntN(4) {
	case 0: // whole leaves
		from = from / leafBits * leafBits
		return from, min(n, from+leafBits*(1+rng.Int64N(2)))
	case 1:
		return from, min(n, from+rng.Int64N(5))
	}
	return from, from + rng.Int64N(n-from+1)
}

func compare(t *testing.T, b *Bitmap, oracle map[int64]bool) {
	t.Helper()
	for i := range b.Len() {
		if b.Test(i) != oracle[i] {
			t.Fatalf("Test(%d) = %v, want %v", i, b.Test(i), oracle[i])
		}
	}
	seen := int64(0)
	for i, ok := b.Next(0); ok; i, ok = b.Next(i + 1) {
		if !oracle[i] {
			t.Fatalf("Next found %d, which is clear", i)
		}
		seen++
	}
	if seen != int64(len(oracle)) {
		t.Fatalf("Next visited %d bits, want %d", seen, len(oracle))
	}
	for _, limit := range []int64{1, 7, 100000, b.Len() + 1} {
		compareRanges(t, b, oracle, limit)
	}
}

func compareRanges(t *testing.T, b *Bitmap, oracle map[int64]bool, limit int64) {
	t.Helper()
	covered, at := int64(0), int64(0)
	for {
		start, end, ok := b.NextRange(at, limit)
		if !ok {
			break
		}
		if start < at || end <= start || end-start > limit {
			t.Fatalf("NextRange(%d, %d) = [%d, %d)", at, limit, start, end)
		}
		for i := start; i < end; i++ {
			if !oracle[i] {
				t.Fatalf("NextRange(%d, %d) = [%d, %d) holds clear bit %d", at, limit, start, end, i)
			}
		}
		if end-start < limit && end < b.Len() && oracle[end] {
			t.Fatalf("NextRange(%d, %d) = [%d, %d) stops before set bit %d", at, limit, start, end, end)
		}
		covered, at = covered+end-start, end
	}
	if covered != int64(len(oracle)) {
		t.Fatalf("NextRange of limit %d covered %d bits, want %d", limit, covered, len(oracle))
	}
}

func TestOrIsUnion(t *testing.T) {
	const n = 4*leafBits + 5
	for seed := range uint64(8) {
		rng := rand.New(rand.NewPCG(seed, 1))
		a, b, oracle := New(n), New(n), map[int64]bool{}
		for range 10 {
			for _, m := range []*Bitmap{a, b} {
				from, to := someRange(rng, n)
				if rng.IntN(3) > 0 {
					m.Set(from, to)
				} else {
					m.Clear(from, to)
				}
			}
		}
		for i := range int64(n) {
			if a.Test(i) || b.Test(i) {
				oracle[i] = true
			}
		}
		countB := b.Count()
		a.Or(b)
		if a.Count() != int64(len(oracle)) || b.Count() != countB {
			t.Fatalf("seed %d: counts %d and %d, want %d and %d", seed, a.Count(), b.Count(), len(oracle), countB)
		}
		compare(t, a, oracle)
		a.Clear(0, n) // must not reach b through a shared leaf
		if b.Count() != countB {
			t.Fatalf("seed %d: clearing the union changed its source", seed)
		}
	}
}

func TestAllSetOfAHugeVolumeAllocatesNoLeaf(t *testing.T) {
	b := New(1 << 32) // 16 TiB in blocks of 4 KiB
	allocs := testing.AllocsPerRun(10, func() {
		b.Set(0, b.Len())
		b.Clear(0, b.Len())
	})
	if allocs != 0 {
		t.Errorf("setting and clearing everything allocated %v times, want 0", allocs)
	}
	b.Set(0, b.Len())
	b.Clear(5, 6)
	if b.Count() != 1<<32-1 || b.Test(5) || !b.Test(4) || !b.Test(6) {
		t.Errorf("one bit cleared from all: count %d", b.Count())
	}
}

func TestOneBitSetAndClearedInTurnAllocatesNothing(t *testing.T) {
	b := New(1 << 20)
	allocs := testing.AllocsPerRun(100, func() {
		b.Set(77, 78)
		b.Clear(77, 78)
	})
	if allocs != 0 {
		t.Errorf("%v allocations for each mark, want 0", allocs)
	}
}

func TestBitsOutsidePanic(t *testing.T) {
	b := New(100)
	for name, fn := range map[string]func(){
		"set past the end": func() { b.Set(99, 101) },
		"negative":         func() { b.Clear(-1, 1) },
		"backwards":        func() { b.Set(2, 1) },
		"test at the end":  func() { b.Test(100) },
		"union of lengths": func() { b.Or(New(101)) },
		"negative length":  func() { New(-1) },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			fn()
		})
	}
}

// Marking one block of a leaf that holds others costs a division and a word: a few nanoseconds, no allocation.
func BenchmarkSetClearOneBit(b *testing.B) {
	m := New(1 << 28)
	m.Set(0, 1)
	b.ReportAllocs()
	for i := int64(0); b.Loop(); i++ {
		at := 1 + i*7919%(leafBits-1)
		m.Set(at, at+1)
		m.Clear(at, at+1)
	}
}

// Walking a sparse map visits words, not bits: about 512 words and one hit for each leaf.
func BenchmarkNextSparse(b *testing.B) {
	m := New(1 << 28)
	for i := int64(0); i < m.Len(); i += leafBits {
		m.Set(i, i+1)
	}
	b.ReportAllocs()
	at := int64(0)
	for b.Loop() {
		bit, ok := m.Next(at)
		if at = bit + 1; !ok {
			at = 0
		}
	}
}

// Bits that are set and cleared all over a sparse map allocate nothing once leaves for them have been in use.
func TestScatteredBitsAllocateNothing(t *testing.T) {
	b := New(3 * dirBits)
	n := testing.AllocsPerRun(20, func() {
		for i := range int64(200) {
			b.Set(i*7*leafBits, i*7*leafBits+1)
		}
		for i := range int64(100) {
			b.Clear(i*7*leafBits, i*7*leafBits+1)
		}
		b.Empty()
	})
	if n != 0 || b.Count() != 0 {
		t.Errorf("%v allocations, %d bits are left; want none", n, b.Count())
	}
	sound(t, b)
}
