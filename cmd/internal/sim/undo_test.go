package sim

import (
	"encoding/binary"
	"errors"

	"hacluster/blockdev"
	"hacluster/blockdev/undo"
	"hacluster/replication/standby"
)

func (v value) encode(block []byte) {
	clear(block)
	binary.LittleEndian.PutUint32(block, uint32(v))
}

func decodeValue(block []byte) value { return value(binary.LittleEndian.Uint32(block)) }

// openArea reads the undo area back, as a starting daemon does: what is found beside a replica that is whole is over.
func (r *replica) openArea() {
	n := r.n
	u := &n.undo
	whole := !n.super.inconsistent
	if whole && u.file != nil && !u.file.image {
		u.Remove()
		u.settle()
	}
	a, err := undo.Open(undo.Config{Place: u, Binding: undo.Binding{Node: n.name, Size: r.size, Epoch: uint64(n.super.epoch)}}, undoSource{n.disk})
	if err != nil || a.Damage() != "" {
		r.w.violate("R18: the undo area of %s, in pieces: %t, cannot be used: %v %s", n.name, !whole, err, a.Damage())
	}
	u.settle()
	r.area = a
	if whole {
		r.endArea()
		u.settle()
	}
	r.recv.Rewinds(!whole && a.Live())
}

// closeArea ends what runs in the background; the file stays as it is.
func (r *replica) closeArea() {
	if r.area != nil {
		r.area.Close()
	}
}

// beginOverwriting stores what makes a resync's first change reversible, in order: what the replica holds is durable, the
// area is, and the superblock says that the replica is in pieces.
func (r *replica) beginOverwriting(in *incoming) {
	r.marking = true
	how := standby.Keep(&r.vol, r.n.name, r.way())
	if in.hello.Epoch < r.vol.Epoch || how == standby.Await {
		r.giveTakenUp(in)
		return
	}
	r.n.disk.start(r.p, &diskOp{kind: blockdev.OpFlush}, func(o *diskOp) {
		if o.err != nil {
			r.note(func() {
				in.send(refuseMsg{o.err.Error()})
				r.giveTakenUp(in)
			})
			return
		}
		r.n.undo.image, r.n.undo.since = how == standby.BeginImage, r.recv.Epoch()
		err := r.area.Begin(undo.Point{Epoch: 1}, uint64(r.recv.Epoch()), undoSource{r.n.disk})
		switch {
		case err == nil:
			r.fileOp(func() { r.inPieces(in, true) })
		case r.owes():
			r.giveTakenUp(in)
		default:
			r.dropUndo(func() { r.inPieces(in, false) })
		}
	})
}

// giveTakenUp ends what was taken and not begun: it must not be carried out.
func (r *replica) giveTakenUp(in *incoming) {
	in.failed = true
	for _, e := range r.taken {
		r.recv.Failed(e.msg.num)
	}
	r.taken, r.marking = nil, false
	in.close()
	r.kick()
}

func (r *replica) inPieces(in *incoming, rewinds bool) {
	r.store(func(s *super) { s.inconsistent = true }, func() {
		r.marking = false
		r.recv.Marked(true)
		r.recv.Rewinds(rewinds)
		r.w.interrupt(r.n)
		r.takeOn()
	})
}

// logged has the old content of what an entry overwrites logged before the entry starts; false: it starts later.
func (r *replica) logged(e *entry) bool {
	if !e.undo {
		return true
	}
	e.undo = false
	r.logs = append(r.logs, e)
	if len(r.logs) == 1 {
		r.logNext()
	}
	return false
}

// logNext logs what waits, one at a time. The first in the queue is the one that is being logged.
func (r *replica) logNext() {
	e := r.logs[0]
	done := make(waiter, 1)
	ready, err := r.area.LogOld(e.Range, e.old, done)
	if err == nil && !ready {
		err = <-done
	}
	next := func() {
		r.logs = r.logs[1:]
		r.startEntry(e)
		if len(r.logs) > 0 {
			r.logNext()
		}
	}
	if ready {
		next()
		return
	}
	r.fileOp(func() {
		switch {
		case err == nil:
			next()
		case r.owes(): // nothing more is overwritten: a person decides
			r.logs = r.logs[1:]
			e.in.close()
			r.endEntry(e, errAwaits)
			if len(r.logs) > 0 {
				r.logNext()
			}
		default:
			r.dropUndo(next)
		}
	})
}

var errAwaits = errors.New("what the resync overwrites is not kept aside")

type waiter chan error

func (w waiter) Logged(err error) { w <- err }

// dropUndo gives the way back up: the area is gone durably before anything is overwritten that is not logged.
func (r *replica) dropUndo(then func()) {
	if r.undoGone {
		then()
		return
	}
	r.discard()
	r.w.counts.NoWayBack++
	r.fileOp(func() {
		r.undoGone = true
		r.recv.Rewinds(false)
		then()
	})
}

// endArea is called when the superblock says that the replica is whole: a rescue image is kept, an undo area is over.
func (r *replica) endArea() {
	r.undoGone = false
	if f := r.n.undo.file; f != nil && f.image && r.area.Live() {
		r.n.keepImage(r.area)
	}
	r.discard()
}

func (r *replica) discard() {
	if err := r.area.Discard(); err != nil {
		r.w.violate("%s: %v", r.n.name, err)
	}
}
