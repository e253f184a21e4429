package sim

import (
	"hacluster/blockdev"
	"hacluster/blockdev/undo"
	"hacluster/heartbeat/cluster"
	"hacluster/replication/standby"
)

// image is a rescue image that is kept: the undo area of a resync that has ended.
type image struct {
	since cluster.Epoch // in which it was begun
	old   map[int]value
}

// way is what the replica has to return by.
func (r *replica) way() standby.Way {
	w := standby.Way{InPieces: r.recv.Inconsistent(), Live: r.area.Live(), Room: true, Kept: r.n.keptSince}
	if f := r.n.undo.file; w.Live && f.image {
		w.Image, w.Since = true, f.since
	}
	return w
}

// owes reports whether what the replica has of its own is in no image yet.
func (r *replica) owes() bool { return standby.Owes(&r.vol, r.n.name, r.n.keptSince) }

// keepImage keeps what was overwritten. When the stream breaks before the admission, the next resync of the same hold needs no
// other one.
func (n *node) keepImage(a *undo.Area) {
	i := image{since: n.undo.file.since, old: map[int]value{}}
	err := a.Each(func(at blockdev.Range, content []byte) error {
		from, to := blocksOf(at)
		for b := from; b < to; b++ {
			if i.old[b] = 0; content != nil {
				i.old[b] = decodeValue(content[(b-from)*blockdev.BlockSize:])
			}
		}
		return nil
	})
	if err != nil {
		n.w.violate("R19: the rescue image of %s cannot be read: %v", n.name, err)
	}
	if len(i.old) == 0 {
		return // nothing was overwritten, and nothing is promised
	}
	n.kept, n.keptSince = append(n.kept, i), max(n.keptSince, i.since)
	n.w.counts.Rescued++
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
