package marks

import (
	"fmt"
	"slices"
)

// Slots returns what is stored of each peer, by slot.
func (f *File) Slots() [MaxSlots]Slot {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.head.slots
}

// Lookup finds the slot of a peer. That of another replica of the same node is none.
func (f *File) Lookup(p Peer) (slot int, ok bool) {
	for i, s := range f.Slots() {
		if p.Name != "" && s.Peer == p.Name && s.Replica == p.Replica {
			return i, true
		}
	}
	return 0, false
}

// Empty reports whether nothing is marked for anybody: then nothing was unflushed when the map was last written (R25).
func (f *File) Empty() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range f.head.slots {
		if f.head.slots[i].Everything {
			return false
		}
	}
	return f.marked == 0
}

// Before is the incarnation in which the map was kept until this process opened it; its own, if it was made just now.
func (f *File) Before() Incarnation { return f.before }

// AddSlot gives a peer a slot, durably. All blocks may differ from it, unless everything is false, which is right only
// for a volume that was never written. A write that is admitted after it returned has to mark for the slot too.
func (f *File) AddSlot(p Peer, everything bool) (slot int, err error) {
	if err := checkPeer(p.Name); err != nil {
		return 0, err
	}
	err = f.update(func(h *header) error {
		free := -1
		for i := range h.slots {
			switch {
			case h.slots[i].Peer == p.Name:
				return fmt.Errorf("peer %q has slot %d already", p.Name, i)
			case h.slots[i].Peer == "" && (free < 0 || f.givenUp&Of(free) != 0 && f.givenUp&Of(i) == 0):
				free = i // who gave a slot up may still have a word on its way to it: it is another's last
			}
		}
		if free < 0 {
			return fmt.Errorf("%w: %d peers are the limit: remove one first", ErrSlots, MaxSlots)
		}
		slot = free
		f.givenUp &^= Of(slot)
		h.slots[slot] = Slot{Peer: p.Name, Replica: p.Replica, Everything: everything}
		return nil
	})
	return slot, err
}

// RemoveSlot forgets a peer that left the volume. Nothing marks for it any more.
func (f *File) RemoveSlot(slot int) error {
	for r := range f.Regions() { // before the slot can be another's
		f.Clear(r, Of(slot))
	}
	return f.change(slot, func(s *Slot) error {
		*s = Slot{}
		f.givenUp |= Of(slot)
		return nil
	})
}

// Fit gives each of the peers a slot, for which all may differ if it is a new one, and takes those of others away. What is marked
// for one that left is gone with its slot, so that nothing of it counts for who has the slot next.
func (f *File) Fit(peers []Peer) error {
	for i, s := range f.Slots() {
		if s.Peer != "" && !slices.Contains(peers, Peer{s.Peer, s.Replica}) {
			if err := f.RemoveSlot(i); err != nil {
				return fmt.Errorf("forget peer %s: %w", s.Peer, err)
			}
		}
	}
	for _, p := range peers {
		if _, ok := f.Lookup(p); ok {
			continue
		}
		if _, err := f.AddSlot(p, true); err != nil {
			return err
		}
	}
	return nil
}

// SetNumber stores the number of a clearing, durably. It never falls. A standby promises it before the primary stores it
// (R14), and regions are cleared after it is settled here.
func (f *File) SetNumber(slot int, n Number) error {
	return f.change(slot, func(s *Slot) error {
		if old := s.Number; n.Promised < old.Promised || n.Settled < old.Settled || n.Settled > n.Promised {
			return fmt.Errorf("clearing %+v of peer %q would follow %+v", n, s.Peer, old)
		}
		s.Number = n
		return nil
	})
}

// SetEverything stores, durably, whether all blocks may differ from a peer whatever the regions say. False ends a resync
// of everything: the regions alone count again, and those that may still differ are marked.
func (f *File) SetEverything(slot int, everything bool) error {
	return f.change(slot, func(s *Slot) error { s.Everything = everything; return nil })
}

func (f *File) change(slot int, change func(*Slot) error) error {
	return f.update(func(h *header) error {
		if slot < 0 || slot >= MaxSlots || h.slots[slot].Peer == "" {
			return fmt.Errorf("%w: slot %d", ErrSlots, slot)
		}
		return change(&h.slots[slot])
	})
}

// update changes the header durably: when it returns nil, the change survives a power cut. Concurrent ones follow each
// other, and groups. After an I/O error it is open whether the old or the new one is on the disk.
//
//	1 one copy is written and flushed    a crash leaves the old header in the other, perhaps the new one here
//	2 the other one likewise             a crash leaves the new one here
func (f *File) update(change func(*header) error) error {
	f.writing <- struct{}{}
	defer func() { <-f.writing }()
	f.mu.Lock()
	next, first, err := f.head, f.first, f.usableLocked()
	f.mu.Unlock()
	if err == nil {
		err = change(&next)
	}
	if err != nil {
		return fmt.Errorf("update map of marks: %w", err)
	}
	next.generation++
	err = f.watched(func() error { return writeHeaders(f.store, &next, first) })
	f.mu.Lock()
	defer f.mu.Unlock()
	if err != nil {
		f.failLocked(err)
		return fmt.Errorf("update map of marks: %w: %w", ErrFailed, err)
	}
	f.head = next
	return nil
}

// Sync makes durable what was cleared before it was called.
func (f *File) Sync() error {
	f.writing <- struct{}{}
	defer func() { <-f.writing }()
	f.mu.Lock()
	err := f.usableLocked()
	var list []int64
	var buf []byte
	if err == nil {
		list, buf = f.cutLocked(nil)
	}
	f.mu.Unlock()
	if err == nil && len(list) > 0 {
		if err = f.watched(func() error { return f.writePages(list, buf) }); err != nil {
			f.mu.Lock()
			f.failLocked(err)
			f.mu.Unlock()
			err = fmt.Errorf("%w: %w", ErrFailed, err)
		}
	}
	if err != nil {
		return fmt.Errorf("sync map of marks: %w", err)
	}
	return nil
}

// Close writes what waits and closes the store. Like that of a disk it waits for what is outstanding there.
func (f *File) Close() error {
	f.mu.Lock()
	if f.closing {
		f.mu.Unlock()
		return ErrClosed
	}
	f.closing = true
	f.wakeLocked()
	f.mu.Unlock()
	<-f.ended
	f.mu.Lock()
	err := f.failed
	f.mu.Unlock()
	if err != nil {
		err = fmt.Errorf("close map of marks: %w: %w", ErrFailed, err)
	}
	if cerr := f.store.Close(); cerr != nil && err == nil {
		err = fmt.Errorf("close map of marks: %w", cerr)
	}
	return err
}
