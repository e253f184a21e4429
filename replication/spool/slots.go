package spool

// slotSize is the unit in which the file grows and is used again. An operation never spans two.
const slotSize = 32 << 20

// slots says where in the file the next data goes: one behind the other within a slot, then in the lowest slot that is free. So the
// file is written in order, grows to what is in it at most and shrinks when the last slots become free. It is pure.
type slots struct {
	live []int64 // bytes of each slot that are in use
	at   int     // the slot that is being filled; none: len(live)
	off  int64   // in it
	used int64
}

// next is where n bytes go; grows: the file gets longer by a slot for it. Nothing changes before take.
func (s *slots) next(n int64) (off int64, slot int, grows bool) {
	if s.at < len(s.live) && s.off+n <= slotSize {
		return int64(s.at)*slotSize + s.off, s.at, false
	}
	for i, live := range s.live {
		if live == 0 {
			return int64(i) * slotSize, i, false
		}
	}
	return int64(len(s.live)) * slotSize, len(s.live), true
}

// take takes n bytes at the place that next gave.
func (s *slots) take(slot int, off, n int64) {
	if slot == len(s.live) {
		s.live = append(s.live, 0)
	}
	s.at, s.off = slot, off%slotSize+n
	s.live[slot] += n
	s.used += n
}

// free gives n bytes at off back.
func (s *slots) free(off, n int64) {
	slot := int(off / slotSize)
	s.live[slot] -= n
	s.used -= n
	if s.live[slot] == 0 && slot == s.at {
		s.off = 0
	}
}

// trim forgets the free slots at the end, and reports how long the file is to be.
func (s *slots) trim() int64 {
	end := len(s.live)
	for end > 0 && s.live[end-1] == 0 {
		end--
	}
	s.live = s.live[:end]
	if s.at >= end {
		s.at, s.off = end, 0
	}
	return int64(end) * slotSize
}
