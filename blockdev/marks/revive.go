package marks

import "fmt"

// Failed is why the map takes no marks; nil: it takes them.
func (f *File) Failed() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.failed
}

// Revive has a map that failed take marks again, if its disk works again. What the failed operation left is not known, and the
// operating system may show as clean what the disk never took; so nothing of it is relied upon: the whole table and both
// headers are written anew from memory, where every mark is that was ever asked for, and flushed.
//
//	1 the table is written and flushed   a crash leaves old and new cells, each a mark for all that was written there; a torn
//	                                     one is damaged, and marks its regions
//	2 the headers are, one by one        a crash leaves one that is whole; none, if the failed operation had torn the other:
//	                                     then everything may differ (R16)
//
// After an error the map is as it was: failed, with what was durable. It does nothing to a map that has not failed.
func (f *File) Revive() error {
	f.writing <- struct{}{}
	defer func() { <-f.writing }()
	f.mu.Lock()
	if f.failed == nil || f.closing {
		defer f.mu.Unlock()
		if f.closing {
			return ErrClosed
		}
		return nil
	}
	next, first := f.head, f.first
	next.generation += 2 // the update that failed may be there under the one between
	for p := range f.dirty {
		f.soilLocked(int64(p))
	}
	list, buf := f.cutLocked(nil)
	wanted := make([]Slots, len(f.state))
	for i := range wanted {
		wanted[i] = Slots(f.state[i].Load() >> 16)
	}
	f.mu.Unlock()
	err := f.watched(func() error {
		if err := f.writePages(list, buf); err != nil {
			return err
		}
		return writeHeaders(f.store, &next, first)
	})
	if err != nil {
		return fmt.Errorf("write the map of marks anew: %w", err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, s := range wanted {
		setDurable(&f.state[i], s)
	}
	f.head, f.failed = next, nil
	return nil
}
