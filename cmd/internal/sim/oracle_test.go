package sim

import (
	"math"

	"hacluster/blockdev"
	"hacluster/heartbeat/cluster"
)

// oracle holds what the clients did against what they may see: each block is a register that must be strictly
// linearizable, and what was flushed must be durable on every member.
//
// A value's zone runs from the earliest answer of an operation on it to the latest beginning of one. Of two values, one
// must be able to come wholly before the other: neither may have an operation that ended before one of the other began
// in both directions (Gibbons and Korach, Testing Shared Memories, for values written once).
type oracle struct {
	orders map[string]cluster.Epoch // of nodes that a person named: when last
	w      *world
	last   value
	blocks [blocks]history
	acked  [blocks]value // the newest acknowledged write
	floor  [blocks]value // the newest that a flush made durable
	inside [blocks]bool  // it was part of the volume when a session began, and was neither cut off nor cleared since
	served cluster.Epoch // the newest epoch in which a session began

	line line // in async

	lostMemory bool // since the last session began, a promotion took place for which unflushed writes may be gone
	forced     bool // the same, and a person accepted whatever the candidate holds
}

// history is what may be seen of one block.
type history struct {
	zones []zone  // of the values written since the session began, and the one that it began with
	past  []value // older ones that a loss of all memory may bring back, ascending
	any   bool    // a person accepted a loss: nothing is known of what is older
}

type zone struct {
	value value
	epoch cluster.Epoch // in which it was admitted
	sent  int64         // when its write was sent
	first int64         // earliest answer
	last  int64         // latest beginning
	seen  bool          // acknowledged, or read
}

func (h *history) find(v value) *zone {
	for i := len(h.zones) - 1; i >= 0; i-- {
		if h.zones[i].value == v {
			return &h.zones[i]
		}
	}
	return nil
}

// admit numbers a write in the order of admission.
func (o *oracle) admit(s *session, q *request) {
	if q.kind == blockdev.OpFlush {
		return
	}
	o.last++
	q.value = o.last
	for b := q.from; b < q.to; b++ {
		h := &o.blocks[b]
		h.zones = append(h.zones, zone{value: q.value, epoch: s.epoch, sent: q.sent, first: math.MaxInt64, last: q.sent})
	}
}

// see checks that an operation on value v of block b, from began to ended, fits with all before, and notes it.
func (o *oracle) see(b int, v value, began, ended int64, who string) {
	z := o.check(b, v, began, ended, who)
	z.seen, z.first, z.last = true, min(z.first, ended), max(z.last, began)
}

// check is see for what nobody was told of yet.
func (o *oracle) check(b int, v value, began, ended int64, who string) *zone {
	h := &o.blocks[b]
	z := h.find(v)
	if z == nil {
		o.w.violate("%s: block %d shows write %d, which was overwritten or lost for good before; possible are %v", who, b, v, h.values())
	}
	first, last := min(z.first, ended), max(z.last, began)
	for i := range h.zones {
		y := &h.zones[i]
		if y.seen && y != z && y.first < last && first < y.last {
			o.w.violate("%s: block %d shows write %d (known from %.3f to %.3f ms) out of order with write %d (from %.3f to %.3f ms)", who, b,
				v, ms(first), ms(last), y.value, ms(y.first), ms(y.last))
		}
	}
	return z
}

// remember keeps a value that nothing but a loss of all memory brings back.
func (h *history) remember(v value) {
	if len(h.past) == 0 || h.past[len(h.past)-1] < v {
		h.past = append(h.past, v)
	}
}

func ms(t int64) float64 { return float64(t) / 1e6 }

func (h *history) values() (out []value) {
	for _, z := range h.zones {
		out = append(out, z.value)
	}
	return out
}

// reply checks an answer at the moment at which it leaves the server.
func (o *oracle) reply(s *session, q *request) {
	w := o.w
	if s.epoch < o.served {
		w.violate("R1: %s answers in epoch %d after epoch %d has begun to serve", s.r.n.name, s.epoch, o.served)
	}
	if q.conn.gone {
		return
	}
	o.mayTell(s)
	w.served = w.now
	if q.err != nil {
		w.counts.FailedOps++
		w.tracef("%s: error to the client: %v of %d-%d value %d", s.r.n.name, q.kind, q.from, q.to-1, q.value)
		return
	}
	switch q.kind {
	case blockdev.OpRead:
		w.counts.Reads++
		w.tracef("%s: read of %d-%d gives %v", s.r.n.name, q.from, q.to-1, q.values)
		for b := q.from; b < q.to; b++ {
			v := q.values[b-q.from]
			o.see(b, v, q.sent, w.now, "read on "+s.r.n.name)
			o.same(b, v, s)
		}
	case blockdev.OpFlush:
		w.counts.Flushes++
		w.tracef("%s: flush acknowledged, covers %v", s.r.n.name, q.acked)
		o.durable(s, 0, blocks, q.acked)
	default:
		w.counts.Acked++
		w.tracef("%s: write %d of %d-%d acknowledged, fua %t", s.r.n.name, q.value, q.from, q.to-1, q.fua)
		var fua [blocks]value
		for b := q.from; b < q.to; b++ {
			o.see(b, q.value, q.sent, w.now, "write on "+s.r.n.name)
			o.acked[b] = max(o.acked[b], q.value)
			fua[b] = q.value
			o.written(b, q.value)
		}
		if q.fua {
			o.durable(s, q.from, q.to, fua)
		}
	}
}

// members calls fn for each node that the committed set names and that still has the memory which the set names.
func (o *oracle) members(fn func(*node)) {
	v := o.w.truth.state.Volumes[volumeName]
	for _, n := range o.w.nodes {
		if m, ok := v.Members[n.name]; ok && n.up && m.Incarnation == n.incarnation() {
			fn(n)
		}
	}
}

// holders is members, with what each has of block b: in semisync a standby is one process, and has what that has in memory.
func (o *oracle) holders(b int, fn func(n *node, has value)) {
	v := o.w.truth.state.Volumes[volumeName]
	o.members(func(n *node) {
		has := n.disk.cache[b]
		if v.IsProcess(n.name) {
			if n.proc == nil || n.proc.number != v.Members[n.name].Process || n.proc.replica.failed {
				return // it follows nobody: its process is gone, or what it received could not be written (R23, R25)
			}
			for _, e := range n.proc.replica.holding {
				if m := &e.msg; m.kind != blockdev.OpFlush && m.from <= b && b < m.to {
					has = m.valueOf(b)
				}
			}
		}
		fn(n, has)
	})
}

func (m *entryMsg) valueOf(b int) value {
	if m.values != nil {
		return m.values[b-m.from]
	}
	return m.value
}

// written checks R3 to R5: what is acknowledged is on every member.
func (o *oracle) written(b int, v value) {
	o.holders(b, func(n *node, has value) {
		if has < v && o.firm(n) { // of others it was checked when it was decided (told)
			o.w.violate("R4: write %d of block %d is acknowledged and member %s holds %d", v, b, n.name, has)
		}
	})
}

// same checks R29: what was read is on every member, unless something newer of this session is.
func (o *oracle) same(b int, v value, s *session) {
	o.holders(b, func(n *node, c value) {
		if !o.firm(n) {
			return // what a read showed may be lost with the bound
		}
		if c != v && !n.super.failed && !o.newer(b, c, s.epoch) {
			o.w.violate("R29: a read of block %d gives write %d, member %s holds %d", b, v, n.name, c)
		}
	})
}

func (o *oracle) newer(b int, v value, e cluster.Epoch) bool {
	z := o.blocks[b].find(v)
	return z != nil && z.epoch == e
}

// durable checks R20 and notes what no loss of power may take away.
func (o *oracle) durable(s *session, from, to int, covered [blocks]value) {
	to = min(to, o.size()) // what is cut off is nobody's any more
	sound := 0
	o.members(func(n *node) {
		if n.super.failed || n.proc != nil && n.proc.replica.failed || !o.firm(n) && n != s.r.n {
			return // it is no candidate, or has its part in the order of the stream
		}
		sound++
		for b := from; b < to; b++ {
			if n.disk.durable[b] < covered[b] {
				o.w.violate("R20: a flush is acknowledged that covers write %d of block %d, member %s has %d on stable storage", covered[b], b, n.name, n.disk.durable[b])
			}
		}
	})
	if n := s.r.n; sound == 0 && n.up {
		for b := from; b < to; b++ {
			if n.disk.durable[b] < covered[b] {
				o.w.violate("R23: a flush is acknowledged that covers write %d of block %d, the only member %s failed and has %d on stable storage", covered[b], b, n.name, n.disk.durable[b])
			}
		}
	}
	for b := from; b < to; b++ {
		o.floor[b] = max(o.floor[b], covered[b])
		if o.blocks[b].any = o.blocks[b].any && covered[b] == 0; !o.blocks[b].any {
			o.blocks[b].trim(o.floor[b])
		}
	}
}

func (h *history) trim(floor value) {
	i := 0
	for i < len(h.past) && h.past[i] < floor {
		i++
	}
	h.past = h.past[i:]
}

// serve checks what a new session begins with. Without another member it is what every client sees from now on; with one,
// it is so for each block as soon as somebody was told of it: until then either of the two may be there at the next failover.
func (o *oracle) serve(s *session) {
	w, n := o.w, s.r.n
	if s.epoch <= o.served {
		w.violate("R2: %s begins to serve in epoch %d after epoch %d", n.name, s.epoch, o.served)
	}
	if n.super.inconsistent || n.point.is {
		w.violate("R18: %s begins to serve in pieces", n.name)
	}
	o.follow(s)
	o.served = s.epoch
	w.served = w.now
	alone := len(s.r.vol.Members) == 1
	for b := range countOf(s.r.vol.Size) {
		h, v := &o.blocks[b], n.disk.cache[b]
		switch {
		case o.forced:
			h.past, h.any = nil, true
			h.zones = append(h.zones[:0], zone{value: v})
			o.floor[b], o.acked[b] = 0, v
		case o.lostMemory && !(o.async() && o.line.behind): // else it had flushed what it has before it was let act, and lost nothing of that
			if v < o.floor[b] {
				w.violate("R20: after the loss of all memory %s begins with write %d of block %d, write %d was flushed", n.name, v, b, o.floor[b])
			}
			if !h.any && !h.has(v) {
				w.violate("after the loss of all memory %s begins with write %d of block %d, which was lost for good before; possible are %v and %v", n.name, v, b, h.past, h.values())
			}
			if o.acked[b] = v; alone {
				h.begin(v, w.now)
			} else {
				h.reopen(o.floor[b], w.now)
				o.acked[b] = o.floor[b] // another member may lack more: nobody knows before it is settled
			}
		case o.line.behind:
			h.begin(v, w.now)
			o.acked[b], o.floor[b] = v, min(o.floor[b], v) // what was flushed and is here stays so
		case alone:
			o.see(b, v, w.now, w.now, "promotion of "+n.name)
			h.begin(v, w.now)
		default:
			o.check(b, v, w.now, w.now, "promotion of "+n.name)
			h.close(w.now)
		}
	}
	o.cut(countOf(s.r.vol.Size))
	o.forced, o.lostMemory = false, false
	o.begin(s)
}

func (h *history) has(v value) bool {
	for _, p := range h.past {
		if p == v {
			return true
		}
	}
	return h.find(v) != nil
}

// begin leaves v as the only value that can be seen. What was written after it and is not there is gone for good.
func (h *history) begin(v value, now int64) {
	first := now
	if z := h.find(v); z != nil {
		first = min(z.first, now)
	}
	for _, z := range h.zones {
		h.remember(z.value)
	}
	for len(h.past) > 0 && h.past[len(h.past)-1] > v {
		h.past = h.past[:len(h.past)-1]
	}
	h.zones = append(h.zones[:0], zone{value: v, first: first, last: now, seen: true})
}

// close: what older sessions left open took effect before now, or never will.
func (h *history) close(now int64) {
	for i := range h.zones {
		h.zones[i].first = min(h.zones[i].first, now)
	}
}

// reopen makes everything possible again that no flush excludes: all lost their memory, and each member may hold another.
func (h *history) reopen(floor value, now int64) {
	for _, z := range h.zones {
		h.remember(z.value)
	}
	h.zones = h.zones[:0]
	for _, v := range h.past {
		if v >= floor {
			h.zones = append(h.zones, zone{value: v, first: now, last: math.MinInt64})
		}
	}
	h.past = h.past[:0]
}
