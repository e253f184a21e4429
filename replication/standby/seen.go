package standby

import (
	"slices"

	"hacluster/blockdev"
	"hacluster/replication/order"
)

// What a resync target reads for a digest is also the old content of what the primary then sends: reading that a second time,
// for the undo area, would make its disk the slowest part of the resync. It counts block by block, as far as it is what the
// block holds until the entry at hand overwrites it (R18): nothing that reaches into it was under way when the reading began,
// and nothing was taken since (R33).

// maxSeen is how many readings are kept: all that a primary has under way, in chunks of a resync, and as many that turned out
// to be alike.
const maxSeen = 64

// seenBlocks is how many blocks a reading has at most.
const seenBlocks = 256

// Seen is one reading for a digest.
type Seen struct {
	At    blockdev.Range // whole blocks
	buf   *blockdev.Buf  // of At; nil: it is being read
	stale [seenBlocks / 64]uint64
	gone  bool // it is kept no longer
}

// Sights are the readings of one stream that may be of use, oldest first. The zero value is ready. Not safe for concurrent use.
type Sights struct{ all []*Seen }

// Begin notes that the blocks of at are read from now on. nil: what is read is of no use, for some of them are being
// overwritten by what is in the queue, or there are too many.
func (s *Sights) Begin(at blockdev.Range, taken *order.Queue) *Seen {
	if at.Len > seenBlocks*blockdev.BlockSize || at.Off%blockdev.BlockSize != 0 || at.Len%blockdev.BlockSize != 0 || taken.Holds(at) {
		return nil
	}
	if len(s.all) == maxSeen {
		s.all[0].drop()
		s.all = slices.Delete(s.all, 0, 1)
	}
	g := &Seen{At: at}
	s.all = append(s.all, g)
	return g
}

// Read tells that the reading has ended with buf, of which the caller's reference is taken over; nil: it could not be read.
func (s *Sights) Read(g *Seen, buf *blockdev.Buf) {
	g.buf = buf
	switch {
	case buf == nil && !g.gone:
		s.all = slices.DeleteFunc(s.all, func(o *Seen) bool { return o == g })
		g.gone = true
	case g.gone:
		g.drop()
	}
}

// Old is what was read of all blocks that r reaches into, if that is what they hold, and where it lies; it is called for an
// entry that was taken, before Overwrites. The reference is the caller's.
func (s *Sights) Old(r blockdev.Range) (at blockdev.Range, buf *blockdev.Buf) {
	for _, g := range s.all {
		if g.buf != nil && g.holds(r) {
			g.buf.Ref()
			return g.At, g.buf
		}
	}
	return at, nil
}

// Overwrites notes that an entry that overwrites r was taken.
func (s *Sights) Overwrites(r blockdev.Range) {
	s.all = slices.DeleteFunc(s.all, func(g *Seen) bool {
		if r.Len == 0 || !g.At.Overlaps(r) {
			return false
		}
		first, last := g.index(r)
		for i := max(first, 0); i <= min(last, g.At.Len/blockdev.BlockSize-1); i++ {
			g.stale[i/64] |= 1 << (i % 64)
		}
		if g.useful() {
			return false
		}
		g.drop()
		return true
	})
}

// Clear ends all of them, with the stream.
func (s *Sights) Clear() {
	for _, g := range s.all {
		g.drop()
	}
	s.all = nil
}

// drop gives the memory back; what is still being read, when it is there.
func (g *Seen) drop() {
	g.gone = true
	if g.buf != nil {
		g.buf.Free()
		g.buf = nil
	}
}

// index is where the first and the last block lie that r reaches into.
func (g *Seen) index(r blockdev.Range) (first, last int64) {
	return r.Off/blockdev.BlockSize - g.At.Off/blockdev.BlockSize, (r.End()-1)/blockdev.BlockSize - g.At.Off/blockdev.BlockSize
}

// holds reports whether all blocks that r reaches into were read and hold that.
func (g *Seen) holds(r blockdev.Range) bool {
	first, last := g.index(r)
	if r.Len == 0 || first < 0 || last >= g.At.Len/blockdev.BlockSize {
		return false
	}
	for i := first; i <= last; i++ {
		if g.isStale(i) {
			return false
		}
	}
	return true
}

func (g *Seen) isStale(i int64) bool { return g.stale[i/64]&(1<<(i%64)) != 0 }

// useful reports whether any block holds what was read.
func (g *Seen) useful() bool {
	for i := range g.At.Len / blockdev.BlockSize {
		if !g.isStale(i) {
			return true
		}
	}
	return false
}
