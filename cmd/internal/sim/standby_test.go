package sim

import (
	"slices"
	"time"

	"hacluster/blockdev"
	"hacluster/blockdev/undo"
	"hacluster/heartbeat/cluster"
	"hacluster/replication/order"
	"hacluster/replication/primary"
	"hacluster/replication/role"
	"hacluster/replication/standby"
)

// Messages of the data path.
type (
	helloMsg struct{ standby.Hello }
	greetMsg struct {
		refused standby.Verdict // 0: accepted
		primary.Greeting
	}
	beginMsg struct {
		num    uint64
		resync bool
	}
	entryMsg struct {
		num      uint64
		place    uint64
		kind     blockdev.Op
		rng      blockdev.Range
		fua      bool
		closing  bool
		fence    bool
		from, to int
		value    value
		values   []value
	}
	pingMsg   struct{}
	pongMsg   struct{}
	ackMsg    struct{ num uint64 }
	gotMsg    struct{ num uint64 }
	refuseMsg struct{ text string }
	// stoppingMsg: the standby's process stops in order.
	stoppingMsg struct{}
	digestMsg   struct{ chunk blockdev.Range }
	digestOK    struct {
		chunk  blockdev.Range
		values []value
	}
)

// incoming is one stream of a primary, at the standby.
type incoming struct {
	r        *replica
	conn     *conn
	hello    standby.Hello
	heard    bool
	accepted bool
	dead     bool
	failed   bool // nothing more is acknowledged
	resync   bool // it began as one
	closed   bool // and has ended
	since    int64
}

// entry is one taken entry on its way to the device.
type entry struct {
	order.Item
	in   *incoming
	msg  entryMsg
	undo bool     // what it overwrites is logged before (R18)
	old  undo.Old // that, as far as it is known
}

const helloWait = 500 * time.Millisecond

func (r *replica) incoming(c *conn) {
	in := &incoming{r: r, conn: c, since: r.w.now}
	c.ends[1].get = in.get
	c.ends[1].lost = in.lost
}

func (in *incoming) lost() {
	if in.dead {
		return
	}
	in.dead = true
	if in.r.open == in {
		in.r.recv.Close(in.hello.Stream)
		in.r.seen.Clear()
		in.r.open = nil
	}
}

func (in *incoming) close() {
	in.conn.close(1)
	in.lost()
}

func (in *incoming) send(m any) { in.conn.send(1, m) }

func (in *incoming) get(m any) {
	r := in.r
	if in.dead {
		return
	}
	switch m := m.(type) {
	case helloMsg:
		in.hello, in.heard = m.Hello, true
		r.hellos = append(r.hellos, in)
		r.kick()
	case beginMsg:
		in.resync = m.resync
		if r.recv.Begin(in.hello.Stream, m.num, m.resync) != nil {
			in.close()
		}
	case entryMsg:
		in.entry(m)
	case pingMsg:
		in.send(pongMsg{})
	case digestMsg:
		in.digest(m)
	case fetchMsg:
		in.fetch(m)
	}
}

// answerHellos judges who waits for a greeting.
func (r *replica) answerHellos() {
	waiting := r.hellos
	r.hellos = nil
	for _, in := range waiting {
		if !in.dead && !r.answerHello(in) {
			r.hellos = append(r.hellos, in)
		}
	}
}

// answerHello answers, or not yet.
func (r *replica) answerHello(in *incoming) (answered bool) {
	if r.w.now-in.since > int64(helloWait) {
		in.send(greetMsg{refused: standby.Wait})
		in.close()
		return true
	}
	if r.noting > 0 || r.sess != nil || r.n.disk.stalled() || !role.MayAnswer(r.facts()) {
		return false
	}
	if r.n.super.clean != nil {
		if !r.clearing {
			r.clearing = true
			r.store(func(s *super) { s.clean = nil }, func() { r.clearing = false; r.kick() })
		}
		return false
	}
	if r.storing > r.recv.Epoch() {
		return false
	}
	if in.hello.Epoch == r.vol.Epoch && standby.Keep(&r.vol, r.n.name, r.way()) == standby.Await {
		in.send(greetMsg{refused: standby.Wait})
		in.close()
		return true
	}
	switch v := r.recv.Hello(&r.vol, in.hello, r.busy); v {
	case standby.Store:
		r.storeEpoch(in.hello.Epoch)
		return false
	case standby.Wait:
		return false
	case standby.RefuseOther:
		r.w.violate("R1: %s hears of primary %s process %d in epoch %d, the record names %s process %d", r.n.name, in.hello.Primary, in.hello.Process,
			in.hello.Epoch, r.vol.Primary, r.vol.Process)
	case standby.RefuseOlder, standby.RefuseNewer:
		in.send(greetMsg{refused: v})
		in.close()
		return true
	}
	if r.open != nil && r.open != in {
		r.open.close()
	}
	// Older streams have ended on the device before this one is answered (R2).
	if len(r.taken) > 0 || r.queue.Len() > 0 || r.busy > 0 {
		r.w.violate("R2: %s answers stream %d with %d operations of older ones outstanding", r.n.name, in.hello.Stream, r.queue.Len())
	}
	r.open, in.accepted = in, true
	g := primary.Greeting{Incarnation: r.n.incarnation(), Process: r.p.number, LastNum: r.recv.LastNum(), Inconsistent: r.recv.Inconsistent(), Failed: r.failed,
		Keeps: r.vol.IsHeld(r.n.name)}
	r.w.tracef("%s/%d greets stream %d of epoch %d: %+v", r.n.name, r.p.number, in.hello.Stream, in.hello.Epoch, g)
	in.send(greetMsg{Greeting: g})
	return true
}

// entry takes one sequenced message.
func (in *incoming) entry(m entryMsg) {
	r := in.r
	dup, err := r.recv.Take(in.hello.Stream, m.num, m.place)
	switch {
	case err != nil:
		r.w.tracef("%s/%d refuses entry %d: %v", r.n.name, r.p.number, m.num, err)
		in.close()
		return
	case dup:
		if r.recv.MayAck(in.hello.Stream) {
			in.send(ackMsg{min(r.recv.LastNum(), m.num)})
		}
		return
	}
	e := &entry{in: in, msg: m}
	e.Owner, e.Range, e.Barrier = e, m.rng, m.kind == blockdev.OpFlush
	e.Fence = m.fence
	r.taken = append(r.taken, e)
	r.takeOn()
}

// takeOn puts what was taken behind what it overlaps; the first change of a resync waits for the way back and the mark.
func (r *replica) takeOn() {
	for len(r.taken) > 0 && !r.marking {
		e := r.taken[0]
		if e.msg.kind != blockdev.OpFlush && r.recv.NeedsMark() {
			r.beginOverwriting(e.in)
			return
		}
		r.taken = r.taken[1:]
		if e.msg.kind != blockdev.OpFlush {
			if e.undo = r.recv.NeedsUndo(); e.undo {
				e.old.At, e.old.Buf = r.seen.Old(e.Range)
			}
			r.seen.Overwrites(e.Range)
		}
		r.holding = append(r.holding, e)
		if r.vol.ModeBetween(r.vol.Primary, r.n.name) == cluster.ModeSemisync {
			e.in.send(gotMsg{e.msg.num})
		}
		if r.queue.Admit(&e.Item) {
			r.startEntry(e)
		}
	}
}

func (r *replica) startEntry(e *entry) {
	m := &e.msg
	if !r.logged(e) {
		return
	}
	if m.kind != blockdev.OpFlush {
		r.w.oracle.overwritten(r.n, e.in.hello.Epoch, m.from, m.to)
		r.w.oracle.changes(e.in)
	}
	r.w.oracle.follows(r, e)
	r.n.disk.start(r.p, &diskOp{kind: m.kind, from: m.from, to: m.to, fua: m.fua, value: m.value, values: m.values}, func(o *diskOp) {
		switch {
		case o.err != nil:
			r.note(func() { r.endEntry(e, o.err) })
		case m.closing && !e.in.failed && !r.recv.Broken() && r.recv.MayAck(e.in.hello.Stream): // else something before it failed, or the stream is over
			r.store(func(s *super) {
				s.inconsistent, s.failed = false, false
				r.n.hold.over, r.n.point.is, e.in.closed = max(r.n.hold.over, e.in.hello.Epoch), false, true
			}, func() {
				r.failed = false
				r.endArea()
				r.fileOp(func() {
					r.recv.Marked(false)
					r.endEntry(e, nil)
				})
			})
		default:
			r.endEntry(e, nil)
		}
	})
}

// endEntry tells that an entry returned, and acknowledges the prefix that is there.
func (r *replica) endEntry(e *entry, err error) {
	in := e.in
	if err != nil && !in.failed {
		in.failed = true
		in.send(refuseMsg{err.Error()})
	}
	r.holding = slices.DeleteFunc(r.holding, func(h *entry) bool { return h == e })
	ready := r.queue.Return(&e.Item, nil)
	var prefix uint64
	if err != nil {
		r.recv.Failed(e.msg.num)
	} else {
		prefix = r.recv.Returned(e.msg.num)
	}
	if err == nil && r.recv.MayAck(in.hello.Stream) && !in.failed {
		in.send(ackMsg{prefix})
	}
	for _, it := range ready {
		r.startEntry(it.Owner.(*entry))
	}
	if r.recv.Outstanding() == 0 {
		r.kick()
	}
}

// digest reads what the primary wants to compare, and keeps what may be overwritten soon.
func (in *incoming) digest(m digestMsg) {
	r := in.r
	from, to := blocksOf(m.chunk)
	var seen *standby.Seen
	if r.open == in && r.recv.MayLog() {
		seen = r.seen.Begin(m.chunk, &r.queue)
	}
	r.n.disk.start(r.p, &diskOp{kind: blockdev.OpRead, from: from, to: to}, func(o *diskOp) {
		if seen != nil {
			var buf *blockdev.Buf
			if o.err == nil {
				buf = bufOf(o.values)
			}
			r.seen.Read(seen, buf)
		}
		if !in.dead {
			in.send(digestOK{m.chunk, o.values})
		}
	})
}

func bufOf(values []value) *blockdev.Buf {
	buf := blockdev.NewBuf(len(values) * blockdev.BlockSize)
	for i, v := range values {
		v.encode(buf.Bytes()[i*blockdev.BlockSize:][:blockdev.BlockSize])
	}
	return buf
}

func blocksOf(r blockdev.Range) (from, to int) {
	return int(r.Off / blockdev.BlockSize), int(r.End() / blockdev.BlockSize)
}

func rangeOf(from, to int) blockdev.Range {
	return blockdev.Range{Off: int64(from) * blockdev.BlockSize, Len: int64(to-from) * blockdev.BlockSize}
}
