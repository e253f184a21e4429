package bitmap

import "math/bits"

const (
	leafWords = 512            // 4 KiB, and not a byte more: beside it the allocator would waste a fifth
	leafBits  = leafWords * 64 // 128 MiB of volume in blocks of 4 KiB
)

type leaf [leafWords]uint64

// A line is what the processor reads at a time: 8 words, 512 blocks.
const (
	lineWords = 8
	lineBits  = lineWords * 64
	allLines  = ^uint64(0)
)

func (l *leaf) line(i int) []uint64 { return l[i*lineWords : (i+1)*lineWords] }

// linesOf is the lines in which bits [from, to) lie; there is at least one.
func linesOf(from, to int) uint64 {
	return allLines << (from / lineBits) & (allLines >> (63 - (to-1)/lineBits))
}

// full stands in for every leaf whose bits are all set. It is never written.
var full = func() *leaf {
	var l leaf
	for i := range l {
		l[i] = ^uint64(0)
	}
	return &l
}()

// change sets or clears bits [from, to) and returns by how much the number of set ones grew.
func (l *leaf) change(from, to int, set bool) (grown int) {
	for from < to {
		w, end := from/64, min(to, (from/64+1)*64)
		mask := ^uint64(0) << (from % 64) & (^uint64(0) >> (63 - (end-1)%64))
		before := bits.OnesCount64(l[w])
		if set {
			l[w] |= mask
		} else {
			l[w] &^= mask
		}
		grown += bits.OnesCount64(l[w]) - before
		from = end
	}
	return grown
}

func (l *leaf) next(from int) (int, bool) {
	w := from / 64
	word := l[w] & (^uint64(0) << (from % 64))
	for word == 0 {
		if w++; w == leafWords {
			return 0, false
		}
		word = l[w]
	}
	return w*64 + bits.TrailingZeros64(word), true
}

// run is the number of set bits from bit from on, without a gap, within the leaf.
func (l *leaf) run(from int) int {
	w := from / 64
	word := ^l[w] & (^uint64(0) << (from % 64))
	for word == 0 {
		if w++; w == leafWords {
			return leafBits - from
		}
		word = ^l[w]
	}
	return w*64 + bits.TrailingZeros64(word) - from
}
