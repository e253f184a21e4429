package maps

import (
	"math/rand/v2"

	"hacluster/blockdev"
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

// mark is what comes before a replica changes anything: coarse, durable, for all peers; now and then more than is written.
func (m *model) mark(i int, g blockdev.Range) {
	r := m.r[i]
	r.regs.Touch(g)
	from, to := g.Off/regionSize, (g.End()-1)/regionSize
	if m.lean && m.rng.IntN(8) == 0 {
		from, to = 0, min(to+1, regions-1)
		m.seen["marked ahead"]++
	}
	for j := range m.r {
		for k := from; j != i && k <= to; k++ {
			r.marks[j][k] = true
		}
	}
}

func (m *model) apply(i int, g blockdev.Range, vals []int) {
	for k, v := range vals {
		m.r[i].write(int(g.Off/half)+k, v)
	}
}

// spoil notes on stable storage that everything may differ.
func (m *model) spoil(i int) {
	for j := range m.r {
		m.r[i].everything[j] = j != i
	}
	m.r[i].steady = false
}

func (m *model) restore(i int) {
	r := m.r[i]
	r.disk = disk{cur: r.backup.content, dur: r.backup.content}
	r.table = r.backup.table
	r.steady = false
	m.seen["restored"]++
}
