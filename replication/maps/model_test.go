package maps

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"hacluster/blockdev"
	"hacluster/blockdev/bitmap"
)

// The model: replicas of a few blocks, each of two halves so that writes may be partial, with disks that lose what was
// not flushed, in any combination; processes and machines that stop; streams that break; roles that move; metadata and
// data that are restored from a backup of an earlier moment. The code under test decides; the model writes down and
// checks after every step that what may differ after a power cut is marked by one of the two (R14).
const (
	halves     = 15 // the last block is short
	half       = blockSize / 2
	modelSize  = halves * half
	regionSize = 2 * blockSize
	regions    = (modelSize + regionSize - 1) / regionSize
)

type disk struct {
	cur   [halves]int
	dur   [halves]int
	pend  [halves][]int // written since dur: a power cut leaves dur or any of them
	stuck [halves]bool  // a failed flush: memory has it, no later flush writes it
	broke bool          // a flush failed: all later ones count as failed until the disk is opened anew (R23)
}

func (d *disk) write(h, v int) {
	d.cur[h], d.stuck[h] = v, false
	d.pend[h] = append(d.pend[h], v)
}

func (d *disk) flush(ok bool) bool {
	d.broke = d.broke || !ok
	for h := range d.cur {
		switch {
		case !ok:
			d.stuck[h] = d.stuck[h] || len(d.pend[h]) > 0
		case !d.stuck[h]:
			d.dur[h], d.pend[h] = d.cur[h], nil
		}
	}
	return !d.broke
}

func (d *disk) possible(h int) []int { return append([]int{d.dur[h]}, d.pend[h]...) }

func (d *disk) power(rng *rand.Rand) {
	for h := range d.cur {
		p := d.possible(h)
		d.cur[h] = p[rng.IntN(len(p))]
		d.dur[h], d.pend[h], d.stuck[h] = d.cur[h], nil, false
	}
}

// table is what package marks keeps on stable storage: coarse, one slot for each peer.
type table struct {
	marks      [3][regions]bool
	everything [3]bool
	number     [3]Number
}

type replica struct {
	disk
	table
	alive  bool
	steady bool   // a member, and not restarted since it became one
	proc   int    // counts its processes
	knows  [3]int // the process of each peer that this process last had a stream with
	prim   *Primary
	stby   *Standby
	regs   *Regions
	cover  [3]bool // of the clearing under way: it may take "everything" back
	backup *backup
}

type backup struct {
	content [halves]int
	table   table
}

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
}

type stream struct {
	up     bool
	next   uint64
	ids    []uint64 // of the entries not acknowledged, with their nums in nums
	nums   []uint64
	frames []*frame
	acks   []func() // answers on their way back
}

// local is an operation that waits for the primary's own disk.
type local struct {
	id   uint64
	kind string
	r    blockdev.Range
	val  int
	to   *frame
}

type clearing struct {
	n        uint64
	set      []int
	promised int
}

type model struct {
	t       testing.TB
	rng     *rand.Rand
	r       []*replica
	primary int // -1: none
	first   []bool
	s       []stream // of the primary, by replica
	queue   []local
	id      uint64
	val     int
	clear   *clearing
	seen    map[string]int
}

func name(i int) string { return string(rune('a' + i)) }

func index(n string) int { return int(n[0] - 'a') }

func newModel(t testing.TB, seed uint64, n int) *model {
	m := &model{t: t, rng: rand.New(rand.NewPCG(seed, uint64(n))), primary: -1, seen: map[string]int{}, first: make([]bool, n)}
	for range n {
		m.r = append(m.r, &replica{steady: true})
	}
	for i := range m.r {
		m.start(i)
	}
	return m
}

func (m *model) others(i int) (out []string) {
	for j := range m.r {
		if j != i {
			out = append(out, name(j))
		}
	}
	return out
}

// start is a new process: a standby that knows what is on stable storage.
func (m *model) start(i int) {
	r := m.r[i]
	r.alive, r.prim, r.broke = true, nil, false
	r.proc++
	r.knows = [3]int{}
	r.stby, r.regs = NewStandby(modelSize, m.others(i)), NewRegions(modelSize, regionSize)
	for j := range m.r {
		if j != i {
			r.table.each(j, func(g blockdev.Range) { r.stby.Load(name(j), g) })
		}
	}
}

func (t *table) each(j int, fn func(blockdev.Range)) {
	for g := range int64(regions) {
		if t.everything[j] || t.marks[j][g] {
			fn(blockdev.Range{Off: g * regionSize, Len: min(regionSize, modelSize-g*regionSize)})
		}
	}
}

// mark is what comes before a replica changes anything: coarse, durable, for all peers.
func (m *model) mark(i int, g blockdev.Range) {
	r := m.r[i]
	r.regs.Touch(g)
	for j := range m.r {
		for k := g.Off / regionSize; j != i && k <= (g.End()-1)/regionSize; k++ {
			r.marks[j][k] = true
		}
	}
}

func (m *model) apply(i int, g blockdev.Range, vals []int) {
	for k, v := range vals {
		m.r[i].write(int(g.Off/half)+k, v)
	}
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

// spoil notes on stable storage that everything may differ.
func (m *model) spoil(i int) {
	for j := range m.r {
		m.r[i].everything[j] = j != i
	}
	m.r[i].steady = false
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
	for j := range m.r {
		if j == i {
			continue
		}
		m.s[j].next = 1
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
		if j != i {
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

func (m *model) restore(i int) {
	r := m.r[i]
	r.disk = disk{cur: r.backup.content, dur: r.backup.content}
	r.table = r.backup.table
	r.steady = false
	m.seen["restored"]++
}

// pace says how often each event is tried. Under load much is in flight when something breaks; calm, marks get as far as
// leaving before it does.
type pace struct{ write, local, deliver, ack, flush, copy, connect, admit, clearing, trouble int }

var paces = []pace{
	{write: 20, local: 20, deliver: 15, ack: 13, flush: 5, copy: 9, connect: 4, admit: 2, clearing: 2, trouble: 5},
	{write: 3, local: 20, deliver: 26, ack: 20, flush: 5, copy: 10, connect: 6, admit: 3, clearing: 7, trouble: 1},
	{write: 12, local: 2, deliver: 30, ack: 25, flush: 8, copy: 5, connect: 4, admit: 3, clearing: 5, trouble: 1},
	{write: 8, local: 7, deliver: 35, ack: 32, flush: 8, copy: 2, connect: 2, admit: 1, clearing: 2, trouble: 1},
	{write: 12, local: 25, deliver: 3, ack: 5, flush: 8, copy: 5, connect: 4, admit: 3, clearing: 5, trouble: 2},
	{write: 4, local: 14, deliver: 24, ack: 24, flush: 9, copy: 6, connect: 6, admit: 3, clearing: 10, trouble: 1},
}

// step is one event.
func (m *model) step(p pace) string {
	i := m.rng.IntN(len(m.r))
	r := m.r[i]
	has := m.primary >= 0
	isPeer := has && i != m.primary
	up := isPeer && m.s[i].up
	if has && m.p().broke && m.rng.IntN(20) == 0 {
		m.handover()
		return "handover"
	}
	k := m.rng.IntN(100)
	in := func(n int) bool { k -= n; return k < 0 && k >= -n }
	switch {
	case in(p.write) && has:
		m.write()
		return "write"
	case in(p.local) && has && len(m.queue) > 0:
		m.local()
		return "local"
	case in(p.deliver) && up && len(m.s[i].frames) > 0:
		m.deliver(i)
		return "deliver " + name(i)
	case in(p.ack) && up && len(m.s[i].acks) > 0:
		ack := m.s[i].acks[0]
		m.s[i].acks = m.s[i].acks[1:]
		ack()
		return "ack " + name(i)
	case in(p.flush) && has:
		m.flush()
		return "flush"
	case in(p.copy) && up:
		m.copy(i)
		return "copy " + name(i)
	case in(p.connect):
		switch {
		case !r.alive:
			if r.backup != nil && m.rng.IntN(3) == 0 {
				m.restore(i)
			}
			m.start(i)
			return "start " + name(i)
		case !has:
			better := slices.IndexFunc(m.r, func(o *replica) bool { return o.alive && o.steady })
			if better >= 0 && m.rng.IntN(4) > 0 {
				i = better
			}
			m.promote(i)
			return "promote " + name(i)
		case isPeer && !up:
			m.connect(i)
			return "connect " + name(i)
		}
	case in(p.admit) && up && m.peer(i).Behind() == 0 && m.peer(i).copies == 0:
		r.steady = true
		return "admit " + name(i)
	case in(p.clearing) && has && m.begin(m.rng.IntN(2) == 0):
		return "clearing"
	case in(p.trouble):
		return m.trouble(i)
	case in(1) && has:
		m.idle()
		return "idle"
	}
	return ""
}

func (m *model) trouble(i int) string {
	r := m.r[i]
	switch m.rng.IntN(9) {
	case 0, 6:
		if m.primary >= 0 && i != m.primary && m.s[i].up {
			m.down(i)
			return "break " + name(i)
		}
	case 1, 7:
		if r.alive {
			m.stop(i)
			r.steady = false
			return "kill " + name(i)
		}
	case 2:
		m.stop(i)
		r.power(m.rng)
		r.steady = false
		return "power " + name(i)
	case 3:
		if m.primary >= 0 {
			m.handover()
			return "handover"
		}
	case 4:
		b := &backup{table: r.table}
		for h := range b.content {
			p := r.possible(h)
			b.content[h] = p[m.rng.IntN(len(p))]
		}
		r.backup = b
		return "backup " + name(i)
	}
	return ""
}

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
				if m.r[i].alive && m.r[j].alive && m.acquainted(i, j) && !m.inMemory(i, j, b) && !m.inMemory(j, i, b) {
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

// run plays one seed; it returns what went wrong and what led there.
func run(t testing.TB, seed uint64, n, steps int) (m *model, log []string, err error) {
	m = newModel(t, seed, n)
	p := paces[0]
	for i := range steps {
		if i%50 == 0 {
			p = paces[m.rng.IntN(len(paces))]
		}
		if what := m.step(p); what != "" {
			log = append(log, what)
			m.seen[what[:min(len(what), 4)]]++
		}
		if err := m.check(); err != nil {
			return m, log, err
		}
	}
	log = append(log, "heal")
	return m, log, m.heal()
}

func TestModelEveryDifferenceIsMarked(t *testing.T) {
	seen := map[string]int{}
	for n := 2; n <= 3; n++ {
		for seed := range modelSeeds() {
			m, log, err := run(t, seed, n, 2000)
			if err != nil {
				t.Fatalf("%d replicas, seed %d, after %d events: %v\n... %v", n, seed, len(log), err, log[max(0, len(log)-40):])
			}
			for k, v := range m.seen {
				seen[k] += v
			}
		}
	}
	for _, k := range []string{"region cleared", "everything taken back", "a map went back", "restored", "adopted", "promoted",
		"standby's flush failed", "primary's flush failed", "hand", "powe", "kill", "brea", "clea"} {
		if seen[k] < 10 {
			t.Errorf("%q happened %d times only: the model does not try it", k, seen[k])
		}
	}
	t.Log(seen)
}
