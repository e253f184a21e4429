package maps

import (
	"fmt"
	"slices"
)

// differing is every block in which two replicas may hold something else after a power cut of both.
func (m *model) differing(i, j int) (out []int64) {
	for b := range Blocks(modelSize) {
		for h := 2 * b; h < min(2*b+2, halves); h++ {
			v := m.r[i].dur[h]
			other := func(w int) bool { return w != v }
			if slices.ContainsFunc(m.r[i].pend[h], other) || m.r[j].dur[h] != v || slices.ContainsFunc(m.r[j].pend[h], other) {
				out = append(out, b)
				break
			}
		}
	}
	return out
}

func (m *model) check() error {
	for i := range m.r {
		for j := range i {
			if Judge(m.r[i].number[j], m.r[j].number[i]) != nil {
				continue // everything may differ, and whoever connects them sees it
			}
			for _, b := range m.differing(i, j) {
				if !m.stored(i, j, b) && !m.stored(j, i, b) {
					return fmt.Errorf("block %d of %s and %s may differ: not marked on stable storage", b, name(i), name(j))
				}
				if !m.known(i, j, b) || !m.known(j, i, b) {
					return fmt.Errorf("block %d of %s and %s may differ: the primary does not know", b, name(i), name(j))
				}
				if !m.lean && m.r[i].alive && m.r[j].alive && m.acquainted(i, j) && !m.inMemory(i, j, b) && !m.inMemory(j, i, b) {
					return fmt.Errorf("block %d of %s and %s may differ: not marked in memory", b, name(i), name(j))
				}
			}
		}
	}
	return nil
}

// known: of a peer to which a stream is up, the primary's own map has everything. It was united with the peer's, and each
// of the two keeps a mark until the block is durable on both, so that either may lose its own.
func (m *model) known(i, j int, b int64) bool {
	return i != m.primary || !m.s[j].up || m.inMemory(i, j, b)
}

func (m *model) stored(i, j int, b int64) bool {
	return m.r[i].everything[j] || m.r[i].marks[j][b*blockSize/regionSize]
}

func (m *model) inMemory(i, j int, b int64) bool {
	if m.r[i].prim != nil {
		return m.r[i].prim.Peer(name(j)).MayDiffer(rangeOf(b, b+1, modelSize))
	}
	return m.r[i].stby.Marks(name(j)).Test(b)
}

// heal lets everything run on until nothing is marked any more, and compares the replicas: what the maps made a resync
// copy was enough.
func (m *model) heal() error {
	for round := 0; ; round++ {
		if round > 2000 {
			return fmt.Errorf("it does not come to rest: %s", m.rest())
		}
		for i, r := range m.r {
			if !r.alive {
				m.start(i)
			}
		}
		if m.primary >= 0 && m.p().broke {
			m.handover()
		}
		if m.primary < 0 {
			m.promote(m.rng.IntN(len(m.r)))
		}
		quiet := true
		for q := range m.r {
			for m.primary >= 0 && q != m.primary && !m.s[q].up {
				m.connect(q)
			}
			if m.primary < 0 {
				break
			}
			if q != m.primary {
				m.copy(q)
				quiet = quiet && m.peer(q).Marked() == 0
			}
		}
		if m.primary >= 0 && round%3 == 0 {
			m.flush()
		}
		for m.primary >= 0 && len(m.queue) > 0 {
			m.local()
		}
		for q := 0; q < len(m.r) && m.primary >= 0; q++ {
			for m.primary >= 0 && q != m.primary && m.s[q].up && len(m.s[q].frames) > 0 {
				m.deliver(q)
			}
			for m.primary >= 0 && q != m.primary && len(m.s[q].acks) > 0 {
				ack := m.s[q].acks[0]
				m.s[q].acks = m.s[q].acks[1:]
				ack()
			}
		}
		if err := m.check(); err != nil {
			return err
		}
		if quiet && m.primary >= 0 {
			if m.rest() == "" {
				break
			}
			m.begin(true)
		}
	}
	for i := range m.r {
		if m.r[i].cur != m.r[0].cur || m.r[i].dur != m.r[0].dur {
			return fmt.Errorf("nothing is marked, and %s holds %v, a %v", name(i), m.r[i].cur, m.r[0].cur)
		}
	}
	return nil
}

// rest says what is still marked.
func (m *model) rest() string {
	for i, r := range m.r {
		for j := range m.r {
			if i == j {
				continue
			}
			for g, on := range r.marks[j] {
				if on {
					return fmt.Sprintf("%s has region %d marked for %s", name(i), g, name(j))
				}
			}
			if r.everything[j] {
				return fmt.Sprintf("%s has everything marked for %s", name(i), name(j))
			}
		}
	}
	return ""
}
