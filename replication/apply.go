package replication

import (
	"context"
	"errors"
	"sync"

	"hacluster/blockdev"
	"hacluster/blockdev/failpoint"
	"hacluster/blockdev/undo"
	"hacluster/heartbeat/cluster"
	"hacluster/replication/link"
	"hacluster/replication/order"
	"hacluster/replication/wire"
)

// entry is one frame on its way to a standby's backing. It holds the message that its payload lies in.
type entry struct {
	order.Item
	s     *session
	batch *link.Batch
	frame *wire.Frame
	// unmarked is why it must not change the backing: its region could not be marked.
	unmarked error
	follows  bool     // one that failed, and is not to be carried out
	early    bool     // it counts as received: who waits for that does not wait for the device too
	undo     bool     // what it overwrites must be logged before (R18)
	old      undo.Old // that, as far as it is known
	unlogged error    // why it is not
}

var entries = sync.Pool{New: func() any { e := new(entry); e.Owner = e; return e }}

func newEntry(s *session, b *link.Batch, f *wire.Frame) *entry {
	e := entries.Get().(*entry)
	b.Ref()
	e.s, e.batch, e.frame = s, b, f
	e.Range, e.Barrier = f.Range, f.Kind == wire.Flush || f.Kind == wire.Close
	return e
}

func (e *entry) free() {
	e.batch.Free()
	e.forgetOld()
	e.s, e.batch, e.frame, e.unmarked, e.follows, e.early, e.undo, e.unlogged, e.Fence = nil, nil, nil, nil, false, false, false, nil, false
	entries.Put(e)
}

// What may be taken from streams and not have returned from the device. At the limit the stream is not read.
const (
	maxTaken      = 1024
	maxTakenBytes = 64 << 20
)

// entry takes one sequenced frame: check its payload, take it in order, put it behind what it overlaps.
func (s *session) entry(ctx context.Context, b *link.Batch, f *wire.Frame) error {
	if err := f.Verify(); err != nil {
		return err // before anything was written (R21)
	}
	s.keep(b, f)
	r := s.r
	r.mu.Lock()
	if err := s.roomLocked(ctx); err != nil {
		r.mu.Unlock()
		return err
	}
	var dup bool
	err := s.overLocked()
	if err == nil {
		dup, err = r.recv.Take(s.stream, f.Seq, f.ID)
	}
	if dup || err != nil {
		last := r.recv.LastNum()
		r.mu.Unlock()
		if err == nil && !s.silent.Load() {
			s.box.Ack(min(last, f.Seq))
		}
		return err
	}
	if (f.Kind == wire.Write || f.Kind == wire.Zero) && r.recv.NeedsMark() {
		r.mu.Unlock()
		err = s.beginOverwriting()
		r.mu.Lock()
		if err != nil {
			r.recv.Failed(f.Seq) // it never gets to the device
			r.changeLocked()
			r.mu.Unlock()
			return err
		}
	}
	e := newEntry(s, b, f)
	e.undo = r.recv.NeedsUndo()
	if f.Kind == wire.Write || f.Kind == wire.Zero {
		if r.regs != nil {
			r.regs.Touch(f.Range)
		}
		if e.undo {
			e.old.At, e.old.Buf = r.seen.Old(f.Range)
		}
		r.seen.Overwrites(f.Range)
		r.hole.Overwrites(f.Range)
	}
	if e.early = r.vol.ModeBetween(r.vol.Primary, r.cfg.Node) == cluster.ModeSemisync; e.early && !s.silent.Load() {
		s.box.Received(f.Seq)
	}
	// In async a client may have been told that it is durable: what it wrote after that must not be on a disk without it (R13). The
	// primary says so, for its record may be newer than ours; one of an older version has no word for it.
	e.Fence = f.Flags&wire.Fence != 0 || r.vol.Fences(r.vol.Primary, r.cfg.Node) && (f.Kind == wire.Flush || f.Flags&wire.FUA != 0)
	r.taken += int64(f.PayloadLen())
	ready := r.queue.Admit(&e.Item)
	r.mu.Unlock()
	if ready {
		r.start(e)
	}
	return nil
}

// roomLocked waits until one more entry may be taken. It lets the lock go meanwhile.
func (s *session) roomLocked(ctx context.Context) error {
	r := s.r
	for r.recv.Outstanding() >= maxTaken || r.taken >= maxTakenBytes {
		r.full = true
		changed := r.watchLocked()
		r.mu.Unlock()
		s.box.Flush() // what is done may be told meanwhile
		select {
		case <-changed:
		case <-ctx.Done():
		}
		r.mu.Lock()
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}

// start carries an entry out, once its regions are marked: at once where that does not wait for a disk, else in a worker.
func (r *Replica) start(e *entry) {
	if !e.begins() {
		return
	}
	if r.cfg.Inline && e.frame.Kind == wire.Write && e.frame.Flags&wire.FUA == 0 && !e.early {
		e.carryOut() // the acknowledgement goes with those of all that the reader has
		return
	}
	r.work.do(e)
}

// run is an entry in a worker.
func (e *entry) run() {
	if e.frame.Kind == wire.Digest {
		e.look()
		return
	}
	box := e.s.box
	e.carryOut()
	box.Flush()
}

// carryOut carries an entry out, and then those that waited for it alone.
func (e *entry) carryOut() {
	var room [8]*order.Item
	err := e.unmarked
	if e.follows {
		err = errBroken
	}
	if err == nil && e.unlogged != nil {
		err = e.s.r.goOnWithout(e.unlogged)
	}
	if err == nil {
		failpoint.HitOne(e.Barrier, failpoint.StandbyFlush, failpoint.StandbyWrite)
		err = e.s.r.applyFrame(e)
		failpoint.HitOne(e.Barrier, failpoint.StandbyFlushed, failpoint.StandbyWritten)
	}
	for _, it := range e.s.r.finish(e, err, room[:0]) {
		next := it.Owner.(*entry)
		switch {
		case next.frame.Kind == wire.Digest:
			next.s.r.work.do(next) // it waits for the disk, which who reads a stream must not
		case next.begins():
			next.carryOut()
		}
	}
}

// look answers a digest request at its place in the order, in a worker. It is no part of the sequence: nothing of that
// waits for it but what overlaps it and came later.
func (e *entry) look() {
	s, r := e.s, e.s.r
	s.answerDigest(e.frame.ID, e.frame.Range, digester(e.frame.Flags))
	r.mu.Lock()
	ready := r.returnLocked(e, nil)
	r.mu.Unlock()
	e.free()
	for _, it := range ready {
		switch next := it.Owner.(*entry); {
		case next.frame.Kind == wire.Digest:
			r.work.do(next)
		default:
			r.start(next)
		}
	}
}

func (r *Replica) applyFrame(e *entry) error {
	f := e.frame
	if mutateFlush(f) {
		return nil
	}
	switch f.Kind {
	case wire.Write:
		return r.writeFrame(f)
	case wire.Zero:
		if err := r.dev.Zero(f.Range, f.Flags&wire.Unmap != 0); err != nil || f.Flags&wire.FUA == 0 {
			return err
		}
		return r.dev.Flush()
	case wire.Close:
		if r.broken() {
			return errBroken
		}
		if err := r.dev.Flush(); err != nil {
			return err
		}
		return r.closeResync(e.s)
	}
	return r.dev.Flush()
}

// writeFrame hands the payload's segments to the backing as they were received; one that needs aligned memory copies
// them itself. A durable write is made of one piece: it costs a copy and saves the flush of everything else.
func (r *Replica) writeFrame(f *wire.Frame) error {
	if f.Flags&wire.FUA == 0 {
		_, err := r.dev.WriteVAt(f.Payload, f.Range.Off)
		return err
	}
	if len(f.Payload) == 1 {
		_, err := r.dev.WriteFUA(f.Payload[0], f.Range.Off)
		return err
	}
	buf := blockdev.NewBuf(f.PayloadLen())
	defer buf.Free()
	rest := buf.Bytes()
	for _, s := range f.Payload {
		rest = rest[copy(rest, s):]
	}
	_, err := r.dev.WriteFUA(buf.Bytes(), f.Range.Off)
	return err
}

// finish tells that an entry returned from the device, acknowledges the new prefix, and appends to ready what may
// start now. An entry that failed is noted before any further answer, and before it counts as returned: until then no
// other stream is answered (R23).
func (r *Replica) finish(e *entry, err error, ready []*order.Item) []*order.Item {
	s, seq, kind := e.s, e.frame.Seq, e.frame.Kind
	switch {
	case errors.Is(err, errAwaits), errors.Is(err, errBroken): // the device is sound, or what broke it is noted
		s.silent.Store(true)
	case err != nil:
		s.silent.Store(true)
		if r.noteFailure(err) {
			s.refuseWith(failure(kind), err)
		}
	}
	var prefix uint64
	r.mu.Lock()
	if err != nil {
		r.recv.Failed(seq)
	} else {
		prefix = r.recv.Returned(seq)
	}
	ready = r.returnLocked(e, ready)
	r.taken -= int64(e.frame.PayloadLen())
	ack := err == nil && r.recv.MayAck(s.stream)
	if left := r.recv.Outstanding(); left == 0 || r.full && left < maxTaken/2 && r.taken < maxTakenBytes/2 {
		r.full = false
		r.changeLocked()
		if left == 0 && r.recv.Epoch() < r.vol.Epoch {
			r.wake() // Run waits for this to store the epoch
		}
	}
	r.mu.Unlock()
	if ack && !s.silent.Load() {
		failpoint.Hit(failpoint.StandbyAck)
		s.box.Ack(prefix)
	}
	e.free()
	return ready
}

// returnLocked takes an entry out of the queue and appends to ready what may start now. What follows one that failed starts only to
// end: the fence that it waited for did not make durable what came before (R13).
func (r *Replica) returnLocked(e *entry, ready []*order.Item) []*order.Item {
	ready = r.queue.Return(&e.Item, ready)
	for _, it := range ready {
		next := it.Owner.(*entry)
		next.follows = next.frame.Kind != wire.Digest && r.recv.Follows(next.frame.Seq)
	}
	return ready
}

func failure(k wire.Kind) wire.Code {
	if k == wire.Flush || k == wire.Close {
		return wire.FlushFailed
	}
	return wire.WriteFailed
}
