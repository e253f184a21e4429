package maps

import (
	"math/rand/v2"
	"slices"
	"testing"
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
	lean    bool // standbys keep no maps of blocks
}

func name(i int) string { return string(rune('a' + i)) }

func index(n string) int { return int(n[0] - 'a') }

func newModel(t testing.TB, seed uint64, n int) *model {
	m := &model{t: t, rng: rand.New(rand.NewPCG(seed, uint64(n))), primary: -1, seen: map[string]int{}, first: make([]bool, n), lean: seed%2 == 1}
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
	case in(p.copy) && up && m.rng.IntN(2) == 0:
		m.compare(i)
		return "compare " + name(i)
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
	for _, k := range []string{"region cleared", "marked ahead", "everything taken back", "a map went back", "restored", "adopted", "promoted",
		"standby's flush failed", "primary's flush failed", "hand", "powe", "kill", "brea", "clea"} {
		if seen[k] < 10 {
			t.Errorf("%q happened %d times only: the model does not try it", k, seen[k])
		}
	}
	t.Log(seen)
}
