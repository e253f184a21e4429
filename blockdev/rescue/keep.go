package rescue

import (
	"fmt"
	"sync"
	"time"

	"hacluster/blockdev"
)

// Keep is called before a range of the replica is written to, whatever the cause: images that are closed take its old
// content, as far as they lack it. It returns when the range may be written to; an image that cannot take it is no whole
// volume from then on. It costs nothing when there is no such image.
func (s *Shelf) Keep(at blockdev.Range) {
	all := s.keeping.Load()
	if all == nil || at.Len == 0 {
		return
	}
	for _, i := range *all {
		if err := s.keep(i, at); err != nil {
			s.end(i, err)
		}
	}
}

// waiter waits for the old content of a range. It is used once: who has no patience leaves it behind.
type waiter struct {
	done  chan error
	timer *time.Timer
}

var waiters = sync.Pool{New: func() any {
	t := time.NewTimer(time.Hour)
	t.Stop()
	return &waiter{make(chan error, 1), t}
}}

// Logged implements undo.Waiter.
func (w *waiter) Logged(err error) { w.done <- err }

func (s *Shelf) keep(i *image, at blockdev.Range) error {
	w := waiters.Get().(*waiter)
	ready, err := i.area.Log(at, w)
	if ready || err != nil {
		waiters.Put(w)
		return err
	}
	w.timer.Reset(s.cfg.Patience)
	select {
	case err = <-w.done:
		w.timer.Stop()
		waiters.Put(w)
		return err
	case <-w.timer.C:
		return fmt.Errorf("copying %d bytes took longer than %v, for which nobody is to wait", at.Len, s.cfg.Patience)
	}
}

// end gives the promise of one image up, before anything is written that it lacks. Its label says so already.
func (s *Shelf) end(i *image, why error) {
	s.mu.Lock()
	first := i.label.base == baseRunning && !i.removed
	if first {
		i.label.base, i.label.why = baseEnded, why.Error()
		s.publishLocked()
	}
	s.mu.Unlock()
	i.area.GiveUp(why)
	if first && s.cfg.Ended != nil {
		s.cfg.Ended(i.id, why.Error())
	}
}
