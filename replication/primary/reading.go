package primary

import (
	"slices"

	"hacluster/blockdev"
)

// What is read here for a comparison is also what is copied where the target differs: reading it a second time would make
// our disk the slowest part of a resync. A copy is sent at its place in the order of all writes, so what was read before
// that place counts only if it is what the range holds there (R17): no write that overlaps it was under way when the chunk
// was handed out, before the reading began, and none was admitted since. Else the copy is read anew, in the order.

// reading is a chunk that was handed out to be compared, on the stream that is up.
type reading struct {
	p     *peer
	at    blockdev.Range
	clean bool // what is read of it is what it holds at this place of the order
}

// beginReading notes that r is read from now on. How many there are is bounded by who compares.
func (c *Core) beginReading(p *peer, r blockdev.Range) {
	clean := !c.queue.Holds(r)
	for i := range c.readings {
		if g := &c.readings[i]; g.p == p && g.at == r {
			g.clean, clean = false, false // which of the two Compared tells of could not be told apart
		}
	}
	c.readings = append(c.readings, reading{p, r, clean})
}

// endReading reports whether what was read of r counts now.
func (c *Core) endReading(p *peer, r blockdev.Range) (clean bool) {
	i := slices.IndexFunc(c.readings, func(g reading) bool { return g.p == p && g.at == r })
	if i < 0 {
		return false
	}
	clean = c.readings[i].clean
	c.readings = slices.Delete(c.readings, i, i+1)
	return clean
}

// endReadings forgets what was read for a stream that ended.
func (c *Core) endReadings(p *peer) {
	c.readings = slices.DeleteFunc(c.readings, func(g reading) bool { return g.p == p })
}

// overwrites notes that a write, zeroing or mend of r is admitted.
func (c *Core) overwrites(r blockdev.Range) {
	for i := range c.readings {
		if c.readings[i].at.Overlaps(r) {
			c.readings[i].clean = false
		}
	}
}
