package maps

import (
	"slices"
	"testing"
	"time"

	"hacluster/blockdev"
	"hacluster/blockdev/bitmap"
)

const testSize = 10*blockSize + 100

func at(off, n int64) blockdev.Range { return blockdev.Range{Off: off, Len: n} }

func blockRange(i, n int64) blockdev.Range { return at(i*blockSize, n*blockSize) }

// rig is a primary with one peer that is connected, nothing marked.
type rig struct {
	*Primary
	p       *Peer
	id, num uint64
}

func newRig() *rig {
	r := &rig{Primary: NewPrimary(testSize, "alpha", []string{"beta"})}
	r.p, r.Tell = r.Peers()[0], true
	return r
}

// sent admits a write and sends it.
func (r *rig) sent(g blockdev.Range) (id, num uint64) {
	r.id++
	r.num++
	r.p.Sent(r.id, r.num, g, false)
	return r.id, r.num
}

// both writes and has it complete on both.
func (r *rig) both(g blockdev.Range) {
	id, num := r.sent(g)
	r.Returned(id, g, true)
	r.Acked(r.p, num)
}

func (r *rig) copied(g blockdev.Range) {
	r.id++
	r.num++
	r.p.Copying(r.id, r.num, g)
	r.Returned(r.id, g, true)
	r.Acked(r.p, r.num)
}

func (r *rig) flushBegins() (id, num uint64) {
	r.id++
	r.num++
	if r.FlushBegins(r.id) {
		r.FlushSent(r.p, r.num)
	}
	return r.id, r.num
}

func (r *rig) flushed() {
	id, num := r.flushBegins()
	r.FlushReturned(id, true)
	r.Acked(r.p, num)
}

func TestMarkOfAMemberLeavesWhenWrittenAndFlushedOnBoth(t *testing.T) {
	g := at(100, 5000) // two blocks, both in part
	for name, c := range map[string]struct {
		do   func(r *rig)
		left int64 // blocks
	}{
		"written here only":      {func(r *rig) { id, _ := r.sent(g); r.Returned(id, g, true); r.flushed() }, 2}, // in flight when it began
		"written there only":     {func(r *rig) { _, num := r.sent(g); r.Acked(r.p, num); r.flushed() }, 2},
		"written on both":        {func(r *rig) { r.both(g) }, 2},
		"flushed on both":        {func(r *rig) { r.both(g); r.flushed() }, 0},
		"flushed here only":      {func(r *rig) { r.both(g); id, _ := r.flushBegins(); r.FlushReturned(id, true) }, 2},
		"flushed there only":     {func(r *rig) { r.both(g); _, num := r.flushBegins(); r.Acked(r.p, num) }, 2},
		"flush failed here":      {func(r *rig) { r.both(g); id, num := r.flushBegins(); r.FlushReturned(id, false); r.Acked(r.p, num) }, 2},
		"stream broke meanwhile": {func(r *rig) { r.both(g); id, _ := r.flushBegins(); r.Broke(r.p); r.FlushReturned(id, true) }, 2},
		"write failed here":      {func(r *rig) { id, num := r.sent(g); r.Returned(id, g, false); r.Acked(r.p, num); r.flushed() }, 2},
		"written since": {func(r *rig) {
			r.both(g)
			id, num := r.flushBegins()
			r.both(at(0, 1))
			r.FlushReturned(id, true)
			r.Acked(r.p, num)
		}, 1},
		"in flight at the flush": {func(r *rig) { r.both(g); id, _ := r.sent(at(0, 1)); r.flushed(); r.Returned(id, at(0, 1), true) }, 1},
		"and flushed once more": {func(r *rig) {
			r.both(g)
			id, _ := r.sent(at(0, 1))
			r.flushed()
			r.Returned(id, at(0, 1), true)
			r.flushed()
		}, 0},
		"sent again after break":  {func(r *rig) { r.both(g); r.Broke(r.p); r.copied(blockRange(0, 2)); r.flushed() }, 0},
		"written after the break": {func(r *rig) { r.both(g); r.Broke(r.p); r.both(g); r.flushed() }, 2},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig()
			c.do(r)
			if left := r.p.Marked() / blockSize; left != c.left {
				t.Errorf("%d blocks are marked, want %d", left, c.left)
			}
		})
	}
}

func TestMarkOfAnotherLeavesOnlyWhenTheWholeBlockWasCopiedOrOverwritten(t *testing.T) {
	last := at(10*blockSize, 100) // short
	for name, c := range map[string]struct {
		do   func(r *rig)
		left int64
	}{
		"partial write":         {func(r *rig) { r.both(at(0, blockSize-1)) }, 11},
		"two halves":            {func(r *rig) { r.both(at(0, 2048)); r.both(at(2048, 2048)) }, 11},
		"whole overwrite":       {func(r *rig) { r.both(at(0, blockSize)) }, 10},
		"one whole, two partly": {func(r *rig) { r.both(at(100, 2*blockSize)) }, 10},
		"short last block":      {func(r *rig) { r.both(last) }, 10},
		"last block in part":    {func(r *rig) { r.both(at(10*blockSize, 99)) }, 11},
		"copy":                  {func(r *rig) { r.copied(blockRange(3, 4)) }, 7},
		"copy, then a partial":  {func(r *rig) { r.copied(blockRange(0, 1)); r.both(at(0, 1)) }, 10},
		"copy not returned":     {func(r *rig) { r.id++; r.num++; r.p.Copying(r.id, r.num, blockRange(0, 1)) }, 11},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig()
			r.p.Load(at(0, testSize))
			c.do(r)
			if r.p.Marked()/blockSize != 11 {
				t.Error("a mark left before the flush")
			}
			r.flushed()
			if left := r.p.Marked() / blockSize; left != c.left {
				t.Errorf("%d blocks are marked, want %d", left, c.left)
			}
		})
	}
}

// R15: what is copied is the union, in ascending order, each once.
func TestTakeHandsOutTheUnionOfBothMaps(t *testing.T) {
	r := newRig()
	r.p.Missed(at(100, 10))
	r.both(blockRange(5, 1)) // live: not copied
	theirs := bitmap.New(Blocks(testSize))
	theirs.Set(3, 6)
	theirs.Set(10, 11)
	r.p.Unite(theirs)
	var got []blockdev.Range
	for g, ok := r.p.Take(2 * blockSize); ok; g, ok = r.p.Take(2 * blockSize) {
		got = append(got, g)
		r.id++
		r.num++
		r.p.Copying(r.id, r.num, g)
	}
	want := []blockdev.Range{blockRange(0, 1), blockRange(3, 2), blockRange(5, 1), at(10*blockSize, 100)}
	if !slices.Equal(got, want) {
		t.Errorf("copied %v, want %v", got, want)
	}
	if r.p.Behind() != 5*blockSize || !r.p.Unsettled(at(3*blockSize+5, 1)) || r.p.Unsettled(blockRange(1, 2)) {
		t.Errorf("%d bytes are behind", r.p.Behind())
	}
}

func TestStandbyClearsByTheTrackedFlushOnly(t *testing.T) {
	s := NewStandby(testSize, []string{"alpha", "gamma"})
	s.Take(1, blockRange(0, 2))
	s.Flush(2)
	s.Take(3, blockRange(1, 1))
	s.Durable(1, []string{"alpha", "gamma"}) // of an older flush: too late
	s.Durable(0, []string{"alpha"})
	if s.Marks("alpha").Count() != 2 {
		t.Error("a word about another flush was taken")
	}
	s.Durable(2, []string{"alpha", "omega"})
	if s.Marks("alpha").Count() != 1 || !s.Marks("alpha").Test(1) || s.Marks("gamma").Count() != 2 {
		t.Errorf("%d and %d blocks are marked", s.Marks("alpha").Count(), s.Marks("gamma").Count())
	}
	s.Broke()
	s.Durable(2, []string{"gamma"})
	if s.Marks("gamma").Count() != 2 {
		t.Error("a word of a stream that ended was taken")
	}
}

// R29: only what is not known to be on every member has to be settled by a member that is promoted.
func TestUnsettledIsWhatIsNotStable(t *testing.T) {
	s := NewStandby(testSize, []string{"alpha", "gamma"})
	s.Take(1, blockRange(0, 1))
	s.Take(2, blockRange(4, 1))
	s.Take(4, blockRange(6, 2))
	s.Stable(2)
	u := s.Unsettled()
	if u.Count() != 2 || !u.Test(6) {
		t.Errorf("%d blocks are unsettled", u.Count())
	}
	m := NewPrimary(testSize, "beta", []string{"gamma"})
	m.Tell = true
	p := m.Peers()[0]
	p.Adopt(s.Marks("gamma"), u)
	if p.Behind() != 2*blockSize || p.Marked() != 4*blockSize {
		t.Errorf("%d bytes are behind, %d marked", p.Behind(), p.Marked())
	}
	s.Begin()
	if s.Unsettled().Count() != 0 || s.Marks("gamma").Count() != 4 {
		t.Error("a new stream begins with what was unsettled, or without the marks")
	}
}

// R16: a number lower than what the other side knows to have been promised.
func TestJudgeTellsAMapThatWentBack(t *testing.T) {
	for _, c := range []struct {
		a, b Number
		ok   bool
	}{
		{Number{}, Number{}, true},
		{Number{5, 5}, Number{5, 5}, true},
		{Number{5, 4}, Number{4, 4}, true}, // a crash between the promises
		{Number{5, 5}, Number{5, 4}, true}, // a crash before the other settled
		{Number{9, 5}, Number{5, 3}, true}, // others took part meanwhile
		{Number{5, 5}, Number{4, 4}, false},
		{Number{4, 4}, Number{6, 5}, false},
		{Number{}, Number{1, 1}, false}, // made anew
	} {
		if ab, ba := Judge(c.a, c.b), Judge(c.b, c.a); (ab == nil) != c.ok || (ba == nil) != c.ok {
			t.Errorf("%v and %v: %v, %v", c.a, c.b, ab, ba)
		}
	}
	if n := Next(Number{4, 2}, Number{7, 1}, Number{}); n != 8 {
		t.Errorf("the next clearing is %d", n)
	}
}

func TestRegionsLeaveWhenQuietAndNotWrittenSince(t *testing.T) {
	const size, region = 64 << 20, 4 << 20
	s := NewRegions(size, region)
	marks := bitmap.New(Blocks(size))
	marks.Set(3*1024, 3*1024+1) // region 3 is not quiet
	stored := func(g int64) bool { return g < 8 }
	s.Touch(at(5*region-1, 2)) // 4 and 5 are in use
	if n := s.Begin(1, stored, []*bitmap.Bitmap{marks}, false); n != 5 {
		t.Errorf("%d candidates, want 0, 1, 2, 6, 7", n)
	}
	s.Touch(at(region, 1))
	if s.End(2) != nil {
		t.Error("another clearing ended this one")
	}
	gone := s.End(1)
	if gone.Count() != 4 || gone.Test(1) || gone.Test(3) || gone.Test(4) || !gone.Test(7) {
		t.Errorf("%d regions leave", gone.Count())
	}
	if s.End(1) != nil {
		t.Error("a clearing ended twice")
	}
	if n := s.Begin(2, stored, nil, false); n != 7 {
		t.Errorf("%d candidates at the second look, want all but 1", n)
	}
	s.Abort()
	if s.End(2) != nil {
		t.Error("a clearing that was given up ended")
	}
	if n := s.Begin(3, stored, nil, true); n != 8 || !s.Covered(stored, bitmap.New(Blocks(size))) {
		t.Errorf("%d candidates of all", n)
	}
	marks.Set(9*1024, 9*1024+1)
	if s.Covered(stored, marks) {
		t.Error("a mark outside of what is stored is covered")
	}
}

// A block that was clean and copied all the same (it is read as a whole with what lies beside) and comes behind later is not
// covered by a flush that went before it was copied again.
func TestFlushDoesNotCoverWhatIsCopiedAfterIt(t *testing.T) {
	r := newRig()
	r.copied(blockRange(3, 1))
	r.p.Load(blockRange(0, 5))
	flush, num := r.flushBegins()
	r.copied(blockRange(3, 1)) // its own disk takes its time for the flush
	r.Acked(r.p, num)
	r.FlushReturned(flush, true)
	if !r.p.MayDiffer(blockRange(3, 1)) {
		t.Error("the mark has left although the copy is not durable")
	}
	r.flushed()
	if r.p.MayDiffer(blockRange(3, 1)) || !r.p.MayDiffer(blockRange(2, 1)) {
		t.Error("after a flush behind it, it and nothing else is clean")
	}
}

func TestRangesAreWhatIsBehindWithin(t *testing.T) {
	p := NewPrimary(10*blockSize+100, "p", []string{"s"}).Peer("s")
	for _, b := range []int64{1, 2, 5, 10} {
		p.Missed(blockdev.Range{Off: b * blockSize, Len: 1})
	}
	got := p.Ranges(blockdev.Range{Off: 2 * blockSize, Len: 8*blockSize + 100}, nil)
	want := []blockdev.Range{{Off: 2 * blockSize, Len: blockSize}, {Off: 5 * blockSize, Len: blockSize}, {Off: 10 * blockSize, Len: 100}}
	if !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if got := p.Ranges(blockdev.Range{Off: 3 * blockSize, Len: blockSize}, nil); len(got) != 0 {
		t.Errorf("%v of what is alike", got)
	}
}

// chosen are the regions that a round gives back when all that is in hot is marked and nothing differs.
func chosen(s *Regions, n uint64, hot *bitmap.Bitmap, limit int64) (all []int64) {
	s.Choose(n, hot, nil, limit)
	gone := s.End(n)
	for i, ok := gone.Next(0); ok; i, ok = gone.Next(i + 1) {
		all = append(all, i)
	}
	return all
}

func TestWithARegionThoseOfItsSpanLeave(t *testing.T) {
	s := NewRegions(4*Span*4096, 4096)
	hot := bitmap.New(4 * Span)
	hot.Set(Span+3, Span+4)
	hot.Set(3*Span, 3*Span+1)
	s.Touch(at((Span+5)*4096, 1))
	s.Touch(at(3*Span*4096, 1))
	got := chosen(s, 1, hot, 4*Span)
	if len(got) != Span-1 || got[0] != Span || got[len(got)-1] != 2*Span-1 || slices.Contains(got, int64(Span+5)) {
		t.Errorf("%v leave, want the span of the one that nobody uses, but for %d, which is used", got, Span+5)
	}
}

func TestRegionsThatComeBackAreKeptForLonger(t *testing.T) {
	const n = 256
	s := NewRegions(n*4096, 4096)
	hot := bitmap.New(n)
	lost := 0
	for round := range 200 { // one half in every round, the other in every second one
		for i := range int64(n) {
			if i%2 == 0 || round%2 == 0 {
				s.Touch(at(i*4096, 1))
				hot.Set(i, i+1)
			}
		}
		gone := chosen(s, uint64(round+1), hot, n)
		for _, i := range gone {
			hot.Clear(i, i+1)
		}
		if round >= 4 && round < 30 {
			lost += len(gone)
		}
	}
	if lost > 0 {
		t.Errorf("%d regions were given back that come back in the next round", lost)
	}
	hot.Set(0, n)
	if got := chosen(s, 1000, hot, n); len(got) != n {
		t.Errorf("%d regions of an idle volume are given back, want all", len(got))
	}
}

func TestRegionsOfALoadThatGoesOnAreNotKept(t *testing.T) {
	const n, step = 4096, 64
	s := NewRegions(n*4096, 4096)
	hot := bitmap.New(n)
	for round := range int64(n / step) {
		s.Touch(at(round*step*4096, step*4096))
		hot.Set(round*step, (round+1)*step)
		for _, i := range chosen(s, uint64(round+1), hot, n) {
			hot.Clear(i, i+1)
		}
		if hot.Count() > 2*step {
			t.Fatalf("round %d: %d regions are marked, %d are written in a round", round, hot.Count(), step)
		}
	}
}

func TestAboveTheLimitRegionsInUseLeaveToo(t *testing.T) {
	const n = 4 * Span
	s := NewRegions(n*4096, 4096)
	hot := bitmap.New(n)
	hot.Set(0, n)
	s.recent.count = 2
	s.Touch(at(0, Span*4096))
	s.recent.turn()
	s.Touch(at(Span*4096, Span*4096))
	if got := chosen(s, 1, hot, 2*Span); len(got) != 2*Span {
		t.Errorf("%d leave at the limit, want those that were not in use", len(got))
	}
	s.recent.count = 2
	s.Touch(at(0, 1))
	if got := chosen(s, 2, hot, Span); len(got) != n-1 {
		t.Errorf("%d leave above the limit, want all but what was in use in the last round", len(got))
	}
	s.Touch(at(0, n*4096))
	if got := chosen(s, 3, hot, Span); len(got) != n {
		t.Errorf("%d leave above the limit, want all", len(got))
	}
}

func TestRegionsThatWaitForAFlushAreCounted(t *testing.T) {
	p := NewPrimary(4*Span*4096, "p", []string{"s"})
	p.Peers()[0].Load(at(0, 3*4096))
	s := NewRegions(4*Span*4096, 4096)
	hot := bitmap.New(4 * Span)
	hot.Set(0, 10)
	s.Touch(at(0, 1))
	s.Choose(1, hot, p.Peers(), 4*Span)
	if s.Waiting() != 2 {
		t.Errorf("%d wait, want those that differ and are not in use", s.Waiting())
	}
}

func TestMoreIsMarkedAheadTheMoreIsMissed(t *testing.T) {
	var a Ahead
	covered, misses := int64(0), 0
	for ; covered < 16384; misses++ {
		w := a.Miss(time.Second)
		if misses < fewMisses && w != 1 {
			t.Fatalf("miss %d marks %d regions", misses, w)
		}
		covered += w
	}
	if misses > 1000 {
		t.Errorf("%d misses for 64 GiB", misses)
	}
	soon, late := a, a
	if w := soon.Miss(time.Second + aheadTime); w < 16 {
		t.Errorf("%d regions when the load comes back to what was given back meanwhile", w)
	}
	if w := late.Miss(time.Second + 8*aheadTime); w != 1 {
		t.Errorf("%d regions after a long pause", w)
	}
}

// A resync that is dense costs a flush for each span in the end, one that is scattered marks what it writes.
func TestADenseResyncMarksSpans(t *testing.T) {
	var s Run
	misses, end := 0, int64(0)
	for region := int64(3); region < 100*Span; region++ {
		if region < end {
			continue // it is marked
		}
		misses++
		w := s.Miss(region)
		if first := region &^ (w - 1); w < 1 || w > Span || w&(w-1) != 0 || region >= first+w {
			t.Fatalf("%d regions for region %d", w, region)
		}
		end = region&^(w-1) + w
	}
	if misses > 100+4 {
		t.Errorf("%d misses in 100 spans", misses)
	}
	for region := int64(0); region < 100*Span; region += 2 {
		if w := s.Miss(region); w != 1 {
			t.Fatalf("%d regions for region %d, whose neighbour was not written", w, region)
		}
	}
	if w := new(Run).Miss(0); w != 1 {
		t.Errorf("%d regions for the first miss", w)
	}
}

func TestFewMissesAgainAndAgainMarkNothingAhead(t *testing.T) {
	var a Ahead
	for i := range 20 * fewMisses {
		if w := a.Miss(time.Duration(i) * aheadTime / (fewMisses - 8)); w != 1 {
			t.Fatalf("miss %d marks %d regions", i, w)
		}
	}
}

func TestOfABusySpanNothingIsGivenBack(t *testing.T) {
	const n = 3 * Span
	s := NewRegions(n*4096, 4096)
	hot := bitmap.New(n)
	hot.Set(0, n)
	for i := range int64(busySpan) {
		s.Touch(at(9*i*4096, 1))
		s.Touch(at((Span+9*(i/2))*4096, 1))
	}
	if got := chosen(s, 1, hot, n); len(got) != 2*Span-busySpan/2 || got[0] <= Span {
		t.Errorf("%d leave from %d on, want all of the other spans but what is in use there", len(got), got[0])
	}
}
