package replication

import (
	"context"
	"errors"
	"fmt"
	"time"

	"hacluster/blockdev"
	"hacluster/blockdev/failpoint"
	"hacluster/heartbeat/cluster"
	"hacluster/replication/wire"
)

// spawn runs f beside everything else; shutdown waits for it. false: it is too late.
func (r *Replica) spawn(f func()) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stopped {
		return false
	}
	r.goes.Go(f)
	return true
}

// shutdown ends everything and leaves the mark of a clean stop (R25), in this order: nothing more is taken from clients
// or from a primary; all that was taken has returned; it is flushed; then the mark. A device that hangs is not waited
// for: the error says so, and the device is not to be closed.
func (r *Replica) shutdown() error {
	r.stopServing(problemStops)
	r.mu.Lock()
	healthy := r.problem == ""
	r.problem = problemStops
	r.recv.Fence(noEpoch)
	if s := r.session; s != nil {
		r.goes.Go(s.farewell)
	}
	r.mu.Unlock()
	defer r.work.close()
	if r.super == nil {
		r.stop()
		return nil
	}
	if !r.dev.Stalled() {
		r.mu.Lock()
		r.hung = nil // one that is over has nothing to do with this stop
		r.mu.Unlock()
	}
	if err := r.whenQuiet(); err != nil {
		return err
	}
	r.stop()
	r.work.close()
	if err := r.unlessStalled(func() error { r.work.wait(); return nil }); err != nil {
		return err
	}
	if !healthy || r.super.Failed() || r.super.Inconsistent() {
		return nil
	}
	if err := r.unlessStalled(r.dev.Flush); err != nil {
		r.noteFailure(err)
		return fmt.Errorf("flush %s before stopping: %w", r.cfg.Volume.Name, err)
	}
	failpoint.Hit(failpoint.CleanSet)
	defer failpoint.Hit(failpoint.CleanIsSet)
	return r.super.SetClean(&cluster.Clean{Incarnation: r.cfg.Incarnation, Process: r.cfg.Process})
}

// stop lets no further goroutine begin and waits for those that run.
func (r *Replica) stop() {
	r.mu.Lock()
	r.stopped = true
	r.mu.Unlock()
	r.goes.Wait()
}

// whenQuiet waits until nothing is on the device and no stream is being received.
func (r *Replica) whenQuiet() error {
	look := time.NewTicker(r.timers.drop() / 8)
	defer look.Stop()
	for {
		r.mu.Lock()
		quiet := r.draining == 0 && r.recv.Outstanding() == 0 && r.receiving == 0 && r.digesting == 0
		changed := r.watchLocked()
		r.mu.Unlock()
		switch {
		case quiet:
			return nil
		case r.dev.Stalled():
			return r.hangs()
		}
		select {
		case <-changed:
		case <-look.C:
		}
	}
}

// unlessStalled runs f, which waits for the device, until it ends or the device hangs; then f is left behind.
func (r *Replica) unlessStalled(f func() error) error {
	done := make(chan error, 1)
	go func() { done <- f() }()
	look := time.NewTicker(r.timers.drop() / 8)
	defer look.Stop()
	for !r.dev.Stalled() {
		select {
		case err := <-done:
			return err
		case <-look.C:
		}
	}
	return r.hangs()
}

// hangs says which operation kept the stop from being a clean one. Nobody else tells of one that began after stop. A stall
// is told of a moment after it is seen, unless its operation returned in between.
func (r *Replica) hangs() error {
	late := time.NewTimer(r.timers.drop())
	defer late.Stop()
	for {
		r.mu.Lock()
		err, changed := r.hung, r.watchLocked()
		r.mu.Unlock()
		if err != nil {
			return fmt.Errorf("no mark of a clean stop is left: %w", err)
		}
		select {
		case <-changed:
		case <-late.C:
			return fmt.Errorf("no mark of a clean stop is left: %w", blockdev.ErrStalled)
		}
	}
}

// problemStops is why a replica that shuts down is out of service: its daemon stops, or the volume was removed or has another size.
const problemStops = "the replica is being closed"

var errStopping = errors.New("the replica on this node is being closed")

// farewell tells the primary that this process stops, so that writers need not wait for it to fall silent, and closes
// the stream.
func (s *session) farewell() {
	s.refuseWith(wire.Stopping, errStopping)
	s.lastWord(context.Background())
	s.link.Close()
}

// sayWhy has a stream that ends because this process stops end with that word: under load the next frame may be refused,
// and the stream be over, before farewell is there.
func (s *session) sayWhy() {
	s.r.mu.Lock()
	stops := s.r.problem == problemStops
	s.r.mu.Unlock()
	if stops {
		s.refuseWith(wire.Stopping, errStopping)
	}
}
