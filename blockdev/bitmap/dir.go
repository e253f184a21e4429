package bitmap

import "math/bits"

const (
	dirLeaves = 512
	dirBits   = dirLeaves * leafBits // 64 GiB of volume in blocks of 4 KiB
)

// dir holds the leaves of a part of a Bitmap. The last one of a Bitmap may reach beyond its length: those bits are
// never set, since a dir or a leaf becomes full only by its whole range.
type dir struct {
	leaves [dirLeaves]*leaf  // nil: all clear; full: all set
	counts [dirLeaves]uint16 // set bits of each leaf
	// lines has a bit for each cache line of a leaf: the others hold zeroes only. So what walks a leaf in which little is
	// set, as a flush does, touches little of it. All set for full, none for nil.
	lines [dirLeaves]uint64
	set   int64 // invariant: 0 < set < dirBits while the dir hangs in a Bitmap
}

// fullDir stands in for every dir whose bits are all set. It is never written.
var fullDir = func() *dir {
	d := &dir{set: dirBits}
	for i := range d.leaves {
		d.leaves[i], d.counts[i], d.lines[i] = full, leafBits, allLines
	}
	return d
}()

// What a Bitmap keeps of what went out of use: 1 MiB of leaves and 160 KiB of dirs.
const (
	keepLeaves = 256
	keepDirs   = 16
)

// put makes l, which has content in the given lines only, the leaf i, in its cheapest form, with n bits set.
func (b *Bitmap) put(d *dir, i, n int, l *leaf, lines uint64) {
	switch n {
	case 0:
		b.retire(l, lines)
		l, lines = nil, 0
	case leafBits:
		b.retire(l, lines)
		l, lines = full, allLines
	}
	d.set += int64(n) - int64(d.counts[i])
	d.leaves[i], d.counts[i], d.lines[i] = l, uint16(n), lines
}

// changeLeaf changes bits [from, to) of leaf i of d. The whole leaf is swapped for nil or full without touching a word.
func (b *Bitmap) changeLeaf(d *dir, i, from, to int, set bool) {
	l := d.leaves[i]
	switch {
	case set && l == full, !set && l == nil:
	case from == 0 && to == leafBits:
		n := 0
		if set {
			n = leafBits
		}
		b.put(d, i, n, l, d.lines[i])
	default:
		l = b.writable(l)
		n := int(d.counts[i]) + l.change(from, to, set)
		lines := d.lines[i]
		if set {
			lines |= linesOf(from, to)
		}
		b.put(d, i, n, l, lines)
	}
}

// writable returns l in the form that holds words of its own.
func (b *Bitmap) writable(l *leaf) *leaf {
	if l != nil && l != full {
		return l
	}
	c := b.spareLeaf()
	if l == full {
		*c = *full
	}
	return c
}

// spareLeaf is a leaf of zeroes.
func (b *Bitmap) spareLeaf() *leaf {
	n := len(b.spare)
	if n == 0 {
		return new(leaf)
	}
	l := b.spare[n-1]
	b.spare[n-1] = nil
	b.spare = b.spare[:n-1]
	return l
}

// retire keeps a leaf that goes out of use, made all zeroes, if there is room.
func (b *Bitmap) retire(l *leaf, lines uint64) {
	if l == nil || l == full || len(b.spare) == keepLeaves {
		return
	}
	for ; lines != 0; lines &= lines - 1 {
		clear(l.line(bits.TrailingZeros64(lines)))
	}
	b.spare = append(b.spare, l)
}

// retireDir keeps a dir that goes out of use, and its leaves.
func (b *Bitmap) retireDir(d *dir) {
	if d == fullDir {
		return
	}
	for i, l := range d.leaves {
		if l != nil {
			b.retire(l, d.lines[i])
		}
	}
	if len(b.spareDirs) < keepDirs {
		*d = dir{}
		b.spareDirs = append(b.spareDirs, d)
	}
}

// open returns dir i in the form that may be changed; seal must follow.
func (b *Bitmap) open(i int64) *dir {
	switch d := b.dirs[i]; d {
	case nil:
		return b.spareDir()
	case fullDir:
		c := new(dir)
		*c = *fullDir
		b.count -= dirBits
		return c
	default:
		b.count -= d.set
		return d
	}
}

// spareDir is a dir without a leaf.
func (b *Bitmap) spareDir() *dir {
	n := len(b.spareDirs)
	if n == 0 {
		return new(dir)
	}
	d := b.spareDirs[n-1]
	b.spareDirs[n-1] = nil
	b.spareDirs = b.spareDirs[:n-1]
	return d
}

// seal puts d in its cheapest form at place i.
func (b *Bitmap) seal(i int64, d *dir) {
	b.count += d.set
	switch d.set {
	case 0:
		if len(b.spareDirs) < keepDirs {
			b.spareDirs = append(b.spareDirs, d) // it is as a new one: no leaf, no count
		}
		d = nil
	case dirBits:
		d = fullDir
	}
	b.dirs[i] = d
}
