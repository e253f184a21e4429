package maps

import (
	"slices"

	"hacluster/blockdev"
	"hacluster/blockdev/bitmap"
)

type frame struct {
	num     uint64
	kind    string // write, copy, flush, durable, ask, done
	r       blockdev.Range
	vals    []int
	ready   bool
	tracked bool
	durable Durable
	n       uint64
	set     []int
	stable  uint64
	regions *bitmap.Bitmap // of an ask, lean
	cover   []int
}

type stream struct {
	up     bool
	next   uint64
	ids    []uint64 // of the entries not acknowledged, with their nums in nums
	nums   []uint64
	frames []*frame
	acks   []func() // answers on their way back
	probe  []int    // what the peer was seen to hold of read
	read   blockdev.Range
}

// local is an operation that waits for the primary's own disk.
type local struct {
	id   uint64
	kind string
	r    blockdev.Range
	val  int
	to   *frame
}

func (m *model) p() *replica { return m.r[m.primary] }

func (m *model) peer(q int) *Peer { return m.p().prim.Peer(name(q)) }

func (m *model) send(q int, f *frame, id uint64) {
	s := &m.s[q]
	if id != 0 {
		s.ids, s.nums = append(s.ids, id), append(s.nums, f.num)
	}
	f.stable = m.stable(q)
	s.frames = append(s.frames, f)
}

// stable is the num up to which every member has written what went to q (R29).
func (m *model) stable(q int) uint64 {
	last := m.id + 1
	for _, l := range m.queue {
		last = min(last, l.id)
	}
	for i := range m.r {
		if i != m.primary && m.r[i].steady && len(m.s[i].ids) > 0 {
			last = min(last, m.s[i].ids[0])
		}
	}
	s := &m.s[q]
	for i, id := range s.ids {
		if id >= last {
			return s.nums[i] - 1
		}
	}
	return s.next - 1
}

func (m *model) some() blockdev.Range {
	from := m.rng.IntN(halves)
	to := from + 1 + m.rng.IntN(min(5, halves-from))
	return blockdev.Range{Off: int64(from) * half, Len: int64(to-from) * half}
}

func (m *model) write() {
	m.id++
	m.val++
	g := m.some()
	m.mark(m.primary, g)
	m.queue = append(m.queue, local{id: m.id, kind: "write", r: g, val: m.val})
	for q := range m.r {
		if q == m.primary {
			continue
		}
		s := &m.s[q]
		if !s.up {
			m.peer(q).Missed(g)
			m.r[q].steady = false // dropped before a write that it lacks is acknowledged (R4)
			continue
		}
		s.next++
		m.peer(q).Sent(m.id, s.next-1, g, false)
		m.send(q, &frame{num: s.next - 1, kind: "write", r: g, vals: same(m.val, g), ready: true}, m.id)
	}
}

func same(v int, g blockdev.Range) []int { return slices.Repeat([]int{v}, int(g.Len/half)) }

func (m *model) flush() {
	m.id++
	tracked := m.p().prim.FlushBegins(m.id)
	m.queue = append(m.queue, local{id: m.id, kind: "flush"})
	for q := range m.r {
		if q == m.primary || !m.s[q].up {
			continue
		}
		s := &m.s[q]
		s.next++
		if tracked {
			m.p().prim.FlushSent(m.peer(q), s.next-1)
		}
		m.send(q, &frame{num: s.next - 1, kind: "flush", ready: true, tracked: tracked}, m.id)
	}
}

func (m *model) copy(q int) {
	g, ok := m.peer(q).Take(int64(1+m.rng.IntN(2)) * blockSize)
	if !ok {
		return
	}
	m.id++
	s := &m.s[q]
	s.next++
	m.peer(q).Copying(m.id, s.next-1, g)
	f := &frame{num: s.next - 1, kind: "copy", r: g}
	m.send(q, f, m.id)
	m.queue = append(m.queue, local{id: m.id, kind: "copy", r: g, to: f})
}

// local carries out the oldest operation on the primary's disk, or a later one that overlaps none before it.
func (m *model) local() {
	i := 0
	for i+1 < len(m.queue) && m.rng.IntN(2) == 0 {
		next := m.queue[i+1]
		if slices.ContainsFunc(m.queue[:i+1], func(l local) bool { return l.r.Overlaps(next.r) }) {
			break
		}
		i++
	}
	if f := slices.IndexFunc(m.queue, func(l local) bool { return l.kind == "flush" }); f > 0 && m.rng.IntN(3) == 0 {
		i = f // a flush waits for nothing here
	}
	l := m.queue[i]
	m.queue = slices.Delete(m.queue, i, i+1)
	p := m.p()
	switch l.kind {
	case "write":
		m.apply(m.primary, l.r, same(l.val, l.r))
		p.prim.Returned(l.id, l.r, true)
	case "copy":
		l.to.vals, l.to.ready = slices.Clone(p.cur[l.r.Off/half:(l.r.End()+half-1)/half]), true
		p.prim.Returned(l.id, l.r, true)
	case "flush":
		ok := p.disk.flush(m.rng.IntN(150) > 0)
		p.prim.FlushReturned(l.id, ok)
		if !ok { // noted before any further answer (R23); the process goes on until it gives the role up
			m.seen["primary's flush failed"]++
			m.spoil(m.primary)
			return
		}
		m.durable()
	}
}

func (m *model) durable() {
	for _, d := range m.p().prim.TakeDurable() {
		q := index(d.To)
		if m.s[q].up {
			m.send(q, &frame{kind: "durable", durable: d, ready: true}, 0)
		}
	}
}

func (m *model) deliver(q int) {
	s, r := &m.s[q], m.r[q]
	if len(s.frames) == 0 || !s.frames[0].ready {
		return
	}
	f := s.frames[0]
	s.frames = s.frames[1:]
	r.stby.Stable(f.stable)
	switch f.kind {
	case "write", "copy":
		r.stby.Take(f.num, f.r)
		m.mark(q, f.r)
		m.apply(q, f.r, f.vals)
	case "flush":
		if f.tracked {
			r.stby.Flush(f.num)
		}
		if !r.disk.flush(m.rng.IntN(40) > 0) {
			m.seen["standby's flush failed"]++
			m.spoil(q)
			m.down(q)
			m.start(q)
			return
		}
	case "durable":
		r.stby.Durable(f.durable.Num, f.durable.Peers)
		return
	case "ask":
		m.promise(q, f)
		return
	case "done":
		m.settle(q, f.n, f.set)
		return
	}
	s.acks = append(s.acks, func() { m.acked(q, f.num) })
}

func (m *model) acked(q int, num uint64) {
	s := &m.s[q]
	for len(s.nums) > 0 && s.nums[0] <= num {
		s.ids, s.nums = s.ids[1:], s.nums[1:]
	}
	m.p().prim.Acked(m.peer(q), num)
	m.durable()
}

func (m *model) connect(q int) {
	if m.lean {
		m.acquaint(q)
	} else {
		m.unite(q)
	}
	r := m.r[q]
	r.stby.Begin()
	r.regs.Abort()
	s := &m.s[q]
	*s = stream{up: true, next: max(s.next, 1)}
	for _, l := range m.queue {
		if l.kind == "write" {
			s.next++
			m.peer(q).Sent(l.id, s.next-1, l.r, false)
			m.send(q, &frame{num: s.next - 1, kind: "write", r: l.r, vals: same(l.val, l.r), ready: true}, l.id)
		}
	}
}

// unite has the primary know what either keeps of the other.
func (m *model) unite(q int) {
	p, r := m.p(), m.r[q]
	err := Judge(p.number[q], r.number[m.primary])
	if err != nil {
		m.seen["a map went back"]++
		p.everything[q], r.everything[m.primary] = true, true
		p.table.each(q, m.peer(q).Load)
		r.table.each(m.primary, func(g blockdev.Range) { r.stby.Load(name(m.primary), g) })
	}
	if !m.acquainted(m.primary, q) { // what left the maps in memory was not numbered, and another process may be a restored one
		p.table.each(q, m.peer(q).Load)
		r.table.each(m.primary, func(g blockdev.Range) { r.stby.Load(name(m.primary), g) })
		m.seen["another process"]++
	}
	p.knows[q], r.knows[m.primary] = r.proc, p.proc
	if theirs := r.stby.Marks(name(m.primary)); m.first[q] && p.steady && r.steady && err == nil {
		m.peer(q).Adopt(theirs, r.stby.Unsettled())
		m.seen["adopted"]++
	} else {
		m.peer(q).Unite(theirs)
	}
	m.first[q] = false
}

// acquainted: neither was restarted since the two had a stream, or since both became members.
func (m *model) acquainted(i, j int) bool {
	a, b := m.r[i], m.r[j]
	return a.steady && b.steady || a.knows[j] == b.proc && b.knows[i] == a.proc
}

// down ends the stream to q.
func (m *model) down(q int) {
	m.s[q] = stream{next: m.s[q].next}
	m.abort()
	if m.primary >= 0 && m.p().alive {
		m.p().prim.Broke(m.peer(q))
		m.durable()
	}
	if m.r[q].alive {
		m.r[q].stby.Broke()
		m.r[q].regs.Abort()
	}
}

func (m *model) abort() {
	if m.clear != nil {
		m.clear = nil
		m.p().regs.Abort()
	}
}

// stop ends a process.
func (m *model) stop(i int) {
	m.r[i].alive = false
	if i == m.primary {
		for q := range m.r {
			if q != i && m.s[q].up {
				m.down(q)
			}
		}
		m.clear, m.queue, m.primary = nil, nil, -1
	} else if m.primary >= 0 && m.s[i].up {
		m.down(i)
	}
}

func (m *model) promote(i int) {
	r := m.r[i]
	for h := range r.cur { // what a failed flush may have lost is written again before it serves (R23)
		if r.stuck[h] {
			r.disk.write(h, r.cur[h])
		}
	}
	r.broke = false
	m.primary, m.s, m.queue, m.clear = i, make([]stream, len(m.r)), nil, nil
	r.prim = NewPrimary(modelSize, name(i), m.others(i))
	r.prim.Tell = !m.lean
	for j := range m.r {
		if j == i {
			continue
		}
		m.s[j].next = 1
		if m.lean {
			r.knows[j] = 0
			r.table.each(j, m.peer(j).Load)
			continue
		}
		marks := r.stby.Marks(name(j))
		if m.first[j] = r.steady && m.r[j].steady && m.r[j].alive; m.first[j] {
			m.peer(j).Adopt(marks, r.stby.Unsettled())
		} else {
			m.peer(j).Unite(marks)
		}
	}
	r.stby = nil
	r.regs.Abort()
	m.seen["promoted"]++
}

// handover makes the primary a standby without a restart. What it has on its disk has ended before.
func (m *model) handover() {
	i := m.primary
	for len(m.queue) > 0 {
		m.local()
	}
	drained := m.rng.IntN(2) == 0 && m.drain()
	r := m.r[i]
	prim := r.prim
	m.stop(i)
	r.alive, r.prim, r.stby = true, nil, NewStandby(modelSize, m.others(i))
	for j := range m.r {
		if j != i && !m.lean {
			r.stby.Marks(name(j)).Or(prim.Peer(name(j)).Marks())
		}
	}
	r.steady = r.steady && drained // else what it sent last, nobody may have
}

// drain lets all that is under way end; false when a disk failed.
func (m *model) drain() bool {
	for range 20 {
		for len(m.queue) > 0 {
			m.local()
		}
		for q := range m.r {
			for q != m.primary && m.s[q].up && len(m.s[q].frames) > 0 {
				m.deliver(q)
			}
			for len(m.s[q].acks) > 0 {
				ack := m.s[q].acks[0]
				m.s[q].acks = m.s[q].acks[1:]
				ack()
			}
		}
	}
	for q := range m.r {
		if q != m.primary && !m.s[q].up {
			return false
		}
	}
	return !m.p().broke
}

// idle is an hour without load: all is written, flushed, and what is clean is given back.
func (m *model) idle() {
	m.drain()
	m.flush()
	m.drain()
	if m.rng.IntN(2) == 0 && m.begin(true) {
		m.drain()
	}
}
