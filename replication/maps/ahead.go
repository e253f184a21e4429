package maps

import "time"

// Ahead decides how many regions are marked at once when one that is written is not marked. One, as long as few are missed:
// what is marked is compared after a crash. A load that is scattered over a large volume would wait for a flush at every
// region of it; its misses come fast, and soon each marks a whole span around it. What was marked so and is not written is
// given back by the next rounds, and when the same load comes to it after all, it need not prove anew that it is scattered:
// many misses are forgotten by halves. It is pure; now is a time since any moment.
type Ahead struct {
	begun  time.Duration // when misses began to be counted
	misses int
}

const (
	aheadTime = 10 * time.Second // for which misses are counted
	// fewMisses of single regions are no reason to mark more; then the width is multiplied again and again, as misses double.
	fewMisses = 128
)

// Miss is how many regions, a power of two, aligned, are marked for one that is missed.
func (a *Ahead) Miss(now time.Duration) (width int64) {
	if passed := (now - a.begun) / aheadTime; passed > 0 {
		if a.begun = now; a.misses > fewMisses {
			a.misses >>= min(passed, 62)
		} else {
			a.misses = 0 // it was not scattered
		}
	}
	a.misses++
	width = 1
	for n := a.misses; n > fewMisses && width < Span; n /= 2 {
		width *= 4
	}
	return min(width, Span)
}

// Run decides the same for what a resync writes. That comes in ascending order, and where it is dense, each region would cost
// a flush: as long as one that is missed lies where the last one ended, more are marked, up to a span. A resync that is
// interrupted compares what lies ahead of it in any case.
type Run struct {
	end   int64 // of what was marked last, in regions
	width int64
}

// Miss is how many regions, a power of two, aligned, are marked for the one that is missed.
func (s *Run) Miss(region int64) (width int64) {
	if s.width > 0 && region == s.end {
		s.width = min(4*s.width, Span)
	} else {
		s.width = 1
	}
	s.end = region&^(s.width-1) + s.width
	return s.width
}
