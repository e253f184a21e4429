package sim

import (
	"fmt"
	"slices"
	"time"

	"hacluster/blockdev"
	"hacluster/blockdev/undo"
	"hacluster/heartbeat/cluster"
	"hacluster/heartbeat/failover"
	"hacluster/replication/order"
	"hacluster/replication/role"
	"hacluster/replication/standby"
)

// replica is one process's runner of the volume: role.Next in a loop, a session while it serves, a Receiver while it
// does not. It decides nothing.
type replica struct {
	w   *world
	p   *proc
	n   *node
	vol cluster.Volume // the newest record: applied here, or by the leader's word

	recv     *standby.Receiver
	queue    order.Queue // of what the Receiver took
	seen     standby.Sights
	taken    []*entry // taken and not in the queue yet: a mark is being stored
	holding  []*entry // in the queue: in this process's memory
	marking  bool
	area     *undo.Area
	logs     []*entry    // whose old content is being logged, in order
	undoGone bool        // the way back was given up in this resync
	again    int64       // no rollback begins before
	hellos   []*incoming // not answered yet
	open     *incoming   // whose stream is the accepted one

	sess  *session
	busy  int // writes and flushes of our own sessions, past and present, on the device
	super superQueue

	storing  cluster.Epoch // being stored
	failed   bool          // a write or flush failed
	noting   int           // such failures that are being noted
	proposed int64
	telling  uint64 // number of the give-up that the leader is being told of
	stopping stopPhase
	stopAt   int64
	clearing bool
	durable  cluster.Epoch // for which it was flushed
	size     int64         // with which it was opened
	resized  uint64        // its number
	resizing bool
}

type stopPhase uint8

const (
	notStopping stopPhase = iota
	handingOver
	ending
)

func newReplica(p *proc) *replica {
	r := &replica{w: p.w, p: p, n: p.node, size: p.node.super.size, resized: p.node.super.resized}
	s := p.node.super
	r.recv = standby.New(s.epoch, s.inconsistent)
	r.failed = s.failed
	r.openArea()
	return r
}

// superQueue stores changes of the superblock, one at a time.
type superQueue struct {
	jobs []superJob
	busy bool
}

type superJob struct {
	change func(*super)
	then   func()
}

// store changes the superblock durably and then calls then. The change takes effect as a whole at some moment in
// between; a process that dies meanwhile does not know whether it did.
func (r *replica) store(change func(*super), then func()) {
	r.super.jobs = append(r.super.jobs, superJob{change, then})
	r.storeNext()
}

func (r *replica) storeNext() {
	if r.super.busy || len(r.super.jobs) == 0 {
		return
	}
	r.super.busy = true
	job := r.super.jobs[0]
	r.super.jobs = r.super.jobs[1:]
	boot := r.n.boot
	r.n.storing++
	r.w.after(r.w.between(50*time.Microsecond, 2*time.Millisecond), func() {
		if r.n.boot != boot {
			return
		}
		r.n.storing--
		job.change(&r.n.super)
		r.p.after(r.w.between(0, time.Millisecond), func() {
			r.super.busy = false
			job.then()
			r.storeNext()
		})
	})
}

// report is the replica's own word about itself.
func (r *replica) report() cluster.Report {
	s := &r.n.super
	return cluster.Report{Volume: volumeName, Incarnation: r.n.incarnation(), Process: r.p.number, Epoch: r.recv.Epoch(), LastSeq: r.recv.LastNum(),
		Held: true, Fresh: !s.used, Failed: r.failed, Inconsistent: r.recv.Inconsistent(), Stalled: r.n.disk.stalled(), Clean: s.clean, Point: r.point(), Taken: r.recv.Taken(), Place: r.recv.Place(), Lag: r.lag(),
		Doing: fmt.Sprint(slices.Max(r.n.disk.cache[:]))} // how long its prefix is, for the oracle
}

func (r *replica) facts() role.Facts {
	f := role.Facts{Self: r.n.name, Volume: r.vol, Report: r.report(), Size: r.vol.Size, Busy: r.busy + r.recv.Outstanding(), Durable: r.durable,
		Lease: r.p.holder.Valid(volumeName, r.vol.Epoch, r.p.now())}
	if r.sess != nil {
		f.Serving = r.sess.epoch
	}
	return f
}

// learn takes a committed record.
func (r *replica) learn(v cluster.Volume) {
	if v.Epoch < r.vol.Epoch || v.Epoch == r.vol.Epoch && v.Version <= r.vol.Version {
		return
	}
	r.vol = v
	r.recv.Fence(v.Epoch)
	if s := r.sess; s != nil {
		s.core.Set(r.p.now(), v)
		s.run()
	}
	r.kick()
}

// kick does what the facts ask for until they ask for nothing more.
func (r *replica) kick() {
	if r.p.dead || r.stopping == ending {
		r.endWhenQuiet()
		return
	}
	if !r.fits() {
		return
	}
	for r.follow() {
	}
	r.answerHellos()
	if s := r.sess; s != nil {
		s.pump()
	}
}

// follow takes one step of the role; again: ask once more.
func (r *replica) follow() (again bool) {
	switch a := role.Next(r.facts()).(type) {
	case role.Stop:
		r.sess.end(a.Why)
		r.sess = nil
		return true
	case role.StoreEpoch:
		r.storeEpoch(a.Epoch)
	case role.Flush:
		r.makeDurable(a.Epoch)
	case role.Serve:
		return r.serve()
	case role.Propose:
		r.propose(a.Command)
	case role.GiveUp:
		r.w.tracef("%s/%d cannot fill epoch %d: %s", r.n.name, r.p.number, a.Epoch, a.Why)
		r.giveUp(a.Epoch, "", true)
	}
	return false
}

// giveUp ends our right to serve the volume and says so to the leader.
func (r *replica) giveUp(e cluster.Epoch, to string, failed bool) {
	p := r.p
	g := failover.GiveUp{Node: r.n.name, Start: p.number, Number: p.holder.GiveUp(volumeName), Term: p.holder.Term(), Volume: volumeName, Epoch: e, To: to, Failed: failed}
	r.w.tracef("%s gives up: %+v", r.n.name, g)
	r.w.moment(r.n)
	r.telling = g.Number
	r.tell(g, 5)
}

// tell brings a give-up to the leader, some times: the answer may be lost.
func (r *replica) tell(g failover.GiveUp, times int) {
	if times == 0 || r.telling != g.Number || r.vol.Epoch != g.Epoch {
		return
	}
	r.p.toLeader(r.w.faults.lateGiveUp, func(q *proc) {
		if l := q.leader; l != nil {
			acts, ok := l.l.GiveUp(q.now(), g)
			r.w.tracef("%s takes the give-up: %t", q.node.name, ok)
			l.do(acts)
		}
	})
	r.p.after(r.w.between(50*time.Millisecond, 200*time.Millisecond), func() { r.tell(g, times-1) })
}

// storeEpoch puts the epoch on stable storage and only then tells the Receiver.
func (r *replica) storeEpoch(e cluster.Epoch) {
	if r.storing >= e {
		return
	}
	r.storing = e
	r.store(func(s *super) { s.epoch, s.used = max(s.epoch, e), true }, func() {
		r.w.tracef("%s/%d stored epoch %d", r.n.name, r.p.number, e)
		r.recv.Stored(e)
		r.kick()
	})
}

// makeDurable flushes what was taken before an epoch in which it is to serve.
func (r *replica) makeDurable(e cluster.Epoch) {
	if r.failed {
		return
	}
	r.busy++
	r.n.disk.start(r.p, &diskOp{kind: blockdev.OpFlush}, func(o *diskOp) {
		r.busy--
		switch {
		case o.err != nil:
			r.note(r.kick)
		case !r.failed:
			r.durable = max(r.durable, e)
		}
		r.kick()
	})
}

// serve begins a session. The clean-stop mark goes before the first write.
func (r *replica) serve() (again bool) {
	switch {
	case r.stopping != notStopping || r.clearing:
		return false
	case r.recv.Inconsistent():
		r.rollBack(r.vol.Epoch)
		return false
	case r.failed:
		r.refresh()
		return false
	case r.n.super.clean != nil:
		r.clearing = true
		r.store(func(s *super) { s.clean = nil }, func() {
			r.clearing = false
			r.kick()
		})
		return false
	}
	r.sess = newSession(r)
	r.sess.run()
	return true
}

// refresh makes a replica sound that a person promoted although a write or flush had failed on it: what its memory
// shows is written again, for no flush would make it durable otherwise, and then flushed.
func (r *replica) refresh() {
	r.clearing = true
	ended := func(o *diskOp) bool {
		if o.err != nil {
			r.clearing = false // the next tick tries again
		}
		return o.err == nil
	}
	all := append([]value(nil), r.n.disk.cache[:r.size/blockdev.BlockSize]...)
	r.n.disk.start(r.p, &diskOp{kind: blockdev.OpWrite, to: len(all), values: all}, func(o *diskOp) {
		if !ended(o) {
			return
		}
		r.n.disk.start(r.p, &diskOp{kind: blockdev.OpFlush}, func(o *diskOp) {
			if !ended(o) {
				return
			}
			r.store(func(s *super) { s.clean, s.failed = nil, false }, func() {
				r.clearing, r.failed = false, false
				r.kick()
			})
		})
	})
}

// propose hands the role's command over, again after a while when the outcome stays unknown.
func (r *replica) propose(c cluster.Command) {
	if r.w.now-r.proposed < int64(100*time.Millisecond) {
		return
	}
	r.proposed = r.w.now
	r.p.propose(c, r.outcome)
}

// outcome takes the leader's word.
func (r *replica) outcome(res cluster.Result) {
	if res.Volume != nil {
		r.learn(*res.Volume)
	}
}

const tickEvery = dropAfter / 6

// tick lets time act.
func (r *replica) tick() {
	r.watch()
	if s := r.sess; s != nil {
		s.core.Heard(r.p.now(), r.p.holder.Asked())
		s.core.Tick(r.p.now())
		s.run()
		s.suspended()
	}
	r.stopProgress()
	r.kick()
	r.p.after(tickEvery, r.tick)
}

// watch counts what hangs as failed: it is noted, and told to whoever waits for it.
func (r *replica) watch() {
	for _, o := range r.n.disk.running {
		if o.p != r.p || o.watched || r.w.now-o.began <= int64(diskDeadline) {
			continue
		}
		o.watched = true
		s, in := r.sess, r.open
		if in != nil {
			in.failed = true // nothing more is acknowledged
		}
		r.note(func() {
			if s != nil {
				s.stalled = true
				s.pump()
			}
			if in != nil {
				in.send(refuseMsg{"the disk hangs"})
			}
		})
	}
}

// granted tells that a grant was taken.
func (r *replica) granted() {
	if s := r.sess; s != nil {
		s.resume()
	}
	r.kick()
}

// handOver: one that was decided in another epoch is void.
func (r *replica) handOver(to string, e cluster.Epoch) {
	if s := r.sess; s != nil && s.epoch == e {
		s.quiesce(to)
	}
}

// note stores that a write or flush failed, before any further answer (R23), and then calls then.
func (r *replica) note(then func()) {
	r.failed = true
	r.noting++
	r.store(func(s *super) { s.failed = true }, func() {
		r.noting--
		then()
	})
}

// die cuts off who was connected.
func (r *replica) die() {
	r.closeArea()
	if r.sess != nil {
		r.sess.cutClients()
		for _, l := range r.sess.links {
			if l.conn != nil {
				l.conn.snap()
			}
		}
	}
	if r.open != nil {
		r.open.conn.snap()
	}
}
