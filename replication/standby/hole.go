package standby

import (
	"math"

	"hacluster/blockdev"
	"hacluster/replication/order"
)

// Hole is what a target knows to be a hole, and to hold zeroes, ahead of a resync: one question to the filesystem for all of a
// new disk, instead of one for each chunk, which would wait there for the writes that are under way. The zero value knows of
// none. It dies with its stream. Not safe for concurrent use.
//
//	none --Begin--> looking --Found--> known
//	     known, looking --Overwrites--> what is left of it
type Hole struct {
	known   blockdev.Range
	data    blockdev.Range // what was found to be none: a look there is of no use
	looks   uint64         // that were begun, over all streams
	looking bool
	from    int64 // where the look began
	limit   int64 // the first byte from there on that was overwritten since it began
	cursor  int64 // the end of what was asked for last
}

// Covers reports whether all of r is known to hold zeroes: no entry that was taken reaches into it.
func (h *Hole) Covers(r blockdev.Range) bool {
	ok := h.Has(r)
	if ok {
		h.cursor = r.End()
	}
	return ok
}

// Has is Covers of what is not asked for yet.
func (h *Hole) Has(r blockdev.Range) bool {
	return r.Len > 0 && h.known.Off <= r.Off && r.End() <= h.known.End()
}

// Begin has a look from r on, up to size. ok false: it is of no use, one is under way, or an entry that was taken has not
// returned from there.
func (h *Hole) Begin(r blockdev.Range, size int64, taken *order.Queue) (look uint64, ok bool) {
	if h.looking || r.Off >= size || h.data.Overlaps(r) || taken.Holds(blockdev.Range{Off: r.Off, Len: size - r.Off}) {
		return 0, false
	}
	h.looks++
	h.looking, h.from, h.limit, h.cursor = true, r.Off, math.MaxInt64, r.End()
	return h.looks, true
}

// Found tells what a look found where it began: a hole, or data. One of a stream that has ended counts for nothing.
func (h *Hole) Found(look uint64, at blockdev.Range, hole bool) {
	if !h.looking || look != h.looks {
		return
	}
	h.looking = false
	switch end := min(at.End(), h.limit); {
	case !hole:
		h.data = at
	case end > h.from:
		h.known, h.data = blockdev.Range{Off: h.from, Len: end - h.from}, blockdev.Range{}
	}
}

// Overwrites notes that an entry that changes r was taken. Of what is known the part is kept that is asked for next.
func (h *Hole) Overwrites(r blockdev.Range) {
	if r.Len == 0 {
		return
	}
	if h.looking && r.End() > h.from {
		h.limit = min(h.limit, r.Off)
	}
	switch k := h.known; {
	case !k.Overlaps(r):
	case r.Off > k.Off && r.Off >= h.cursor:
		h.known.Len = r.Off - k.Off
	case r.End() < k.End():
		h.known = blockdev.Range{Off: r.End(), Len: k.End() - r.End()}
	default:
		h.known = blockdev.Range{}
	}
}

// Clear forgets everything, with the stream.
func (h *Hole) Clear() { *h = Hole{looks: h.looks} }
