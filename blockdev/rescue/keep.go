package rescue

import (
	"fmt"
	"sync"
	"time"

	"hacluster/blockdev"
)

// Keep is called before a range of the replica is written to, whatever the cause: images that are closed take its old
// content, as far as they lack it. It returns when the range may be written to; an image that cannot take it is no whole
// volume from then on. It waits no longer than Patience, however many images
// there are, and costs nothing when there is none.
func (s *Shelf) Keep(at blockdev.Range) {
	all := s.keeping.Load()
	if all == nil || at.Len == 0 {
		return
	}
	var room [MaxImages]copying
	wait := room[:0]
	for _, i := range *all { // each begins before any is waited for
		w := waiters.Get().(*waiter)
		ready, err := i.area.Log(at, w)
		if !ready && err == nil {
			wait = append(wait, copying{i, w})
			continue
		}
		waiters.Put(w)
		if err != nil {
			s.end(i, err)
		}
	}
	if len(wait) > 0 {
		s.await(wait, at)
	}
}

// copying is an image that takes old content, and who waits for that.
type copying struct {
	i *image
	w *waiter
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

// await waits for all of them, as long as there is patience for them together.
func (s *Shelf) await(all []copying, at blockdev.Range) {
	clock := all[0].w.timer
	clock.Reset(s.cfg.Patience)
	patience, late := s.cfg.Patience, false
	for n, c := range all {
		err, done := c.w.wait(clock, &late)
		if !done {
			all[n].w = nil // left behind: it may be told yet
			err = fmt.Errorf("copying %d bytes took longer than %v, for which nobody is to wait", at.Len, patience)
		}
		if err != nil {
			s.end(c.i, err)
		}
	}
	clock.Stop()
	for _, c := range all {
		if c.w != nil {
			waiters.Put(c.w)
		}
	}
}

// wait returns what was told; done: it was, by the time that the clock has rung.
func (w *waiter) wait(clock *time.Timer, late *bool) (err error, done bool) {
	if !*late {
		select {
		case err = <-w.done:
			return err, true
		case <-clock.C:
			*late = true
		}
	}
	select {
	case err = <-w.done:
		return err, true
	default:
		return nil, false
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
