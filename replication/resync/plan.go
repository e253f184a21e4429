// Package resync decides what of a replica still has to be looked at. It is pure: a Plan is the to-do map of one
// target of one volume; the copier of package replication asks it for chunks and tells it what became of them. A chunk is
// one or more of the plan's pieces side by side: many when nobody else uses the disk, one when clients would wait behind it.
//
//	todo --Take--> comparing --Differs(0)--> done
//	                   \--Differs(n)--> copying --n x Copied--> done
//	any --Touch / Interrupt--> todo
//	any --SetAside--> todo, but not handed out before Retry
package resync

import (
	"slices"

	"hacluster/blockdev"
	"hacluster/blockdev/bitmap"
)

// ChunkSize is how much a resync compares at a time at most, in bytes: one digest request. 256 digests of 16 bytes answer it.
const ChunkSize = 1 << 20

// PieceSize is how much it compares at a time at least, and the unit in which a Plan knows what is left: a disk of 100 MB/s
// reads or writes it in less than a millisecond, so a client's block does not wait long behind it.
const PieceSize = 64 << 10

// Window is the unit, in bytes, in which a target takes space ahead: so few steps that they cost nothing, and no more than what is
// under way, so that little is taken in vain when a resync is interrupted.
const Window = 16 << 20

// Ahead is the window behind that of r, if it lies wholly in a volume of the given size; else it is empty.
func Ahead(r blockdev.Range, size int64) blockdev.Range {
	w := blockdev.Range{Off: (r.Off/Window + 1) * Window, Len: Window}
	if !w.Within(size) {
		return blockdev.Range{}
	}
	return w
}

// Plan is what is left to do for one target. Not safe for concurrent use.
//
// Invariant: a chunk in work is still in todo; it leaves only when its last copy is done and nothing touched it.
type Plan struct {
	size, piece int64
	todo        *bitmap.Bitmap  // pieces, as all that follows
	aside       *bitmap.Bitmap  // of which a part cannot be read
	work        map[int64]*work // each piece of a chunk has that of the chunk
	cursor      int64
	preferred   []int64 // to hand out before all others, in this order
}

// work is one chunk that was handed out.
type work struct {
	first, end int64 // its pieces
	copies     int   // not yet acknowledged; -1 while comparing
	again      bool  // touched meanwhile: it has to be looked at once more
	aside      bool  // a part of it cannot be read: it stays to be done
}

// NewPlan starts with nothing to do: Touch says what is.
func NewPlan(size, piece int64) *Plan {
	n := (size + piece - 1) / piece
	return &Plan{size: size, piece: piece, todo: bitmap.New(n), aside: bitmap.New(n), work: map[int64]*work{}}
}

// Busy reports whether a chunk is being compared or copied.
func (p *Plan) Busy() bool { return len(p.work) > 0 }

// Again reports whether a chunk was touched since it was handed out, or is not in work any more.
func (p *Plan) Again(chunk blockdev.Range) bool {
	w := p.work[chunk.Off/p.piece]
	return w == nil || w.again
}

// Remaining is how many bytes still have to be looked at.
func (p *Plan) Remaining() int64 {
	left := p.todo.Count() * p.piece
	if n := p.todo.Len(); n > 0 && p.todo.Test(n-1) {
		left -= n*p.piece - p.size // the last one may be short
	}
	return left
}

// Done reports whether nothing is left.
func (p *Plan) Done() bool { return p.todo.Count() == 0 }

// Take hands out the next chunk to compare, in ascending order from where the last one was, around the end: of at most so many
// bytes, but of one piece at least. What is preferred comes first.
func (p *Plan) Take(most int64) (r blockdev.Range, ok bool) {
	p.preferred = slices.DeleteFunc(p.preferred, func(i int64) bool { return !p.todo.Test(i) || p.aside.Test(i) })
	for at, i := range p.preferred {
		if p.free(i) {
			p.preferred = slices.Delete(p.preferred, at, at+1)
			return p.begin(i, most), true
		}
	}
	for range 2 {
		for i, ok := p.todo.Next(p.cursor); ok; i, ok = p.todo.Next(i + 1) {
			if p.free(i) {
				r = p.begin(i, most)
				p.cursor = i + (r.Len+p.piece-1)/p.piece
				return r, true
			}
		}
		p.cursor = 0
	}
	return r, false
}

// free reports whether a piece may be handed out.
func (p *Plan) free(i int64) bool {
	return i < p.todo.Len() && p.todo.Test(i) && p.work[i] == nil && !p.aside.Test(i)
}

// begin hands out the chunk that begins with a piece.
func (p *Plan) begin(first, most int64) blockdev.Range {
	w := &work{first: first, end: first, copies: -1}
	for ; p.free(w.end) && (w.end == first || (w.end+1-first)*p.piece <= most); w.end++ {
		p.work[w.end] = w
	}
	off := first * p.piece
	return blockdev.Range{Off: off, Len: min(w.end*p.piece, p.size) - off}
}

// Prefer has the pieces that r reaches looked at, before all others. One that is being looked at is taken anew only when
// that leaves it to be done.
func (p *Plan) Prefer(r blockdev.Range) {
	for i := r.Off / p.piece; r.Len > 0 && i <= (r.End()-1)/p.piece; i++ {
		p.todo.Set(i, i+1)
		if !p.aside.Test(i) && !slices.Contains(p.preferred, i) {
			p.preferred = append(p.preferred, i)
		}
	}
}

// Preferred reports whether Take would hand out a chunk that is preferred.
func (p *Plan) Preferred() bool {
	return slices.ContainsFunc(p.preferred, p.free)
}

// Differs ends the comparison of a chunk, or of what of it is to be compared: so many copies will follow, none when it is equal.
func (p *Plan) Differs(chunk blockdev.Range, copies int) {
	if w := p.work[chunk.Off/p.piece]; w != nil {
		w.copies = copies
		p.settle(w)
	}
}

// Copied notes that one copy of a chunk was written by the target.
func (p *Plan) Copied(chunk blockdev.Range) {
	if w := p.work[chunk.Off/p.piece]; w != nil {
		w.copies--
		p.settle(w)
	}
}

func (p *Plan) settle(w *work) {
	if w.copies != 0 {
		return
	}
	for i := w.first; i < w.end; i++ {
		delete(p.work, i)
	}
	if !w.again && !w.aside {
		p.todo.Clear(w.first, w.end)
	}
}

// Touch puts every piece that r reaches back to be looked at: a write there did not, or may not, reach the target.
func (p *Plan) Touch(r blockdev.Range) {
	if r.Len == 0 {
		return
	}
	first, end := p.pieces(r)
	p.todo.Set(first, end)
	p.inWork(first, end, func(w *work) { w.again = true })
}

// pieces are those that r reaches; r is not empty.
func (p *Plan) pieces(r blockdev.Range) (first, end int64) {
	return r.Off / p.piece, (r.End()-1)/p.piece + 1
}

// inWork calls f for those of the pieces that are handed out, whichever are fewer: what a write reaches, or what is in work.
func (p *Plan) inWork(first, end int64, f func(w *work)) {
	if end-first > int64(len(p.work)) {
		for i, w := range p.work {
			if first <= i && i < end {
				f(w)
			}
		}
		return
	}
	for i := first; i < end; i++ {
		if w := p.work[i]; w != nil {
			f(w)
		}
	}
}

// Interrupt forgets what is in work: the connection broke, so its outcome is unknown and it stays to be done.
func (p *Plan) Interrupt() { clear(p.work) }

// SetAside notes that a part of the chunk cannot be read at its source. What else is in it may be copied; the chunk as a
// whole stays to be done, so the plan is not done either, and is not handed out before Retry.
func (p *Plan) SetAside(chunk blockdev.Range) {
	first, end := p.pieces(chunk)
	p.aside.Set(first, end)
	p.todo.Set(first, end)
	p.inWork(first, end, func(w *work) { w.aside = true })
}

// Aside reports whether anything is set aside.
func (p *Plan) Aside() bool { return p.aside.Count() > 0 }

// Retry has what was set aside handed out again.
func (p *Plan) Retry() { p.aside.Clear(0, p.aside.Len()) }

// RetryIn has the pieces that r reaches handed out again.
func (p *Plan) RetryIn(r blockdev.Range) {
	if r.Len > 0 {
		p.aside.Clear(p.pieces(r))
	}
}

// Inherit sets aside what is so in old, which this plan replaces; nil: nothing. It stays to be done.
func (p *Plan) Inherit(old *Plan) {
	if old != nil {
		p.aside = old.aside
		p.todo.Or(p.aside)
	}
}
