package maps

import "hacluster/blockdev"

// entry is one operation on its way to a peer.
type entry struct {
	id, num  uint64
	r        blockdev.Range
	copy     bool
	local    bool // its local part has returned
	failed   bool // with an error
	complete bool // on both
}

// window is a queue of entries whose ids and nums ascend. It is bounded by what its owner lets be in flight.
type window struct {
	buf     []entry // length zero or a power of two
	head, n int
}

func (w *window) len() int { return w.n }

func (w *window) at(i int) *entry { return &w.buf[(w.head+i)&(len(w.buf)-1)] }

func (w *window) push(e entry) {
	if w.n == len(w.buf) {
		bigger := make([]entry, max(16, 2*len(w.buf)))
		for i := range w.n {
			bigger[i] = *w.at(i)
		}
		w.buf, w.head = bigger, 0
	}
	w.n++
	*w.at(w.n - 1) = e
}

func (w *window) pop() {
	w.head = (w.head + 1) & (len(w.buf) - 1)
	w.n--
}

func (w *window) clear() { w.head, w.n = 0, 0 }

// find returns the entry of an operation, nil when it is not there.
func (w *window) find(id uint64) *entry {
	lo, hi := 0, w.n
	for lo < hi {
		if mid := (lo + hi) / 2; w.at(mid).id < id {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo < w.n && w.at(lo).id == id {
		return w.at(lo)
	}
	return nil
}
