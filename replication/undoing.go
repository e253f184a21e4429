package replication

import (
	"fmt"

	"hacluster/blockdev"
	"hacluster/blockdev/failpoint"
	"hacluster/blockdev/undo"
	"hacluster/heartbeat/cluster"
	"hacluster/replication/standby"
	"hacluster/replication/wire"
)

// A resync overwrites a replica block by block, so in its middle the replica is of no moment at all. The undo area keeps
// what it was (R18), in this order on stable storage:
//
//	flush of the backing -> undo area made -> superblock: in pieces -> old content of a block logged -> block overwritten
//	... -> flush of the backing -> superblock: whole -> undo area removed -> the closing is acknowledged
//
// A crash leaves an area beside a whole replica (it is over: who opens the replica removes it), or a replica in pieces with
// its way back. A replica in pieces without an area has none: it never held the volume's data, or there was no room. An
// interrupted resync leaves the area; the next one goes on with it. Only a forced promotion leads back (rollback.go).

// beginOverwriting is called before the first change of a resync: from here on the replica is in pieces.
func (s *session) beginOverwriting() error {
	r := s.r
	failpoint.Hit(failpoint.ResyncMark)
	defer failpoint.Hit(failpoint.ResyncMarked)
	r.mu.Lock()
	how, now := r.keepLocked(), r.vol.Epoch
	r.mu.Unlock()
	switch {
	case s.epoch < now: // an image of that epoch would not have what this one may write over
		return fmt.Errorf("%w: epoch %d has begun, this stream is of epoch %d", errAwaits, now, s.epoch)
	case how == standby.Await:
		return errAwaits // its greeting was refused, unless the record has changed since
	case how == standby.BeginUndo && r.cfg.Undo == nil:
		return r.markInPieces(false)
	}
	if err := r.dev.Flush(); err != nil { // the point must be one that a power cut leaves
		s.silent.Store(true)
		if r.noteFailure(err) {
			s.refuseWith(wire.FlushFailed, err)
		}
		return err
	}
	if how == standby.BeginImage {
		if err := r.beginImage(); err != nil {
			return err
		}
		return r.markInPieces(true)
	}
	live, err := r.beginUndo()
	if err != nil {
		return err
	}
	return r.markInPieces(live)
}

// beginUndo makes the area. false: it cannot be made, and none is there for sure.
func (r *Replica) beginUndo() (live bool, err error) {
	epoch, at := r.node.Left(r.cfg.Volume.Name)
	cause := r.cfg.Undo.Begin(undo.Point{Epoch: uint64(epoch), AtMillis: at}, uint64(r.super.Epoch()), r.dev)
	if cause == nil {
		return true, nil
	}
	return false, r.dropUndo(cause)
}

// markInPieces notes, before the first block is overwritten, that the replica is in pieces until the resync ends.
func (r *Replica) markInPieces(rewinds bool) error {
	if err := r.setHealth(func(inconsistent, _ *bool) error { *inconsistent = true; return nil }); err != nil {
		r.unusable("the resync cannot be noted: " + err.Error())
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.recv.Marked(true)
	r.recv.Rewinds(rewinds)
	return nil
}

// dropUndo gives the way back up, for good: the area is gone durably before it returns nil, and only then may be
// overwritten what was not logged. A replica whose area cannot be removed must not go on: the next process would roll back
// to a mixture.
func (r *Replica) dropUndo(cause error) error {
	r.undoing <- struct{}{}
	defer func() { <-r.undoing }()
	switch {
	case r.undoErr != nil:
		return r.undoErr
	case r.undoGone:
		return nil // several entries waited for what failed
	}
	if err := r.leaveArea(cause); err != nil {
		r.undoErr = err
		r.unusable(fmt.Sprintf("the way back to the last consistent point is lost (%v), and that cannot be noted: %v", cause, err))
		return err
	}
	r.undoGone = true
	r.mu.Lock()
	r.recv.Rewinds(false)
	r.mu.Unlock()
	r.log.Error("the resync goes on without a way back: until it ends this replica cannot be promoted, also not by force", "why", cause)
	r.event("no way back", fmt.Sprintf("the resync of %s goes on without an undo area, so until it ends this replica cannot be promoted, also not by force: %v", r.cfg.Node, cause))
	return nil
}

// leaveArea has what keeps old content be no way back any more, durably. An undo area goes; of a rescue image what it has stays.
func (r *Replica) leaveArea(cause error) error {
	if s := r.cfg.Rescue; s != nil {
		if a, _ := s.Live(); a != nil {
			return r.leaveImage(cause)
		}
	}
	if r.cfg.Undo == nil {
		return nil
	}
	return r.cfg.Undo.Discard()
}

// endUndo removes the area once the superblock says that the replica is whole.
func (r *Replica) endUndo() error {
	r.undoing <- struct{}{}
	defer func() { <-r.undoing }()
	r.undoGone = false
	u := r.cfg.Undo
	if u == nil || !u.Live() && u.Damage() == "" {
		return nil
	}
	return u.Discard()
}

// logs reports whether the old content of what an entry overwrites is durable, or need not be; else Logged goes on.
func (e *entry) logs() bool {
	if !e.undo || e.unmarked != nil {
		return true
	}
	ready, err := false, undo.ErrClosed
	if a := e.s.r.area(); a != nil {
		ready, err = a.LogOld(e.frame.Range, e.old, e)
	}
	if err != nil {
		e.unlogged, ready = err, true
	}
	return ready
}

func (e *entry) forgetOld() {
	if e.old.Buf != nil {
		e.old.Buf.Free()
		e.old = undo.Old{}
	}
}

// Logged implements undo.Waiter.
func (e *entry) Logged(err error) {
	e.unlogged = err
	e.s.r.work.do(e)
}

var _ undo.Waiter = (*entry)(nil)

// pointLocked is what a forced promotion leads back to; nil: to what the replica holds now, or to nothing.
func (r *Replica) pointLocked() *cluster.Point {
	a := r.area()
	if a == nil || !r.recv.Inconsistent() {
		return nil
	}
	p, bytes, ok := a.Point()
	if !ok {
		return nil
	}
	return &cluster.Point{Epoch: cluster.Epoch(p.Epoch), AtMillis: p.AtMillis, Bytes: bytes}
}

// noWayBack is why a replica in pieces does not serve.
const noWayBack = "a resync has overwritten a part of it and has not ended, and there is no undo area that leads back: promote another replica"

// markWaiter waits until a range is marked for every other replica.
type markWaiter chan error

func (w markWaiter) Marked(err error) { w <- err }

func (r *Replica) markAndWait(at blockdev.Range) error {
	w := make(markWaiter, 1)
	ready, err := r.mark(at, w)
	if err != nil || ready {
		return err
	}
	if err := <-w; err != nil {
		return unmarked(at, err)
	}
	return nil
}
