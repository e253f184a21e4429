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
	Tail  Tail          // how long each of them took
}

// Pace decides when a resync takes its next chunk. It is pure; now is a time since any moment. While no client does
// anything the resync has as much under way as is of use. With clients it finds out what it costs them, by stopping for a
// moment again and again: what their operations take in such a pause is compared with what they take beside the resync, the
// slowest hundredth as well as all of them. It does more by one step at a time, and less by several where that is much too
// slow; what was too much is not tried again for a while, and for longer each time. The first steps are about how much is under
// way at a time, for that is what an operation waits behind; the rests between come last. Several short slots decide: one
// operation that a disk held up, for whatever reason, is no reason to slow down.
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
	calm, beside []slot        // the newest of either kind
	refused      int           // the step that was too much last; beyond all of them: none
	refusedFor   time.Duration // for how long it is not tried again
	retry        time.Duration // when it is

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

// slot is what clients felt for a moment.
type slot struct {
	mean float64 // what an operation took, in ns
	tail Tail
}

// intensity is how much a resync does: chunks of at most so many bytes, flying of them under way, and after each a rest of so
// many times what it took.
type intensity struct {
	bytes  int64
	flying int64
	rest   float64
}

var steps = [...]intensity{
	{PieceSize, 1, 32}, {PieceSize, 1, 16}, {PieceSize, 1, 8}, {PieceSize, 1, 4}, {PieceSize, 1, 2}, {PieceSize, 1, 1}, {PieceSize, 1, 0},
	{2 * PieceSize, 1, 0}, {4 * PieceSize, 1, 0}, {8 * PieceSize, 1, 0},
	{ChunkSize, 1, 0}, {ChunkSize, 2, 0}, {ChunkSize, 4, 0}, {ChunkSize, 8, 0}, {ChunkSize, 16, 0},
}

// alone is how much it does while nobody else does anything: all that is of use.
var alone = intensity{ChunkSize, 48, 0}

const (
	firstStep  = 6
	listenTime = 50 * time.Millisecond
	calmSlot   = 100 * time.Millisecond
	besideSlot = 300 * time.Millisecond
	// longestWait bounds how long a slot without the resync waits for what is under way of it.
	longestWait = time.Second
	idleAfter   = time.Second
	slotsKept   = 7
	slotsWant   = 3
	fewestOps   = 2   // of a slot that counts
	tooSlow     = 1.6 // times what an operation takes without: less is done from there on
	unnoticed   = 1.3 // up to here more is done
	slowTail    = 1.8 // the same of the slowest, of which twice is the aim
	shortTail   = 1.4
	farTooSlow  = 2 // times either: much less is done
	lookAgain   = 20 * time.Millisecond
	firstRetry  = 5 * time.Second
	latestRetry = 2 * time.Minute
)

// Next tells how large a chunk may be taken now, in bytes, with flying bytes under way; 0: none, and when to ask again at the
// latest.
func (p *Pace) Next(now time.Duration, c *Clients, flying int64) (most int64, again time.Duration) {
	p.look(now, c, flying)
	p.landed(now, flying)
	p.count(now)
	if p.Limits.Max > 0 && p.most < 0 {
		return 0, waitFor(-p.most, p.Limits.Max)
	}
	do := p.intensity()
	switch {
	case p.phase == calm || p.phase == listening:
		return 0, max(p.until-now, time.Millisecond)
	case p.least >= ChunkSize && flying < alone.flying*alone.bytes: // what Min allows was not reached in small chunks
		return ChunkSize, 0
	case flying >= do.flying*do.bytes:
		return 0, lookAgain
	case do.rest == 0 || p.least >= float64(do.bytes) || now >= p.rest:
		return do.bytes, 0
	}
	return 0, min(p.rest-now, lookAgain)
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
	p.least = min(p.least+float64(p.min())*passed, max(float64(p.min())/4, ChunkSize))
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
func (p *Pace) look(now time.Duration, c *Clients, flying int64) {
	if p.phase == unasked || now-p.asked >= 2*idleAfter {
		p.phase, p.ops, p.until, p.rest = listening, c.Ops, now+listenTime, now
		p.least, p.counted = 0, now // nothing was to be copied meanwhile
	}
	p.asked = now
	if c.Ops != p.ops {
		p.ops, p.busy = c.Ops, now
		if p.phase == idle || p.phase == listening {
			p.phase, p.step, p.calm, p.beside, p.rest, p.latest = calm, firstStep, nil, nil, now, now+longestWait
			p.refused, p.refusedFor = len(steps), 0
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
		felt, ok := p.slot(c)
		if p.phase == calm {
			p.calm = keep(p.calm, felt, ok)
			p.phase = beside
		} else {
			p.beside = keep(p.beside, felt, ok)
			p.judge(now)
			p.phase, p.latest = calm, now+longestWait
		}
		p.begin(now, c)
	}
}

func (p *Pace) begin(now time.Duration, c *Clients) {
	p.begun, p.until = *c, now+besideSlot
	if p.phase == calm {
		p.until = now + calmSlot
	}
}

// slot is what was felt in the one that ends; ok false: too few operations ended to say so.
func (p *Pace) slot(c *Clients) (s slot, ok bool) {
	n := c.Timed - p.begun.Timed
	if n < fewestOps {
		return s, false
	}
	return slot{mean: float64(c.Took-p.begun.Took) / float64(n), tail: c.Tail.since(&p.begun.Tail)}, true
}

func keep(slots []slot, s slot, ok bool) []slot {
	if !ok {
		return slots
	}
	if len(slots) == slotsKept {
		slots = slots[1:]
	}
	return append(slots, s)
}

// judge takes a step when enough slots tell that it is time for one. What was seen beside the resync then counts no more.
func (p *Pace) judge(now time.Duration) {
	if len(p.calm) < slotsWant || len(p.beside) < slotsWant {
		return
	}
	all, with, without := median(p.beside)/median(p.calm), tailOf(p.beside), tailOf(p.calm)
	if worst := max(all/tooSlow, slower(with, without, surely)/slowTail); worst > 1 {
		p.less(now, worst > farTooSlow)
		return
	}
	if p.step >= p.refused {
		p.refused, p.refusedFor = len(steps), 0 // it was too much once, and is no more
	}
	if next := p.step + 1; all < unnoticed && slower(with, without, perhaps) < shortTail && next < len(steps) && (next < p.refused || now >= p.retry) {
		p.step, p.beside = next, p.beside[:0]
	}
}

// less takes a step back, or several, and notes which one was too much.
func (p *Pace) less(now time.Duration, much bool) {
	p.refused, p.refusedFor = max(p.step, 1), min(max(2*p.refusedFor, firstRetry), latestRetry)
	p.retry = now + p.refusedFor
	if p.step--; much {
		p.step -= 2
	}
	p.step, p.beside = max(p.step, 0), p.beside[:0]
}

func median(slots []slot) float64 {
	var means []float64
	for _, s := range slots {
		means = append(means, s.mean)
	}
	slices.Sort(means)
	return means[len(means)/2]
}

func tailOf(slots []slot) *Tail {
	var sum Tail
	for i := range slots {
		sum.add(&slots[i].tail)
	}
	return &sum
}
