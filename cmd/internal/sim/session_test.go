package sim

import (
	"slices"
	"time"

	"hacluster/blockdev"
	"hacluster/heartbeat/cluster"
	"hacluster/replication/primary"
)

const (
	dropAfter    = 300 * time.Millisecond
	suspendLimit = 3 * time.Second
	quiesceLimit = 2 * time.Second
	backlog      = 24 * blockdev.BlockSize
)

// op is one operation of a Core with what it does to the disk.
type op struct {
	primary.Op
	req      *request // of a client; nil: the session's own
	values   []value  // of a copy
	value    value
	reader   *request // of a mend: whose read waits for it
	released bool
	finished bool
	sess     *session
	spooling int  // calls of the spool that have not returned
	away     bool // its data is in the spool only
}

// session is the time as primary in one epoch: the runner of a primary.Core.
type session struct {
	r     *replica
	w     *world
	core  *primary.Core
	epoch cluster.Epoch
	ended bool
	links []*peerLink

	clients []*clientConn
	waiting []*request // not admitted
	replies []*request // done, and held back by the gate

	nearing   bool // a hand-over is to begin when no member lacks what clients were told of: they are served meanwhile
	handing   bool // a hand-over is under way: nothing is admitted
	gaveUp    bool
	stalled   bool // an operation on the local disk hung
	to        string
	handedAt  int64
	quiesced  uint64 // number of the hand-over
	suspendAt int64  // since when there is no lease; 0: there is one

	actions []primary.Action
	spare   []*op
	running bool
	err     error
}

func newSession(r *replica) *session {
	w := r.w
	s := &session{r: r, w: w, epoch: r.vol.Epoch}
	cfg := primary.Config{Self: r.n.name, DropAfter: dropAfter, Piece: chunkSize, Backlog: backlog, Room: &r.p.room, Bound: w.bound, Spool: w.spoolSizes()}
	s.core = primary.New(cfg, r.vol, r.p.now())
	for _, n := range s.core.Peers() {
		s.links = append(s.links, &peerLink{s: s, peer: w.node(n)})
	}
	w.counts.Serves++
	w.tracef("SERVE %s/%d epoch %d members %v content %v", r.n.name, r.p.number, s.epoch, r.vol.MemberNames(), r.n.disk.cache)
	w.oracle.serve(s)
	for _, l := range s.links {
		l.dialIn(w.between(0, 20*time.Millisecond))
	}
	w.moment(r.n)
	return s
}

// end cuts the clients off without an answer. What is on the device ends by itself.
func (s *session) end(why string) {
	s.w.tracef("STOP %s/%d epoch %d: %s", s.r.n.name, s.r.p.number, s.epoch, why)
	s.ended = true
	s.core.End()
	s.cutClients()
	for _, l := range s.links {
		if l.conn != nil {
			l.conn.close(0)
		}
	}
}

func (s *session) cutClients() {
	for _, c := range s.clients {
		c.cut()
	}
	s.clients, s.waiting = nil, nil
}

// link is the one to a node.
func (s *session) link(node string) *peerLink {
	for _, l := range s.links {
		if l.peer.name == node {
			return l
		}
	}
	panic("no link to " + node)
}

func (s *session) valid() bool { return s.r.p.holder.Valid(volumeName, s.epoch, s.r.p.now()) }

// submit takes a client's request.
func (s *session) submit(q *request) {
	s.waiting = append(s.waiting, q)
	s.pump()
}

// pump admits and replies what the gate lets through at this moment.
func (s *session) pump() {
	if s.ended {
		return
	}
	s.checkDisk()
	for !s.handing && len(s.waiting) > 0 && s.valid() {
		q := s.waiting[0]
		s.waiting = s.waiting[1:]
		if !q.conn.closed {
			s.admit(q)
		}
	}
	s.reply()
}

// reply answers what is done, if the lease is valid directly before.
func (s *session) reply() {
	for len(s.replies) > 0 && s.valid() && s.r.noting == 0 {
		q := s.replies[0]
		s.replies = s.replies[1:]
		if !q.conn.closed {
			s.w.oracle.reply(s, q)
			q.conn.answer(q)
		}
	}
}

func (s *session) newOp() *op {
	if n := len(s.spare); n > 0 {
		o := s.spare[n-1]
		s.spare = s.spare[:n-1]
		o.released = false
		return o
	}
	o := &op{sess: s}
	o.Owner = o
	return o
}

func (s *session) admit(q *request) {
	o := s.newOp()
	o.req, o.Kind, o.Range, o.FUA = q, q.kind, rangeOf(q.from, q.to), q.fua
	if q.kind == blockdev.OpFlush {
		o.Range = blockdev.Range{}
	}
	if q.kind == blockdev.OpRead {
		s.read(o)
		return
	}
	s.w.oracle.admit(s, q)
	o.value = q.value
	s.core.Admit(s.r.p.now(), &o.Op)
	s.run()
}

// run carries out what the Core asks for, in order.
func (s *session) run() {
	if s.running || s.ended {
		return
	}
	s.running = true
	for {
		s.actions = s.core.Take(s.actions[:0])
		if len(s.actions) == 0 {
			break
		}
		acts := s.actions
		s.actions = nil
		for i := range acts {
			s.carryOut(&acts[i])
			if s.ended {
				return
			}
		}
		s.actions = acts
	}
	s.running = false
	s.reply()
}

func (s *session) carryOut(a *primary.Action) {
	var o *op
	if a.Op != nil {
		if o, _ = a.Op.Owner.(*op); o != nil && o.released {
			s.w.violate("%s epoch %d: action %d names an operation after its release", s.r.n.name, s.epoch, a.Kind)
		}
	}
	switch a.Kind {
	case primary.StartLocal:
		s.startLocal(o)
	case primary.Begin:
		if a.Resync {
			s.w.counts.Resyncs++
		}
		s.w.tracef("%s epoch %d begins stream %d to %s at entry %d, resync %t", s.r.n.name, s.epoch, s.link(a.Node).stream, a.Node, a.Num, a.Resync)
		s.link(a.Node).send(beginMsg{a.Num, a.Resync})
	case primary.Send:
		if o != nil && o.away {
			s.w.violate("R13: %s epoch %d sends an operation whose data is in the spool only", s.r.n.name, s.epoch)
		}
		s.link(a.Node).send(s.message(a))
	case primary.Spool, primary.Unload, primary.Load:
		s.spool(a, o)
	case primary.Ping:
		s.link(a.Node).send(pingMsg{})
	case primary.Complete:
		s.complete(o)
	case primary.Release:
		if o != nil {
			s.release(o)
		}
	case primary.Propose:
		s.w.moment(s.r.n)
		s.r.p.propose(*a.Command, s.r.outcome)
	case primary.Disconnect:
		s.w.tracef("%s epoch %d disconnects %s: %s", s.r.n.name, s.epoch, a.Node, a.Reason)
		s.link(a.Node).close()
	case primary.DiskFailed:
		s.w.tracef("%s epoch %d: disk failed: %v", s.r.n.name, s.epoch, a.Err)
		s.err = a.Err
		s.r.note(func() { s.pump() })
	case primary.Barrier:
		s.barrier()
	case primary.HandOn:
		s.w.tracef("%s epoch %d: reads are left to a member: %v", s.r.n.name, s.epoch, a.Err)
	case primary.Reread:
		s.w.counts.Reread++
		s.read(o)
	case primary.Drained:
		s.flushAndGiveUp()
	case primary.Fetch:
		from, to := blocksOf(o.Range)
		s.link(a.Node).send(fetchMsg{a.Num, from, to})
	case primary.AskMap:
		s.core.Unmapped(s.r.p.now(), a.Node, s.link(a.Node).stream) // nothing is kept on stable storage here
	case primary.Join:
		s.join(s.w.node(a.Node))
	case primary.Part:
		s.link(a.Node).off = true
		s.link(a.Node).close()
	case primary.Compare:
		s.link(a.Node).compare()
	}
}

// join connects to a replica that came.
func (s *session) join(n *node) {
	i := slices.IndexFunc(s.links, func(l *peerLink) bool { return l.peer == n })
	if i < 0 {
		i, s.links = len(s.links), append(s.links, &peerLink{s: s, peer: n})
	}
	s.links[i].off = false
	s.links[i].dialIn(s.w.between(0, 20*time.Millisecond))
}

// barrier has a flush of our own admitted, for a change of the mode.
func (s *session) barrier() {
	o := s.newOp()
	o.Kind, o.Range = blockdev.OpFlush, blockdev.Range{}
	if !s.core.AdmitBarrier(s.r.p.now(), &o.Op) {
		s.release(o)
	}
}

func (s *session) release(o *op) {
	o.released = true
	if o.spooling == 0 {
		s.reuse(o)
	}
}

func (s *session) reuse(o *op) {
	o.away, o.finished, o.req, o.reader, o.values, o.value = false, false, nil, nil, nil, 0
	o.Reset()
	s.spare = append(s.spare, o)
}

func (s *session) startLocal(o *op) {
	r := s.r
	d := &diskOp{kind: o.Kind, fua: o.FUA, value: o.value}
	d.from, d.to = blocksOf(o.Range)
	switch {
	case o.IsVoid():
		r.p.after(0, func() { s.voidDone(o) })
		return
	case o.IsCopy():
		d.kind = blockdev.OpRead
	case o.reader != nil:
		d.values = o.values
	}
	r.busy++
	r.n.disk.start(r.p, d, func(d *diskOp) {
		r.busy--
		if s.ended {
			r.kick()
			return
		}
		if o.IsCopy() {
			o.values = d.values
		}
		s.core.LocalDone(r.p.now(), &o.Op, d.err)
		s.run()
	})
}

func (s *session) message(a *primary.Action) entryMsg {
	m := entryMsg{num: a.Num, place: a.Op.Place(), kind: a.Op.Kind, rng: a.Op.Range, closing: a.Op.Closing()}
	m.from, m.to = blocksOf(a.Op.Range)
	if a.Op.IsVoid() {
		m.kind = blockdev.OpFlush
	}
	if m.kind == blockdev.OpFlush {
		m.rng = blockdev.Range{}
	}
	if o, _ := a.Op.Owner.(*op); o != nil {
		m.value, m.values, m.fua = o.value, o.values, o.FUA
	}
	m.fence = s.core.Fences(a.Node) && m.lasting()
	return m
}

// complete takes an operation that the Core calls done.
func (s *session) complete(o *op) {
	if o.finished {
		s.w.violate("%s epoch %d: an operation is complete twice", s.r.n.name, s.epoch)
	}
	o.finished = true
	q := o.req
	if q == nil { // our own flush
		if s.handing && !s.gaveUp && o.value == value(s.quiesced) {
			if o.Err == nil {
				s.giveUp(s.to, false)
			} else {
				s.cancelHandOver()
			}
		}
		return
	}
	if q.err = o.Err; q.err != nil {
		if v := s.w.truth.state.Volumes[volumeName]; len(v.Members) > 1 && v.Epoch == s.epoch {
			s.w.violate("R23: %s completes an operation with a disk error while the set is %v", s.r.n.name, v.MemberNames())
		}
	}
	s.w.oracle.told(s, q)
	s.replies = append(s.replies, q)
}

// quiesce begins a hand-over: admit nothing, let what is in flight end.
func (s *session) quiesce(to string) {
	if s.handing || s.nearing {
		return
	}
	s.nearing, s.gaveUp, s.to, s.handedAt = true, false, to, s.w.now
	s.quiesced++
	s.w.tracef("%s epoch %d quiesces", s.r.n.name, s.epoch)
	s.w.moment(s.r.n)
	s.approach(s.quiesced)
}

// approach waits, in async, until no member lacks what clients were told of, and then lets nobody in.
func (s *session) approach(n uint64) {
	switch {
	case s.ended || !s.nearing || s.gaveUp || n != s.quiesced:
		return
	case s.core.Approach():
		s.r.p.after(5*time.Millisecond, func() { s.approach(n) })
		return
	}
	s.nearing, s.handing = false, true
	s.core.Drain()
	s.run()
}

func (s *session) flushAndGiveUp() {
	if !s.handing || s.gaveUp {
		return
	}
	o := s.newOp()
	o.Kind, o.Range, o.value = blockdev.OpFlush, blockdev.Range{}, value(s.quiesced)
	s.core.Admit(s.r.p.now(), &o.Op)
}

// giveUp ends our right to serve and says so to the leader.
func (s *session) giveUp(to string, failed bool) {
	s.nearing, s.handing, s.gaveUp = false, true, true
	s.r.giveUp(s.epoch, to, failed)
}

func (s *session) cancelHandOver() {
	s.nearing, s.handing, s.gaveUp = false, false, false
	s.core.Resume()
	s.run()
	s.pump()
}

// resume goes on after a give-up that came to nothing: a grant asked for afterwards names this epoch.
func (s *session) resume() {
	if s.gaveUp && s.valid() && !s.ended && s.r.stopping == notStopping {
		s.w.tracef("%s epoch %d resumes", s.r.n.name, s.epoch)
		s.r.telling = 0
		s.cancelHandOver()
	}
}

// checkDisk gives up when our own disk failed and another member is there to follow (R23).
func (s *session) checkDisk() {
	if s.err == nil && s.core.HandsOn(s.r.p.now()) == nil && !s.stalled || s.gaveUp || s.r.noting > 0 || !s.valid() ||
		s.core.SendsOn(s.r.p.now()) {
		return
	}
	for _, l := range s.links {
		if g := s.core.Peer(l.peer.name); g.Member && g.Connected {
			s.giveUp("", true)
			return
		}
	}
}

// suspended closes the clients' connections when there is no lease for too long, and ends a hand-over that hangs.
func (s *session) suspended() {
	if (s.nearing || s.handing) && !s.gaveUp && s.w.now-s.handedAt > int64(quiesceLimit) && s.r.stopping == notStopping {
		s.cancelHandOver()
	}
	switch {
	case s.valid():
		s.suspendAt = 0
	case s.suspendAt == 0:
		s.suspendAt = s.w.now
	case s.w.now-s.suspendAt > int64(suspendLimit):
		s.cutClients()
	}
}
