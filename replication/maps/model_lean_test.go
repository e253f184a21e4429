package maps

import (
	"slices"

	"hacluster/blockdev"
	"hacluster/blockdev/bitmap"
)

// The lean scheme, which is the one that is wired: a standby keeps its marks on stable storage only. The primary asks for
// them at the first stream to a process of it, and chooses the regions that all give back.

// acquaint has the primary know what either has stored of the other, unless it knows this process.
func (m *model) acquaint(q int) {
	p, r := m.p(), m.r[q]
	if Judge(p.number[q], r.number[m.primary]) != nil {
		m.seen["a map went back"]++
		p.everything[q], p.knows[q] = true, 0
	}
	if p.knows[q] != r.proc {
		p.table.each(q, m.peer(q).Load)
		r.table.each(m.primary, m.peer(q).Load)
		m.seen["another process"]++
	}
	p.knows[q] = r.proc
}

func (m *model) beginLean(c *clearing, all bool) bool {
	p := m.p()
	hot := bitmap.New(regions)
	for g := range int64(regions) {
		for _, i := range append([]int{m.primary}, c.set...) { // on any of them: what a resync changed is marked there only
			if m.storedFor(i, append([]int{m.primary}, c.set...))(g) {
				hot.Set(g, g+1)
			}
		}
	}
	var peers []*Peer
	covered := map[int]bool{}
	taken := 0
	for _, q := range c.set {
		peers = append(peers, m.peer(q))
		p.cover[q] = p.regs.CoveredBy(m.storedFor(m.primary, []int{q}), m.peer(q))
		covered[q] = p.cover[q]
		if covered[q] && (p.everything[q] || m.r[q].everything[m.primary]) {
			taken++
		}
	}
	limit := int64(regions)
	if all {
		limit = 0
	}
	chosen := p.regs.Choose(c.n, hot, peers, limit)
	if chosen.Count() == 0 && taken == 0 && !all || len(c.set) == 0 {
		p.regs.Abort()
		return false
	}
	m.clear = c
	for _, q := range c.set {
		f := &frame{kind: "ask", n: c.n, set: append([]int{m.primary}, c.set...), ready: true, regions: bitmap.New(regions)}
		f.regions.Or(chosen)
		if covered[q] {
			f.cover = append(f.cover, m.primary)
		}
		for _, j := range c.set {
			if j != q && m.peer(q).Marked() == 0 && m.peer(j).Marked() == 0 {
				f.cover = append(f.cover, j)
			}
		}
		m.send(q, f, 0)
	}
	return true
}

func (m *model) promiseLean(q int, f *frame) {
	r := m.r[q]
	r.regs.Promise(f.n, f.regions)
	for _, j := range f.set {
		if j != q {
			r.cover[j] = slices.Contains(f.cover, j)
			r.number[j].Promised = f.n
		}
	}
	m.s[q].acks = append(m.s[q].acks, func() { m.promised(f.n) })
}

// compare reads a part of what is behind at the peer, and at a later call here.
func (m *model) compare(q int) {
	s := &m.s[q]
	if s.probe == nil {
		if g, ok := m.peer(q).Within(m.some()); ok {
			s.probe, s.read = slices.Clone(m.r[q].cur[g.Off/half:(g.End()+half-1)/half]), g
		}
		return
	}
	g := s.read
	failed := slices.Contains(m.r[q].stuck[:], true) // what it reads may not be on its disk: it is copied, whatever it reads
	if !failed && slices.Equal(s.probe, m.p().cur[g.Off/half:(g.End()+half-1)/half]) {
		m.peer(q).Equal(g)
		m.seen["found equal"]++
	}
	s.probe, s.read = nil, blockdev.Range{}
}
