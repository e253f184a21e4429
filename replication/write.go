package replication

import (
	"fmt"
	"hash/crc32"
	"sync"
	"sync/atomic"

	"hacluster/blockdev"
	"hacluster/replication/primary"
	"hacluster/replication/spool"
)

// op is one operation on its way: what the Core knows of it, and the data.
type op struct {
	primary.Op
	t        *Tenure
	req      *blockdev.Request // of a client; nil: our own
	buf      *blockdev.Buf     // payload of a write; a reference of its own, for it outlives the request
	sum      uint32
	zero     bool       // a copy whose content is all zeroes
	began    stamp      // of a client's operation that is timed; zero: it is not
	counted  bool       // its stages are timed, too
	unmarked error      // why it must not change the backing: its region could not be marked
	look     *look      // of a look: who looks
	done     chan error // of our own flush: gets the outcome; room for one
	reader   *op        // of a mend: the read that it is for
	at       spool.Place
	// refs is one for the Core until its Release, and one for each Complete that was taken and not carried out: the
	// two may be taken by different goroutines, and the second must not give away what the first still reports.
	refs atomic.Int32
}

var ops = sync.Pool{New: func() any { o := new(op); o.Owner = o; return o }}

func (t *Tenure) newOp(kind blockdev.Op, r blockdev.Range) *op {
	o := ops.Get().(*op)
	o.t, o.Kind, o.Range = t, kind, r
	o.refs.Store(1)
	return o
}

// release gives one reference back, and with the last one the memory.
func (o *op) release() {
	switch n := o.refs.Add(-1); {
	case n > 0:
		return
	case n < 0:
		panic(fmt.Sprintf("replication: %v of %v released more often than referenced", o.Kind, o.Range))
	}
	if o.buf != nil {
		o.buf.Free()
	}
	if !o.at.IsNone() {
		o.t.spool.free(o.at)
	}
	o.at = spool.Place{}
	o.t, o.req, o.buf, o.sum, o.zero, o.began, o.counted, o.unmarked, o.look, o.done, o.reader = nil, nil, nil, 0, false, 0, false, nil, nil, nil, nil
	o.Reset()
	ops.Put(o)
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Submit starts a client's operation; the order of calls is the order of admission (R33). It waits for nothing but a
// backing that takes a write without waiting for a disk. How much is under way is bounded by the frontends.
func (t *Tenure) Submit(req *blockdev.Request) {
	began, counted := t.r.meter.begin(req)
	o := t.newOp(req.Op, req.Range)
	o.began, o.counted = began, counted
	o.req, o.FUA, o.Unmap, o.sum = req, req.FUA, req.Unmap, req.Sum
	if req.Op == blockdev.OpRead {
		t.read(o)
		return
	}
	if req.Buf != nil {
		req.Buf.Ref()
		o.buf = req.Buf
	}
	t.admit(o)
}

// admit is steps 1 and 3 of a write: into the order of the Core, to the peers, to the local backing. Until a hand-over
// is decided, operations wait outside.
func (t *Tenure) admit(o *op) {
	now, more := t.r.node.Now(), o.req != nil && o.req.More
	t.mu.Lock()
	switch {
	case t.ended:
		t.mu.Unlock()
		o.release() // its connection is closed without an answer
		return
	case t.handing.closed() && o.req != nil:
		t.held = append(t.held, o)
		t.mu.Unlock()
		return
	}
	t.core.Admit(now, &o.Op)
	acts := t.takeLocked()
	t.mu.Unlock()
	if acts != nil {
		acts.more = more // o may be another's by now
	}
	t.run(acts, client)
}

// admitBarrier has a flush of our own admitted, by which a change of the mode sees that every member has all before it.
func (t *Tenure) admitBarrier() {
	o := t.newOp(blockdev.OpFlush, blockdev.Range{})
	now := t.r.node.Now()
	t.mu.Lock()
	if t.ended || !t.core.AdmitBarrier(now, &o.Op) {
		t.mu.Unlock()
		o.release()
		return
	}
	acts := t.takeLocked()
	t.mu.Unlock()
	t.run(acts, loop)
}

// read does not pass the Core before its end, unless a member may be asked: there it waits for the writes that it may have
// seen (R29).
func (t *Tenure) read(o *op) {
	t.mu.Lock()
	if t.ended {
		t.mu.Unlock()
		o.release()
		return
	}
	if t.core.Balances() && t.core.BeginRead(t.r.node.Now(), &o.Op) {
		acts := t.takeLocked()
		acts.more = o.req.More
		t.mu.Unlock()
		t.run(acts, client)
		return
	}
	t.local++
	t.mu.Unlock()
	if t.r.cfg.Inline {
		t.readLocal(o, client)
		return
	}
	t.r.work.do(o)
}
