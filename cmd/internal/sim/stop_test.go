package sim

import (
	"hacluster/blockdev"
	"hacluster/heartbeat/cluster"
)

// asksLease: a daemon that has given up to stop asks no more.
func (r *replica) asksLease() bool {
	return r.stopping == notStopping || r.stopping == handingOver && r.sess != nil && !r.sess.gaveUp
}

// stop is SIGTERM: hand over if primary, flush, leave the clean-stop mark.
func (r *replica) stop() {
	if r.stopping != notStopping {
		return
	}
	r.w.tracef("SIGTERM %s/%d", r.n.name, r.p.number)
	r.stopping, r.stopAt = handingOver, r.w.now
	if r.sess != nil {
		r.sess.quiesce("")
	}
	r.stopProgress()
}

func (r *replica) stopProgress() {
	if r.stopping != handingOver {
		return
	}
	if r.sess != nil && r.w.now-r.stopAt < int64(2*lease) {
		return // somebody else may still be promoted
	}
	r.stopping = ending
	if r.sess != nil {
		r.sess.end("the daemon stops")
		r.sess = nil
	}
	if r.open != nil {
		r.open.send(stoppingMsg{})
		r.open.close()
	}
	r.recv.Close(^uint64(0))
	r.endWhenQuiet()
}

// endWhenQuiet leaves the mark when nothing is on the device any more.
func (r *replica) endWhenQuiet() {
	if r.p.dead || r.clearing || r.busy > 0 || r.recv.Outstanding() > 0 || r.super.busy {
		return
	}
	r.clearing = true
	if r.failed || r.recv.Inconsistent() {
		r.n.kill("stopped without a mark")
		return
	}
	if !r.n.super.used {
		r.n.kill("stopped, never used")
		return
	}
	r.n.disk.start(r.p, &diskOp{kind: blockdev.OpFlush}, func(o *diskOp) {
		if o.err != nil {
			r.note(func() { r.n.kill("stopped, the last flush failed") })
			return
		}
		mark := &cluster.Clean{Incarnation: r.n.incarnation(), Process: r.p.number}
		r.store(func(s *super) { s.clean = mark }, func() { r.n.kill("stopped cleanly") })
	})
}
