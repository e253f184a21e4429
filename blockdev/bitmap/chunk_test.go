package bitmap

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"testing"
)

// chunks encodes all of b, each chunk within limit.
func chunks(t testing.TB, b *Bitmap, limit int) (all [][]byte) {
	t.Helper()
	for at := int64(0); ; {
		p, next := b.AppendChunk(nil, at, limit)
		if len(p) > limit {
			t.Fatalf("a chunk of %d bytes, the limit is %d", len(p), limit)
		}
		all = append(all, p)
		if at = next; at == b.Len() {
			return all
		}
	}
}

func same(a, b *Bitmap) bool {
	if a.Len() != b.Len() || a.Count() != b.Count() {
		return false
	}
	c := New(a.Len())
	c.Or(a)
	c.AndNot(b)
	return c.Count() == 0
}

func random(rng *rand.Rand, n int64) *Bitmap {
	b := New(n)
	for range rng.IntN(40) {
		from, to := someRange(rng, n)
		if rng.IntN(3) > 0 {
			to = min(to, from+200)
		}
		if rng.IntN(3) > 0 {
			b.Set(from, to)
		} else {
			b.Clear(from, to)
		}
	}
	if rng.IntN(2) == 0 && n > leafBits { // a leaf that runs describe badly
		for i := rng.Int64N(2); i < leafBits; i += 2 {
			b.Set(i, i+1)
		}
	}
	return b
}

func TestChunksCarryAMapAndUniteIt(t *testing.T) {
	for _, n := range append(lengths, dirBits+3*leafBits+9) {
		for seed := range uint64(20) {
			rng := rand.New(rand.NewPCG(seed, uint64(n)))
			src, dst, want := random(rng, n), random(rng, n), New(n)
			want.Or(src)
			want.Or(dst)
			covered := int64(0)
			for _, p := range chunks(t, src, MinChunk+rng.IntN(10000)) {
				from, to, err := dst.Merge(p)
				if err != nil || from != covered {
					t.Fatalf("n %d, seed %d: chunk of [%d, %d) after %d: %v", n, seed, from, to, covered, err)
				}
				covered = to
			}
			if covered != n || !same(dst, want) {
				t.Fatalf("n %d, seed %d: covered %d, %d bits set, want %d", n, seed, covered, dst.Count(), want.Count())
			}
		}
	}
}

func TestNothingAndEverythingOfAHugeVolumeAreAFewBytes(t *testing.T) {
	b := New(100 << 28) // 100 TiB in blocks of 4 KiB
	for _, set := range []bool{false, true} {
		if set {
			b.Set(0, b.Len())
		}
		p, next := b.AppendChunk(nil, 0, MinChunk)
		if next != b.Len() || len(p) > 64 {
			t.Errorf("all set %t: %d bytes up to bit %d", set, len(p), next)
		}
		c := New(b.Len())
		if _, _, err := c.Merge(p); err != nil || c.Count() != b.Count() {
			t.Errorf("all set %t: %d bits came over: %v", set, c.Count(), err)
		}
	}
}

// Each byte of a chunk is changed, also with a checksum that is made to fit: it is refused and changes nothing, or it
// says something else that is well formed.
func TestDamagedChunkIsRefusedAndChangesNothing(t *testing.T) {
	b := New(3*leafBits + 100)
	b.Set(5, 77)
	b.Set(leafBits, 2*leafBits)
	b.Set(3*leafBits+3, 3*leafBits+100)
	p, _ := b.AppendChunk(nil, 0, MinChunk)
	for i := range p {
		for bit := range 8 {
			bad := bytes.Clone(p)
			bad[i] ^= 1 << bit
			into := New(b.Len())
			if _, _, err := into.Merge(bad); !errors.Is(err, ErrChunk) || into.Count() != 0 {
				t.Fatalf("byte %d, bit %d: %d bits set, %v", i, bit, into.Count(), err)
			}
			resum(bad)
			if _, _, err := into.Merge(bad); err != nil && into.Count() != 0 {
				t.Fatalf("byte %d, bit %d: refused (%v) with %d bits set", i, bit, err, into.Count())
			}
		}
	}
	for cut := range p {
		into := New(b.Len())
		if _, _, err := into.Merge(p[:cut]); err == nil {
			t.Fatalf("cut at %d: taken", cut)
		}
	}
}

func resum(p []byte) {
	if len(p) >= chunkTail {
		binary.LittleEndian.PutUint32(p[len(p)-4:], crc32.Checksum(p[:len(p)-4], castagnoli))
	}
}

func TestChunkThatLiesIsRefused(t *testing.T) {
	head := func(n, from, to int64, rest ...byte) []byte {
		p := []byte{'b', 'm', chunkVersion, 0}
		for _, v := range []int64{n, from, to} {
			p = binary.LittleEndian.AppendUint64(p, uint64(v))
		}
		p = append(append(p, rest...), 0, 0, 0, 0)
		resum(p)
		return p
	}
	const n = 2*leafBits + 10
	raw := append([]byte{2, leafRaw}, bytes.Repeat([]byte{0xff}, leafWords*8)...)
	for name, p := range map[string][]byte{
		"another length":            head(n+1, 0, n),
		"newer version":             func() []byte { p := head(n, 0, n); p[2]++; resum(p); return p }(),
		"backwards":                 head(n, leafBits, 0),
		"negative":                  head(n, -leafBits, n),
		"past the end":              head(n, 0, 3*leafBits),
		"not at a leaf":             head(n, 5, n),
		"gap past the end":          head(n, 0, n, 3, leafFull, 1),
		"gap that overflows":        head(n, 0, n, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, leafFull, 1),
		"full leaves past the end":  head(n, 0, n, 0, leafFull, 3),
		"no full leaf":              head(n, 0, n, 0, leafFull, 0),
		"full leaf outside of part": head(n, 0, leafBits, 0, leafFull, 2),
		"unknown kind":              head(n, 0, n, 0, 9),
		"ends within a leaf":        head(n, 0, n, 0),
		"no runs":                   head(n, 0, n, 0, leafRuns, 0),
		"more runs than bits":       head(n, 0, n, 0, leafRuns, 0xff, 0xff, 0xff, 0x7f),
		"empty run":                 head(n, 0, n, 0, leafRuns, 1, 0, 0),
		"run out of the leaf":       head(n, 0, n, 0, leafRuns, 1, 0, 0x81, 0x80, 2),
		"run past the end":          head(n, 0, n, 2, leafRuns, 1, 5, 6),
		"touching runs":             head(n, 0, n, 0, leafRuns, 2, 0, 1, 0, 1),
		"raw leaf cut":              head(n, 0, n, 0, leafRaw, 1, 2, 3),
		"raw leaf past the end":     head(n, 0, n, raw...),
	} {
		into := New(n)
		if _, _, err := into.Merge(p); !errors.Is(err, ErrChunk) || into.Count() != 0 {
			t.Errorf("%s: %d bits set, %v", name, into.Count(), err)
		}
	}
}

func FuzzMerge(f *testing.F) {
	const n = 3*leafBits + 100
	for seed := range uint64(6) {
		p, _ := random(rand.New(rand.NewPCG(seed, 1)), n).AppendChunk(nil, 0, MinChunk)
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		resum(p)
		b := New(n)
		b.Set(7, 9)
		from, to, err := b.Merge(p)
		if err != nil {
			if b.Count() != 2 {
				t.Fatalf("refused (%v), and %d bits are set", err, b.Count())
			}
			return
		}
		if !b.Test(7) || !b.Test(8) {
			t.Fatal("a bit was cleared")
		}
		outside := New(n)
		outside.Or(b)
		outside.Clear(from, to)
		outside.Clear(7, 9)
		if outside.Count() != 0 {
			t.Fatalf("a chunk of [%d, %d) set bits outside", from, to)
		}
		again := New(n)
		for _, q := range chunks(t, b, MinChunk) {
			if _, _, err := again.Merge(q); err != nil {
				t.Fatal(err)
			}
		}
		if !same(again, b) {
			t.Fatal("what was merged does not encode and decode to itself")
		}
	})
}

func TestCombinationsAgreeWithSingleBits(t *testing.T) {
	const n = dirBits + 2*leafBits + 5
	ops := map[string]struct {
		do   func(a, b *Bitmap)
		want func(a, b bool) bool
	}{
		"or":      {(*Bitmap).Or, func(a, b bool) bool { return a || b }},
		"and not": {(*Bitmap).AndNot, func(a, b bool) bool { return a && !b }},
		"and":     {(*Bitmap).And, func(a, b bool) bool { return a && b }},
	}
	for name, op := range ops {
		for seed := range uint64(12) {
			rng := rand.New(rand.NewPCG(seed, 3))
			a, b := random(rng, n), random(rng, n)
			if seed%4 == 0 {
				a.Set(0, dirBits)
			}
			if seed%4 == 1 {
				b.Set(0, dirBits)
			}
			before := New(n)
			before.Or(a)
			op.do(a, b)
			sound(t, a)
			for i := int64(0); i < n; i += 1 + rng.Int64N(400) {
				if got, want := a.Test(i), op.want(before.Test(i), b.Test(i)); got != want {
					t.Fatalf("%s, seed %d: bit %d is %t", name, seed, i, got)
				}
			}
			count := int64(0)
			for from, to, ok := a.NextRange(0, n); ok; from, to, ok = a.NextRange(to, n) {
				count += to - from
			}
			if count != a.Count() {
				t.Fatalf("%s, seed %d: %d bits are set, Count() = %d", name, seed, count, a.Count())
			}
		}
	}
}

func TestAnyAgreesWithSingleBits(t *testing.T) {
	const n = 3*leafBits + 5
	for seed := range uint64(8) {
		rng := rand.New(rand.NewPCG(seed, 4))
		b := random(rng, n)
		for range 200 {
			from, to := someRange(rng, n)
			bit, ok := b.Next(from)
			if got, want := b.Any(from, to), ok && bit < to; got != want {
				t.Fatalf("seed %d: Any(%d, %d) = %t", seed, from, to, got)
			}
		}
	}
}

func TestWorstCaseMemoryIsABitForEachBlock(t *testing.T) {
	const n = 2 * dirBits
	b := New(n)
	for i := int64(0); i < n; i += leafBits { // no leaf is all clear or all set
		b.Set(i, i+1)
	}
	leaves := 0
	for _, d := range b.dirs {
		for _, l := range d.leaves {
			if l != nil && l != full {
				leaves++
			}
		}
	}
	if bytes := leaves * 8 * leafWords; bytes > n/8 {
		t.Errorf("%d bytes of bits for %d blocks, at most %d are due (32 MiB for each TiB)", bytes, int64(n), n/8)
	}
}

// A sparse map of a huge volume costs what is set: one leaf and one directory here.
func TestHugeSparseMapIsSmall(t *testing.T) {
	allocs := testing.AllocsPerRun(5, func() {
		b := New(100 << 28)
		b.Set(77<<28, 77<<28+1)
		if b.Count() != 1 {
			t.Fatal("one bit was set")
		}
	})
	if allocs > 4 {
		t.Errorf("%v allocations, expected the map, its table, a directory and a leaf", allocs)
	}
}

// 16384 random marks over 64 GiB: 512 leaves are gone through, some 24 bytes for each leaf's first runs.
func BenchmarkAppendChunkAndMergeRandom(b *testing.B) {
	src := New(1 << 24)
	rng := rand.New(rand.NewPCG(1, 1))
	for range 16384 {
		i := rng.Int64N(src.Len())
		src.Set(i, i+1)
	}
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		dst := New(src.Len())
		for at := int64(0); at < src.Len(); {
			buf, at = src.AppendChunk(buf[:0], at, 256<<10)
			if _, _, err := dst.Merge(buf); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(len(buf)), "bytes")
	}
}

func ExampleBitmap_AppendChunk() {
	b := New(1 << 20)
	b.Set(10, 20)
	p, next := b.AppendChunk(nil, 0, MinChunk)
	fmt.Println(len(p), next == b.Len())
	// Output: 37 true
}
