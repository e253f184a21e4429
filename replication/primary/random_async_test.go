package primary

import (
	"time"

	"hacluster/blockdev"
)

// What async adds to the random schedules. After every step:
//   - what a member has is a prefix of the order of admission, and of the flushes and durable writes in it each is durable before
//     anything that followed is written (R13)
//   - at each acknowledgement, all that was acknowledged and a member lacks is within the bound, in bytes and in time
//   - the Core counts exactly that
//   - when a hand-over has drained, no member lacks anything (R30)

type asyncWorld struct {
	bound Bound
	order []*admitted // in the order of admission
	by    map[*Op]*admitted

	late, full, handed int
}

// admitted is one operation of a client.
type admitted struct {
	op   *Op
	done bool
	at   Instant // when its client was told
}

func newAsyncWorld(w *world) *asyncWorld {
	a := &asyncWorld{by: map[*Op]*admitted{}, bound: Bound{
		Bytes: (3 + w.rng.Int64N(12)) * worldBlock,
		Time:  dropAfter/4 + time.Duration(w.rng.Int64N(int64(dropAfter))), Patience: time.Duration(w.rng.Int64N(int64(2 * dropAfter)))}}
	if w.rng.IntN(2) == 0 {
		a.bound.Bytes *= 8
	}
	if w.rng.IntN(2) == 0 {
		a.bound.Time *= 8
	}
	return a
}

func (a *asyncWorld) admits(op *Op) {
	one := &admitted{op: op}
	a.order, a.by[op] = append(a.order, one), one
}

// lacking is the first operation of a client that s has not taken; none: ^0.
func (w *world) lacking(s *side) uint64 {
	p := w.c.peers[s.name]
	for i := range p.out.len() {
		if num := p.acked + 1 + uint64(i); num > s.recv.Taken() && p.out.at(i).op.seq != 0 {
			return p.out.at(i).op.seq
		}
	}
	return ^uint64(0)
}

// upTo is what the operations before the seq leave.
func (a *asyncWorld) upTo(seq uint64) (c content) {
	for _, o := range a.order {
		if o.op.seq < seq && o.op.Kind != blockdev.OpFlush {
			c.put(o.op.Range, o.op.seq)
		}
	}
	return c
}

// isPrefix demands that a member has all before the first that it lacks, and nothing that comes later.
func (w *world) isPrefix(s *side) {
	if w.c.DiskError() != nil {
		return // what failed here may be there
	}
	from := w.lacking(s)
	want, has := w.async.upTo(from), w.has(s)
	for b := range has {
		if has[b] != want[b] && (want[b] != 0 || has[b] != other) {
			w.fail("R13: block %d of member %s holds %d: no prefix of the order, in which it has all before %d, and %d there", b, s.name, has[b], from, want[b])
		}
	}
	newest := uint64(0)
	for _, v := range s.dev {
		if v != other {
			newest = max(newest, v)
		}
	}
	promised := uint64(0) // the newest flush before that
	for _, o := range w.async.order {
		switch {
		case o.op.seq >= newest:
		case o.op.Kind == blockdev.OpFlush:
			promised = o.op.seq
		case o.op.FUA:
			for b, to := blocks(o.op.Range); b < to; b++ {
				if s.dur[b] < o.op.seq {
					w.fail("R13: member %s holds write %d, and not durably the durable write %d before it: block %d holds %d", s.name, newest, o.op.seq, b, s.dur[b])
				}
			}
		}
	}
	for b, v := range w.async.upTo(promised) {
		if s.dur[b] < v {
			w.fail("R13: member %s holds write %d, and not durably what flush %d before it was for: block %d holds %d, not %d", s.name, newest, promised, b, s.dur[b], v)
		}
	}
}

// tells is called when a client is told of op: all that a member lacks now is within the bound.
func (w *world) tells(op *Op) {
	a := w.async
	one := a.by[op]
	if one == nil {
		return // a mend
	}
	one.done, one.at = true, w.now
	w.everyMember(func(s *side) {
		if !w.lags(s) || !w.c.peers[s.name].isAsync() {
			return // by the mode before, the stronger one, or by its own
		}
		bytes, from := int64(0), w.lacking(s)
		for _, o := range a.order {
			if !o.done || o.op.seq < from {
				continue
			}
			if bytes += lost(o.op); w.now.Sub(o.at) > a.bound.Time && op.seq >= from {
				w.fail("R13: operation %d was acknowledged although member %s lacks %d, which was %v ago; the bound is %v", op.seq, s.name, o.op.seq, w.now.Sub(o.at), a.bound.Time)
			}
		}
		if bytes > a.bound.Bytes {
			w.fail("R13: operation %d was acknowledged, and member %s lacks %d bytes; the bound is %d", op.seq, s.name, bytes, a.bound.Bytes)
		}
		if bytes == a.bound.Bytes {
			a.full++
		}
	})
}

// checkLag demands that the Core counts what its outboxes hold of what clients were told of.
func (w *world) checkLag() {
	late := 0
	for i := range w.c.inflight.len() {
		if op := w.c.inflight.at(i); op != nil && op.lateSince != 0 {
			late++
		}
	}
	if late != w.c.late {
		w.fail("%d operations wait for the bound, %d are counted", late, w.c.late)
	}
	if late > 0 {
		w.async.late++
	}
	for _, p := range w.c.peers {
		bytes, oldest := int64(0), Instant(0)
		for i := range p.out.len() {
			op := p.out.at(i).op
			one := w.async.by[op]
			if one == nil || !one.done || op.seq <= p.lagFrom || !p.required() || !p.isAsync() {
				continue
			}
			bytes += lost(op)
			if oldest == 0 || one.at < oldest {
				oldest = one.at
			}
		}
		if g := w.c.Peer(p.node); g.LagBytes != bytes || p.required() && !w.changes && len(w.c.mends) == 0 && w.async.mends(p) == 0 && g.LagSince != oldest {
			w.fail("%s lacks %d bytes, the oldest since %d; %d and %d are counted", p.node, bytes, oldest, g.LagBytes, g.LagSince)
		}
	}
}

// mends are operations of no client in the outbox of p, whose time counts, too.
func (a *asyncWorld) mends(p *peer) (n int) {
	for i := range p.out.len() {
		if op := p.out.at(i).op; op.seq != 0 && a.by[op] == nil {
			n++
		}
	}
	return n
}

// readTold demands that a client read nothing that another one may still be told has failed.
func (w *world) readTold(seen content) {
	for op := range w.open {
		for b, v := range seen {
			if v == op.seq && v != 0 {
				w.fail("R29: a read of block %d was answered with write %d, which is not acknowledged", b, v)
			}
		}
	}
}

// handOver begins one, or takes it back.
func (w *world) handOver() {
	switch {
	case w.async == nil:
	case w.c.quiet && (w.calm || w.rng.IntN(20) == 0):
		w.c.Resume()
	case !w.c.quiet && !w.calm && w.rng.IntN(15) == 0:
		w.c.Drain()
	}
}

func (w *world) drained() {
	w.async.handed++
	w.everyMember(func(s *side) {
		if !w.lags(s) {
			return
		}
		if from := w.lacking(s); from != ^uint64(0) {
			w.fail("R30: drained, and member %s lacks operation %d", s.name, from)
		}
		for _, e := range s.holding {
			if e.f.op.seq != 0 { // copies may be on their way
				w.fail("R30: drained, and member %s has operation %d in its memory only", s.name, e.f.op.seq)
			}
		}
	})
}
