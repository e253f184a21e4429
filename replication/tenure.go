package replication

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"hacluster/blockdev/failpoint"
	"hacluster/heartbeat/cluster"
	"hacluster/replication/maps"
	"hacluster/replication/primary"
)

// Tenure is the time as primary in one epoch: the runner of a primary.Core. It is what frontends serve.
type Tenure struct {
	r     *Replica
	epoch cluster.Epoch
	peers atomic.Pointer[map[string]*peerLink] // replaced as a whole, under mu, when a replica comes (joining.go)
	goes  sync.WaitGroup
	stop  context.CancelFunc
	// proposals go to Raft one at a time; a full queue drops them, for the Core repeats what stays undecided.
	proposals chan cluster.Command // sent by run, received by proposer, never closed
	gone      chan struct{}        // closed by cut
	kick      chan struct{}        // to tick: look now; room for one: a reminder, not a count
	acked     atomic.Bool          // a client's write or flush was acknowledged
	shown     atomic.Int64         // the size that clients are shown: nothing behind it is admitted

	gate  gate
	spool *spooler // nil: there is none
	base  counts   // of the replica's meter when the tenure began
	// readsBase is the same of reads that members answered.
	readsBase map[string]Reads

	mu      sync.Mutex
	core    *primary.Core
	ended   bool
	local   int           // operations on the local backing
	held    []*op         // admitted by no one yet: a hand-over is under way; bounded by the frontends' limits
	handing handing       // how far a hand-over is
	resting bool          // tick found nothing that time alone has to do, but now and then to ask for signs of life
	drained chan struct{} // closed when the Core has drained, non-nil while a hand-over waits for it
	export  *Export       // what new clients are given
	showing uint64        // the version of the record that it follows
	failed  error         // why the local backing cannot be relied upon, noted already
	giving  bool          // the role is being given up for that

	verifier *verifier       // compares the replicas; nil: nothing is compared
	lastLook uint64          // counts the digest requests of all verifies: a late answer is not taken for one of another
	life     context.Context // of the tenure, for what begins later; nil before start. Not passed on beyond that

	regs     *maps.Regions   // what of the marks on stable storage may go; nil: there are none
	clearing *clearing       // the round that is under way
	cleared  uint64          // the number of the newest
	clearAt  cluster.Instant // when the next is due
	idle     int64           // regions that wait for a flush only, as the last round found, until one comes
}

// newTenure is called with the mutex of the Replica held.
func newTenure(r *Replica, vol cluster.Volume) *Tenure {
	now := r.node.Now()
	t := &Tenure{r: r, epoch: vol.Epoch, base: r.meter.counts(), readsBase: r.ReadsAt(), gone: make(chan struct{}),
		kick: make(chan struct{}, 1), proposals: make(chan cluster.Command, 16)}
	t.spool = newSpooler(t)
	t.core = primary.New(primary.Config{Self: r.cfg.Node, DropAfter: r.timers.drop(), Room: r.cfg.Room, Bound: r.bound, Spool: t.spool.sizes(r.bound)}, vol, now)
	t.core.SetBalance(r.balance)
	t.regs, t.clearAt = r.newRegions(), now.Add(clearEvery)
	links := map[string]*peerLink{}
	for _, n := range t.core.Peers() {
		links[n] = newPeerLink(t, n)
		if regions, ok := r.marked(n); ok {
			t.core.Marked(n, r.ranges(regions))
		}
	}
	t.peers.Store(&links)
	t.showLocked(vol)
	t.gate.init(mutatePause(r.node.Now), func() cluster.Instant { return r.node.Lease(r.cfg.Volume.Name, vol.Epoch) })
	return t
}

func (t *Tenure) start(ctx context.Context) {
	ctx, t.stop = context.WithCancel(ctx)
	t.mu.Lock()
	t.life = ctx
	for _, p := range t.links() {
		p.beginLocked()
	}
	t.mu.Unlock()
	t.r.cfg.Crowd.enter(t)
	t.LeaseChanged()
	t.goes.Go(func() { t.propose(ctx) })
	t.goes.Go(func() { t.tick(ctx) })
}

// cut cuts the clients off without an answer. It returns how many operations are left on the local backing: they are
// the Replica's to wait for, each tells it when it returns.
func (t *Tenure) cut() (left int) {
	t.gate.close()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ended = true
	t.core.End()
	t.abortClearingLocked()
	t.dropHeldLocked()
	close(t.export.gone)
	close(t.gone)
	return t.local
}

// end leaves no goroutine behind. It comes after cut.
func (t *Tenure) end() {
	t.r.cfg.Crowd.leave(t)
	t.stop()
	t.goes.Wait()
	if t.spool != nil {
		t.spool.close()
	}
}

// dropHeldLocked discards what was not admitted: its connections are closed without an answer.
func (t *Tenure) dropHeldLocked() {
	for i, o := range t.held {
		t.held[i] = nil
		o.release()
	}
	t.held = nil
}

func (t *Tenure) members() []string {
	v := t.r.Volume()
	return v.MemberNames()
}

// set takes a newer record of the volume.
func (t *Tenure) set(v cluster.Volume) {
	t.with(func(now primary.Instant) {
		var out []string
		for _, p := range t.core.Peers() {
			if !t.core.Peer(p).Member {
				out = append(out, p)
			}
		}
		t.core.Set(now, v)
		t.showLocked(v)
		if slices.ContainsFunc(out, func(p string) bool { return t.core.Peer(p).Member }) {
			t.abortClearingLocked() // a round without it, whose map may be a new one, without a number of clearings
			t.clearAt = now
			t.look()
		}
	})
}

// showLocked has clients see what the volume is to have, if that is less, from when it is decided: then nothing behind the new end is
// acknowledged any more while the old size is in force still, perhaps for long. Who was shown more is cut off. If it is taken
// back, new clients see more again. Records come in any order.
func (t *Tenure) showLocked(v cluster.Volume) {
	if v.Version < t.showing {
		return
	}
	t.showing = v.Version
	size := min(t.r.cfg.Volume.Size, v.NextSize())
	t.shown.Store(size)
	switch {
	case t.export == nil:
		t.export = newExport(t, size)
	case size < t.export.size:
		close(t.export.gone)
		t.export = newExport(t, size)
		t.dropHeldLocked()
	case size > t.export.size:
		t.export = &Export{t: t, gone: t.export.gone, size: size}
	}
}

// with runs f on the Core under the lock and carries out what it asks for. It never waits for a disk.
func (t *Tenure) with(f func(now primary.Instant)) {
	now := t.r.node.Now()
	t.mu.Lock()
	if t.ended {
		t.mu.Unlock()
		return
	}
	f(now)
	acts := t.takeLocked()
	t.mu.Unlock()
	t.run(acts, loop)
}

// propose hands the Core's proposals to Raft in order and feeds the leader's word back.
func (t *Tenure) propose(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case c := <-t.proposals:
			ctx, cancel := context.WithTimeout(ctx, t.r.timers.drop())
			res, err := t.proposeOne(ctx, c)
			cancel()
			if err == nil && res.Volume != nil {
				t.r.learn(*res.Volume)
			}
		}
	}
}

// proposeOne names the kind of a proposal to who wants to crash there.
func (t *Tenure) proposeOne(ctx context.Context, c cluster.Command) (cluster.Result, error) {
	before, after := failpoint.Drop, failpoint.Dropped
	if c.Admit != nil {
		before, after = failpoint.Admit, failpoint.Admitted
	}
	failpoint.Hit(before)
	defer failpoint.Hit(after)
	return t.r.node.Propose(ctx, c)
}

func (t *Tenure) tick(ctx context.Context) {
	drop := t.r.timers.drop()
	last := time.Now() // when time was let act last
	tick := time.NewTimer(drop / 8)
	defer tick.Stop()
	served := t.r.node.Now() // when the gate was last seen open, or the clients were cut off
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			last = time.Now()
			if now := t.r.timers.drop(); now != drop {
				drop = now
				t.with(func(primary.Instant) { t.core.SetDropAfter(drop) })
			}
			t.with(t.coreTick)
		case <-t.kick:
		}
		t.doubt()
		t.resume()
		t.handOn(ctx)
		t.flushMarks()
		t.clearMarks()
		t.r.reviveMarks()
		t.followResyncs()
		t.followWays()
		if t.spool != nil {
			t.spool.hangs(t.r.node.Now(), max(4*drop, hungAfter))
		}
		served = max(served, t.gate.servedUntil())
		if now := t.r.node.Now(); t.gate.try() {
			served = now
		} else if now.Sub(served) >= t.r.timers.suspend() {
			served = now
			t.r.log.Warn("suspended for longer than the limit: clients' connections are closed", "limit", t.r.timers.suspend())
			t.cutClients()
		}
		tick.Reset(max(t.untilTick(drop)-time.Since(last), 0))
	}
}

// untilTick is how long after it last did time is to act again. A tenure that rests is woken up by whatever changes that
// (takeLocked).
func (t *Tenure) untilTick(drop time.Duration) time.Duration {
	f := t.r.cfg.Marks
	bare := f == nil || f.Empty() && f.Failed() == nil
	t.mu.Lock()
	defer t.mu.Unlock()
	t.restLocked(bare && t.core.Rests() && t.handing == open && t.clearing == nil && !t.giving && t.failed == nil)
	if !t.resting {
		return drop / 8
	}
	rest := max(t.r.timers.suspend()/4, drop/8)
	if t.r.hasWays() {
		rest = min(rest, wayPause)
	}
	return min(t.r.cfg.Crowd.pace(drop/8, looksPerSec), rest)
}

// restLocked notes whether the tenure rests; the crowd tells those that do not of each renewal of the lease.
func (t *Tenure) restLocked(rests bool) {
	if t.resting != rests {
		t.resting = rests
		t.r.cfg.Crowd.rests(t, rests)
	}
}

// doubt asks peers for a sign of life that gave another volume none.
func (t *Tenure) doubt() {
	for n, p := range t.links() {
		if p.doubt.Load() && p.doubt.Swap(false) {
			t.with(func(now primary.Instant) { t.core.Doubt(now, n) })
		}
	}
}

// coreTick lets time act in the Core.
func (t *Tenure) coreTick(now primary.Instant) {
	asked, there := t.r.node.Heard()
	t.core.Heard(there, asked)
	t.core.SetPingEvery(t.r.cfg.Crowd.pace(0, pingsPerSec))
	t.core.Tick(now)
}

// look has tick do now what it would do at its next turn.
func (t *Tenure) look() {
	select {
	case t.kick <- struct{}{}:
	default:
	}
}

// cutClients closes the connections of a suspension that lasts too long; new ones wait for the next lease (R11).
func (t *Tenure) cutClients() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ended {
		return
	}
	close(t.export.gone)
	t.export = newExport(t, t.export.size)
	t.dropHeldLocked()
}

// noteDisk is diskFailed for a failure that the Core named. The note waits for stable storage, so only a worker makes it
// itself: who keeps a stream, or submits, has it made beside.
func (t *Tenure) noteDisk(err error, by caller) {
	note := func() {
		t.diskFailed(err)
		if t.returnedLocked(nil) {
			t.mu.Unlock()
		}
	}
	if by == worker || !t.r.spawn(note) {
		note()
	}
}

// diskFailed notes that the local backing failed and lets answers out again, which were held back since the failure was
// known. What cannot be noted stays unanswered: Run ends the tenure.
func (t *Tenure) diskFailed(err error) {
	if !t.r.noteFailure(err) {
		return
	}
	now := t.r.node.Now()
	t.mu.Lock()
	t.failed = err
	t.core.GivesUp(now, false)
	t.mu.Unlock()
	t.gate.unhold()
	t.look()
}

// handOn gives the role up because the local backing failed, or cannot read what a member may have, if another member could
// take it; else the error is the client's (R23). In async what clients were told of and is in memory goes to the members first, as
// long as they take it. It is tried again with each lease that comes all the same.
func (t *Tenure) handOn(ctx context.Context) {
	others := len(t.r.Volume().Members) > 1
	now := t.r.node.Now()
	t.mu.Lock()
	err := t.failed
	if err == nil && !t.ended {
		if err = t.core.HandsOn(now); err != nil {
			t.core.GivesUp(now, true)
		}
	}
	start := err != nil && others && !t.giving && !t.handing.isOn() && t.gate.try() && !t.core.SendsOn(now)
	t.giving = t.giving || start
	t.mu.Unlock()
	if !start {
		return
	}
	t.r.log.Error("giving the role up: the backing device failed", "epoch", t.epoch, "error", err)
	t.r.event("role given up", fmt.Sprintf("%s gives the role up, for a member to take: %s: %v", t.r.cfg.Node, t.r.device(), err))
	t.goes.Go(func() {
		ctx, cancel := context.WithTimeout(ctx, 8*t.r.timers.drop())
		defer cancel()
		failpoint.Hit(failpoint.GiveUpFailed)
		if err := t.r.node.GiveUp(ctx, t.r.cfg.Volume.Name, t.epoch, "", true); err != nil && ctx.Err() == nil {
			t.r.log.Warn("the leader did not take the give-up", "epoch", t.epoch, "error", err)
		}
		t.gate.refresh()
		t.mu.Lock()
		t.giving = false
		t.mu.Unlock()
	})
}

// LeaseChanged tells that the node's lease was renewed or given up. It never waits for a disk. One that rests has nothing to do with
// a lease that goes on.
func (t *Tenure) LeaseChanged() {
	t.gate.refresh()
	t.mu.Lock()
	rests := t.resting && t.handing == open
	t.mu.Unlock()
	if !rests {
		t.look()
	}
}

// Epoch is the one of the tenure.
func (t *Tenure) Epoch() cluster.Epoch { return t.epoch }

func (t *Tenure) String() string { return fmt.Sprintf("tenure of epoch %d", t.epoch) }
