package filedev

import (
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"

	"hacluster/blockdev"
)

// Flush implements blockdev.Device.
func (d *Dev) Flush() error {
	if err := d.enter(blockdev.OpFlush, blockdev.Range{}); err != nil {
		return err
	}
	defer d.gate.leave()
	return d.wrap(blockdev.OpFlush, blockdev.Range{Len: d.size}, d.sync())
}

func (d *Dev) sync() error { return d.syncs.flush(d.fdatasync) }

func (d *Dev) fdatasync() error {
	for {
		err := unix.Fdatasync(d.fd)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// syncs runs one flush at a time and makes the first failure final.
//
// The kernel reports a lost write to a descriptor once: to the first fdatasync or durable write that comes by. If two
// ran side by side, one would take the error and the other say "durable" of the same lost data. So flushes run in
// rounds, one after the other, whoever arrives meanwhile sharing the next; and a round ends only when the durable
// writes that ran beside it have ended without an error.
type syncs struct {
	mu      sync.Mutex
	failed  error // the first failure; final
	running *round
	next    *round // not begun: who finds it may join
	beside  *cohort
}

// round is one fdatasync.
type round struct {
	done chan struct{} // closed when err is set
	err  error
}

// cohort is the durable writes that began since the last round ended.
type cohort struct {
	inside int
	empty  chan struct{} // made by a round that waits, closed by the last one out
}

func newSyncs() syncs {
	first := &round{done: make(chan struct{})}
	close(first.done)
	return syncs{running: first, beside: &cohort{}}
}

// flush returns when a round that began after the call has ended.
func (s *syncs) flush(do func() error) error {
	s.mu.Lock()
	if s.failed != nil {
		defer s.mu.Unlock()
		return finalError(s.failed)
	}
	if r := s.next; r != nil {
		s.mu.Unlock()
		<-r.done
		return r.err
	}
	r, before := &round{done: make(chan struct{})}, s.running
	s.next = r
	s.mu.Unlock()
	<-before.done
	s.begin(r)
	s.end(r, do())
	return r.err
}

func (s *syncs) begin(r *round) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running, s.next = r, nil
}

// end waits for the durable writes beside the round and settles what it brought.
func (s *syncs) end(r *round, err error) {
	if empty := s.parted(); empty != nil {
		<-empty
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.failed != nil:
		err = finalError(s.failed)
	case err != nil:
		s.failed = err
	}
	r.err = err
	close(r.done)
}

// parted begins a new cohort and returns what to wait for of the old one, nil when nobody is in it.
func (s *syncs) parted() chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.beside
	s.beside = &cohort{}
	if old.inside == 0 {
		return nil
	}
	old.empty = make(chan struct{})
	return old.empty
}

// durably runs a durable write. Its failure fails every flush from then on, since it may have taken the kernel's one
// report of writes that were lost before it.
func (s *syncs) durably(do func() error) error {
	s.mu.Lock()
	if s.failed != nil {
		defer s.mu.Unlock()
		return finalError(s.failed)
	}
	c := s.beside
	c.inside++
	s.mu.Unlock()

	err := do()

	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil && !unsupported(err) && s.failed == nil {
		s.failed = err
	}
	if c.inside--; c.inside == 0 && c.empty != nil {
		close(c.empty)
	}
	return err
}

// forget begins anew after the backing was opened anew. Nothing runs meanwhile.
func (s *syncs) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failed = nil
}

func finalError(err error) error {
	return fmt.Errorf("an earlier flush or durable write failed and what it lost is unknown, so the replica needs a resync: %w", err)
}
