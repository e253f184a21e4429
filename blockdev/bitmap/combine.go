package bitmap

import "fmt"

// Or sets every bit that is set in o. Both must be of the same length, as for all that follow.
func (b *Bitmap) Or(o *Bitmap) {
	b.combine(o, rule{whereFull: becomeSet, word: func(mine, other uint64) uint64 { return mine | other }})
}

// AndNot clears every bit that is set in o.
func (b *Bitmap) AndNot(o *Bitmap) {
	b.combine(o, rule{whereFull: becomeClear, word: func(mine, other uint64) uint64 { return mine &^ other }})
}

// And clears every bit that is not set in o.
func (b *Bitmap) And(o *Bitmap) {
	b.combine(o, rule{whereEmpty: becomeClear, word: func(mine, other uint64) uint64 { return mine & other }})
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
				b.combineLeaf(d, j, ol, r)
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

func (b *Bitmap) combineLeaf(d *dir, j int, ol *leaf, r rule) {
	l, e := d.leaves[j], r.whereEmpty
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
		for w := range l {
			l[w] = r.word(l[w], ol[w])
		}
		b.put(d, j, l.count(), l)
	}
}
