package primary

import "hacluster/blockdev"

func (w *world) complete(op *Op) {
	if op.Kind == blockdev.OpRead {
		if op.Err != nil {
			if w.c.required() > 0 {
				w.fail("R23: a client is told of a failed read while another may have the block")
			}
		} else {
			w.readCompletes(op)
			w.everyMember(func(s *side) {
				has := w.has(s)
				if w.lags(s) {
					has = w.waiting[op] // what a member lacks within the bound may be read
				}
				for b, v := range w.waiting[op] {
					if has[b] < v {
						w.fail("R29: a read saw write %d of block %d, member %s holds %d", v, b, s.name, has[b])
					}
					if has[b] == other && op.Range.Off == int64(b)*worldBlock {
						w.fail("R29: a read of block %d, which member %s has from before the tenure in another state, was answered", b, s.name)
					}
				}
			})
		}
		if w.async != nil && op.Err == nil {
			w.readTold(w.waiting[op])
		}
		delete(w.waiting, op)
		delete(w.balance.begun, op)
		return
	}
	before, ok := w.open[op]
	if !ok {
		w.fail("operation %d was completed twice", op.seq)
	}
	delete(w.open, op)
	w.completed++
	if op.early > 0 {
		w.early++
	}
	others := len(w.vol().Members) - 1
	if w.c.DiskError() != nil && !w.c.readsOnly && others > 0 {
		w.fail("R23: operation %d was answered by a primary whose disk failed, with %d other members", op.seq, others)
	}
	if op.Err != nil || w.mends[op] != nil {
		return
	}
	if w.async != nil {
		w.tells(op)
	}
	if op.Kind == blockdev.OpFlush {
		for b, v := range before {
			w.flushed.raise(int64(b), v)
		}
		return
	}
	for b, to := blocks(op.Range); b < to; b++ {
		w.acked.raise(b, op.seq)
	}
}

// everyMember runs f on each other member that is what the committed set names.
func (w *world) everyMember(f func(*side)) {
	vol := w.vol()
	for _, s := range w.sides {
		if m, ok := vol.Members[s.name]; ok && m.Incarnation == s.inc && (!vol.IsProcess(s.name) || m.Process == s.process) && !s.failed {
			f(s)
		}
	}
}

// has is what a member has: in semisync also what only its process has, in memory.
func (w *world) has(s *side) content {
	has := s.dev
	if vol := w.vol(); !vol.IsProcess(s.name) {
		return has
	}
	for _, e := range s.holding {
		if op := e.f.op; op.Kind != blockdev.OpFlush && !op.IsVoid() && !op.Closing() {
			w.put(&has, op, e.f.data)
		}
	}
	return has
}

func (w *world) check() {
	w.everyMember(func(s *side) {
		if w.lags(s) {
			w.isPrefix(s)
		}
	})
	if w.async != nil {
		w.checkLag()
		w.checkSpool()
	}
	w.everyMember(func(s *side) {
		if w.lags(s) {
			return
		}
		has := w.has(s)
		for b := range s.dev {
			if has[b] < w.acked[b] {
				w.fail("R4: block %d of member %s holds %d, %d was acknowledged", b, s.name, has[b], w.acked[b])
			}
			if s.dur[b] < w.flushed[b] {
				w.fail("R20: block %d of member %s holds %d durably, %d was flushed", b, s.name, s.dur[b], w.flushed[b])
			}
		}
	})
	least, n := ^uint64(0), 0
	early := map[*Op]int64{}
	for _, p := range w.c.peers {
		if p.required() {
			least = min(least, p.seen)
		}
		sum := int64(0)
		for i := range p.out.len() {
			if op := p.out.at(i).op; w.released[op] {
				w.fail("operation %d is released and in the outbox of %s", op.seq, p.node)
			} else {
				sum += weight(op)
				if early[op] = op.early; op.fetched {
					early[op] += payload(op)
				}
			}
		}
		if sum != p.bytes {
			w.fail("the outbox of %s holds %d bytes and counts %d", p.node, sum, p.bytes)
		}
	}
	held := int64(0)
	for _, n := range early {
		held += n
	}
	for _, op := range w.spool.writes {
		if op.place == needless { // in no outbox, and still in memory
			held += op.early
		}
	}
	if held != w.c.early+w.c.fetched || w.room != nil && held != w.room.used {
		w.fail("R28: %d bytes are held of what was acknowledged early, %d counted", held, w.c.early+w.c.fetched)
	}
	if least != w.c.minSeen {
		w.fail("minSeen is %d, the peers have %d", w.c.minSeen, least)
	}
	for i := range w.c.inflight.len() {
		if w.c.inflight.at(i) != nil {
			n++
		}
	}
	if n != w.c.InFlight() || n != len(w.open) {
		w.fail("%d in flight, %d counted, %d not completed", n, w.c.InFlight(), len(w.open))
	}
}

func (w *world) atRest() bool {
	return w.vol().NextMode == "" && w.c.vol.NextMode == "" && len(w.open) == 0 && len(w.waiting) == 0 && len(w.reads) == 0 && len(w.balance.begun) == 0 && len(w.vol().Members) == 3 &&
		w.c.peers["s"].member && w.c.peers["x"].member && w.dev == w.sides[0].dev && w.dev == w.sides[1].dev
}
