// Package timed wraps a device and watches how long its operations take (R26: a stall is a failure). An operation that
// is outstanding longer than the deadline is reported once, while it goes on: it is never abandoned, repeated or
// answered for the disk, since a hung write may still land at any later time. What follows from a stall is decided by
// who is told.
//
// Watching costs the path of an operation one reading of the clock, two atomic exchanges and one atomic load. There is no timer and no
// goroutine for an operation:
//
//	operation:  take a free slot -> note what and since when -> the device -> leave the slot
//	watcher:    one goroutine, each eighth of the deadline: look through the slots; it sleeps while nothing is in flight,
//	            and the operation that finds it asleep wakes it up: a node with a thousand idle volumes has no timer for them
//
// Replication wraps every backing in it. It refuses nothing.
package timed

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"hacluster/blockdev"
	"hacluster/blockdev/backend/internal/forward"
)

// Config says when an operation is stalled and who is told.
type Config struct {
	// Deadline is how long an operation may be outstanding; a stall is noticed at most an eighth later. Shorter finds
	// a hung disk sooner, longer forgives a slow one. Default 5 s.
	Deadline time.Duration
	// OnStall is told of each stalled operation once, while it is outstanding. It is called from the watcher, one at a
	// time, and must not block. A flush has an empty range. May be nil.
	OnStall func(op blockdev.Op, r blockdev.Range, since time.Duration)
	// OnError is told of each write, zeroing and flush that failed, before its caller is: whoever dies in between must
	// not have forgotten it. It is called in the caller's goroutine. May be nil.
	OnError func(op blockdev.Op, err error)
}

// Dev is the watched device. Make one with New; Close ends the watching.
type Dev struct {
	inner   blockdev.Device
	cfg     Config
	slots   slots
	stalled atomic.Int64 // operations that are past the deadline and outstanding
	turned  int64        // the watcher's own: when it last looked, since slots.base
	asleep  atomic.Bool  // the watcher has no timer: whoever enters a slot wakes it
	waking  chan int64   // to the watcher: when the operation that found it asleep began, since slots.base; room for one

	closeOnce sync.Once
	deadline  atomic.Int64  // nanoseconds
	changed   chan struct{} // to the watcher: the deadline is another; room for one
	stop      chan struct{} // closed by Close
	watching  sync.WaitGroup
}

var (
	_ blockdev.Device       = (*Dev)(nil)
	_ blockdev.VectorWriter = (*Dev)(nil)
	_ blockdev.Mapper       = (*Dev)(nil)
	_ blockdev.Allocator    = (*Dev)(nil)
	_ blockdev.Reopener     = (*Dev)(nil)
	_ blockdev.DiskReader   = (*Dev)(nil)
)

// New watches dev, which it closes with itself.
func New(dev blockdev.Device, cfg Config) *Dev {
	if cfg.Deadline < 0 {
		panic(fmt.Sprintf("timed: deadline %v is negative", cfg.Deadline))
	}
	if cfg.Deadline == 0 {
		cfg.Deadline = 5 * time.Second
	}
	d := &Dev{inner: dev, cfg: cfg, waking: make(chan int64, 1), changed: make(chan struct{}, 1), stop: make(chan struct{})}
	d.deadline.Store(int64(cfg.Deadline))
	d.slots.init()
	d.watching.Go(d.watch)
	return d
}

// SetDeadline changes the deadline, for operations that are outstanding too.
func (d *Dev) SetDeadline(after time.Duration) {
	if after <= 0 {
		panic(fmt.Sprintf("timed: deadline %v", after))
	}
	d.deadline.Store(int64(after))
	select {
	case d.changed <- struct{}{}:
	default:
	}
}

// Stalled reports whether an operation that exceeded the deadline is still outstanding.
func (d *Dev) Stalled() bool { return d.stalled.Load() > 0 }

// Outstanding is the number of operations that have not returned.
func (d *Dev) Outstanding() int { return d.slots.busy() }

// Size implements blockdev.Device.
func (d *Dev) Size() int64 { return d.inner.Size() }

// ReadAt implements blockdev.Device.
func (d *Dev) ReadAt(p []byte, off int64) (int, error) {
	s := d.enter(blockdev.OpRead, blockdev.Range{Off: off, Len: int64(len(p))})
	defer d.leave(s)
	return d.inner.ReadAt(p, off)
}

// ReadDiskAt implements blockdev.DiskReader.
func (d *Dev) ReadDiskAt(p []byte, off int64) (int, error) {
	s := d.enter(blockdev.OpRead, blockdev.Range{Off: off, Len: int64(len(p))})
	defer d.leave(s)
	return forward.ReadDisk(d.inner, p, off)
}

// WriteAt implements blockdev.Device.
func (d *Dev) WriteAt(p []byte, off int64) (int, error) {
	s := d.enter(blockdev.OpWrite, blockdev.Range{Off: off, Len: int64(len(p))})
	defer d.leave(s)
	return d.told(d.inner.WriteAt(p, off))
}

// WriteFUA implements blockdev.Device.
func (d *Dev) WriteFUA(p []byte, off int64) (int, error) {
	s := d.enter(blockdev.OpWrite, blockdev.Range{Off: off, Len: int64(len(p))})
	defer d.leave(s)
	return d.told(d.inner.WriteFUA(p, off))
}

// WriteVAt implements blockdev.VectorWriter.
func (d *Dev) WriteVAt(segments [][]byte, off int64) (int, error) {
	s := d.enter(blockdev.OpWrite, blockdev.Range{Off: off, Len: forward.Len(segments)})
	defer d.leave(s)
	return d.told(forward.WriteV(d.inner, segments, off))
}

// Zero implements blockdev.Device.
func (d *Dev) Zero(r blockdev.Range, unmap bool) error {
	s := d.enter(blockdev.OpZero, r)
	defer d.leave(s)
	return d.tell(blockdev.OpZero, d.inner.Zero(r, unmap))
}

// Flush implements blockdev.Device.
func (d *Dev) Flush() error {
	s := d.enter(blockdev.OpFlush, blockdev.Range{})
	defer d.leave(s)
	return d.tell(blockdev.OpFlush, d.inner.Flush())
}

// Reopen implements blockdev.Reopener. It is timed like a flush: it waits for the disk as one does.
func (d *Dev) Reopen() error {
	s := d.enter(blockdev.OpFlush, blockdev.Range{})
	defer d.leave(s)
	return forward.Reopen(d.inner)
}

// Allocate implements blockdev.Allocator. It is timed like a write.
func (d *Dev) Allocate(r blockdev.Range) error {
	s := d.enter(blockdev.OpWrite, r)
	defer d.leave(s)
	return forward.Allocate(d.inner, r)
}

// Extents implements blockdev.Mapper. It is timed like a read, for it may wait for the disk's metadata; what fn does is not.
func (d *Dev) Extents(r blockdev.Range, fn func(e blockdev.Range, hole bool) bool) error {
	for at := r.Off; ; {
		all, err := d.extents(blockdev.Range{Off: at, Len: r.Len - (at - r.Off)})
		for _, e := range all {
			if !fn(e.Range, e.hole) {
				return nil
			}
			at = e.End()
		}
		if err != nil || len(all) == 0 || at >= r.End() {
			return err
		}
	}
}

type extent struct {
	blockdev.Range
	hole bool
}

// maxExtents are asked for at a time.
const maxExtents = 16

func (d *Dev) extents(r blockdev.Range) (all []extent, err error) {
	s := d.enter(blockdev.OpRead, r)
	defer d.leave(s)
	err = forward.Extents(d.inner, r, func(e blockdev.Range, hole bool) bool {
		all = append(all, extent{e, hole})
		return len(all) < maxExtents
	})
	return all, err
}

// Close implements blockdev.Device. The watching goes on while the wrapped device waits for operations in flight.
func (d *Dev) Close() error {
	err := d.inner.Close()
	d.closeOnce.Do(func() { close(d.stop) })
	d.watching.Wait()
	return err
}

func (d *Dev) told(n int, err error) (int, error) { return n, d.tell(blockdev.OpWrite, err) }

func (d *Dev) tell(op blockdev.Op, err error) error {
	if err != nil && d.cfg.OnError != nil {
		d.cfg.OnError(op, err)
	}
	return err
}

// enter notes an operation. The slot is written before asleep is read, and the watcher looks through the slots after it has set that:
// one of the two sees the other.
func (d *Dev) enter(op blockdev.Op, r blockdev.Range) *slot {
	s := d.slots.enter(op, r)
	d.wake(s)
	return s
}

// wake wakes the watcher for the operation in s, if it sleeps.
func (d *Dev) wake(s *slot) {
	if d.asleep.Load() && d.asleep.CompareAndSwap(true, false) {
		d.waking <- s.state.Load()>>1 + d.slots.paused.Load() // there is room: the watcher takes it before it sleeps again
	}
}

// leave ends an operation; the watcher may be marking it at this very moment.
func (d *Dev) leave(s *slot) {
	if s.leave() {
		d.stalled.Add(-1)
	}
}

func (d *Dev) watch() {
	tick := time.NewTicker(d.interval())
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			d.turn()
			if d.rest() {
				tick.Stop()
			}
		case began := <-d.waking:
			d.turned = began // from then on this process may have been stopped
			d.turn()
			tick.Reset(d.interval())
		case <-d.changed:
			if !d.asleep.Load() {
				tick.Reset(d.interval())
			}
		case <-d.stop:
			return
		}
	}
}

// rest has the watcher sleep if nothing is in flight, and reports whether it may stop looking.
func (d *Dev) rest() bool {
	if d.slots.busy() > 0 {
		return false
	}
	d.asleep.Store(true)
	// Who has entered since and saw us awake is seen here. If another one has woken us up meanwhile, waking says so.
	return d.slots.busy() == 0 || !d.asleep.CompareAndSwap(true, false)
}

func (d *Dev) interval() time.Duration { return max(time.Duration(d.deadline.Load())/8, 1) }

// leastStop is how long the watcher has to have been kept from looking for that to count as a stop of the process.
const leastStop = time.Second

// turn looks, after it has taken out of the count the time in which this process did not run: one that was stopped must
// not find its disk guilty of that.
func (d *Dev) turn() {
	elapsed := int64(time.Since(d.slots.base))
	if gap := elapsed - d.turned; gap > int64(max(2*d.interval(), leastStop)) {
		d.slots.pause(gap - int64(d.interval()))
	}
	d.turned = elapsed
	d.look()
}

// look marks and reports operations that are newly past the deadline.
func (d *Dev) look() {
	now := d.slots.now()
	d.slots.each(func(s *slot) {
		seen := s.read()
		if !seen.running || seen.stalled || now-seen.start <= d.deadline.Load() {
			return
		}
		d.stalled.Add(1) // first, so that leave never takes away what was not added yet
		if !s.mark(seen) {
			d.stalled.Add(-1) // it returned meanwhile
			return
		}
		if d.cfg.OnStall != nil {
			d.cfg.OnStall(seen.op, seen.r, time.Duration(now-seen.start))
		}
	})
}
