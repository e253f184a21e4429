package bitmap

const (
	dirLeaves = 512
	dirBits   = dirLeaves * leafBits // 64 GiB of volume in blocks of 4 KiB
)

// dir holds the leaves of a part of a Bitmap. The last one of a Bitmap may reach beyond its length: those bits are
// never set, since a dir or a leaf becomes full only by its whole range.
type dir struct {
	leaves [dirLeaves]*leaf  // nil: all clear; full: all set
	counts [dirLeaves]uint16 // set bits of each leaf
	set    int64             // invariant: 0 < set < dirBits while the dir hangs in a Bitmap
}

// fullDir stands in for every dir whose bits are all set. It is never written.
var fullDir = func() *dir {
	d := &dir{set: dirBits}
	for i := range d.leaves {
		d.leaves[i], d.counts[i] = full, leafBits
	}
	return d
}()

// put makes l the leaf i, in its cheapest form, with n bits set.
func (b *Bitmap) put(d *dir, i, n int, l *leaf) {
	switch n {
	case 0:
		b.retire(l)
		l = nil
	case leafBits:
		b.retire(l)
		l = full
	}
	d.set += int64(n) - int64(d.counts[i])
	d.leaves[i], d.counts[i] = l, uint16(n)
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
		b.put(d, i, n, l)
	default:
		n := int(d.counts[i])
		l = b.writable(l)
		n += l.change(from, to, set)
		b.put(d, i, n, l)
	}
}

// writable returns l in the form that holds words of its own.
func (b *Bitmap) writable(l *leaf) *leaf {
	if l != nil && l != full {
		return l
	}
	c := b.spare
	if b.spare = nil; c == nil {
		c = new(leaf)
	}
	if l == nil {
		clear(c[:])
	} else {
		*c = *full
	}
	return c
}

func (b *Bitmap) retire(l *leaf) {
	if l != nil && l != full {
		b.spare = l
	}
}

// open returns dir i in the form that may be changed; seal must follow.
func (b *Bitmap) open(i int64) *dir {
	d := b.dirs[i]
	if d != nil && d != fullDir {
		b.count -= d.set
		return d
	}
	c := b.spareDir
	if b.spareDir = nil; c == nil {
		c = new(dir)
	}
	if d == fullDir {
		*c = *fullDir
		b.count -= dirBits
	}
	return c
}

// seal puts d in its cheapest form at place i.
func (b *Bitmap) seal(i int64, d *dir) {
	b.count += d.set
	switch d.set {
	case 0:
		b.spareDir, d = d, nil // it is as a new one: no leaf, no count
	case dirBits:
		d = fullDir
	}
	b.dirs[i] = d
}
