package replication

import (
	"errors"
	"fmt"
	"time"

	"hacluster/blockdev"
	"hacluster/blockdev/failpoint"
	"hacluster/heartbeat/cluster"
	"hacluster/replication/wire"
)

// noEpoch is above every epoch: a receiver fenced by it takes nothing any more.
const noEpoch = ^cluster.Epoch(0)

// setHealth changes what is noted of the replica's health, on stable storage. One change at a time: each keeps what the
// ones before it noted.
func (r *Replica) setHealth(change func(inconsistent, failed *bool) error) error {
	r.noting <- struct{}{}
	defer func() { <-r.noting }()
	inconsistent, failed := r.super.Inconsistent(), r.super.Failed()
	i, f := inconsistent, failed
	if err := change(&i, &f); err != nil || i == inconsistent && f == failed {
		return err
	}
	return r.super.SetHealth(i, f)
}

// noteFailure notes a failed write or flush, before any further answer (R23). false: it could not be noted.
func (r *Replica) noteFailure(cause error) bool {
	r.meter.disk.Add(1)
	r.failures.Add(1)
	failpoint.Hit(failpoint.FailureNote)
	defer failpoint.Hit(failpoint.FailureNoted)
	err := r.setHealth(func(_, failed *bool) error {
		if !*failed {
			r.log.Error("the backing device failed: the replica is no candidate until it has been resynced", "error", cause)
			r.event("disk failed", fmt.Sprintf("%s of %s failed (%v): its replica is no candidate until it has been resynced; if this comes again, replace it", r.device(), r.cfg.Node, cause))
		}
		*failed = true
		return nil
	})
	if err != nil {
		r.unusable(fmt.Sprintf("a failed write cannot be noted: %v", err))
	}
	return err == nil
}

// device names the backing to an operator.
func (r *Replica) device() string {
	if rep, ok := r.cfg.Volume.Replica(r.cfg.Node); ok && rep.Device != "" {
		return "the backing " + rep.Device
	}
	return "the backing"
}

var errBroken = errors.New("an earlier operation of the stream failed")

// closeResync notes on stable storage, before the primary hears of it, that the replica is whole (R18). A failure that
// comes up meanwhile is noted after it, and stays.
func (r *Replica) closeResync(s *session) error {
	failpoint.Hit(failpoint.ResyncClose)
	defer failpoint.Hit(failpoint.ResyncClosed)
	err := r.setHealth(func(inconsistent, failed *bool) error {
		if s.silent.Load() || r.broken() {
			return errBroken // a flush that succeeds after one that failed proves nothing
		}
		*inconsistent, *failed = false, false
		return nil
	})
	switch {
	case errors.Is(err, errBroken):
		return err
	case err != nil:
		r.unusable("the end of the resync cannot be noted: " + err.Error())
		return err
	}
	if err := errors.Join(r.endUndo(), r.endImage()); err != nil {
		r.unusable("the end of the resync cannot be noted: " + err.Error())
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.recv.Marked(false)
	return nil
}

func (r *Replica) broken() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.recv.Broken()
}

// unusable takes the replica out of service until a person acts: what it would have to note cannot be noted. Nothing
// is answered any more, to clients or to a primary.
func (r *Replica) unusable(why string) {
	r.mu.Lock()
	first := r.problem == ""
	if first {
		r.problem = why
	}
	r.recv.Fence(noEpoch)
	if s := r.session; s != nil {
		s.silent.Store(true)
		s.link.Close()
	}
	if r.tenure != nil {
		r.tenure.gate.close()
	}
	r.changeLocked()
	r.mu.Unlock()
	if first {
		r.log.Error("replica is out of service until a person acts", "why", why)
		r.event("out of service", fmt.Sprintf("the replica of %s answers nobody any more: %s; repair what is below data_dir, then restart haclusterd there", r.cfg.Node, why))
	}
	r.wake()
}

// Stalled is to be called by whoever watches the backing (R26): a stall counts as an error. It does not wait.
func (r *Replica) Stalled(op blockdev.Op, at blockdev.Range, since time.Duration) {
	what := op.String()
	if at.Len > 0 { // a flush has no range
		what += " of " + at.String()
	}
	err := fmt.Errorf("%s outstanding for %v: %w", what, since.Round(time.Millisecond), blockdev.ErrStalled)
	r.mu.Lock()
	r.hung = err
	r.changeLocked()
	if r.stopped {
		r.mu.Unlock()
		return
	}
	t, s := r.tenure, r.session
	if t != nil {
		t.gate.hold()
	}
	if s != nil {
		s.silent.Store(true)
	}
	r.unnoted++ // no greeting is answered before
	r.goes.Go(func() { r.stalled(t, s, err) })
	r.mu.Unlock()
}

func (r *Replica) stalled(t *Tenure, s *session, err error) {
	noted := r.noteFailure(err)
	if noted && t != nil {
		t.diskFailed(err)
	}
	if noted && s != nil {
		s.refuseWith(wire.Stalled, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.unnoted--
	r.changeLocked()
}
