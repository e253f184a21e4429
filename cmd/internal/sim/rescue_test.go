package sim

import (
	"hacluster/heartbeat/cluster"
	"hacluster/replication/standby"
)

// image is a rescue image on a replica's stable storage. What it takes is durable before the block changes.
type image struct {
	live  bool
	since cluster.Epoch // in which it was begun
	old   map[int]value
}

// way is what the replica has to return by. Of undo areas nothing is modelled: they change what may be promoted, not what may
// be overwritten.
func (r *replica) way() standby.Way {
	i := &r.n.image
	return standby.Way{InPieces: r.recv.Inconsistent(), Live: i.live, Image: i.live, Since: i.since, Room: true, Kept: r.n.keptSince}
}

// keep has the old content of what an entry is about to change in the image, if there is one, and has the oracle look.
func (r *replica) keep(e cluster.Epoch, m *entryMsg) {
	r.w.oracle.overwritten(r.n, e, m.from, m.to)
	i := &r.n.image
	for b := m.from; i.live && b < m.to; b++ {
		if _, has := i.old[b]; !has {
			i.old[b] = r.n.disk.cache[b]
		}
	}
}

// closeImage ends the image of a resync that has ended, in a stream of epoch e: it is kept. When the stream breaks before the
// admission, the next resync of the same hold needs no other one.
func (n *node) closeImage(e cluster.Epoch) {
	n.hold.over = max(n.hold.over, e)
	if n.image.live {
		n.kept = append(n.kept, n.image)
		n.keptSince = max(n.keptSince, n.image.since)
		n.image = image{}
		n.w.counts.Rescued++
	}
}

// rescued is what the images that count for a hold have of a block: the first one that has it has what was there before.
func (n *node) rescued(since cluster.Epoch, b int) (v value, has bool) {
	for _, i := range n.kept {
		if v, has = i.old[b]; has && i.since >= since {
			return v, true
		}
	}
	return 0, false
}

// hold is what a held replica had of each block that something of the new epochs has overwritten (R19).
type hold struct {
	since cluster.Epoch
	had   map[int]value
	// over is the newest epoch in which a resync has ended: since then it has what primaries from that epoch on sent.
	over cluster.Epoch
}

// overwritten tells that blocks of a replica are about to change by the word of a primary of epoch e.
func (o *oracle) overwritten(n *node, e cluster.Epoch, from, to int) {
	v := o.w.truth.state.Volumes[volumeName]
	if !v.IsHeld(n.name) || e < v.HeldSince {
		return
	}
	h := &n.hold
	if h.since != v.HeldSince {
		h.since, h.had = v.HeldSince, map[int]value{}
	}
	if h.over >= v.HeldSince {
		return
	}
	for b := from; b < to; b++ {
		if _, has := h.had[b]; !has {
			h.had[b] = n.disk.cache[b]
		}
	}
}

// admitted checks that what was overwritten of a replica, which was held until now, is in its image.
func (o *oracle) admitted(before *cluster.Volume, node string) {
	if !before.IsHeld(node) {
		return
	}
	for _, n := range o.w.nodes {
		if n.name != node || n.hold.since != before.HeldSince {
			continue
		}
		for b, had := range n.hold.had {
			if got, has := n.rescued(before.HeldSince, b); !has || got != had {
				o.w.violate("R19: %s is admitted; write %d of its block %d was overwritten while it was held since epoch %d, and its rescue images have %d (%t)",
					node, had, b, before.HeldSince, got, has)
			}
		}
	}
}
