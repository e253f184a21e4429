package bitmap

import (
	"fmt"
	"math/bits"
)

// Or sets every bit that is set in o. Both must be of the same length, as for all that follow.
func (b *Bitmap) Or(o *Bitmap) {
	b.combine(o, rule{whereFull: becomeSet, word: func(mine, other uint64) uint64 { return mine | other },
		lines: func(_, other uint64) uint64 { return other }})
}

// AndNot clears every bit that is set in o.
func (b *Bitmap) AndNot(o *Bitmap) {
	b.combine(o, rule{whereFull: becomeClear, word: func(mine, other uint64) uint64 { return mine &^ other },
		lines: func(mine, other uint64) uint64 { return mine & other }})
}

// And clears every bit that is not set in o.
func (b *Bitmap) And(o *Bitmap) {
	b.combine(o, rule{whereEmpty: becomeClear, word: func(mine, other uint64) uint64 { return mine & other },
		lines: func(mine, _ uint64) uint64 { return mine }})
}

// effect is what becomes of our bits where the other map is all clear or all set.
type effect uint8

const (
	stay effect = iota
	becomeSet
	becomeClear
)

type rule struct {
	whereEmpty, whereFull effect
	word                  func(mine, other uint64) uint64
	lines                 func(mine, other uint64) uint64 // of a leaf: where word may change something
}

// combine goes through what exists of either map, never through all bits of a sparse one.
func (b *Bitmap) combine(o *Bitmap, r rule) {
	if b.n != o.n {
		panic(fmt.Sprintf("bitmap: %d bits combined with %d bits", b.n, o.n))
	}
	for i, od := range o.dirs {
		at := int64(i) * dirBits
		switch {
		case od == nil:
			b.become(at, min(b.n, at+dirBits), r.whereEmpty)
		case od == fullDir:
			b.become(at, at+dirBits, r.whereFull)
		case b.dirs[i] != nil || r.whereFull == becomeSet:
			d := b.open(int64(i))
			for j, ol := range od.leaves {
				if ol != nil || d.leaves[j] != nil {
					b.combineLeaf(d, j, od, r)
				}
			}
			b.seal(int64(i), d)
		}
	}
}

func (b *Bitmap) become(from, to int64, e effect) {
	if e != stay {
		b.change(from, to, e == becomeSet)
	}
}

func (b *Bitmap) combineLeaf(d *dir, j int, od *dir, r rule) {
	l, ol, e := d.leaves[j], od.leaves[j], r.whereEmpty
	if ol == full {
		e = r.whereFull
	}
	switch {
	case ol == nil || ol == full:
		if e != stay {
			b.changeLeaf(d, j, 0, leafBits, e == becomeSet)
		}
	case l == nil && r.whereFull != becomeSet: // nothing to take away
	default:
		l = b.writable(l)
		n := int(d.counts[j]) + l.combine(ol, r.lines(d.lines[j], od.lines[j]), r.word)
		b.put(d, j, n, l, d.lines[j]|r.lines(d.lines[j], od.lines[j]))
	}
}

// combine changes the words of the given lines, and returns by how much the number of set bits grew.
func (l *leaf) combine(o *leaf, lines uint64, word func(mine, other uint64) uint64) (grown int) {
	for ; lines != 0; lines &= lines - 1 {
		i := bits.TrailingZeros64(lines)
		mine, other := l.line(i), o.line(i)
		for w := range mine {
			before := bits.OnesCount64(mine[w])
			mine[w] = word(mine[w], other[w])
			grown += bits.OnesCount64(mine[w]) - before
		}
	}
	return grown
}
