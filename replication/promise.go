package replication

import (
	"fmt"

	"hacluster/blockdev/bitmap"
	"hacluster/blockdev/marks"
	"hacluster/replication/wire"
)

// promise is what this standby has promised in a stream.
type promise struct {
	s            *session
	n            uint64
	slots, cover []int
	storing      bool
}

// promise takes a Promise: what is chosen is remembered at this place of the stream, and the number stored beside it.
func (s *session) promise(f *wire.Frame) error {
	if err := f.Verify(); err != nil {
		return err
	}
	r, file := s.r, s.r.cfg.Marks
	c, err := wire.DecodeClearing(f.Payload)
	if err != nil || file == nil {
		return err
	}
	chosen := bitmap.New(file.Regions())
	if _, _, err := chosen.Merge(c.Regions); err != nil {
		return fmt.Errorf("%w: a promise: %w", wire.ErrMalformed, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := s.overLocked(); err != nil || r.promised.storing {
		return err // the primary makes one round at a time, and gives this one up
	}
	p := promise{s: s, n: f.ID, slots: r.slotsIn(c.Set, f.ID), cover: r.slotsIn(c.Cover, f.ID), storing: true}
	r.regs.Promise(p.n, chosen)
	r.promised = p
	if !r.stopped {
		r.goes.Go(func() { s.storePromise(p) })
	}
	return nil
}

// slotsIn are the slots of the replicas that are named and whose number would not fall.
func (r *Replica) slotsIn(bits uint32, n uint64) (slots []int) {
	l := r.roster.Load()
	for _, node := range l.named {
		if i := l.slots[node]; bits&l.bits(node) != 0 && r.cfg.Marks.Slots()[i].Number.Promised <= n {
			slots = append(slots, i)
		}
	}
	return slots
}

func (s *session) storePromise(p promise) {
	r := s.r
	err := r.setNumbers(p.slots, func(old marks.Number) marks.Number { return marks.Number{Promised: p.n, Settled: old.Settled} })
	r.mu.Lock()
	r.promised.storing = false
	r.mu.Unlock()
	if err != nil {
		r.log.Error("the number of a clearing cannot be stored: marks stay", "error", err)
		return
	}
	if s.box.Put(wire.Reply{Kind: wire.Promised, ID: p.n}) == nil {
		s.box.Flush()
	}
}

func (r *Replica) setNumbers(slots []int, next func(marks.Number) marks.Number) error {
	for _, i := range slots {
		if err := r.cfg.Marks.SetNumber(i, next(r.cfg.Marks.Slots()[i].Number)); err != nil {
			return err
		}
	}
	return nil
}

// settled takes a Settled: all who take part have promised the number.
func (s *session) settled(n uint64) {
	r := s.r
	r.mu.Lock()
	defer r.mu.Unlock()
	if p := r.promised; p.s == s && p.n == n && !p.storing && !r.stopped && s.overLocked() == nil && r.vol.Epoch == s.epoch {
		r.promised.storing = true
		r.goes.Go(func() { s.settle(p) })
	}
}

func (s *session) settle(p promise) {
	r := s.r
	err := r.setNumbers(p.slots, func(marks.Number) marks.Number { return marks.Number{Promised: p.n, Settled: p.n} })
	r.mu.Lock()
	r.promised.storing = false
	// From a newer epoch on writes may be our own, which are not noted in regs: this promise says nothing about them.
	over := r.session != s || r.promised.n != p.n || r.vol.Epoch != s.epoch || r.tenure != nil
	if err == nil && !over {
		clearRegions(r.cfg.Marks, r.regs.End(p.n), p.slots)
	}
	r.mu.Unlock()
	if over {
		return
	}
	for _, slot := range p.cover {
		if err == nil {
			err = r.cfg.Marks.SetEverything(slot, false)
		}
	}
	if err != nil {
		r.log.Error("a clearing cannot be stored: marks stay", "error", err)
	}
}
