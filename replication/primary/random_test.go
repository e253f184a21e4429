package primary

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"hacluster/blockdev"
	"hacluster/heartbeat/cluster"
	"hacluster/replication/order"
	"hacluster/replication/standby"
)

// The driver: one Core, two standbys made of standby.Receiver and order.Queue, a committed record, and chance. A
// block's content is the seq of the write that it holds. After every step:
//   - every committed member that is what the set names holds each acknowledged write, and durably each that was
//     acknowledged and flushed (R3, R4, R5, R20)
//   - what a read was answered with is on every such member (R29)
//   - minSeen and the number in flight are what a recount gives; nothing released is still referred to
//
// At the end the faults stop: everything has to complete, every replica to become a member, all contents to be equal.

const (
	worldBlocks = 12
	worldBlock  = 4096
	worldChunk  = 3 * worldBlock
)

type content [worldBlocks]uint64

type frame struct {
	begin, resync bool
	num           uint64
	op            *Op
	data          content // of a copy
}

type conn struct {
	stream uint64
	frames []frame
	acks   []uint64
	dead   bool // broken; Down was not called yet
	over   bool // Down was called
}

type entryOf struct {
	order.Item
	f frame
}

type side struct {
	name     string
	dev, dur content
	inc      cluster.Incarnation
	boots    int
	failed   bool
	recv     *standby.Receiver
	queue    order.Queue
	running  []*entryOf
	conn     *conn
	chunks   []blockdev.Range // being compared in conn
}

type reading struct {
	op   *Op
	seen content
}

type world struct {
	rng       *rand.Rand
	c         *Core
	now       Instant
	state     *cluster.State
	told      []cluster.Volume
	proposals []cluster.Command
	index     uint64
	sides     []*side

	dev     content
	broken  bool // the local disk failed
	local   []*Op
	data    map[*Op]content // of copies
	reads   []reading
	waiting map[*Op]content // reads that were handed in

	open      map[*Op]content // client operations: what was completed when it was admitted
	released  map[*Op]bool
	acked     content // newest acknowledged write of each block
	flushed   content // what an acknowledged flush promised
	completed int
	admitted  int
	drops     int
	calm      bool
}

type broken struct{ text string }

func (w *world) fail(format string, args ...any) { panic(broken{fmt.Sprintf(format, args...)}) }

func newWorld(seed uint64) *world {
	w := &world{rng: rand.New(rand.NewPCG(seed, 77)), now: 100 * second, state: cluster.NewState(),
		data: map[*Op]content{}, waiting: map[*Op]content{}, open: map[*Op]content{}, released: map[*Op]bool{}}
	w.state.ID = "c"
	vol := cluster.Volume{Name: "v", Size: worldBlocks * worldBlock, Epoch: 3, Version: 7, Primary: "p", Process: 1,
		Members: map[string]cluster.Member{"p": {Process: 1}}}
	for _, n := range []string{"p", "s", "x"} {
		vol.Replicas = append(vol.Replicas, cluster.Replica{Node: n})
		w.state.Nodes[n] = cluster.Node{Name: n, Start: 1}
	}
	for _, n := range []string{"s", "x"} {
		s := &side{name: n, inc: bootA, recv: standby.New(3, false)}
		if w.rng.IntN(2) == 0 {
			vol.Members[n] = cluster.Member{Incarnation: bootA, Process: 1}
		} else {
			for b := range s.dev {
				s.dev[b] = 1 << 60 // anything: it is no member
			}
		}
		w.sides = append(w.sides, s)
	}
	w.state.Volumes["v"] = vol
	w.c = New(Config{Self: "p", DropAfter: dropAfter, Chunk: worldChunk, Backlog: 40 * worldBlock}, vol, w.now)
	return w
}

func blocks(r blockdev.Range) (from, to int64) { return r.Off / worldBlock, r.End() / worldBlock }

func (c *content) put(r blockdev.Range, seq uint64) {
	for b, to := blocks(r); b < to; b++ {
		c[b] = seq
	}
}

func (c *content) raise(b int64, seq uint64) { c[b] = max(c[b], seq) }

func (w *world) vol() cluster.Volume { return w.state.Volumes["v"] }

func (w *world) actions() {
	for _, a := range w.c.Take(nil) {
		s := w.side(a.Node)
		switch a.Kind {
		case StartLocal:
			w.local = append(w.local, a.Op)
		case Begin:
			s.conn.frames = append(s.conn.frames, frame{begin: true, num: a.Num, resync: a.Resync})
		case Send:
			if w.released[a.Op] {
				w.fail("operation %d is sent after it was released", a.Op.seq)
			}
			s.conn.frames = append(s.conn.frames, frame{num: a.Num, op: a.Op, data: w.data[a.Op]})
		case Ping:
			if !s.conn.dead && w.rng.IntN(4) > 0 {
				w.c.Alive(w.now, s.name, s.conn.stream)
			}
		case Complete:
			w.complete(a.Op)
		case Release:
			if w.released[a.Op] {
				w.fail("operation %d was released twice", a.Op.seq)
			}
			w.released[a.Op] = true
		case Propose:
			vol := w.vol()
			if d := a.Command.Drop; d != nil && w.c.DiskError() != nil && d.Version == vol.Version && vol.IsMember(d.Node) && len(vol.Members) == 2 {
				w.fail("R23: the last other member is to leave although the primary's disk failed")
			}
			if len(w.proposals) < 8 {
				w.proposals = append(w.proposals, *a.Command)
			}
		case Disconnect:
			if s.conn != nil {
				s.conn.dead = true
			}
		case Compare:
			w.takeChunks(s)
		}
	}
}

func (w *world) side(name string) *side {
	for _, s := range w.sides {
		if s.name == name {
			return s
		}
	}
	return nil
}

func (w *world) takeChunks(s *side) {
	for len(s.chunks) < 2 {
		at, ok := w.c.TakeChunk(s.name, s.conn.stream)
		if !ok {
			return
		}
		s.chunks = append(s.chunks, at)
	}
}

func (w *world) complete(op *Op) {
	if op.Kind == blockdev.OpRead {
		if op.Err == nil {
			w.everyMember(func(s *side) {
				for b, v := range w.waiting[op] {
					if s.dev[b] < v {
						w.fail("R29: a read saw write %d of block %d, member %s holds %d", v, b, s.name, s.dev[b])
					}
				}
			})
		}
		delete(w.waiting, op)
		return
	}
	before, ok := w.open[op]
	if !ok {
		w.fail("operation %d was completed twice", op.seq)
	}
	delete(w.open, op)
	w.completed++
	others := len(w.vol().Members) - 1
	if w.c.DiskError() != nil && others > 0 {
		w.fail("R23: operation %d was answered by a primary whose disk failed, with %d other members", op.seq, others)
	}
	if op.Err != nil {
		return
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
		if m, ok := vol.Members[s.name]; ok && m.Incarnation == s.inc && !s.failed {
			f(s)
		}
	}
}

func (w *world) check() {
	w.everyMember(func(s *side) {
		for b := range s.dev {
			if s.dev[b] < w.acked[b] {
				w.fail("R4: block %d of member %s holds %d, %d was acknowledged", b, s.name, s.dev[b], w.acked[b])
			}
			if s.dur[b] < w.flushed[b] {
				w.fail("R20: block %d of member %s holds %d durably, %d was flushed", b, s.name, s.dur[b], w.flushed[b])
			}
		}
	})
	least, n := ^uint64(0), 0
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
			}
		}
		if sum != p.bytes {
			w.fail("the outbox of %s holds %d bytes and counts %d", p.node, sum, p.bytes)
		}
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

func (w *world) step() {
	if w.calm {
		w.now = w.now.Add(time.Millisecond)
		w.c.Tick(w.now)
	} else {
		w.fault()
	}
	switch w.rng.IntN(10) {
	case 0, 1:
		if len(w.open) < 12 && !w.calm {
			w.admit()
		}
	case 2:
		w.localReturns()
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
	}
	w.actions()
	w.check()
}

func (w *world) fault() {
	s := w.sides[w.rng.IntN(2)]
	switch w.rng.IntN(60) {
	case 0, 1, 2:
		w.now = w.now.Add(time.Duration(w.rng.Int64N(int64(dropAfter))))
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
	s.recv, s.queue, s.running = standby.New(3, false), order.Queue{}, nil
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
	w.c.Admit(w.now, op)
}

func (w *world) read() {
	if n := len(w.reads); n > 0 && w.rng.IntN(2) == 0 {
		i := w.rng.IntN(n)
		r := w.reads[i]
		w.reads = slices.Delete(w.reads, i, i+1)
		w.waiting[r.op] = r.seen
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
	r := reading{op: op}
	r.seen[at] = w.dev[at]
	w.reads = append(w.reads, r)
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
	case op.Kind == blockdev.OpFlush:
		if w.broken {
			err = errDisk
		}
	default:
		w.dev.put(op.Range, op.seq)
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
		num := c.acks[0]
		c.acks = c.acks[1:]
		w.c.Acked(w.now, s.name, c.stream, num)
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
	w.c.Up(w.now, s.name, stream, Greeting{Incarnation: s.inc, Process: 1, LastNum: s.recv.LastNum(), Failed: s.failed})
}

func (w *world) arrive(s *side, f frame) {
	if f.begin {
		if err := s.recv.Begin(s.conn.stream, f.num, f.resync); err != nil && !errors.Is(err, standby.ErrStale) {
			w.fail("%s: %v", s.name, err)
		}
		return
	}
	dup, err := s.recv.Take(s.conn.stream, f.num)
	switch {
	case errors.Is(err, standby.ErrStale):
	case err != nil:
		w.fail("%s: %v", s.name, err)
	case dup:
		s.conn.acks = append(s.conn.acks, min(f.num, s.recv.LastNum()))
	default:
		e := &entryOf{f: f}
		e.Owner, e.Range = e, f.op.Range
		e.Barrier = f.op.Closing() || f.op.Kind == blockdev.OpFlush
		if s.queue.Admit(&e.Item) {
			s.running = append(s.running, e)
		}
	}
}

func (w *world) entryReturns(s *side) {
	i := w.rng.IntN(len(s.running))
	e := s.running[i]
	s.running = slices.Delete(s.running, i, i+1)
	op := e.f.op
	flush := op.Closing() || op.Kind == blockdev.OpFlush
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
	case op.IsCopy():
		for b, to := blocks(op.Range); b < to; b++ {
			s.dev[b] = e.f.data[b]
		}
	default:
		s.dev.put(op.Range, op.seq)
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
		s.conn.acks = append(s.conn.acks, prefix)
	}
}

func (w *world) compared(s *side) {
	at := s.chunks[0]
	s.chunks = s.chunks[1:]
	var copies []*Op
	for b, to := blocks(at); b < to; b++ {
		if w.dev[b] != s.dev[b] {
			cp := &Op{}
			cp.Owner, cp.Range = cp, blockdev.Range{Off: b * worldBlock, Len: worldBlock}
			copies = append(copies, cp)
		}
	}
	w.c.Compared(w.now, s.name, s.conn.stream, at, copies)
}

func (w *world) atRest() bool {
	return len(w.open) == 0 && len(w.waiting) == 0 && len(w.reads) == 0 && len(w.vol().Members) == 3 &&
		w.c.peers["s"].member && w.c.peers["x"].member && w.dev == w.sides[0].dev && w.dev == w.sides[1].dev
}

func runWorld(seed uint64) (w *world, err error) {
	w = newWorld(seed)
	step := 0
	defer func() {
		if r := recover(); r != nil {
			b, ok := r.(broken)
			if !ok {
				panic(fmt.Sprintf("seed %d step %d: %v", seed, step, r))
			}
			err = fmt.Errorf("seed %d step %d: %s", seed, step, b.text)
		}
	}()
	for ; step < 600; step++ {
		w.step()
	}
	if w.broken {
		return w, nil // it would hand over
	}
	for w.calm = true; step < 20_000; step++ {
		if w.step(); w.atRest() {
			break
		}
	}
	if !w.atRest() {
		return w, fmt.Errorf("seed %d: not at rest: %d open, %d reads, members %v, %+v %+v", seed, len(w.open), len(w.waiting), w.vol().Members, w.c.Peer("s"), w.c.Peer("x"))
	}
	return w, nil
}

func TestRandomSchedulesLoseNothingAndComeToRest(t *testing.T) {
	seeds := uint64(400)
	if testing.Short() {
		seeds = 50
	}
	var completed, drops, broke, admits int
	for seed := range seeds {
		w, err := runWorld(seed)
		if err != nil {
			t.Fatal(err)
		}
		completed += w.completed
		drops += w.drops
		if w.broken {
			broke++
		}
		if len(w.vol().Members) == 3 {
			admits++
		}
	}
	t.Logf("%d operations, %d drops, %d runs to rest, %d with a broken disk", completed, drops, admits, broke)
	if n := int(seeds); completed < 20*n || drops < n/2 || broke == 0 {
		t.Fatal("the schedules do not reach what they are for")
	}
}
