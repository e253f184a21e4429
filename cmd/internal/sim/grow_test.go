package sim

import (
	"hacluster/blockdev"
	"hacluster/heartbeat/cluster"
	"hacluster/heartbeat/failover"
)

// Growth. A backing is as large as a volume can become here; what a replica was opened with is in its superblock, and it is
// closed and opened anew before it acts in an epoch of another size.

// firstBlocks is what a volume has in the beginning; it grows by one block at a time, up to blocks.
const firstBlocks = 8

func sizeOf(n int) int64 { return int64(n) * blockdev.BlockSize }

// grow is a person's word that the volume is to have one block more: every replica is a member and keeps no image.
func (w *world) grow() {
	v := w.truth.state.Volumes[volumeName]
	if len(v.Members) < 2 || v.Grow != 0 || v.Size == sizeOf(blocks) || len(w.nodes[0].kept)+len(w.nodes[1].kept) > 0 {
		return
	}
	w.tell(cluster.Command{By: "person", Configure: &cluster.Configure{Version: w.truth.state.ConfigVersion, Config: []byte("x"), RTOMillis: max(1, w.truth.state.RTOMillis),
		Grow: []cluster.GrowVolume{{Name: volumeName, ID: v.ID, Epoch: v.Epoch, Version: v.Version, Size: v.Size + sizeOf(1)}}}})
}

// growsAtLast hands the role over until a size that waits is in force: whole volumes grow.
func (w *world) growsAtLast() {
	for range 20 {
		v := w.truth.state.Volumes[volumeName]
		if v.Grow == 0 {
			return
		}
		if n := w.primary(); n != nil {
			w.order(failover.Order{To: w.nodes[1-n.index].name})
		}
		w.run(w.now+int64(2*lease), nil)
		w.becomeWhole()
	}
	w.violate("the volume does not grow however often its role is handed over: %s", w.describe())
}

// sized checks one change of the record: within an epoch there is one size, and it changes when every replica is a member, and
// nobody is forced: then no way back and no image of the old size is needed any more (R18, R19).
func (w *world) sized(c *cluster.Command, before, after *cluster.Volume) {
	if after.Size == before.Size || before.Size == 0 {
		return
	}
	w.counts.Grown++
	switch p := c.Promote; {
	case p == nil || after.Epoch == before.Epoch:
		w.violate("the size changes from %d to %d within epoch %d", before.Size, after.Size, after.Epoch)
	case after.Size < before.Size:
		w.violate("the volume shrinks from %d to %d", before.Size, after.Size)
	}
}

// fits reports whether the replica is open with the size that its volume has, and has it opened anew if not.
func (r *replica) fits() bool {
	switch {
	case r.vol.Size == 0 || r.vol.Size == r.size:
		return !r.resizing
	case r.vol.Size < r.size: // what our log shows may be old
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
	to := r.vol.Size
	r.n.disk.start(r.p, &diskOp{kind: blockdev.OpFlush}, func(o *diskOp) {
		if o.err != nil {
			r.note(func() { r.resizing = false })
			return
		}
		r.store(func(s *super) {
			if s.used && !s.failed && !s.inconsistent {
				s.clean = &cluster.Clean{Incarnation: r.n.incarnation(), Process: r.p.number}
			}
		}, func() { r.store(func(s *super) { r.w.oracle.grows(r.n, to); s.size = to }, r.reopened) })
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

// grows checks what a replica is while it gets another size: one in pieces would have no way back any more (R18).
func (o *oracle) grows(n *node, to int64) {
	if n.super.inconsistent {
		o.w.violate("R18: the volume has %d bytes while %s is in pieces, whose way back is of %d", to, n.name, n.super.size)
	}
}
