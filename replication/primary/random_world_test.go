package primary

import (
	"fmt"
	"math/rand/v2"

	"hacluster/blockdev"
	"hacluster/heartbeat/cluster"
	"hacluster/replication/order"
	"hacluster/replication/standby"
)

type content [worldBlocks]uint64

// other is the content of a block that the primary never held.
const other = 1 << 60

type frame struct {
	begin, resync bool
	num           uint64
	op            *Op
	data          content // of a copy or a mend
	fence         bool
}

type conn struct {
	stream uint64
	frames []frame
	acks   []answer
	dead   bool // broken; Down was not called yet
	over   bool // Down was called
}

// answer is an acknowledgement on its way; got: of what was received only.
type answer struct {
	num uint64
	got bool
}

type entryOf struct {
	order.Item
	f    frame
	done bool // it succeeded
}

type side struct {
	name     string
	dev, dur content
	inc      cluster.Incarnation
	before   []blockdev.Range // of a member: blocks that hold what the primary lacks, since before the tenure
	boots    int
	process  uint64     // another one after a restart, where a membership may be of it
	holding  []*entryOf // taken and not returned: in the memory of the process
	failed   bool
	recv     *standby.Receiver
	queue    order.Queue
	running  []*entryOf
	conn     *conn
	chunks   []chunkRead // being compared in conn
}

// chunkRead is a chunk that is being compared: what was read here when it was handed out, and of the target later.
type chunkRead struct {
	at   blockdev.Range
	seen content
}

type clientRead struct {
	op   *Op
	seen content
}

// fetching is a question for the content of a mend, on its way.
type fetching struct {
	s      *side
	stream uint64
	num    uint64
	at     blockdev.Range
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
	data    map[*Op]content // of copies and mends
	mends   map[*Op]*Op     // each for which read it is
	asked   []fetching
	mended  int
	reread  int
	reads   []clientRead
	waiting map[*Op]content // reads that were handed in
	balance balanceWorld

	open      map[*Op]content // client operations: what was completed when it was admitted
	released  map[*Op]bool
	acked     content // newest acknowledged write of each block
	flushed   content // what an acknowledged flush promised
	completed int
	room      *room // where more may be acknowledged than every member has written
	async     *asyncWorld
	mixed     bool // replicas have modes of their own
	changes   bool // an operator changes the mode, again and again
	changed   int
	early     int // completed before every member had written it
	admitted  int
	drops     int
	calm      bool
	spool     worldSpool
}

type broken struct{ text string }

func (w *world) fail(format string, args ...any) { panic(broken{fmt.Sprintf(format, args...)}) }

func newWorld(seed uint64) *world {
	w := &world{rng: rand.New(rand.NewPCG(seed, 77)), now: 100 * second, state: cluster.NewState(),
		data: map[*Op]content{}, mends: map[*Op]*Op{}, waiting: map[*Op]content{}, open: map[*Op]content{}, released: map[*Op]bool{}}
	w.state.ID = "c"
	w.balance.often = seed >= readSeeds
	vol := cluster.Volume{Name: "v", Mode: cluster.ModeSync, Size: worldBlocks * worldBlock, Epoch: 3, Version: 7, Primary: "p", Process: 1,
		Members: map[string]cluster.Member{"p": {Process: 1}}}
	switch seed % 3 {
	case 1:
		vol.Mode, vol.Served = cluster.ModeAsync, "p"
		w.room = &room{max: (8 + w.rng.Int64N(64)) * worldBlock}
		w.async = newAsyncWorld(w)
	case 2:
		vol.Mode, vol.Served = cluster.ModeSemisync, "p"
		w.room = &room{max: w.rng.Int64N(32 * worldBlock)}
	}
	if w.changes = seed%3 != 1 && seed/3%3 == 0; w.changes {
		vol.ID = "i"
		w.room = &room{max: (8 + w.rng.Int64N(64)) * worldBlock}
		w.async = newAsyncWorld(w)
		w.state.ConfigVersion = 1
	}
	own := map[string]string{}
	if w.mixed = seed%3 == 0 && seed/3%3 == 1 || w.changes && seed/9%2 == 1; w.mixed {
		if w.async == nil {
			w.room, w.async = &room{max: (8 + w.rng.Int64N(64)) * worldBlock}, newAsyncWorld(w)
		}
		vol.Mode, vol.Served, own = cluster.ModeSync, "p", w.ownModes()
	}
	for _, n := range []string{"p", "s", "x"} {
		vol.Replicas = append(vol.Replicas, cluster.Replica{Node: n, Mode: own[n]})
		w.state.Nodes[n] = cluster.Node{Name: n, Start: 1}
	}
	for _, n := range []string{"s", "x"} {
		s := &side{name: n, inc: bootA, process: 1, recv: standby.New(3, false)}
		if w.balance.often || w.rng.IntN(2) == 0 {
			vol.Members[n] = cluster.Member{Incarnation: bootA, Process: 1}
			for range w.rng.IntN(4) {
				b := w.rng.Int64N(worldBlocks)
				s.dev[b] = other
				s.before = append(s.before, blockdev.Range{Off: b * worldBlock, Len: worldBlock})
			}
		} else {
			for b := range s.dev {
				s.dev[b] = other // anything: it is no member
			}
		}
		w.sides = append(w.sides, s)
	}
	w.state.Volumes["v"] = vol
	cfg := Config{Self: "p", DropAfter: dropAfter, Piece: worldChunk, Backlog: 40 * worldBlock}
	if w.room != nil {
		cfg.Room = w.room
	}
	if w.async != nil {
		if seed >= spoolSeeds {
			cfg.Spool = w.newSpool()
		}
		cfg.Bound = w.async.bound
	}
	w.c = New(cfg, vol, w.now)
	w.c.SetBalance(seed/3%2 == 0 || w.balance.often)
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

// lags reports whether async is in force towards s: what is told then it may lack, within the bound. While it is another mode it may
// lack nothing, of whatever was told before.
func (w *world) lags(s *side) bool {
	v := w.vol()
	return v.ModeBetween("p", s.name) == cluster.ModeAsync
}

// lasting reports whether what the frame of an operation brings is to be durable before it is acknowledged.
func lasting(op *Op) bool { return op.Kind == blockdev.OpFlush || op.IsVoid() || op.FUA }

// changeMode is an operator's word that the volume is to have another mode, perhaps before the last one was in force.
func (w *world) changeMode() {
	v := w.vol()
	modes := []string{cluster.ModeSync, cluster.ModeSemisync, cluster.ModeAsync}
	w.index++
	r := w.state.Apply(w.index, 1, cluster.Command{Configure: &cluster.Configure{Version: w.state.ConfigVersion, Config: []byte("x"), RTOMillis: 1,
		Modes: []cluster.ChangeMode{{Name: "v", ID: "i", Epoch: v.Epoch, Version: v.Version, Mode: modes[w.rng.IntN(3)], Replicas: w.ownModes()}}}})
	if r.Void == "" {
		w.told = append(w.told, w.vol())
	}
}

// ownModes gives the other replicas modes of their own, in some runs.
func (w *world) ownModes() map[string]string {
	own := map[string]string{}
	if w.mixed {
		for _, n := range []string{"s", "x"} {
			own[n] = []string{cluster.ModeSync, cluster.ModeSemisync, cluster.ModeAsync}[w.rng.IntN(3)]
		}
	}
	return own
}

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
			if w.spool.away[a.Op] {
				w.fail("operation %d is sent, and its data is in the spool only", a.Op.seq)
			}
			s.conn.frames = append(s.conn.frames, frame{num: a.Num, op: a.Op, data: w.data[a.Op], fence: w.c.Fences(s.name) && lasting(a.Op)})
		case Spool, Unload, Load:
			w.spools(a)
		case Barrier:
			op := &Op{Kind: blockdev.OpFlush}
			op.Owner = op
			if w.c.AdmitBarrier(w.now, op) {
				w.open[op] = w.acked
				w.async.admits(op)
				w.actions()
			}
		case Ask:
			w.balance.asked = append(w.balance.asked, askedRead{s: s, stream: s.conn.stream, num: a.Num, op: a.Op})
		case Fetch:
			w.asked = append(w.asked, fetching{s: s, stream: s.conn.stream, num: a.Num, at: a.Op.Range})
		case Ping:
			if !s.conn.dead && w.rng.IntN(4) > 0 {
				w.c.Alive(w.now, s.name, s.conn.stream)
			}
		case Complete:
			w.complete(a.Op)
		case Drained:
			w.drained()
		case Reread:
			r := clientRead{op: a.Op}
			for b, to := blocks(a.Op.Range); b < to; b++ {
				r.seen[b] = w.dev[b]
			}
			delete(w.waiting, a.Op)
			w.reads = append(w.reads, r)
			w.reread++
		case Release:
			if w.released[a.Op] {
				w.fail("operation %d was released twice", a.Op.seq)
			}
			w.released[a.Op] = true
		case Propose:
			vol := w.vol()
			if d := a.Command.Drop; d != nil && w.c.DiskError() != nil && !w.c.readsOnly && d.Version == vol.Version && vol.IsMember(d.Node) && len(vol.Members) == 2 {
				w.fail("R23: the last other member is to leave although the primary's disk failed")
			}
			if len(w.proposals) < 8 {
				w.proposals = append(w.proposals, *a.Command)
			}
		case Disconnect:
			if s.conn != nil {
				s.conn.dead = true
			}
		case AskMap:
			if n := w.rng.IntN(3); n == 0 && w.c.Peer(s.name).Member {
				w.c.Mapped(w.now, s.name, s.conn.stream, s.before)
			} else if n == 1 || !w.c.Peer(s.name).Member {
				w.c.Mapped(w.now, s.name, s.conn.stream, []blockdev.Range{{Len: worldBlocks * worldBlock}})
			} else {
				w.c.Unmapped(w.now, s.name, s.conn.stream)
			}
			w.actions()
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
		at, ok := w.c.TakeChunk(w.now, s.name, s.conn.stream, w.rng.Int64N(4*worldChunk))
		if !ok {
			return
		}
		s.chunks = append(s.chunks, chunkRead{at, w.dev})
	}
}
