// Package bitmap is a plain bitmap in memory over the blocks of a volume: the blocks in which two replicas may differ,
// or a resync's list of what is left to do.
//
// It is sparse in both directions. Bits live in leaves of 4 KiB that exist where a leaf is neither all clear nor all
// set, and leaves hang in directories of 64 GiB of volume that exist likewise: "nothing" and "everything" of a volume of
// any size cost a few words, and what is between costs what is set. The worst case, in blocks of 4 KiB, is 32 MiB of
// bits for each TiB, and 150 KiB of directories; about 1 MiB of what went out of use is kept for the next use.
//
// A part of a Bitmap can be encoded for another node, compressed by runs, and united there (AppendChunk, Merge).
//
// It refuses bits outside its length by panicking: the caller has already checked ranges, so such a bit is a broken
// invariant. Bytes of others are never trusted: Merge checks all of a chunk before it changes anything.
//
// A Bitmap is not safe for concurrent use; whoever owns it brings the lock. Nothing here is durable: what must survive
// a crash is kept elsewhere and loaded into a Bitmap. Resync and the may-differ maps of replication use it.
package bitmap

import "fmt"

// Bitmap is a set of bit numbers in [0, Len()). Make one with New.
type Bitmap struct {
	n     int64
	count int64
	dirs  []*dir // nil: all clear; fullDir: all set
	// spare are leaves that went out of use, all zeroes, and spareDirs empty dirs, as many as keepLeaves and keepDirs at
	// most: bits that are set and cleared in turn, however scattered, allocate nothing.
	spare     []*leaf
	spareDirs []*dir
}

// New returns a Bitmap of n bits, all clear.
func New(n int64) *Bitmap {
	if n < 0 {
		panic(fmt.Sprintf("bitmap: length %d is negative", n))
	}
	return &Bitmap{n: n, dirs: make([]*dir, (n+dirBits-1)/dirBits)}
}

// Len is the number of bits, set or not.
func (b *Bitmap) Len() int64 { return b.n }

// Count is the number of set bits. It costs nothing.
func (b *Bitmap) Count() int64 { return b.count }

// Test reports whether bit i is set.
func (b *Bitmap) Test(i int64) bool {
	b.check(i, i+1)
	l := b.leaf(i)
	return l != nil && l[i%leafBits/64]&(1<<(i%64)) != 0
}

// leaf is the one that bit i lies in.
func (b *Bitmap) leaf(i int64) *leaf {
	d := b.dirs[i/dirBits]
	if d == nil {
		return nil
	}
	return d.leaves[i%dirBits/leafBits]
}

// Set sets the bits of [from, to).
func (b *Bitmap) Set(from, to int64) { b.change(from, to, true) }

// Clear clears the bits of [from, to).
func (b *Bitmap) Clear(from, to int64) { b.change(from, to, false) }

// Empty clears all bits, in the time that it takes to go through what is set.
func (b *Bitmap) Empty() {
	if b.count == 0 {
		return
	}
	for i, d := range b.dirs {
		if d != nil {
			b.retireDir(d)
			b.dirs[i] = nil
		}
	}
	b.count = 0
}

func (b *Bitmap) change(from, to int64, set bool) {
	b.check(from, to)
	if to-from == 1 && b.changeBit(from, set) {
		return
	}
	for from < to {
		i := from / dirBits
		end := min(to, (i+1)*dirBits)
		b.changeDir(i, from%dirBits, end-i*dirBits, set)
		from = end
	}
}

// changeBit changes one bit if its leaf keeps its form: the common case, and the cheapest.
func (b *Bitmap) changeBit(i int64, set bool) bool {
	d := b.dirs[i/dirBits]
	if d == nil || d == fullDir {
		return false
	}
	j := i % dirBits / leafBits
	l, n := d.leaves[j], d.counts[j]
	if l == nil || l == full {
		return false
	}
	w, bit := &l[i%leafBits/64], uint64(1)<<(i%64)
	switch {
	case (*w&bit != 0) == set:
		return true
	case set && n < leafBits-1:
		*w |= bit
		d.lines[j] |= 1 << (i % leafBits / lineBits)
		d.counts[j], d.set, b.count = n+1, d.set+1, b.count+1
		return true
	case !set && n > 1:
		*w &^= bit
		d.counts[j], d.set, b.count = n-1, d.set-1, b.count-1
		return true
	}
	return false
}

// changeDir changes bits [from, to) of dir i. The whole dir is swapped for nil or fullDir without touching a leaf.
func (b *Bitmap) changeDir(i, from, to int64, set bool) {
	d := b.dirs[i]
	switch {
	case set && d == fullDir, !set && d == nil:
		return
	case from == 0 && to == dirBits:
		if d != nil {
			b.count -= d.set
			b.retireDir(d)
		}
		d = nil
		if set {
			d = fullDir
			b.count += dirBits
		}
		b.dirs[i] = d
		return
	}
	d = b.open(i)
	for from < to {
		j := from / leafBits
		end := min(to, (j+1)*leafBits)
		b.changeLeaf(d, int(j), int(from%leafBits), int(end-j*leafBits), set)
		from = end
	}
	b.seal(i, d)
}

// Next returns the first set bit at or behind from; ok is false when there is none.
func (b *Bitmap) Next(from int64) (bit int64, ok bool) { return b.nextBefore(from, b.n) }

// Any reports whether a bit of [from, to) is set. It looks no further.
func (b *Bitmap) Any(from, to int64) bool {
	b.check(from, to)
	if b.count == 0 {
		return false
	}
	bit, ok := b.nextBefore(from, to)
	return ok && bit < to
}

// nextBefore is Next that may give up at the end of the leaf in which the limit lies.
func (b *Bitmap) nextBefore(from, limit int64) (bit int64, ok bool) {
	for i := max(from, 0); i < limit; {
		switch b.dirs[i/dirBits] {
		case nil:
			i = (i/dirBits + 1) * dirBits
			continue
		case fullDir:
			return i, true
		}
		if l := b.leaf(i); l != nil {
			if in, ok := l.next(int(i % leafBits)); ok {
				return i/leafBits*leafBits + int64(in), true
			}
		}
		i = (i/leafBits + 1) * leafBits
	}
	return 0, false
}

// NextRange returns the first run [start, end) of set bits at or behind from, cut to at most limit bits; ok is false
// when there is none.
func (b *Bitmap) NextRange(from, limit int64) (start, end int64, ok bool) {
	start, ok = b.Next(from)
	if !ok || limit <= 0 {
		return 0, 0, false
	}
	end = start + 1
	stop := b.n
	if limit < b.n-start {
		stop = start + limit
	}
	for end < stop {
		l := b.leaf(end)
		if l == nil {
			return start, end, true
		}
		inLeaf := end % leafBits
		run := int64(leafBits) - inLeaf
		if l != full {
			run = int64(l.run(int(inLeaf)))
		}
		end = min(stop, end+run)
		if end < stop && inLeaf+run < leafBits {
			return start, end, true
		}
	}
	return start, end, true
}

func (b *Bitmap) check(from, to int64) {
	if from < 0 || to < from || to > b.n {
		panic(fmt.Sprintf("bitmap: bits [%d, %d) of %d", from, to, b.n))
	}
}
