package sim

import (
	"errors"
	"time"

	"hacluster/blockdev"
)

// value is the content of a block: the number of the write that made it. Later writes have higher numbers; zero is
// what a fresh device holds.
type value uint32

// disk is a backing as the operating system shows it: what was written sits in memory until a flush, survives the
// process, and is lost block by block when the machine goes down.
type disk struct {
	w       *world
	node    *node
	cache   [blocks]value
	durable [blocks]value
	dirty   [blocks]bool   // a flush will write it; not set although cache and durable differ: a flush failed here
	running []*diskOp      // in the kernel
	failing int            // so many operations from now on fail
	stalls  int            // so many operations from now on take very long
	drags   int            // so many take as long as they may, just not too long
	bad     [blocks]bool   // clients cannot read it until it is written anew
	unseen  []*diskOp      // failed, and the process has not heard yet
	broken  *proc          // whose opening of the backing had a flush fail of which it has not heard yet: none succeeds any more
	seq     uint64         // counts the operations
	saved   [blocks]uint64 // what is durable is at least of this moment, in that count
}

type diskOp struct {
	kind     blockdev.Op
	from, to int // blocks [from, to)
	fua      bool
	value    value
	values   []value       // of a copy: one for each block; of a read: what was read
	snap     [blocks]value // the content when it started
	seq      uint64
	p        *proc
	began    int64
	watched  bool  // the watchdog has told of it
	client   bool  // a client reads
	bad      []int // blocks that could not be read
	doomed   bool  // a flush beside it or before it failed: the backing runs one at a time and makes a failure final
	err      error
	ended    bool
	done     func(*diskOp)
}

var errDisk = errors.New("input/output error")

// diskDeadline is for how long an operation may be outstanding before it counts as failed (R26).
const diskDeadline = 700 * time.Millisecond

func (d *disk) stalled() bool {
	for _, o := range d.running {
		if d.w.now-o.began > int64(diskDeadline) {
			return true
		}
	}
	return false
}

// lasting reports whether it succeeds only when what it wrote survives a loss of power.
func (o *diskOp) lasting() bool { return o.fua || o.kind == blockdev.OpFlush }

func (o *diskOp) changes() bool { return o.kind == blockdev.OpWrite || o.kind == blockdev.OpZero }

// start gives an operation to the kernel. done is called in p when it has returned.
func (d *disk) start(p *proc, o *diskOp, done func(*diskOp)) {
	w := d.w
	for _, r := range d.running {
		if o.changes() && r.changes() && r.from < o.to && o.from < r.to {
			w.violate("R33: on %s blocks %d-%d are written while a write of blocks %d-%d has not returned", d.node.name, o.from, o.to-1, r.from, r.to-1)
		}
	}
	o.done, o.p, o.began = done, p, w.now
	o.snap = d.cache
	d.seq++
	o.seq = d.seq
	o.doomed = o.lasting() && d.broken == p
	d.running = append(d.running, o)
	lat := w.between(50*time.Microsecond, 2*time.Millisecond)
	if w.chance(w.faults.slowDisk) {
		lat += w.between(10*time.Millisecond, 600*time.Millisecond)
	}
	if d.drags > 0 {
		d.drags--
		lat = w.between(diskDeadline*3/4, diskDeadline)
	}
	if d.stalls > 0 {
		d.stalls--
		w.badDisk = true
		lat += w.between(time.Second, 7*time.Second)
		w.tracef("disk %s: %v of blocks %d-%d hangs for %v", d.node.name, o.kind, o.from, o.to-1, lat)
	}
	boot := d.node.boot
	w.after(lat, func() {
		if d.node.boot != boot {
			return
		}
		d.end(o, !p.dead)
		if o.err != nil && o.kind != blockdev.OpRead {
			d.unseen = append(d.unseen, o)
		}
		w.push(event{at: w.now + int64(w.between(0, time.Millisecond)), proc: p, fn: func() {
			d.unseen = d.unseen[:0]
			if o.err != nil && o.lasting() {
				d.broken = nil // who has heard of it lets none succeed
			}
			o.done(o)
		}})
	})
}

// end lets an operation take effect. Only what a living process waits for fails: an error that nobody hears of is a
// hole that no user space program can close.
func (d *disk) end(o *diskOp, heard bool) {
	for i, r := range d.running {
		if r == o {
			d.running = append(d.running[:i], d.running[i+1:]...)
			break
		}
	}
	o.ended = true
	fails := heard && (d.failing > 0 && o.kind != blockdev.OpRead || o.doomed)
	if fails {
		if !o.doomed {
			d.failing--
		}
		d.w.counts.DiskErrors++
		d.w.badDisk = true
		o.err = errDisk
		d.w.tracef("disk %s: %v of blocks %d-%d fails", d.node.name, o.kind, o.from, o.to-1)
	}
	if fails && o.lasting() {
		d.broken = o.p
		for _, r := range d.running {
			r.doomed = r.doomed || r.lasting()
		}
	}
	switch o.kind {
	case blockdev.OpRead:
		o.values = append(o.values[:0], d.cache[o.from:o.to]...)
		if o.client {
			d.unread(o)
		}
	case blockdev.OpFlush:
		d.flush(o, fails)
	default:
		d.write(o, fails)
	}
}

func (o *diskOp) valueOf(b int) value {
	if o.values != nil {
		return o.values[b-o.from]
	}
	return o.value
}

func (d *disk) write(o *diskOp, fails bool) {
	for b := o.from; b < o.to; b++ {
		if fails && d.w.chance(0.5) {
			continue // undefined: old or new
		}
		if d.dirty[b] && d.w.chance(0.2) {
			d.durable[b] = d.cache[b] // the kernel wrote it back by itself
		}
		d.cache[b], d.dirty[b] = o.valueOf(b), true
		d.bad[b] = false
		if o.fua && !fails {
			d.durable[b], d.dirty[b], d.saved[b] = d.cache[b], false, d.seq
		}
	}
}

// flush makes durable what was there when it started. When it fails, the kernel gives up on the pages: they read as
// new, count as clean, and no later flush writes them.
func (d *disk) flush(o *diskOp, fails bool) {
	for b := range d.cache {
		switch {
		case !d.dirty[b]:
		case fails:
			if d.dirty[b] = false; d.w.chance(0.3) {
				d.durable[b] = d.cache[b]
			}
		case d.cache[b] == o.snap[b] || d.w.chance(0.5):
			d.durable[b], d.dirty[b], d.saved[b] = d.cache[b], false, d.seq
		case d.saved[b] < o.seq:
			d.durable[b], d.saved[b] = o.snap[b], o.seq
		}
	}
}

// powerLoss ends the machine's memory: each block that was not flushed is old or new by itself.
func (d *disk) powerLoss() {
	for _, o := range d.running {
		if o.changes() {
			for b := o.from; b < o.to; b++ {
				if d.w.chance(0.3) {
					d.durable[b] = o.valueOf(b)
					d.cache[b], d.dirty[b] = o.valueOf(b), true
				}
			}
		}
	}
	d.running = d.running[:0]
	for b := range d.cache {
		if d.dirty[b] && d.w.chance(0.5) {
			d.durable[b] = d.cache[b]
		}
		d.cache[b], d.dirty[b] = d.durable[b], false
	}
}
