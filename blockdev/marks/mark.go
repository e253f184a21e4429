package marks

import (
	"fmt"

	"hacluster/blockdev"
)

// Mark marks the regions of r for slots. ready: all of them are durably marked, and what is to change r may start now.
// Otherwise the marks go with the next group and w is told when that is durable; what is to change r waits for it. How
// many wait is bounded by the caller, who bounds what is in flight.
//
// An error says that nothing was queued and w will not be told: the range lies outside, or the map can hold no mark any
// more, so nothing that needs a new one may be written.
func (f *File) Mark(r blockdev.Range, slots Slots, w Waiter) (ready bool, err error) {
	return f.MarkAhead(r, nil, slots, w)
}

// MarkAhead is Mark that asks, where r is not marked, how many regions are to be for the first missing one: a power of two.
// They are those around it, aligned, and go with the same group; nobody is told of them.
func (f *File) MarkAhead(r blockdev.Range, width func(region int64) int64, slots Slots, w Waiter) (ready bool, err error) {
	if !r.Within(f.size) {
		return false, fmt.Errorf("mark %v of %d: %w", r, f.size, blockdev.ErrRange)
	}
	if r.Len == 0 {
		return true, nil
	}
	first, last := r.Off>>f.shift, (r.End()-1)>>f.shift
	for i := first; i <= last; i++ {
		if Slots(f.state[i].Load())&slots != slots {
			if width == nil || Slots(f.state[i].Load()>>16)&slots == slots { // a group is on its way with it
				return f.queue(i, last, 1, slots, w)
			}
			return f.queue(i, last, width(i), slots, w)
		}
	}
	return true, nil
}

// queue is the slow part of Mark, for regions of which the first is not marked.
func (f *File) queue(first, last, width int64, slots Slots, w Waiter) (ready bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.usableLocked(); err != nil {
		return false, fmt.Errorf("mark regions %d to %d: %w", first, last, err)
	}
	wait := false
	for i := first; i <= last; i++ {
		if Slots(f.state[i].Load())&slots != slots { // else a group ended meanwhile
			wait = true
			f.addLocked(i, slots)
		}
	}
	if !wait {
		return true, nil
	}
	ahead := first &^ (width - 1)
	for i := ahead; i < min(ahead+width, f.Regions()); i++ {
		f.addLocked(i, slots)
	}
	f.next.waiters = append(f.next.waiters, w)
	f.wakeLocked()
	return false, nil
}

// addLocked adds a region to the group that gathers, unless it is marked, or a group is on its way with it.
func (f *File) addLocked(i int64, slots Slots) {
	wanted := Slots(f.state[i].Load() >> 16)
	if missing := slots &^ wanted; missing != 0 {
		f.wantLocked(i, wanted|slots)
		f.next.marks = append(f.next.marks, mark{i, missing})
	}
}

// Clear takes the marks of a region away for slots. The caller knows that nothing in it differs there, that nothing that
// could is in flight, and that it is allowed to by R14; a Mark that it makes afterwards finds the region clean. The disk
// learns of it with the next group, or by Sync.
func (f *File) Clear(region int64, slots Slots) {
	f.mu.Lock()
	defer f.mu.Unlock()
	old := f.state[region].Load()
	durable, wanted := Slots(old)&^slots, Slots(old>>16)&^slots
	if wanted == Slots(old>>16) {
		return
	}
	f.wantLocked(region, wanted)
	f.state[region].Store(uint32(durable) | uint32(wanted)<<16)
}

// wantLocked changes what is wanted of a region, and leaves what is durable.
func (f *File) wantLocked(region int64, wanted Slots) {
	old := f.state[region].Load()
	switch was := Slots(old >> 16); {
	case was == 0 && wanted != 0:
		f.marked++
	case was != 0 && wanted == 0:
		f.marked--
	}
	f.state[region].Store(old&0xffff | uint32(wanted)<<16)
	f.soilLocked(region / pageRegions)
}

func (f *File) soilLocked(page int64) {
	if !f.dirty[page] {
		f.dirty[page] = true
		f.changed = append(f.changed, page)
	}
}

func (f *File) usableLocked() error {
	switch {
	case f.failed != nil:
		return fmt.Errorf("%w: repair the disk under it: %w", ErrFailed, f.failed)
	case f.closing:
		return ErrClosed
	}
	return nil
}

func (f *File) wakeLocked() {
	select {
	case f.kick <- struct{}{}:
	default:
	}
}
