package rescue

import (
	"fmt"
	"time"

	"hacluster/blockdev/failpoint"
)

// CloseEarly closes the image of a resync that goes on without it, as a person said: what it has the old content of stays, and
// nothing is added. One that has nothing yet is removed, and so is one that cannot be labelled: nobody must take it for the way
// back of a replica that is overwritten further. On stable storage:
//
//	superblock: in pieces -> label: closed early -> a block is overwritten whose old content is nowhere
//
// A crash before leaves the way back, for nothing is overwritten that it lacks; one after leaves a replica in pieces without.
func (s *Shelf) CloseEarly(now time.Time, why string) (info Info, err error) {
	s.mu.Lock()
	i := s.live
	s.mu.Unlock()
	if i == nil {
		return info, nil
	}
	_, bytes, sound := i.area.Point()
	if sound && bytes == 0 {
		return info, s.Drop()
	}
	l := label{closedMillis: now.UnixMilli(), bytes: bytes, end: i.area.Taken(), base: basePart, why: why}
	if !sound {
		l.why += ": " + i.area.Damage()
	}
	failpoint.Hit(failpoint.RescueLabel)
	if err := s.cfg.Room.SetLabel(i.id, l.encode()); err != nil {
		if s.cfg.Ended != nil {
			s.cfg.Ended(i.id, fmt.Sprintf("it is removed, for its label cannot be written: %v", err))
		}
		return info, s.Drop()
	}
	failpoint.Hit(failpoint.RescueLabelled)
	s.cfg.Room.Closed(i.id)
	_ = i.area.Close() // what counts in it is durable
	s.mu.Lock()
	defer s.mu.Unlock()
	i.label, i.closed, i.area = l, true, nil
	s.live, s.kept = nil, append(s.kept, i)
	return s.infoLocked(i), nil
}
