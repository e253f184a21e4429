package replication

import (
	"fmt"
	"time"

	"hacluster/blockdev"
	"hacluster/blockdev/marks"
	"hacluster/replication/maps"
	"hacluster/replication/wire"
)

// Before anything of a region changes on the backing, the region is marked on stable storage for every other replica
// (R14): a write to one that is marked already, which is the common case, goes on at once; the others wait in the map for
// the next group, and are started by its end. Sending does not wait for that: each replica marks before its own write.
//
// A mark that cannot be made is a failed write (R23); the map is written anew when its disk works again (reviveMarks for a
// primary that is alone, reopen for all others). A Marks of nil marks nothing: then all blocks may differ (R16).

// newRegions is for the regions of cfg.Marks; nil without.
func (r *Replica) newRegions() *maps.Regions {
	if r.cfg.Marks == nil {
		return nil
	}
	return maps.NewRegions(r.cfg.Volume.Size, r.cfg.Marks.RegionSize())
}

// mark is Mark for every other replica, and ahead of what a scattered load will write next.
func (r *Replica) mark(at blockdev.Range, w marks.Waiter) (ready bool, err error) {
	return r.markAhead(at, r.width, w)
}

func (r *Replica) markAhead(at blockdev.Range, width func(int64) int64, w marks.Waiter) (ready bool, err error) {
	slots := r.roster.Load().all
	if slots == 0 {
		return true, nil
	}
	ready, err = r.cfg.Marks.MarkAhead(at, width, slots, w)
	if err != nil {
		return false, unmarked(at, err)
	}
	return ready, nil
}

// missed is how many regions are marked where one is not. Nothing is marked ahead that the next round would have to give
// back because of its limit.
func (r *Replica) missed(int64) int64 {
	m := r.cfg.Marks
	r.aheadMu.Lock()
	defer r.aheadMu.Unlock()
	width := r.ahead.Miss(time.Duration(r.node.Now()))
	if m.Hot() > hotBytes/m.RegionSize()/2 {
		return 1
	}
	return width
}

// runsOn is the same of a region that a resync writes.
func (r *Replica) runsOn(region int64) int64 {
	r.aheadMu.Lock()
	defer r.aheadMu.Unlock()
	return r.run.Miss(region)
}

func unmarked(at blockdev.Range, err error) error {
	return fmt.Errorf("note that %v may differ, before it is written: %w", at, err)
}

const noMarks = "no block can be marked before it is written, which is as good as a failed disk"

// reviveMarks has a map that failed under a primary written anew, again and again until its disk takes it: one that is alone
// has nobody to hand over to, and as long as nothing can be marked its clients are told errors.
func (r *Replica) reviveMarks() {
	m := r.cfg.Marks
	if m == nil || m.Failed() == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.node.Now()
	if r.stopped || now < r.again {
		return
	}
	r.again = now.Add(r.timers.drop())
	r.goes.Go(func() {
		if err := m.Revive(); err != nil {
			r.say(fmt.Sprintf("%s: %v", noMarks, err))
			return
		}
		r.mu.Lock()
		r.sayLocked("")
		r.revivedLocked()
		r.mu.Unlock()
		r.log.Info("the map of marks was written anew after its failure")
	})
}

// begins reports whether an operation may go to the local backing now; else Marked starts it. What only reads, or
// changes nothing by itself, always may.
func (o *op) begins() bool {
	if o.Kind == blockdev.OpFlush || o.IsCopy() || o.IsVoid() || o.IsLook() {
		return true
	}
	ready, err := o.t.r.mark(o.Range, o)
	if err != nil {
		o.unmarked, ready = err, true
	}
	return ready
}

// Marked implements marks.Waiter.
func (o *op) Marked(err error) {
	if err != nil {
		o.unmarked = unmarked(o.Range, err)
	}
	o.t.r.work.do(o)
}

// begins is the same for an entry of a standby.
func (e *entry) begins() bool {
	if e.follows || e.frame.Kind != wire.Write && e.frame.Kind != wire.Zero {
		return true
	}
	r := e.s.r
	width := r.width
	if e.frame.Flags&wire.Resync != 0 {
		width = r.runs
	}
	ready, err := r.markAhead(e.frame.Range, width, e)
	if err != nil {
		e.unmarked, ready = err, true
	}
	return ready && e.logs()
}

// Marked implements marks.Waiter.
func (e *entry) Marked(err error) {
	if err != nil {
		e.unmarked = unmarked(e.frame.Range, err)
	}
	if e.logs() {
		e.s.r.work.do(e)
	}
}

var (
	_ marks.Waiter = (*op)(nil)
	_ marks.Waiter = (*entry)(nil)
)
