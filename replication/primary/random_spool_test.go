package primary

import (
	"errors"
	"slices"
	"testing"
)

// What a spool adds to the random schedules. After every step what the Core counts is what a recount gives: data in memory within
// its limit, data in the spool, the windows. Data that is in the spool only is never sent (R13: it comes in its place, or its
// member leaves).

// spoolSeeds is the first seed of those that have a spool.
const spoolSeeds = 1 << 20

func TestRandomSchedulesWithASpool(t *testing.T) {
	seeds := schedules()
	var completed, early, spooled, loaded, lost, rested int
	for i := range seeds {
		w, err := runWorld(spoolSeeds + 3*i) // in async
		if err != nil {
			t.Fatal(err)
		}
		completed, early = completed+w.completed, early+w.early
		spooled, loaded, lost = spooled+w.spool.spooled, loaded+w.spool.loaded, lost+w.spool.lost
		if w.atRest() {
			rested++
		}
	}
	t.Logf("%d operations, %d acknowledged early, %d spooled, %d of those read back, %d lost by the spool, %d at rest", completed, early, spooled, loaded, lost, rested)
	if n := int(seeds); completed < 20*n || spooled < n || loaded < n/4 || lost < n/50 || rested < n/2 {
		t.Fatal("the schedules do not reach what they are for")
	}
}

type worldSpool struct {
	sizes                 SpoolSizes
	writes, reads         []*Op
	away                  map[*Op]bool // no memory has it
	full                  bool         // for a while
	spooled, loaded, lost int
}

var errSpool = errors.New("spool failed")

func (w *world) newSpool() SpoolSizes {
	w.spool.away = map[*Op]bool{}
	w.async.bound.Bytes, w.async.bound.Time = w.async.bound.Bytes*8, w.async.bound.Time*8
	w.room.max *= 8
	w.spool.sizes = SpoolSizes{Window: (1 + w.rng.Int64N(2)) * (worldBlock + earlyWeight), From: max(w.rng.Int64N(4)-1, 0) * worldBlock}
	w.spool.sizes.Most = w.spool.sizes.From + (1+w.rng.Int64N(6))*worldBlock
	return w.spool.sizes
}

func (w *world) spools(a Action) {
	s := &w.spool
	if w.released[a.Op] {
		w.fail("%v of operation %d, which was released", a.Kind, a.Op.seq)
	}
	switch a.Kind {
	case Spool:
		s.writes = append(s.writes, a.Op)
	case Unload:
		if s.away[a.Op] {
			w.fail("operation %d was unloaded twice", a.Op.seq)
		}
		s.away[a.Op] = true
	case Load:
		if !s.away[a.Op] {
			w.fail("operation %d is loaded and in memory", a.Op.seq)
		}
		s.reads = append(s.reads, a.Op)
	}
}

// spoolReturns has the spool answer, in any order.
func (w *world) spoolReturns() {
	s := &w.spool
	if !w.calm && w.rng.IntN(50) == 0 {
		s.full = !s.full
	}
	if n := len(s.writes); n > 0 && w.rng.IntN(3) == 0 {
		i := w.rng.IntN(n)
		op := s.writes[i]
		s.writes = slices.Delete(s.writes, i, i+1)
		if s.full && !w.calm {
			w.c.Spooled(w.now, op, errSpool)
		} else {
			s.spooled++
			w.c.Spooled(w.now, op, nil)
		}
		w.actions()
	}
	if n := len(s.reads); n > 0 && w.rng.IntN(3) == 0 {
		i := w.rng.IntN(n)
		op := s.reads[i]
		s.reads = slices.Delete(s.reads, i, i+1)
		if !w.calm && w.rng.IntN(8) == 0 {
			s.lost++
			w.c.Loaded(w.now, op, errSpool)
		} else {
			s.loaded++
			delete(s.away, op)
			w.c.Loaded(w.now, op, nil)
		}
		w.actions()
	}
}

func (w *world) checkSpool() {
	c := w.c
	ops := map[*Op]int{}
	for _, p := range c.peers {
		window := int64(0)
		for i := range p.out.len() {
			op := p.out.at(i).op
			ops[op] += 0
			if i < p.claimed {
				ops[op]++
				window += size(op)
			}
		}
		if window != p.window || p.sent > p.claimed || p.claimed > p.out.len() {
			w.fail("the window of %s has %d entries of %d, %d bytes; %d are counted, %d entries sent", p.node, p.claimed, p.out.len(), window, p.window, p.sent)
		}
		if c.spools() && p.claimed > 1 && window > max(c.cfg.Spool.Window, 2*c.cfg.Backlog) { // it may have become required with that
			w.fail("the window of %s has %d bytes of %d", p.node, window, c.cfg.Spool.Window)
		}
	}
	fresh, spooled, early := int64(0), int64(0), int64(0)
	for op, claims := range ops {
		if claims != op.claims {
			w.fail("operation %d is in %d windows, %d are counted", op.seq, claims, op.claims)
		}
		early += op.early
		switch op.place {
		case kept, leaving:
			fresh += payload(op)
		case both, stowed, coming, gone:
			spooled += payload(op)
		}
		if away := op.place == stowed || op.place == coming || op.place == gone; away != w.spool.away[op] {
			w.fail("operation %d is %d by the Core, in the spool only: %t", op.seq, op.place, w.spool.away[op])
		}
		if op.place == stowed && claims > 0 {
			w.fail("operation %d is in a window, and not asked for", op.seq)
		}
	}
	for _, op := range w.spool.writes {
		if op.place == needless { // in no outbox, and in memory until the spool lets go of it
			fresh, early = fresh+payload(op), early+op.early
		}
	}
	if fresh != c.fresh || spooled != c.spooled || early != c.early {
		w.fail("%d bytes in memory, %d in the spool, %d early; %d, %d and %d are counted", fresh, spooled, early, c.fresh, c.spooled, c.early)
	}
	if c.spools() && fresh > max(c.cfg.Spool.Most, 3*worldBlock) {
		w.fail("R28: %d bytes are in memory, and %d may be", fresh, c.cfg.Spool.Most)
	}
}
