package faultdev

import (
	"sync"
	"time"

	"hacluster/blockdev"
)

// Rule says which operations meet a fault, and which. The zero value of a selecting field selects everything. Several
// effects in one Rule add up: first the delay, then the stall, then the rest.
type Rule struct {
	// Op is the kind of operation; 0: all kinds. WriteFUA and WriteVAt are writes.
	Op blockdev.Op
	// Range is met by operations that share a byte with it; Len 0: everywhere. A flush has no range and always meets.
	Range blockdev.Range
	// Skip is how many matching operations pass unharmed first: Skip 2 begins with the third.
	Skip int64
	// Times is how many operations are met then; 0: all.
	Times int64

	// Fail makes the operation fail with Err, before it touches the device.
	Fail bool
	// Err is the error of Fail, reported as it is; nil: ErrInjected. An Err alone means Fail.
	Err error
	// Applied makes a failing operation take effect all the same: the disk did it, the answer was lost.
	Applied bool
	// Stall holds the operation until the Handle releases it; then it goes on.
	Stall bool
	// Delay makes the operation slow by that much; a release ends it early.
	Delay time.Duration
	// Short carries out the first half and reports an error.
	Short bool
	// Rot flips a bit of what a read returns; the device itself is not changed.
	Rot bool
	// Lose reports success and does nothing: a lying flush, a lost write. Reads do not know it.
	Lose bool
}

// Counts is how often each fault was injected.
type Counts struct{ Errors, Stalls, Delays, Shorts, Rots, Losses int64 }

// Handle is a Rule in force.
type Handle struct {
	dev      *Dev
	rule     Rule
	once     sync.Once
	released chan struct{} // closed by Release

	// guarded by dev.mu
	seen, hits int64
	waiting    int
	changed    chan struct{} // closed and replaced when hits or waiting change
}

// Add puts a rule in force.
func (d *Dev) Add(r Rule) *Handle {
	if r.Fail && r.Err == nil {
		r.Err = ErrInjected
	}
	h := &Handle{dev: d, rule: r, released: make(chan struct{}), changed: make(chan struct{})}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.rules = append(d.rules, h)
	return h
}

// Clear takes all rules out of force and releases what they hold.
func (d *Dev) Clear() {
	d.mu.Lock()
	rules := d.rules
	d.rules = nil
	d.mu.Unlock()
	for _, h := range rules {
		h.Release()
	}
}

// Counts reports what was injected since New.
func (d *Dev) Counts() Counts {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.counts
}

// Remove takes the rule out of force and releases what it holds.
func (h *Handle) Remove() {
	d := h.dev
	d.mu.Lock()
	for i, o := range d.rules {
		if o == h {
			d.rules = append(d.rules[:i:i], d.rules[i+1:]...)
			break
		}
	}
	d.mu.Unlock()
	h.Release()
}

// Release lets the stalled and delayed operations of the rule go on, now and from now on; its other effects stay.
func (h *Handle) Release() { h.once.Do(func() { close(h.released) }) }

// Hits is how many operations the rule met.
func (h *Handle) Hits() int64 {
	h.dev.mu.Lock()
	defer h.dev.mu.Unlock()
	return h.hits
}

// Waiting is how many operations the rule holds at the moment.
func (h *Handle) Waiting() int {
	h.dev.mu.Lock()
	defer h.dev.mu.Unlock()
	return h.waiting
}

// Changed returns a channel that is closed at the next change of Hits or Waiting. Take it before looking at them.
func (h *Handle) Changed() <-chan struct{} {
	h.dev.mu.Lock()
	defer h.dev.mu.Unlock()
	return h.changed
}
