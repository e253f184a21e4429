package bitmap

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// cursor reads the leaves of a chunk.
type cursor struct{ p []byte }

// uvarint reads a number of at most most.
func (c *cursor) uvarint(most int64) (int64, bool) {
	v, n := binary.Uvarint(c.p)
	if n <= 0 || most < 0 || v > uint64(most) {
		return 0, false
	}
	c.p = c.p[n:]
	return int64(v), true
}

// leaf reads one leaf that begins at bit at, or several full ones, and returns where the next one begins, at most to.
func (c *cursor) leaf(at, to int64, found func(at, n int64, raw []byte)) (int64, error) {
	if len(c.p) == 0 {
		return 0, errors.New("it ends within a leaf")
	}
	kind := c.p[0]
	c.p = c.p[1:]
	end := min(to, at+leafBits)
	switch kind {
	case leafFull:
		n, ok := c.uvarint((to - at) / leafBits)
		if !ok || n == 0 {
			return 0, fmt.Errorf("full leaves at bit %d reach outside, or are none", at)
		}
		found(at, n*leafBits, nil)
		return at + n*leafBits, nil
	case leafRuns:
		return end, c.runs(at, end, found)
	case leafRaw:
		return end, c.raw(at, end, found)
	}
	return 0, fmt.Errorf("the leaf at bit %d is of the unknown kind %d", at, kind)
}

func (c *cursor) runs(at, end int64, found func(at, n int64, raw []byte)) error {
	runs, ok := c.uvarint(leafBits / 2)
	if !ok || runs == 0 {
		return errors.New("a leaf has more runs than fit, or none")
	}
	for i := range runs {
		gap, ok := c.uvarint(end - at)
		if !ok || i > 0 && gap == 0 {
			return fmt.Errorf("a run behind bit %d reaches outside of its leaf, or touches the one before", at)
		}
		at += gap
		n, ok := c.uvarint(end - at)
		if !ok || n == 0 {
			return fmt.Errorf("the run at bit %d reaches outside of its leaf, or is empty", at)
		}
		found(at, n, nil)
		at += n
	}
	return nil
}

func (c *cursor) raw(at, end int64, found func(at, n int64, raw []byte)) error {
	if len(c.p) < leafWords*8 {
		return fmt.Errorf("the leaf at bit %d has %d bytes of %d", at, len(c.p), leafWords*8)
	}
	var l leaf
	for w := range l {
		l[w] = binary.LittleEndian.Uint64(c.p[8*w:])
	}
	if past, ok := nextIn(&l, int(end-at)); ok {
		return fmt.Errorf("bit %d is set, behind the end", at+int64(past))
	}
	found(at, leafBits, c.p[:leafWords*8])
	c.p = c.p[leafWords*8:]
	return nil
}
