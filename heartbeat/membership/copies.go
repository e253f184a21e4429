package membership

import (
	"hash/maphash"
	"sync"
)

// remembered is how many packets are known again. At some hundred a second and copies that follow each other within
// the difference of two links' delays, it is plenty; what is forgotten too early is only handled twice.
const rememberedPackets = 1024

// copies recognises a packet that came over another link before. It goes by the whole content: were it a number in the
// header, whoever can read one link could spoil the packets of all others by sending that number first.
type copies struct {
	seed maphash.Seed

	mu   sync.Mutex
	set  map[uint64]struct{}
	ring [rememberedPackets]uint64
	next int
}

func newCopies() *copies {
	return &copies{seed: maphash.MakeSeed(), set: make(map[uint64]struct{}, rememberedPackets)}
}

// before reports whether b was seen, and remembers it.
func (c *copies) before(b []byte) bool {
	h := maphash.Bytes(c.seed, b)
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, seen := c.set[h]; seen {
		return true
	}
	delete(c.set, c.ring[c.next])
	c.ring[c.next] = h
	c.set[h] = struct{}{}
	c.next = (c.next + 1) % rememberedPackets
	return false
}
