package replication

import (
	"hacluster/blockdev/marks"
	"hacluster/heartbeat/cluster"
)

// roster is who holds a replica of the volume, and where this replica keeps what may differ from each: what is marked, numbered and
// asked about another replica goes by it. It never changes; the next one takes its place at once, so that who sees a slot in it
// marks for that slot.
type roster struct {
	numbers map[string]uint32 // of all replicas, by node
	slots   map[string]int    // of the others, in cfg.Marks; a peer without one has everything to copy, always
	named   []string          // who has a slot, in the order of the volume's record
	all     marks.Slots       // of those
}

func newRoster(vol *cluster.Volume, self string, f *marks.File) *roster {
	l := &roster{numbers: map[string]uint32{}, slots: map[string]int{}}
	for _, rep := range vol.Replicas {
		n := rep.Node
		l.numbers[n] = vol.NumberOf(n)
		if f == nil || n == self {
			continue
		}
		if i, ok := f.Lookup(marks.Peer{Name: n, Replica: vol.Stamp(n)}); ok {
			l.slots[n] = i
			l.named = append(l.named, n)
			l.all |= marks.Of(i)
		}
	}
	return l
}

// bits names replicas as a Clearing does, by their numbers.
func (l *roster) bits(names ...string) (b uint32) {
	for _, n := range names {
		if number, ok := l.numbers[n]; ok {
			b |= cluster.NumberBit(number)
		}
	}
	return b
}
