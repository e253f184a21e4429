package bitmap

import "math/bits"

const (
	leafWords = 512            // 4 KiB
	leafBits  = leafWords * 64 // 128 MiB of volume in blocks of 4 KiB
)

type leaf struct {
	words [leafWords]uint64
	set   int // invariant: 0 < set < leafBits while the leaf hangs in a Bitmap
}

// full stands in for every leaf whose bits are all set. It is never written.
var full = &leaf{set: leafBits}

// leafCount is the number of set bits of a leaf in any of its three forms. The last leaf of a Bitmap may be longer
// than what is left of the length: those bits are never set, since it becomes full only by its whole range.
func leafCount(l *leaf) int {
	if l == nil {
		return 0
	}
	return l.set
}

func (l *leaf) change(from, to int, set bool) {
	for from < to {
		w, end := from/64, min(to, (from/64+1)*64)
		mask := ^uint64(0) << (from % 64) & (^uint64(0) >> (63 - (end-1)%64))
		before := bits.OnesCount64(l.words[w])
		if set {
			l.words[w] |= mask
		} else {
			l.words[w] &^= mask
		}
		l.set += bits.OnesCount64(l.words[w]) - before
		from = end
	}
}

func (l *leaf) or(o *leaf) {
	l.set = 0
	for i := range l.words {
		l.words[i] |= o.words[i]
		l.set += bits.OnesCount64(l.words[i])
	}
}

func (l *leaf) next(from int) (int, bool) {
	w := from / 64
	word := l.words[w] & (^uint64(0) << (from % 64))
	for word == 0 {
		if w++; w == leafWords {
			return 0, false
		}
		word = l.words[w]
	}
	return w*64 + bits.TrailingZeros64(word), true
}

// run is the number of set bits from bit from on, without a gap, within the leaf.
func (l *leaf) run(from int) int {
	w := from / 64
	word := ^l.words[w] & (^uint64(0) << (from % 64))
	for word == 0 {
		if w++; w == leafWords {
			return leafBits - from
		}
		word = ^l.words[w]
	}
	return w*64 + bits.TrailingZeros64(word) - from
}
