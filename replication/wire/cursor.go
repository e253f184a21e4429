package wire

import "hash/crc32"

// cursor walks over a message that lies in several segments.
type cursor struct {
	segs [][]byte
	pos  int // in segs[0]
	left int // bytes not yet walked over
}

func newCursor(segs [][]byte) cursor { return cursor{segs: segs, left: total(segs)} }

func total(segs [][]byte) int {
	n := 0
	for _, s := range segs {
		n += len(s)
	}
	return n
}

// take returns the next n bytes: a view when they lie in one segment, as nearly always, else a copy.
func (c *cursor) take(n int) ([]byte, bool) {
	if n > c.left {
		return nil, false
	}
	c.skipEmpty()
	if c.left > 0 && len(c.segs[0])-c.pos >= n {
		b := c.segs[0][c.pos : c.pos+n]
		c.advance(n)
		return b, true
	}
	out := make([]byte, 0, n)
	for n > 0 {
		b := c.next(n)
		out = append(out, b...)
		n -= len(b)
	}
	return out, true
}

// split appends the segments of the next n bytes to out. The caller has checked that there are so many.
func (c *cursor) split(n int, out [][]byte) [][]byte {
	for n > 0 {
		b := c.next(n)
		out = append(out, b)
		n -= len(b)
	}
	return out
}

// next returns up to n bytes of one segment and walks over them; n > 0 and c.left > 0.
func (c *cursor) next(n int) []byte {
	c.skipEmpty()
	n = min(n, len(c.segs[0])-c.pos)
	b := c.segs[0][c.pos : c.pos+n : c.pos+n]
	c.advance(n)
	return b
}

// skip walks over n bytes; the caller has checked that there are so many.
func (c *cursor) skip(n int) {
	for n > 0 {
		n -= len(c.next(n))
	}
}

func (c *cursor) skipEmpty() {
	for len(c.segs) > 0 && c.pos == len(c.segs[0]) {
		c.segs, c.pos = c.segs[1:], 0
	}
}

func (c *cursor) advance(n int) {
	c.pos += n
	c.left -= n
}

// Sum is the CRC-32C (Castagnoli) of the segments, one after the other.
func Sum(segments [][]byte) uint32 {
	var sum uint32
	for _, s := range segments {
		sum = crc32.Update(sum, castagnoli, s)
	}
	return sum
}
