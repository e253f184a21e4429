// Package resync decides what of a replica still has to be looked at. It is pure: a Plan is the to-do map of one
// target of one volume; the copier of package replication asks it for chunks and tells it what became of them.
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

// ChunkSize is the unit in which a resync compares, in bytes: one digest request. 256 digests of 16 bytes answer it.
const ChunkSize = 1 << 20

// Plan is what is left to do for one target. Not safe for concurrent use.
//
// Invariant: a chunk in work is still in todo; it leaves only when its last piece is done and nothing touched it.
type Plan struct {
	size, chunk int64
	todo        *bitmap.Bitmap
	aside       *bitmap.Bitmap // chunks of which a part cannot be read
	work        map[int64]*work
	cursor      int64
	preferred   []int64 // chunks to hand out before all others, in this order
}

type work struct {
	pieces int  // copies not yet acknowledged; -1 while comparing
	again  bool // touched meanwhile: it has to be looked at once more
	aside  bool // a part of it cannot be read: it stays to be done
}

// NewPlan starts with nothing to do: Touch says what is.
func NewPlan(size, chunk int64) *Plan {
	n := (size + chunk - 1) / chunk
	return &Plan{size: size, chunk: chunk, todo: bitmap.New(n), aside: bitmap.New(n), work: map[int64]*work{}}
}

// Busy reports whether a chunk is being compared or copied.
func (p *Plan) Busy() bool { return len(p.work) > 0 }

// Again reports whether a chunk was touched since it was handed out, or is not in work any more.
func (p *Plan) Again(chunk blockdev.Range) bool {
	w := p.work[chunk.Off/p.chunk]
	return w == nil || w.again
}

// Remaining is how many bytes still have to be looked at.
func (p *Plan) Remaining() int64 {
	left := p.todo.Count() * p.chunk
	if n := p.todo.Len(); n > 0 && p.todo.Test(n-1) {
		left -= n*p.chunk - p.size // the last chunk may be short
	}
	return left
}

// Done reports whether nothing is left.
func (p *Plan) Done() bool { return p.todo.Count() == 0 }

// Take hands out the next chunk to compare, in ascending order from where the last one was, around the end.
// What is preferred comes first.
func (p *Plan) Take() (r blockdev.Range, ok bool) {
	p.preferred = slices.DeleteFunc(p.preferred, func(i int64) bool { return !p.todo.Test(i) || p.aside.Test(i) })
	for at, i := range p.preferred {
		if p.work[i] == nil {
			p.preferred = slices.Delete(p.preferred, at, at+1)
			p.work[i] = &work{pieces: -1}
			return p.rangeOf(i), true
		}
	}
	for range 2 {
		for i, ok := p.todo.Next(p.cursor); ok; i, ok = p.todo.Next(i + 1) {
			if p.work[i] != nil || p.aside.Test(i) {
				continue
			}
			p.work[i] = &work{pieces: -1}
			p.cursor = i + 1
			return p.rangeOf(i), true
		}
		p.cursor = 0
	}
	return r, false
}

// Prefer has the chunks that r reaches looked at, before all others. One that is being looked at is taken anew only when
// that leaves it to be done.
func (p *Plan) Prefer(r blockdev.Range) {
	for i := r.Off / p.chunk; r.Len > 0 && i <= (r.End()-1)/p.chunk; i++ {
		p.todo.Set(i, i+1)
		if !p.aside.Test(i) && !slices.Contains(p.preferred, i) {
			p.preferred = append(p.preferred, i)
		}
	}
}

// Preferred reports whether Take would hand out a chunk that is preferred.
func (p *Plan) Preferred() bool {
	return slices.ContainsFunc(p.preferred, func(i int64) bool {
		return p.todo.Test(i) && p.work[i] == nil && !p.aside.Test(i)
	})
}

func (p *Plan) rangeOf(i int64) blockdev.Range {
	off := i * p.chunk
	return blockdev.Range{Off: off, Len: min(p.chunk, p.size-off)}
}

// Differs ends the comparison of a chunk: pieces copies will follow, none when it is equal.
func (p *Plan) Differs(chunk blockdev.Range, pieces int) {
	i := chunk.Off / p.chunk
	if w := p.work[i]; w != nil {
		w.pieces = pieces
		p.settle(i, w)
	}
}

// Copied notes that one piece of a chunk was written by the target.
func (p *Plan) Copied(chunk blockdev.Range) {
	i := chunk.Off / p.chunk
	if w := p.work[i]; w != nil {
		w.pieces--
		p.settle(i, w)
	}
}

func (p *Plan) settle(i int64, w *work) {
	if w.pieces != 0 {
		return
	}
	delete(p.work, i)
	if !w.again && !w.aside {
		p.todo.Clear(i, i+1)
	}
}

// Touch puts every chunk that r reaches back to be looked at: a write there did not, or may not, reach the target.
func (p *Plan) Touch(r blockdev.Range) {
	if r.Len == 0 {
		return
	}
	first, last := r.Off/p.chunk, (r.End()-1)/p.chunk
	p.todo.Set(first, last+1)
	for i, w := range p.work {
		if first <= i && i <= last {
			w.again = true
		}
	}
}

// Interrupt forgets what is in work: the connection broke, so its outcome is unknown and it stays to be done.
func (p *Plan) Interrupt() { clear(p.work) }

// SetAside notes that a part of the chunk cannot be read at its source. What else is in it may be copied; the chunk as a
// whole stays to be done, so the plan is not done either, and is not handed out before Retry.
func (p *Plan) SetAside(chunk blockdev.Range) {
	i := chunk.Off / p.chunk
	p.aside.Set(i, i+1)
	p.todo.Set(i, i+1)
	if w := p.work[i]; w != nil {
		w.aside = true
	}
}

// Aside reports whether anything is set aside.
func (p *Plan) Aside() bool { return p.aside.Count() > 0 }

// Retry has what was set aside handed out again.
func (p *Plan) Retry() { p.aside.Clear(0, p.aside.Len()) }

// RetryIn has the chunks that r reaches handed out again.
func (p *Plan) RetryIn(r blockdev.Range) {
	if r.Len > 0 {
		p.aside.Clear(r.Off/p.chunk, (r.End()-1)/p.chunk+1)
	}
}

// Inherit sets aside what is so in old, which this plan replaces; nil: nothing. It stays to be done.
func (p *Plan) Inherit(old *Plan) {
	if old != nil {
		p.aside = old.aside
		p.todo.Or(p.aside)
	}
}
