package maps

import (
	"fmt"
	"math/bits"

	"hacluster/blockdev"
	"hacluster/blockdev/bitmap"
)

// Regions decides which coarse marks on stable storage are given back. A region is a candidate when nothing in it is
// marked any more, and it stays one only while nothing is written to it until the clearing has been agreed on. Regions
// that were in use lately are kept: marking them anew would cost a flush each. What is lately is learned (Recent).
//
//	Begin(n): candidates --Touch: written--> none
//	End(n): what is left of them may be cleared
type Regions struct {
	shift    uint
	size     int64
	recent   Recent
	leaving  *bitmap.Bitmap // candidates of the clearing that is under way
	clearing uint64         // its number; 0: none
	waiting  int64          // regions that stay for want of a flush only, when it began
}

// Span is how many regions, aligned, may be marked together before each of them is written (Ahead), and so are given back
// together.
const Span = 64

// busySpan is how many regions of a span have to be in use for all that is marked of it to count as that: what a scattered
// load has not come to yet, it will.
const busySpan = 4

// NewRegions is for regions of the given size, a power of two.
func NewRegions(size, region int64) *Regions {
	if region < blockSize || region&(region-1) != 0 {
		panic(fmt.Sprintf("maps: regions of %d bytes", region))
	}
	n := (size + region - 1) / region
	return &Regions{shift: uint(bits.TrailingZeros64(uint64(region))), size: size, recent: newRecent(n), leaving: bitmap.New(n)}
}

// Touch tells that r is being marked. It comes with every write that a replica makes, before it.
func (s *Regions) Touch(r blockdev.Range) {
	if r.Len == 0 {
		return
	}
	from, to := r.Off>>s.shift, (r.End()-1)>>s.shift+1
	s.recent.use(from, to)
	if s.leaving.Count() > 0 {
		s.leaving.Clear(from, to)
	}
}

// Begin chooses the candidates of clearing n and returns how many there are. stored tells whether a region is marked on
// stable storage for one that takes part; marked are the maps of those. all: also what was in use lately, for a clean
// stop or because too much is hot.
func (s *Regions) Begin(n uint64, stored func(region int64) bool, marked []*bitmap.Bitmap, all bool) int64 {
	s.clearing = n
	empty(s.leaving)
	kept := s.recent.kept()
	for i := range s.leaving.Len() {
		if stored(i) && (all || !kept.Test(i)) && s.quiet(i, marked) {
			s.leaving.Set(i, i+1)
		}
	}
	s.recent.turn()
	return s.leaving.Count()
}

// Choose is Begin of a primary whose peers keep no maps of blocks: of the regions that are hot, on any of those that take
// part, it chooses those in which nothing differs from any of them. Above limit hot regions it chooses also what was in use
// before the last round, and if that is not enough, all. The result is valid until the next call.
//
// With a region go those of its span: a peer may have marked them ahead although we did not. So whatever is hot on a peer
// has a hot region of ours, or one that is known of it, in its span.
func (s *Regions) Choose(n uint64, hot *bitmap.Bitmap, peers []*Peer, limit int64) *bitmap.Bitmap {
	s.clearing = n
	s.choose(hot, wholeSpans(s.recent.kept()), peers)
	waiting := s.waiting
	if hot.Count()-s.left(hot) > limit {
		s.choose(hot, s.recent.last(), peers)
	}
	if hot.Count()-s.left(hot) > limit {
		s.choose(hot, nil, peers)
	}
	s.recent.turn()
	s.waiting = waiting
	return s.leaving
}

// wholeSpans adds to what is in use the rest of each span that is busy.
func wholeSpans(used *bitmap.Bitmap) *bitmap.Bitmap {
	for i, ok := used.Next(0); ok; {
		first := i &^ (Span - 1)
		end := min(first+Span, used.Len())
		n := 0
		for ; ok && i < end; i, ok = used.Next(i + 1) {
			n++
		}
		if n >= busySpan {
			used.Set(first, end)
		}
	}
	return used
}

// left is how many regions that are hot leave.
func (s *Regions) left(hot *bitmap.Bitmap) (n int64) {
	for i, ok := s.leaving.Next(0); ok; i, ok = s.leaving.Next(i + 1) {
		if hot.Test(i) {
			n++
		}
	}
	return n
}

func (s *Regions) choose(hot, kept *bitmap.Bitmap, peers []*Peer) {
	s.leaving.Empty()
	s.waiting = 0
	for i, ok := hot.Next(0); ok; i, ok = hot.Next(i + 1) {
		switch {
		case kept != nil && kept.Test(i) || s.leaving.Test(i):
		case s.equal(i, peers):
			s.chooseSpan(i, kept, peers)
		default:
			s.waiting++
		}
	}
}

func (s *Regions) chooseSpan(i int64, kept *bitmap.Bitmap, peers []*Peer) {
	first := i &^ (Span - 1)
	for i := first; i < min(first+Span, s.leaving.Len()); i++ {
		if (kept == nil || !kept.Test(i)) && s.equal(i, peers) {
			s.leaving.Set(i, i+1)
		}
	}
}

// Waiting is how many regions that nobody uses any more the last Choose left marked because what was written to them was not
// flushed.
func (s *Regions) Waiting() int64 { return s.waiting }

// Promise is what becomes of a primary's choice at a standby: the regions that clearing n clears here too, unless they are
// written before it is settled.
func (s *Regions) Promise(n uint64, chosen *bitmap.Bitmap) {
	s.clearing = n
	s.leaving.Empty()
	s.leaving.Or(chosen)
}

// CoveredBy reports whether all that is marked for a peer lies in regions that are marked on stable storage: then these
// alone say what may differ between the two.
func (s *Regions) CoveredBy(stored func(region int64) bool, p *Peer) bool {
	for i := range s.leaving.Len() {
		if !stored(i) && !s.equal(i, []*Peer{p}) {
			return false
		}
	}
	return true
}

func (s *Regions) equal(region int64, peers []*Peer) bool {
	at := region << s.shift
	for _, p := range peers {
		if p.MayDiffer(blockdev.Range{Off: at, Len: min(1<<s.shift, s.size-at)}) {
			return false
		}
	}
	return true
}

func (s *Regions) quiet(region int64, marked []*bitmap.Bitmap) bool {
	from := region << s.shift / blockSize
	to := min((region+1)<<s.shift/blockSize, Blocks(s.size))
	for _, m := range marked {
		if m.Any(from, to) {
			return false
		}
	}
	return true
}

// Covered reports whether all that is marked lies in regions that are marked on stable storage: asked at the beginning of
// a clearing, it allows that clearing to take back that everything may differ.
func (s *Regions) Covered(stored func(region int64) bool, marked *bitmap.Bitmap) bool {
	for i := range s.leaving.Len() {
		if !stored(i) && !s.quiet(i, []*bitmap.Bitmap{marked}) {
			return false
		}
	}
	return true
}

// End returns the regions that clearing n may clear; nil when another one was begun since, or none. It is called when the
// number is settled on stable storage, under the lock under which the regions are then cleared and writes are touched.
func (s *Regions) End(n uint64) *bitmap.Bitmap {
	if n == 0 || n != s.clearing {
		return nil
	}
	s.clearing = 0
	s.recent.leave(s.leaving)
	return s.leaving
}

// Abort ends the clearing that is under way without result: a stream broke, or the role moved.
func (s *Regions) Abort() {
	s.clearing = 0
	empty(s.leaving)
}
