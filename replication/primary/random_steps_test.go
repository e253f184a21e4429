package primary

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"hacluster/blockdev"
	"hacluster/heartbeat/cluster"
	"hacluster/replication/order"
	"hacluster/replication/standby"
)

func (w *world) step() {
	if w.calm {
		w.now = w.now.Add(time.Millisecond)
		w.c.Tick(w.now)
	} else if !w.balance.often || w.rng.IntN(6) == 0 {
		w.fault()
	}
	w.actions()
	if len(w.asked) > 0 && w.rng.IntN(3) == 0 {
		w.fetched()
		w.actions()
	}
	w.askedStep()
	w.spoolReturns()
	switch w.rng.IntN(10) {
	case 0, 1:
		if len(w.open) < w.most() && !w.calm && !w.c.quiet {
			w.admit()
		}
	case 2:
		w.localReturns()
		w.handOver()
	case 3:
		w.read()
	case 4:
		if len(w.proposals) > 0 {
			w.commit()
		}
	case 5:
		if len(w.told) > 0 {
			w.c.Set(w.now, w.told[0])
			w.told = w.told[1:]
		}
	default:
		w.sideStep(w.sides[w.rng.IntN(2)])
		if w.balance.often {
			w.sideStep(w.sides[w.rng.IntN(2)])
			w.actions()
			w.read()
		}
	}
	w.actions()
	w.check()
}

func (w *world) fault() {
	s := w.sides[w.rng.IntN(2)]
	switch w.rng.IntN(60) {
	case 0, 1, 2:
		most := int64(dropAfter)
		if len(w.c.mends) > 0 && w.rng.IntN(8) > 0 {
			most /= 16 // else nearly none is answered in time
		}
		w.now = w.now.Add(time.Duration(w.rng.Int64N(most)))
		w.c.Tick(w.now)
	case 3, 4:
		if s.conn != nil {
			s.conn.dead = true
		}
	case 5:
		if w.rng.IntN(4) == 0 { // power: what was not flushed is lost
			s.dev, s.boots = s.dur, s.boots+1
			s.inc = cluster.Incarnation{Boot: fmt.Sprint("boot ", s.boots), Attachment: "1"}
			w.restart(s)
		}
	case 6:
		if w.rng.IntN(3) == 0 {
			w.restart(s)
		}
	case 8:
		if w.changes && w.rng.IntN(2) == 0 {
			w.changeMode()
		}
	case 7:
		if w.rng.IntN(30) == 0 && len(w.local) > 0 && !w.local[0].IsCopy() {
			w.broken = true
		}
	}
}

func (w *world) restart(s *side) {
	if s.conn != nil {
		s.conn.dead, s.conn.frames = true, nil
	}
	s.recv, s.queue, s.running, s.holding = standby.New(3, false), order.Queue{}, nil, nil
	if w.room != nil {
		s.process++
		n := w.state.Nodes[s.name]
		n.Start = s.process
		w.state.Nodes[s.name] = n
	}
}

func (w *world) admit() {
	op := &Op{Kind: blockdev.OpWrite}
	op.Owner = op
	at := w.rng.Int64N(worldBlocks)
	op.Range = blockdev.Range{Off: at * worldBlock, Len: min(1+w.rng.Int64N(3), worldBlocks-at) * worldBlock}
	switch w.rng.IntN(8) {
	case 0:
		op.Kind, op.Range = blockdev.OpFlush, blockdev.Range{}
	case 1:
		op.Kind = blockdev.OpZero
	}
	w.open[op] = w.acked
	w.admitted++
	if w.async != nil {
		op.FUA = op.Kind == blockdev.OpWrite && w.rng.IntN(6) == 0
		w.async.admits(op)
	}
	w.c.Admit(w.now, op)
}

func (w *world) read() {
	if n := len(w.reads); n > 0 && w.rng.IntN(2) == 0 {
		i := w.rng.IntN(n)
		r := w.reads[i]
		w.reads = slices.Delete(w.reads, i, i+1)
		w.waiting[r.op] = r.seen
		w.c.ReadHere(w.now, r.op)
		if often := !w.c.Unsettled(r.op.Range) && (!w.balance.often || w.rng.IntN(8) == 0); !w.calm && (often && w.rng.IntN(2) == 0 || w.rng.IntN(80) == 0) {
			w.readFails(r.op)
			return
		}
		w.c.ReadDone(r.op, nil)
		return
	}
	if w.calm || len(w.reads) > 4 {
		return
	}
	op := &Op{Kind: blockdev.OpRead}
	op.Owner = op
	at := w.rng.Int64N(worldBlocks)
	op.Range = blockdev.Range{Off: at * worldBlock, Len: worldBlock}
	for range 4 { // no member is asked for the others
		if w.c.Balances() && w.c.underWay(op.Range) {
			at = w.rng.Int64N(worldBlocks)
			op.Range.Off = at * worldBlock
		}
	}
	if w.beginRead(op, at) {
		return
	}
	r := clientRead{op: op}
	r.seen[at] = w.dev[at]
	w.reads = append(w.reads, r)
}

// readFails hands a read in that the local disk could not carry out: members are asked for its blocks.
func (w *world) readFails(op *Op) {
	var mends []*Op
	if w.c.DiskError() == nil && w.c.members() > 0 && !w.c.Unsettled(op.Range) {
		w.waiting[op] = content{}
		m := &Op{}
		m.Owner, m.Range = m, op.Range
		mends = append(mends, m)
		w.mends[m] = op
		w.open[m] = w.acked
	}
	w.c.ReadFailed(w.now, op, errDisk, mends)
}

// fetched has a member answer a question. In the stream it was behind all entries that were sent before.
func (w *world) fetched() {
	f := w.asked[0]
	w.asked = w.asked[1:]
	s := f.s
	if s.conn == nil || s.conn.dead || s.conn.stream != f.stream || !s.recv.MayRead(f.stream) {
		return // it never comes
	}
	op := w.c.Fetching(s.name, f.stream, f.num)
	if op == nil || op.Range != f.at {
		return
	}
	if !w.calm && w.rng.IntN(12) == 0 {
		w.c.Fetched(w.now, s.name, op, errDisk)
		return
	}
	seen := w.waiting[w.mends[op]]
	for b, to := blocks(op.Range); b < to; b++ {
		if seen[b] = s.dev[b]; seen[b] >= op.seq {
			w.fail("R33: mend %d of block %d found write %d, which comes later", op.seq, b, seen[b])
		}
	}
	w.mended++
	w.waiting[w.mends[op]], w.data[op] = seen, seen
	w.c.Fetched(w.now, s.name, op, nil)
}

func (w *world) localReturns() {
	if len(w.local) == 0 {
		return
	}
	i := w.rng.IntN(len(w.local))
	op := w.local[i]
	w.local = slices.Delete(w.local, i, i+1)
	var err error
	switch {
	case op.IsCopy():
		w.data[op] = w.dev
	case op.IsVoid():
	case op.Kind == blockdev.OpFlush:
		if w.broken {
			err = errDisk
		}
	default:
		w.put(&w.dev, op, w.data[op])
		if w.broken && w.rng.IntN(3) == 0 || w.broken && w.c.DiskError() == nil {
			err = errDisk
		}
	}
	w.c.LocalDone(w.now, op, err)
}

func (w *world) commit() {
	i := w.rng.IntN(len(w.proposals))
	c := w.proposals[i]
	if w.rng.IntN(3) > 0 { // else it comes a second time
		w.proposals = slices.Delete(w.proposals, i, i+1)
	}
	if !w.calm && w.rng.IntN(5) == 0 {
		return // lost
	}
	w.index++
	before := w.vol()
	if r := w.state.Apply(w.index, 1, c); r.Void == "" {
		if c.SetMode != nil {
			w.changed++
		}
		if c.Drop != nil && before.IsMember(c.Drop.Node) {
			w.drops++
		}
		w.told = append(w.told, *r.Volume)
	}
}

func (w *world) sideStep(s *side) {
	c := s.conn
	switch k := w.rng.IntN(7); {
	case c == nil || c.over:
		w.connect(s)
	case k == 0 && c.dead:
		c.over, s.chunks = true, nil
		w.c.Down(w.now, s.name, c.stream)
	case k <= 2 && len(s.running) > 0:
		w.entryReturns(s)
	case k <= 4 && len(c.frames) > 0: // also of a connection that is dead: it was under way
		f := c.frames[0]
		c.frames = c.frames[1:]
		w.arrive(s, f)
	case k == 5 && len(s.chunks) > 0:
		w.compared(s)
	case len(c.acks) > 0:
		a := c.acks[0]
		c.acks = c.acks[1:]
		if a.got {
			w.c.Received(w.now, s.name, c.stream, a.num)
		} else {
			w.c.Acked(w.now, s.name, c.stream, a.num)
		}
	}
}

func (w *world) connect(s *side) {
	stream := w.c.NextStream(s.name)
	vol := w.vol()
	h := standby.Hello{Epoch: 3, Primary: "p", Process: 1, Stream: stream}
	if s.recv.Hello(&vol, h, 0) != standby.Accept {
		if s.conn != nil {
			s.conn.frames = nil // superseded
		}
		if len(s.running) > 0 {
			w.entryReturns(s)
		}
		return
	}
	s.conn, s.chunks = &conn{stream: stream}, nil
	w.c.Up(w.now, s.name, stream, Greeting{Incarnation: s.inc, Process: s.process, LastNum: s.recv.LastNum(), Failed: s.failed, Reads: true})
}

func (w *world) arrive(s *side, f frame) {
	if f.begin {
		if err := s.recv.Begin(s.conn.stream, f.num, f.resync); err != nil && !errors.Is(err, standby.ErrStale) {
			w.fail("%s: %v", s.name, err)
		}
		return
	}
	dup, err := s.recv.Take(s.conn.stream, f.num, f.op.Place())
	switch {
	case errors.Is(err, standby.ErrStale):
	case err != nil:
		w.fail("%s: %v", s.name, err)
	case dup:
		s.conn.acks = append(s.conn.acks, answer{num: min(f.num, s.recv.LastNum())})
	default:
		e := &entryOf{f: f}
		e.Owner, e.Range = e, f.op.Range
		e.Barrier = f.op.Closing() || f.op.Kind == blockdev.OpFlush || f.op.IsVoid()
		e.Fence = f.fence
		s.holding = append(s.holding, e)
		if v := w.vol(); v.ModeBetween("p", s.name) == cluster.ModeSemisync || w.changes && w.rng.IntN(2) == 0 {
			s.conn.acks = append(s.conn.acks, answer{f.num, true})
		}
		if s.queue.Admit(&e.Item) {
			s.running = append(s.running, e)
		}
	}
}

func (w *world) entryReturns(s *side) {
	i := w.rng.IntN(len(s.running))
	e := s.running[i]
	s.running = slices.Delete(s.running, i, i+1)
	s.holding = slices.DeleteFunc(s.holding, func(h *entryOf) bool { return h == e })
	op := e.f.op
	flush := op.Closing() || op.Kind == blockdev.OpFlush || op.IsVoid()
	bad := !w.calm && w.rng.IntN(150) == 0 || s.recv.Broken() && op.Closing()
	switch {
	case bad && flush && !op.Closing():
		s.dev = s.dur // dropped from memory, and told once
	case bad:
	case flush:
		s.dur = s.dev
		if op.Closing() {
			s.failed = false
		}
	default:
		e.done = true
		w.put(&s.dev, op, e.f.data)
		if op.FUA {
			w.put(&s.dur, op, e.f.data)
		}
	}
	for _, it := range s.queue.Return(&e.Item, nil) {
		s.running = append(s.running, it.Owner.(*entryOf))
	}
	if bad {
		s.failed = true
		s.recv.Failed(e.f.num)
		w.c.Refused(w.now, s.name, s.conn.stream, false, "disk failed")
		s.conn.dead = true
		return
	}
	if prefix := s.recv.Returned(e.f.num); s.recv.MayAck(s.conn.stream) {
		s.conn.acks = append(s.conn.acks, answer{num: prefix})
	}
}

// put has op on a device: its number, or what was read elsewhere.
func (w *world) put(dev *content, op *Op, data content) {
	if !op.IsCopy() && w.mends[op] == nil {
		dev.put(op.Range, op.seq)
		return
	}
	for b, to := blocks(op.Range); b < to; b++ {
		dev[b] = data[b]
	}
}

func (w *world) compared(s *side) {
	at, seen := s.chunks[0].at, s.chunks[0].seen
	s.chunks = s.chunks[1:]
	if w.rng.IntN(2) == 0 {
		seen = w.dev // it was read only now
	}
	var copies []*Op
	var bad []blockdev.Range
	for b, to := blocks(at); b < to; b++ {
		if !w.calm && w.rng.IntN(20) == 0 {
			bad = append(bad, blockdev.Range{Off: b * worldBlock, Len: worldBlock})
		} else if seen[b] != s.dev[b] {
			cp := &Op{Kept: w.rng.IntN(4) > 0}
			cp.Owner, cp.Range = cp, blockdev.Range{Off: b * worldBlock, Len: worldBlock}
			w.data[cp] = seen
			copies = append(copies, cp)
		}
	}
	w.c.Answered(w.now, s.name, s.conn.stream)
	if len(bad) > 0 {
		w.c.Unreadable(w.now, s.name, s.conn.stream, at, bad, bad[:w.rng.IntN(len(bad)+1)])
	}
	w.c.Compared(w.now, s.name, s.conn.stream, at, copies)
}
