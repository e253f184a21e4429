// Package bitmap is a plain bitmap in memory over the blocks of a volume: a resync's list of what is left to do.
//
// It is sparse in both directions. Bits live in leaves of 4 KiB that are allocated when a leaf is neither all clear
// nor all set, so that "nothing to do" and "everything to do" of a volume of any size cost a few words. It refuses bits
// outside its length by panicking: the caller has already checked ranges, so such a bit is a broken invariant.
//
// A Bitmap is not safe for concurrent use; whoever owns it brings the lock. Nothing here is durable: what must survive
// a crash is kept elsewhere and loaded into a Bitmap. Resync and the may-differ maps of replication use it.
package bitmap

import "fmt"

// Bitmap is a set of bit numbers in [0, Len()). Make one with New.
type Bitmap struct {
	n      int64
	count  int64
	leaves []*leaf // nil: all clear; full: all set
	// spare is one leaf that went out of use, any content: a bit that is set and cleared in turn allocates nothing.
	spare *leaf
}

// New returns a Bitmap of n bits, all clear.
func New(n int64) *Bitmap {
	if n < 0 {
		panic(fmt.Sprintf("bitmap: length %d is negative", n))
	}
	return &Bitmap{n: n, leaves: make([]*leaf, (n+leafBits-1)/leafBits)}
}

// Len is the number of bits, set or not.
func (b *Bitmap) Len() int64 { return b.n }

// Count is the number of set bits. It costs nothing.
func (b *Bitmap) Count() int64 { return b.count }

// Test reports whether bit i is set.
func (b *Bitmap) Test(i int64) bool {
	b.check(i, i+1)
	l := b.leaves[i/leafBits]
	return l == full || l != nil && l.words[i%leafBits/64]&(1<<(i%64)) != 0
}

// Set sets the bits of [from, to).
func (b *Bitmap) Set(from, to int64) { b.change(from, to, true) }

// Clear clears the bits of [from, to).
func (b *Bitmap) Clear(from, to int64) { b.change(from, to, false) }

func (b *Bitmap) change(from, to int64, set bool) {
	b.check(from, to)
	for from < to {
		i := from / leafBits
		end := min(to, (i+1)*leafBits)
		b.changeLeaf(i, int(from%leafBits), int(end-i*leafBits), set)
		from = end
	}
}

// changeLeaf changes bits [from, to) of leaf i. The whole leaf is swapped for nil or full without touching a word.
func (b *Bitmap) changeLeaf(i int64, from, to int, set bool) {
	l := b.leaves[i]
	before := leafCount(l)
	switch {
	case set && l == full, !set && l == nil:
		return
	case from == 0 && to == leafBits:
		b.retire(l)
		l = nil
		if set {
			l = full
		}
	default:
		l = b.writable(l)
		l.change(from, to, set)
		l = b.settled(l)
	}
	b.leaves[i] = l
	b.count += int64(leafCount(l) - before)
}

// Or sets every bit that is set in o. Both must be of the same length.
func (b *Bitmap) Or(o *Bitmap) {
	if b.n != o.n {
		panic(fmt.Sprintf("bitmap: union of %d bits with %d bits", b.n, o.n))
	}
	for i, ol := range o.leaves {
		switch {
		case ol == nil || b.leaves[i] == full:
		case ol == full:
			b.changeLeaf(int64(i), 0, leafBits, true)
		default:
			before := leafCount(b.leaves[i])
			l := b.writable(b.leaves[i])
			l.or(ol)
			l = b.settled(l)
			b.leaves[i] = l
			b.count += int64(leafCount(l) - before)
		}
	}
}

// Next returns the first set bit at or behind from; ok is false when there is none.
func (b *Bitmap) Next(from int64) (bit int64, ok bool) {
	for i := max(from, 0); i < b.n; i = (i/leafBits + 1) * leafBits {
		l := b.leaves[i/leafBits]
		switch l {
		case nil:
			continue
		case full:
			return i, true
		}
		if in, ok := l.next(int(i % leafBits)); ok {
			return i/leafBits*leafBits + int64(in), true
		}
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
	for stop := min(b.n, start+limit); end < stop; {
		switch l := b.leaves[end/leafBits]; {
		case l == nil:
			return start, end, true
		case l == full:
			end = min(stop, (end/leafBits+1)*leafBits)
		default:
			inLeaf := int(end % leafBits)
			run := min(int64(l.run(inLeaf)), stop-end)
			end += run
			if end < stop && int64(inLeaf)+run < leafBits {
				return start, end, true
			}
		}
	}
	return start, end, true
}

func (b *Bitmap) check(from, to int64) {
	if from < 0 || to < from || to > b.n {
		panic(fmt.Sprintf("bitmap: bits [%d, %d) of %d", from, to, b.n))
	}
}

// writable returns l in the form that holds words.
func (b *Bitmap) writable(l *leaf) *leaf {
	if l != nil && l != full {
		return l
	}
	c := b.spare
	if b.spare = nil; c == nil {
		c = &leaf{}
	}
	word := uint64(0)
	if c.set = 0; l == full {
		word, c.set = ^uint64(0), leafBits
	}
	for i := range c.words {
		c.words[i] = word
	}
	return c
}

// settled returns the cheapest form of l.
func (b *Bitmap) settled(l *leaf) *leaf {
	switch l.set {
	case 0:
		b.retire(l)
		return nil
	case leafBits:
		b.retire(l)
		return full
	}
	return l
}

func (b *Bitmap) retire(l *leaf) {
	if l != nil && l != full {
		b.spare = l
	}
}
