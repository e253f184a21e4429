package maps

import (
	"slices"

	"hacluster/blockdev/bitmap"
)

type clearing struct {
	n        uint64
	set      []int
	promised int
}

// begin asks all that are equal for a clearing of coarse marks.
func (m *model) begin(all bool) bool {
	p := m.p()
	if m.clear != nil {
		return false
	}
	c := &clearing{}
	var marked []*bitmap.Bitmap
	var numbers []Number
	for q := range m.r {
		if q != m.primary && m.s[q].up && m.peer(q).Behind() == 0 {
			c.set = append(c.set, q)
			marked = append(marked, m.peer(q).Marks())
		}
	}
	for _, r := range m.r {
		numbers = append(numbers, r.number[:]...)
	}
	c.n = Next(numbers...)
	stored := m.storedFor(m.primary, c.set)
	if m.lean {
		return m.beginLean(c, all)
	}
	n := p.regs.Begin(c.n, stored, marked, all)
	cover := 0
	for i, q := range c.set {
		p.cover[q] = p.regs.Covered(m.storedFor(m.primary, []int{q}), marked[i])
		if p.cover[q] && p.everything[q] {
			cover++
		}
	}
	if n == 0 && cover == 0 && !all || len(c.set) == 0 {
		p.regs.Abort()
		return false
	}
	m.clear = c
	for _, q := range c.set {
		m.send(q, &frame{kind: "ask", n: c.n, set: append([]int{m.primary}, c.set...), ready: true}, 0)
	}
	return true
}

func (m *model) storedFor(i int, set []int) func(int64) bool {
	return func(g int64) bool {
		return slices.ContainsFunc(set, func(j int) bool { return j != i && m.r[i].marks[j][g] })
	}
}

func (m *model) promise(q int, f *frame) {
	r := m.r[q]
	if m.lean {
		m.promiseLean(q, f)
		return
	}
	var marked []*bitmap.Bitmap
	for _, j := range f.set {
		if j != q {
			marked = append(marked, r.stby.Marks(name(j)))
			r.cover[j] = r.regs.Covered(m.storedFor(q, []int{j}), r.stby.Marks(name(j)))
		}
	}
	r.regs.Begin(f.n, m.storedFor(q, f.set), marked, m.rng.IntN(2) == 0)
	for _, j := range f.set {
		if j != q {
			r.number[j].Promised = f.n
		}
	}
	m.s[q].acks = append(m.s[q].acks, func() { m.promised(f.n) })
}

func (m *model) promised(n uint64) {
	if m.clear == nil || m.clear.n != n {
		return
	}
	if m.clear.promised++; m.clear.promised < len(m.clear.set) {
		return
	}
	c := m.clear
	m.clear = nil
	m.settle(m.primary, n, c.set)
	for _, q := range c.set {
		m.send(q, &frame{kind: "done", n: n, set: append([]int{m.primary}, c.set...), ready: true}, 0)
	}
}

// settle carries a clearing out on one replica.
func (m *model) settle(i int, n uint64, set []int) {
	r := m.r[i]
	for _, j := range set {
		if j != i {
			r.number[j] = Number{Promised: n, Settled: n}
		}
	}
	gone := r.regs.End(n)
	if gone == nil {
		return
	}
	for _, j := range set {
		if j == i {
			continue
		}
		for g, ok := gone.Next(0); ok; g, ok = gone.Next(g + 1) {
			r.marks[j][g] = false
			m.seen["region cleared"]++
		}
		if r.everything[j] && r.cover[j] {
			r.everything[j] = false
			m.seen["everything taken back"]++
		}
	}
}
