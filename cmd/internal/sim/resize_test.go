package sim

import (
	"hacluster/blockdev"
	"hacluster/heartbeat/cluster"
	"hacluster/heartbeat/failover"
)

// Sizes. A backing is as large as a volume can become here; what a replica was opened with is in its superblock, and it is
// closed and opened anew before it acts in an epoch of another size. What a smaller size cut off stays on the backings, and is
// cleared before the volume has it again.

// firstBlocks is what a volume has in the beginning; it grows by one block at a time, up to blocks, and shrinks down to leastBlocks.
const (
	firstBlocks = 8
	leastBlocks = 5
)

func sizeOf(n int) int64 { return int64(n) * blockdev.BlockSize }

func countOf(size int64) int { return int(size / blockdev.BlockSize) }

// grow is a person's word that the volume is to have one block more.
func (w *world) grow() { w.resize(w.truth.state.Volumes[volumeName].Size + sizeOf(1)) }

// shrink is a person's word that the volume is to have some blocks less, and that what they hold may be lost.
func (w *world) shrink() {
	w.resize(w.truth.state.Volumes[volumeName].Size - sizeOf(1+w.rng.IntN(3)))
}

// resize: every replica is a member, takes part in the epoch, and keeps no image. When the volume grows, all clear before what
// an earlier size had there.
func (w *world) resize(size int64) {
	v := w.truth.state.Volumes[volumeName]
	if len(v.Members) < len(w.data()) || len(v.Replicas) < len(w.data()) || v.Next != 0 || size > sizeOf(blocks) || size < sizeOf(leastBlocks) || w.keepsImages() {
		return
	}
	for _, n := range w.data() {
		if s := n.super; n.proc == nil || n.proc.replica == nil || n.proc.replica.resizing || s.epoch != v.Epoch || v.AgeOf(s.size, s.resized) != cluster.SizeSame {
			return
		}
	}
	for _, n := range w.data() {
		w.tracef("%s reads as zeroes from %d to %d", n.name, countOf(v.Size), countOf(v.Cleared(size)))
	}
	w.oracle.clear(countOf(v.Size), countOf(v.Cleared(size)))
	w.tell(cluster.Command{By: "person", Configure: &cluster.Configure{Version: w.truth.state.ConfigVersion, Fencing: w.truth.state.Fencing, Config: []byte("x"), RTOMillis: max(1, w.truth.state.RTOMillis),
		Resize: []cluster.ResizeVolume{{Name: volumeName, ID: v.ID, Epoch: v.Epoch, Version: v.Version, Size: size, Number: v.Resized + 1, Loses: max(0, v.Size-size)}}}})
}

// clear makes blocks behind the volume's end read as zeroes on every replica: that is a value like that of a write, and the only
// one which may be seen from there on.
func (o *oracle) clear(from, to int) {
	if from >= to {
		return
	}
	o.last++
	for b := from; b < to; b++ {
		for _, n := range o.w.data() {
			for _, r := range n.disk.running {
				if r.changes() && r.from <= b && b < r.to {
					o.w.violate("R2: %s clears block %d behind the end while a write of before is still on its way to the disk", n.name, b)
				}
			}
			n.disk.cache[b], n.disk.durable[b], n.disk.dirty[b] = o.last, o.last, false
		}
		o.blocks[b] = history{zones: []zone{{value: o.last, sent: o.w.now, first: o.w.now, last: o.w.now, seen: true}}}
		o.acked[b], o.floor[b], o.inside[b] = o.last, o.last, false
	}
}

// cut is for the begin of a session: nothing that a block behind the end had may be seen again.
func (o *oracle) cut(size int) {
	for b := range o.blocks {
		if b >= size && o.inside[b] {
			o.blocks[b], o.acked[b], o.floor[b] = history{}, 0, 0
		}
		o.inside[b] = b < size
	}
}

// size is how many blocks the volume has.
func (o *oracle) size() int { return countOf(o.w.truth.state.Volumes[volumeName].Size) }

// resizedAtLast hands the role over until a size that waits is in force: a whole volume gets it.
func (w *world) resizedAtLast() {
	for range 20 {
		v := w.truth.state.Volumes[volumeName]
		if v.Next == 0 {
			return
		}
		if n := w.primary(); n != nil {
			w.order(failover.Order{To: w.standby(n).name})
		}
		w.run(w.now+int64(2*lease), nil)
		w.becomeWhole()
	}
	w.violate("the volume has its old size however often its role is handed over: %s", w.describe())
}

// sized checks one change of the record: within an epoch there is one size, each has the next number, and it changes when every
// replica is a member, and nobody is forced: then no way back and no image of the old size is needed any more (R18, R19).
func (w *world) sized(c *cluster.Command, before, after *cluster.Volume) {
	if after.Size == before.Size && after.Resized == before.Resized || before.Size == 0 {
		return
	}
	if after.Size > before.Size {
		w.counts.Grown++
	} else {
		w.counts.Shrunk++
	}
	switch p := c.Promote; {
	case p == nil || after.Epoch == before.Epoch:
		w.violate("the size changes from %d to %d within epoch %d", before.Size, after.Size, after.Epoch)
	case after.Size != before.Next || after.Resized != before.Resized+1:
		w.violate("size %d of %d bytes becomes size %d of %d, decided were %d", before.Resized, before.Size, after.Resized, after.Size, before.Next)
	}
}

// fits reports whether the replica is open with the size that its volume has, and has it opened anew if not.
func (r *replica) fits() bool {
	switch {
	case !r.follows():
		return false
	case r.vol.Size == 0:
		return !r.resizing
	case r.vol.AgeOf(r.size, r.resized) == cluster.SizeSame:
		return !r.resizing
	case r.vol.AgeOf(r.size, r.resized) == cluster.SizeNewer: // our log is old
		return false
	}
	r.reopen()
	return false
}

// reopen closes the replica in order, once nothing is on the device: flush, clean-stop mark, then the new size, durably.
func (r *replica) reopen() {
	if s := r.sess; s != nil {
		s.end("the volume has another size")
		r.sess = nil
	}
	if r.open != nil {
		r.open.close()
	}
	r.recv.Close(^uint64(0))
	if r.resizing || r.busy > 0 || r.recv.Outstanding() > 0 || r.super.busy || r.noting > 0 || r.clearing || r.marking || len(r.taken) > 0 {
		return // who ends calls again, and each tick
	}
	r.resizing = true
	to, number := r.vol.Size, r.vol.Resized
	r.n.disk.start(r.p, &diskOp{kind: blockdev.OpFlush}, func(o *diskOp) {
		if o.err != nil {
			r.note(func() { r.resizing = false })
			return
		}
		r.store(func(s *super) {
			if s.used && !s.failed && !s.inconsistent {
				s.clean = &cluster.Clean{Incarnation: r.n.incarnation(), Process: r.p.number}
			}
		}, func() {
			r.store(func(s *super) { r.w.oracle.resizes(r.n, to); s.size, s.resized = to, number }, r.reopened)
		})
	})
}

func (r *replica) reopened() {
	s := r.n.super
	r.w.tracef("%s/%d is open with %d blocks", r.n.name, r.p.number, s.size/blockdev.BlockSize)
	r.closeArea()
	hellos := r.hellos
	fresh := newReplica(r.p)
	fresh.vol, fresh.hellos, fresh.telling, fresh.stopping, fresh.stopAt = r.vol, hellos, r.telling, r.stopping, r.stopAt
	fresh.recv.Fence(r.vol.Epoch)
	*r = *fresh
	r.kick()
}

// resizes checks what a replica is while it gets another size: one in pieces would have no way back any more (R18).
func (o *oracle) resizes(n *node, to int64) {
	if n.super.inconsistent {
		o.w.violate("R18: the volume has %d bytes while %s is in pieces, whose way back is of %d", to, n.name, n.super.size)
	}
}
