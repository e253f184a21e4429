package faultdev

import (
	"fmt"
	"time"

	"hacluster/blockdev"
)

// meet finds the rules for an operation, waits where they say so, and returns their common effect.
func (d *Dev) meet(op blockdev.Op, r blockdev.Range) fault {
	d.mu.Lock()
	var hit []*Handle
	for _, h := range d.rules {
		if h.matchesLocked(op, r) {
			hit = append(hit, h)
		}
	}
	d.mu.Unlock()
	var f fault
	for _, h := range hit {
		h.hold()
		f.add(h.rule, op, r)
	}
	if len(hit) > 0 {
		d.count(f)
	}
	return f
}

// matchesLocked reports whether the rule meets the operation, and counts it.
func (h *Handle) matchesLocked(op blockdev.Op, r blockdev.Range) bool {
	if h.rule.Op != 0 && h.rule.Op != op {
		return false
	}
	if op != blockdev.OpFlush && h.rule.Range.Len > 0 && !h.rule.Range.Overlaps(r) {
		return false
	}
	if h.seen++; h.seen <= h.rule.Skip || h.rule.Times > 0 && h.hits >= h.rule.Times {
		return false
	}
	h.hits++
	if h.holds() {
		h.waiting++
		h.dev.countHoldLocked(h.rule)
	}
	h.changedLocked()
	return true
}

func (h *Handle) holds() bool { return h.rule.Stall || h.rule.Delay > 0 }

func (h *Handle) changedLocked() {
	close(h.changed)
	h.changed = make(chan struct{})
}

// hold waits as long as the rule wants.
func (h *Handle) hold() {
	if !h.holds() {
		return
	}
	if h.rule.Delay > 0 {
		t := time.NewTimer(h.rule.Delay)
		select {
		case <-t.C:
		case <-h.released:
			t.Stop()
		}
	}
	if h.rule.Stall {
		<-h.released
	}
	h.dev.mu.Lock()
	defer h.dev.mu.Unlock()
	h.waiting--
	h.changedLocked()
}

// add joins the effect of one rule. The first error stays.
func (f *fault) add(r Rule, op blockdev.Op, at blockdev.Range) {
	if r.Err != nil && f.err == nil {
		f.err = fmt.Errorf("%v %v: %w", op, at, r.Err)
		f.applied = r.Applied
	}
	f.short = f.short || r.Short && op != blockdev.OpFlush
	f.rot = f.rot || r.Rot && op == blockdev.OpRead
	f.lost = f.lost || r.Lose && op != blockdev.OpRead
}

func (d *Dev) countHoldLocked(r Rule) {
	if r.Stall {
		d.counts.Stalls++
	}
	if r.Delay > 0 {
		d.counts.Delays++
	}
}

// count counts what f does, not what the rules would have liked: an error hides the others.
func (d *Dev) count(f fault) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case f.err != nil:
		d.counts.Errors++
	case f.lost:
		d.counts.Losses++
	case f.short:
		d.counts.Shorts++
	}
	if f.rot && (f.err == nil || f.applied) {
		d.counts.Rots++
	}
}
