package memdev

import (
	"slices"

	"hacluster/blockdev"
)

// writeLocked puts p at off. A durable write changes the durable content of its bytes too, and of no others.
func (s *store) writeLocked(p []byte, off int64, durable bool) {
	for len(p) > 0 {
		i, in := split(off)
		n := min(len(p), pageSize-in)
		s.rememberLocked(i)
		copy(s.ownLocked(i)[in:], p[:n])
		if durable {
			s.settleLocked(i, in, p[:n])
		}
		p, off = p[n:], off+int64(n)
	}
}

// ownLocked returns page i, made when absent.
func (s *store) ownLocked(i int64) *page {
	pg := s.pages[i]
	if pg == nil {
		pg = new(page)
		s.pages[i] = pg
	}
	return pg
}

// rememberLocked keeps the content of page i before it is changed: always the durable one, and as many of the later
// ones as configured. At the limit the youngest remembered one gives way.
func (s *store) rememberLocked(i int64) {
	s.soilLocked(i)
	old := s.unflushed[i]
	switch {
	case len(old) == 0:
	case s.cfg.Intermediate == 0:
		return
	case len(old) > s.cfg.Intermediate:
		old = old[:len(old)-1]
	}
	s.unflushed[i] = append(old, s.pages[i].copy())
}

// soilLocked has the next flush write page i as a whole, if a failed one left it behind.
func (s *store) soilLocked(i int64) {
	if old, ok := s.lost[i]; ok {
		s.unflushed[i] = old
		delete(s.lost, i)
	}
}

// settleLocked makes p durable in page i: whatever a power cut brings back holds p there.
func (s *store) settleLocked(i int64, in int, p []byte) {
	for v, pg := range s.unflushed[i] {
		if pg == nil {
			pg = new(page)
			s.unflushed[i][v] = pg
		}
		copy(pg[in:], p)
	}
}

// zeroLocked zeroes r. Pages that do not exist are zero already, with unmap or without: there is no space to keep.
func (s *store) zeroLocked(r blockdev.Range, unmap bool) {
	for i := range s.lost {
		if r.Overlaps(pageRange(i)) {
			s.soilLocked(i) // also one that reads as zeroes already
		}
	}
	for _, i := range s.pagesInLocked(r) {
		e := pageRange(i)
		s.zeroPageLocked(i, int(max(r.Off-e.Off, 0)), int(min(r.End(), e.End())-e.Off), unmap)
	}
}

// pagesInLocked lists in order the pages that exist and share a byte with r. It probes or filters, whichever is less:
// the range may be terabytes, and so may the content.
func (s *store) pagesInLocked(r blockdev.Range) []int64 {
	if r.Len == 0 {
		return nil
	}
	var out []int64
	first, last := r.Off/pageSize, (r.End()-1)/pageSize
	if last-first < int64(len(s.pages)) {
		for i := first; i <= last; i++ {
			if s.pages[i] != nil {
				out = append(out, i)
			}
		}
		return out
	}
	for i := range s.pages {
		if first <= i && i <= last {
			out = append(out, i)
		}
	}
	slices.Sort(out)
	return out
}

func pageRange(i int64) blockdev.Range { return blockdev.Range{Off: i * pageSize, Len: pageSize} }

func (s *store) zeroPageLocked(i int64, from, to int, unmap bool) {
	s.rememberLocked(i)
	if unmap && from == 0 && to == pageSize {
		delete(s.pages, i)
		return
	}
	clear(s.pages[i][from:to])
}

type extent struct {
	blockdev.Range
	hole bool
}

// extentsLocked lists r as alternating data and holes.
func (s *store) extentsLocked(r blockdev.Range) []extent {
	var out []extent
	at := r.Off
	add := func(end int64, hole bool) {
		if last := len(out) - 1; last >= 0 && out[last].hole == hole {
			out[last].Len += end - at
		} else if end > at {
			out = append(out, extent{blockdev.Range{Off: at, Len: end - at}, hole})
		}
		at = end
	}
	for _, i := range s.pagesInLocked(r) {
		e := pageRange(i)
		if e.Off > at {
			add(e.Off, true)
		}
		add(min(r.End(), e.End()), false)
	}
	if at < r.End() {
		add(r.End(), true)
	}
	return out
}

// copy of a page; a page of zeroes (nil) stays one.
func (p *page) copy() *page {
	if p == nil {
		return nil
	}
	c := *p
	return &c
}
