package replication

import (
	"cmp"
	"context"
	"fmt"

	"hacluster/blockdev/failpoint"
	"hacluster/heartbeat/cluster"
	"hacluster/replication/role"
)

// follow does what the role asks for until it asks for nothing more. rests: it asked for nothing, and only what kicks changes that.
func (r *Replica) follow(ctx context.Context) (rests bool) {
	for ctx.Err() == nil {
		f, problem := r.facts()
		if problem && f.Serving != 0 {
			r.stopServing("the replica is out of service")
			continue
		}
		if !problem && r.reopen() {
			return false // its end kicks
		}
		switch a := role.Next(f).(type) {
		case nil:
			return !problem && f.Report.Usable() && f.Report.Epoch == f.Volume.Epoch && (f.Serving != 0 || f.Volume.Primary != f.Self)
		case role.Stop:
			r.stopServing(a.Why)
		case role.StoreEpoch:
			if !r.storeEpoch(a.Epoch) {
				return false
			}
		case role.Flush:
			r.makeDurable(a.Epoch)
			return false // its end kicks
		case role.Propose:
			r.propose(ctx, a.Command)
			return false // the outcome kicks
		case role.GiveUp:
			r.handOn(ctx, a)
			return false
		case role.Serve:
			if !r.serve(ctx, a.Epoch) {
				return false
			}
		}
	}
	return false
}

func (r *Replica) facts() (f role.Facts, problem bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.factsLocked(), r.problem != ""
}

func (r *Replica) factsLocked() role.Facts {
	f := role.Facts{Self: r.cfg.Node, Volume: r.vol, Report: r.reportLocked(), Size: r.cfg.Volume.Size, Busy: r.draining + r.recv.Outstanding(), Durable: r.durable}
	f.Lease = r.node.Now() < r.node.Lease(r.vol.Name, r.vol.Epoch)
	if r.tenure != nil {
		f.Serving = r.tenure.epoch
	}
	return f
}

// Report is the replica's own word about itself.
func (r *Replica) Report() cluster.Report {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.reportLocked()
}

func (r *Replica) reportLocked() cluster.Report {
	rep := cluster.Report{Volume: r.cfg.Volume.Name, Incarnation: r.cfg.Incarnation, Process: r.cfg.Process}
	if r.super != nil {
		// From the moment of a failure, not from that of its note (R23): what is said here makes candidates.
		rep.Failed = r.super.Failed() || r.unnoted > 0 || r.spoiltLocked()
		rep.Held, rep.Clean, rep.Unmarked = true, r.super.Clean(), r.unmarked
		rep.Stalled = r.dev.Stalled()
	}
	rep.Epoch, rep.LastSeq, rep.Inconsistent = r.recv.Epoch(), r.recv.LastNum(), r.recv.Inconsistent()
	rep.Taken, rep.Place = r.recv.Taken(), r.recv.Place()
	rep.Point = r.pointLocked()
	rep.Problem, rep.Doing = r.problem, cmp.Or(r.doing, r.awaitsLocked())
	rep.Fresh = r.cfg.Fresh && r.vol.Epoch == 0
	return rep
}

// storeEpoch puts the epoch on stable storage and only then lets the receiver answer in it (R2).
func (r *Replica) storeEpoch(e cluster.Epoch) bool {
	failpoint.Hit(failpoint.EpochStore)
	defer failpoint.Hit(failpoint.EpochStored)
	var err error
	if !mutateEpochUnstored {
		err = r.super.SetEpoch(e)
	}
	if err != nil {
		r.unusable(fmt.Sprintf("epoch %d cannot be stored: %v", e, err))
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.recv.Stored(e)
	return true
}

// makeDurable flushes what was taken before epoch e, in which this replica is to serve. It counts as an operation on the device
// until it is over. When it fails that is noted, and another one has to serve.
func (r *Replica) makeDurable(e cluster.Epoch) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stopped || r.spoiltLocked() {
		return
	}
	failures := r.failures.Load()
	r.draining++
	r.goes.Go(func() {
		defer r.returned()
		if err := r.dev.Flush(); err != nil {
			r.noteFailure(err)
			return
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.failures.Load() == failures {
			r.durable = max(r.durable, e)
		}
	})
}

// propose hands a role's command over, one at a time; the ticker of Run repeats it when the outcome stays unknown. A
// leader that was stopped never answers, though its machine keeps the connection: the next try may find another.
func (r *Replica) propose(ctx context.Context, c cluster.Command) {
	r.mu.Lock()
	busy := r.proposing
	r.proposing = true
	r.mu.Unlock()
	if busy {
		return
	}
	r.spawn(func() {
		ctx, cancel := context.WithTimeout(ctx, r.timers.drop())
		defer cancel()
		res, err := r.node.Propose(ctx, c)
		r.mu.Lock()
		r.proposing = false
		r.mu.Unlock()
		if err == nil && res.Volume != nil {
			r.learn(*res.Volume)
		}
	})
}

// handOn gives up a role that this replica cannot fill any more; the ticker of Run repeats it.
func (r *Replica) handOn(ctx context.Context, a role.GiveUp) {
	r.mu.Lock()
	busy := r.proposing
	r.proposing = true
	r.mu.Unlock()
	if busy {
		return
	}
	r.log.Error("giving the role up", "epoch", a.Epoch, "why", a.Why)
	r.spawn(func() {
		ctx, cancel := context.WithTimeout(ctx, r.timers.drop())
		defer cancel()
		if err := r.node.GiveUp(ctx, r.cfg.Volume.Name, a.Epoch, "", true); err != nil {
			r.log.Warn("the leader did not take the give-up", "epoch", a.Epoch, "error", err)
		}
		r.mu.Lock()
		r.proposing = false
		r.mu.Unlock()
	})
}

// stopServing ends the tenure, if there is one. What it has on the device is counted as draining in the same moment:
// no epoch is stored and no stream answered before that has returned (R2).
func (r *Replica) stopServing(why string) {
	r.mu.Lock()
	t := r.tenure
	if t == nil {
		r.mu.Unlock()
		return
	}
	failpoint.Hit(failpoint.PrimaryEnd)
	r.tenure = nil
	r.draining += t.cut()
	r.changeLocked()
	r.mu.Unlock()
	r.log.Info("no longer primary", "epoch", t.epoch, "why", why)
	t.end()
	failpoint.Hit(failpoint.PrimaryEnded)
}

// serve begins a tenure. A clean-stop mark is removed before the first write can come.
func (r *Replica) serve(ctx context.Context, e cluster.Epoch) bool {
	failpoint.Hit(failpoint.PrimaryBegin)
	if err := r.super.SetClean(nil); err != nil {
		r.unusable(fmt.Sprintf("the clean-stop mark cannot be removed: %v", err))
		return false
	}
	if r.super.Inconsistent() { // in the middle of a resync: likewise
		r.rollBack(e)
		return false
	}
	if r.super.Failed() { // a replica whose disk failed gets here by a person's word only
		r.refresh(e)
		return false
	}
	r.mu.Lock()
	if r.vol.Epoch != e || r.problem != "" {
		ok := r.problem == ""
		r.mu.Unlock()
		return ok
	}
	t := newTenure(r, r.vol)
	r.tenure = t
	r.mu.Unlock()
	r.log.Info("primary", "epoch", e, "members", t.members())
	t.start(context.WithoutCancel(ctx))
	r.node.Serving(r.cfg.Volume.Name, e)
	failpoint.Hit(failpoint.PrimaryBegun)
	return true
}

// returned counts a local operation of an ended tenure off.
func (r *Replica) returned() {
	r.mu.Lock()
	r.draining--
	quiet := r.draining == 0
	if quiet {
		r.changeLocked()
	}
	r.mu.Unlock()
	if quiet {
		r.wake()
	}
}
