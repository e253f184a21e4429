package maps

import (
	"hacluster/blockdev"
	"hacluster/blockdev/bitmap"
)

// Standby holds the maps of a replica that is not primary, one for each other replica. It marks for all of them whatever
// it takes: it cannot know who else has it. Marks leave when the primary says who has it durably.
type Standby struct {
	size  int64
	names []string
	marks []*bitmap.Bitmap

	flush uint64         // num of the tracked flush of this stream; 0: none
	since *bitmap.Bitmap // blocks taken after it

	recent window // entries that not every member is known to have written
	stable uint64
}

// NewStandby makes maps in which nothing is marked: Load fills them.
func NewStandby(size int64, peers []string) *Standby {
	s := &Standby{size: size, names: peers, since: bitmap.New(Blocks(size))}
	for range peers {
		s.marks = append(s.marks, bitmap.New(Blocks(size)))
	}
	return s
}

// Marks is the map for a peer, nil when there is none of that name. It is the Standby's own: copy it to keep it.
func (s *Standby) Marks(peer string) *bitmap.Bitmap {
	for i, n := range s.names {
		if n == peer {
			return s.marks[i]
		}
	}
	return nil
}

// Load marks r for a peer: it is marked on stable storage. When that has to be done is said at Peer.Load.
func (s *Standby) Load(peer string, r blockdev.Range) {
	from, to := touched(r)
	s.Marks(peer).Set(from, to)
}

// Take marks what an entry is about to change here, for every peer. It comes before the change, and so does the mark on
// stable storage.
func (s *Standby) Take(num uint64, r blockdev.Range) {
	from, to := touched(r)
	for _, m := range s.marks {
		m.Set(from, to)
	}
	if s.flush != 0 {
		s.since.Set(from, to)
	}
	s.recent.push(entry{id: num, num: num, r: r})
}

// Flush tells that the stream has come to a flush that the primary tracks. It begins here when all before it has
// returned; what is taken after it counts as later even if it is written before.
func (s *Standby) Flush(num uint64) {
	s.flush = num
	empty(s.since)
}

// Durable takes the primary's word that the tracked flush, and all before it, is on stable storage here and on the peers
// named. What was marked for them before it is clean. About any other flush the word comes too late and is ignored.
func (s *Standby) Durable(num uint64, peers []string) {
	if num == 0 || num != s.flush {
		return
	}
	for _, p := range peers {
		if m := s.Marks(p); m != nil {
			m.And(s.since)
		}
	}
}

// Stable tells that every member has written the entries up to num (R29).
func (s *Standby) Stable(num uint64) {
	s.stable = max(s.stable, num)
	for s.recent.len() > 0 && s.recent.at(0).num <= s.stable {
		s.recent.pop()
	}
}

// Broke tells that the stream ended: what a later one says about its flushes does not count for this one's. What was
// taken stays marked, and what is not on every member for sure stays so until a primary has settled it.
func (s *Standby) Broke() {
	s.flush = 0
	empty(s.since)
}

// Begin tells that a stream of another epoch, or of another process of the primary, begins: its entries count anew. The
// primary has settled, or will settle before it answers for a block, what was recent before.
func (s *Standby) Begin() {
	s.Broke()
	s.recent.clear()
	s.stable = 0
}

// Unsettled is what this replica took and not every member is known to have: when it is promoted, and no member was
// restarted since, only that has to be settled (R29).
func (s *Standby) Unsettled() *bitmap.Bitmap {
	m := bitmap.New(Blocks(s.size))
	for i := range s.recent.len() {
		from, to := touched(s.recent.at(i).r)
		m.Set(from, to)
	}
	return m
}
