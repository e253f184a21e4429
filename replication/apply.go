package replication

import (
	"errors"
	"sync"

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
	seq   uint64
}

var entries = sync.Pool{New: func() any { e := new(entry); e.Owner = e; return e }}

// entry takes one sequenced frame: check its payload, take it in order, put it behind what it overlaps.
func (s *session) entry(b *link.Batch, f *wire.Frame) error {
	if err := f.Verify(); err != nil {
		return err // before anything was written (R21)
	}
	r := s.r
	e := entries.Get().(*entry)
	e.s, e.batch, e.frame, e.seq = s, b, f, f.Seq
	e.Range, e.Barrier = f.Range, f.Kind == wire.Flush || f.Kind == wire.Close
	r.mu.Lock()
	dup, err := r.recv.Take(s.stream, f.Seq)
	if dup || err != nil {
		last := r.recv.LastNum()
		r.mu.Unlock()
		entries.Put(e)
		if err == nil {
			s.box.Ack(min(last, f.Seq))
		}
		return err
	}
	mark := (f.Kind == wire.Write || f.Kind == wire.Zero) && r.recv.NeedsMark()
	r.mu.Unlock()
	if mark {
		if err := r.markInconsistent(); err != nil {
			return err // the entry stays taken and never returns: nothing more is answered
		}
	}
	b.Ref()
	r.mu.Lock()
	ready := r.queue.Admit(&e.Item)
	r.mu.Unlock()
	if ready {
		r.start(e, false)
	}
	return nil
}

// markInconsistent notes, before the first block is overwritten, that the replica is in pieces until the resync ends.
func (r *Replica) markInconsistent() error {
	if err := r.super.SetHealth(true, r.super.Failed()); err != nil {
		r.unusable("the resync cannot be noted: " + err.Error())
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.recv.Marked(true)
	return nil
}

// start carries an entry out: at once where that does not wait for a disk, else in a worker.
func (r *Replica) start(e *entry, worker bool) {
	if worker || r.cfg.Inline && e.frame.Kind == wire.Write && e.frame.Flags&wire.FUA == 0 {
		r.finish(e, r.applyFrame(e))
		return
	}
	r.work.do(func() { r.finish(e, r.applyFrame(e)) })
}

func (r *Replica) applyFrame(e *entry) error {
	f := e.frame
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
			return errBroken // a flush that succeeds after one that failed proves nothing
		}
		if err := r.dev.Flush(); err != nil {
			return err
		}
		return r.closeResync()
	}
	return r.dev.Flush()
}

// writeFrame hands the payload's segments to the backing as they were received; one that needs aligned memory copies
// them itself.
func (r *Replica) writeFrame(f *wire.Frame) error {
	if _, err := r.dev.WriteVAt(f.Payload, f.Range.Off); err != nil || f.Flags&wire.FUA == 0 {
		return err
	}
	return r.dev.Flush()
}

// closeResync notes on stable storage, before the primary hears of it, that the replica is whole (R18).
func (r *Replica) closeResync() error {
	if err := r.super.SetHealth(false, false); err != nil {
		r.unusable("the end of the resync cannot be noted: " + err.Error())
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.recv.Marked(false)
	return nil
}

// finish tells that an entry returned from the device, acknowledges the new prefix, and starts what waited for it.
func (r *Replica) finish(e *entry, err error) {
	var room [8]*order.Item
	s, seq, kind := e.s, e.seq, e.frame.Kind
	if err != nil {
		r.diskFailed(err) // noted before any further answer (R23)
		s.fail(failure(kind), err)
	}
	r.mu.Lock()
	ready := r.queue.Return(&e.Item, room[:0])
	var prefix uint64
	if err != nil {
		r.recv.Failed(seq)
	} else {
		prefix = r.recv.Returned(seq)
	}
	ack := err == nil && r.recv.MayAck(s.stream)
	if r.recv.Outstanding() == 0 {
		r.changeLocked()
	}
	r.mu.Unlock()
	if ack && s.mayAck() {
		s.box.Ack(prefix)
	}
	e.batch.Free()
	e.s, e.batch, e.frame = nil, nil, nil
	entries.Put(e)
	for _, it := range ready {
		r.start(it.Owner.(*entry), true)
	}
}

var errBroken = errors.New("an earlier write or flush of the stream failed")

func (r *Replica) broken() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.recv.Broken()
}

func (s *session) mayAck() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.failed
}

func failure(k wire.Kind) wire.Code {
	if k == wire.Flush || k == wire.Close {
		return wire.FlushFailed
	}
	return wire.WriteFailed
}
