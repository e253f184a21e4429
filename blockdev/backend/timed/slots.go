package timed

import (
	"sync"
	"sync/atomic"
	"time"

	"hacluster/blockdev"
)

// chunkSlots is how many operations are watched before the table grows.
const chunkSlots = 64

// slot is one operation in flight. state tells what the other fields mean:
//
//	free -> claimed (by its operation, which fills in the fields) -> running since N -> free
//	                                                                  \-> running since N, stalled (by the watcher) -> free
//
// A running state holds the start time, so the watcher marks by compare-and-swap exactly the operation it looked at:
// by the time a start is past the deadline, no later operation can have the same one.
type slot struct {
	state atomic.Int64 // free, claimed, or start<<1 | stalled; starts are never below 1
	op    atomic.Uint32
	off   atomic.Int64
	len   atomic.Int64
	_     [32]byte // a slot fills a cache line: neighbours do not slow each other down
}

const (
	free    = 0
	claimed = 1 // start 0 with the stalled bit, which no running operation has
)

// slots is a table that only grows, to the highest number of operations that were ever in flight at once. The callers
// bound that number.
type slots struct {
	base   time.Time
	paused atomic.Int64  // nanoseconds since base that do not count
	next   atomic.Uint32 // where the next operation begins to look
	chunks atomic.Pointer[[]*[chunkSlots]slot]
	growMu sync.Mutex
}

func (t *slots) init() {
	t.base = time.Now().Add(-1) // so that no start is below 1
	t.chunks.Store(&[]*[chunkSlots]slot{new([chunkSlots]slot)})
}

// now counts nanoseconds on the monotonic clock, while this process runs.
func (t *slots) now() int64 { return max(int64(time.Since(t.base))-t.paused.Load(), 1) }

// pause takes d out of the count. An operation that began since, and took it for time that counts, begins anew.
func (t *slots) pause(d int64) {
	t.paused.Add(d)
	now := t.now()
	t.each(func(s *slot) {
		if seen := s.read(); seen.running && seen.start > now {
			s.state.CompareAndSwap(seen.state, now<<1|seen.state&1)
		}
	})
}

// enter notes an operation and returns its slot, to be left when it returns.
func (t *slots) enter(op blockdev.Op, r blockdev.Range) *slot {
	s := t.claim()
	s.op.Store(uint32(op))
	s.off.Store(r.Off)
	s.len.Store(r.Len)
	s.state.Store(t.now() << 1)
	return s
}

func (t *slots) claim() *slot {
	for {
		chunks := *t.chunks.Load()
		n := uint32(len(chunks) * chunkSlots)
		at := t.next.Add(1)
		for range n {
			s := &chunks[at%n/chunkSlots][at%chunkSlots]
			if s.state.Load() == free && s.state.CompareAndSwap(free, claimed) {
				return s
			}
			at++
		}
		t.grow(len(chunks))
	}
}

// grow adds a chunk unless somebody did since the table had from chunks.
func (t *slots) grow(from int) {
	t.growMu.Lock()
	defer t.growMu.Unlock()
	old := *t.chunks.Load()
	if len(old) != from {
		return
	}
	grown := append(old[:from:from], new([chunkSlots]slot))
	t.chunks.Store(&grown)
}

func (t *slots) each(fn func(*slot)) {
	for _, c := range *t.chunks.Load() {
		for i := range c {
			fn(&c[i])
		}
	}
}

func (t *slots) busy() int {
	n := 0
	t.each(func(s *slot) {
		if s.state.Load() != free {
			n++
		}
	})
	return n
}

// leave frees the slot and reports whether its operation had been marked as stalled.
func (s *slot) leave() (stalled bool) { return s.state.Swap(free)&1 != 0 }

// sight is what the watcher saw in a slot.
type sight struct {
	state            int64
	running, stalled bool
	start            int64
	op               blockdev.Op
	r                blockdev.Range
}

// read looks at the slot. The fields belong together only if mark succeeds afterwards.
func (s *slot) read() sight {
	state := s.state.Load()
	return sight{
		state:   state,
		running: state > claimed,
		stalled: state&1 != 0,
		start:   state >> 1,
		op:      blockdev.Op(s.op.Load()),
		r:       blockdev.Range{Off: s.off.Load(), Len: s.len.Load()},
	}
}

// mark makes the operation that was seen a stalled one; false when it is not there any more.
func (s *slot) mark(seen sight) bool { return s.state.CompareAndSwap(seen.state, seen.state|1) }
