package resync

import (
	"slices"
	"time"
)

// Limits are what an operator set for the resyncs of a volume, in bytes a second.
type Limits struct {
	Min int64 // copied whatever it costs the clients; 0: DefaultMin
	Max int64 // never exceeded, also where Min is more; 0: no limit
}

// DefaultMin lets a resync of 1 TiB end within three days under a load that leaves it nothing more.
const DefaultMin = 4 << 20

// Clients are counts of what clients have done so far.
type Clients struct {
	Ops   uint64        // operations that were submitted
	Timed uint64        // operations that were timed and have ended
	Took  time.Duration // what those took together
}

// Pace decides when a resync takes its next chunk. It is pure; now is a time since any moment. While no client does
// anything the resync has as much under way as is of use. With clients it finds out what it costs them, by stopping for a
// moment again and again: what their operations take in such a pause is compared with what they take beside the resync, and
// the resync does more, or less, by one step at a time. Medians of short slots decide: one operation that a disk held up,
// for whatever reason, is no reason to slow down.
//
//	listening --listenTime, no client--> idle
//	idle, listening --a client--> calm --calmSlot--> beside --besideSlot, judged--> calm ...
//	  ^------------------ no client for idleAfter -----------------------------/
//
// What clients did before it was asked, or long after it was asked last, says nothing of what they do now: it listens first.
// The zero value is ready.
type Pace struct {
	Limits Limits

	phase        phase
	asked        time.Duration // last
	until        time.Duration // when the slot ends
	latest       time.Duration // up to when a calm slot waits for what is under way
	step         int           // of steps
	ops          uint64        // of clients, when last looked at
	busy         time.Duration // when they last did something
	begun        Clients       // when the slot began
	calm, beside []float64     // what an operation took in the newest slots of either kind, in ns

	chunk   time.Duration // when the chunk was taken that is under way
	flying  bool
	rest    time.Duration // nothing before it
	counted time.Duration // when the budgets were
	least   float64       // bytes that Min allows
	most    float64       // bytes that Max allows
}

type phase uint8

const (
	unasked phase = iota
	listening
	idle
	calm
	beside
)

// intensity is how much a resync does: flying chunks under way, and after each a rest of so many times what it took.
type intensity struct {
	flying int
	rest   float64
}

var steps = [...]intensity{{1, 32}, {1, 16}, {1, 8}, {1, 4}, {1, 2}, {1, 1}, {1, 0.5}, {1, 0}, {2, 0}, {4, 0}, {8, 0}, {16, 0}}

// alone is how much it does while nobody else does anything: all that is of use.
var alone = intensity{flying: 48}

const (
	firstStep  = 5
	listenTime = 50 * time.Millisecond
	calmSlot   = 100 * time.Millisecond
	besideSlot = 300 * time.Millisecond
	// longestWait bounds how long a slot without the resync waits for what is under way of it.
	longestWait = time.Second
	idleAfter   = time.Second
	slotsKept   = 7
	slotsWant   = 3
	fewestOps   = 2   // of a slot that counts: one operation in several is timed
	tooSlow     = 1.6 // times what an operation takes without: less is done from there on
	unnoticed   = 1.3 // up to here more is done
	lookAgain   = 20 * time.Millisecond
)

// Next reports whether one more chunk may be taken now, with flying bytes under way; if not, when to ask again at the
// latest.
func (p *Pace) Next(now time.Duration, c Clients, flying int64) (ok bool, again time.Duration) {
	p.look(now, c, flying)
	p.landed(now, flying)
	p.count(now)
	if p.Limits.Max > 0 && p.most < 0 {
		return false, waitFor(-p.most, p.Limits.Max)
	}
	do := p.intensity()
	switch {
	case p.phase == calm || p.phase == listening:
		return false, max(p.until-now, time.Millisecond)
	case flying >= int64(do.flying)*ChunkSize:
		return false, lookAgain
	case p.least >= ChunkSize || now >= p.rest:
		return true, 0
	}
	return false, min(p.rest-now, lookAgain)
}

// Took tells that a chunk of so many bytes was taken.
func (p *Pace) Took(now time.Duration, bytes int64) {
	if !p.flying {
		p.flying, p.chunk = true, now
	}
	p.least -= float64(bytes)
	p.most -= float64(bytes)
}

// landed begins the rest when nothing is under way any more.
func (p *Pace) landed(now time.Duration, flying int64) {
	if p.flying && flying == 0 {
		p.flying = false
		p.rest = now + time.Duration(p.intensity().rest*float64(now-p.chunk))
	}
}

func (p *Pace) intensity() intensity {
	if p.phase == idle {
		return alone
	}
	return steps[p.step]
}

func (p *Pace) min() int64 {
	if p.Limits.Min == 0 {
		return DefaultMin
	}
	return p.Limits.Min
}

// count lets the budgets grow. What is left unused is kept for a moment only.
func (p *Pace) count(now time.Duration) {
	passed := (now - p.counted).Seconds()
	p.counted = now
	p.least = min(p.least+float64(p.min())*passed, max(float64(p.min())/2, ChunkSize))
	p.least = max(p.least, -ChunkSize)
	if p.Limits.Max == 0 {
		p.most = 0 // what was copied without a limit does not count against one that is set later
		return
	}
	p.most = min(p.most+float64(p.Limits.Max)*passed, float64(p.Limits.Max)/10)
}

func waitFor(bytes float64, perSec int64) time.Duration {
	return min(max(time.Duration(bytes/float64(perSec)*float64(time.Second)), time.Millisecond), time.Second)
}

// look moves on from slot to slot. A calm one begins when nothing is under way any more, or not for long.
func (p *Pace) look(now time.Duration, c Clients, flying int64) {
	if p.phase == unasked || now-p.asked >= 2*idleAfter {
		p.phase, p.ops, p.until, p.rest = listening, c.Ops, now+listenTime, now
	}
	p.asked = now
	if c.Ops != p.ops {
		p.ops, p.busy = c.Ops, now
		if p.phase == idle || p.phase == listening {
			p.phase, p.step, p.calm, p.beside, p.rest, p.latest = calm, firstStep, nil, nil, now, now+longestWait
			p.begin(now, c)
		}
	}
	switch {
	case p.phase == idle:
	case p.phase == listening:
		if now >= p.until {
			p.phase = idle
		}
	case now-p.busy >= idleAfter:
		p.phase, p.rest = idle, now
	case p.phase == calm && flying > 0 && now < p.latest:
		p.begin(now, c)
	case now >= p.until:
		took, ok := p.slot(c)
		if p.phase == calm {
			p.calm = keep(p.calm, took, ok)
			p.phase = beside
		} else {
			p.beside = keep(p.beside, took, ok)
			p.judge()
			p.phase, p.latest = calm, now+longestWait
		}
		p.begin(now, c)
	}
}

func (p *Pace) begin(now time.Duration, c Clients) {
	p.begun, p.until = c, now+besideSlot
	if p.phase == calm {
		p.until = now + calmSlot
	}
}

// slot is what an operation took in the slot that ends; ok false: too few ended to say so.
func (p *Pace) slot(c Clients) (took float64, ok bool) {
	n := c.Timed - p.begun.Timed
	if n < fewestOps {
		return 0, false
	}
	return float64(c.Took-p.begun.Took) / float64(n), true
}

func keep(slots []float64, took float64, ok bool) []float64 {
	if !ok {
		return slots
	}
	if len(slots) == slotsKept {
		slots = slots[1:]
	}
	return append(slots, took)
}

// judge takes a step when enough slots tell that it is time for one. What was seen beside the resync then counts no more.
func (p *Pace) judge() {
	if len(p.calm) < slotsWant || len(p.beside) < slotsWant {
		return
	}
	switch ratio := median(p.beside) / median(p.calm); {
	case ratio > tooSlow:
		p.step = max(p.step-1, 0)
	case ratio < unnoticed:
		p.step = min(p.step+1, len(steps)-1)
	default:
		return
	}
	p.beside = p.beside[:0]
}

func median(values []float64) float64 {
	s := slices.Sorted(slices.Values(values))
	return s[len(s)/2]
}
