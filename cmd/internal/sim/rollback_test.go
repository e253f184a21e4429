package sim

import (
	"time"

	"hacluster/blockdev"
	"hacluster/heartbeat/cluster"
)

// point is what a forced promotion leads back to; nil: to what the replica holds now, or nowhere.
func (r *replica) point() *cluster.Point {
	if !r.recv.Inconsistent() || !r.area.Live() {
		return nil
	}
	return &cluster.Point{}
}

// rollBack returns to the last consistent point before the replica serves that a person promoted in the middle of its
// resync. The old content is written, then flushed, then the superblock says that the replica is whole, then the area goes.
func (r *replica) rollBack(e cluster.Epoch) {
	if r.w.now < r.again {
		return
	}
	r.again = r.w.now + int64(200*time.Millisecond)
	if r.point() == nil {
		return
	}
	var todo []*diskOp
	err := r.area.Each(func(at blockdev.Range, content []byte) error {
		o := &diskOp{kind: blockdev.OpWrite}
		o.from, o.to = blocksOf(at)
		o.values = make([]value, o.to-o.from)
		for i := range o.values {
			if content != nil {
				o.values[i] = decodeValue(content[i*blockdev.BlockSize:])
			}
		}
		todo = append(todo, o)
		return nil
	})
	if err != nil {
		r.w.violate("R18: %s does not get back: %v", r.n.name, err)
	}
	r.w.tracef("%s/%d rolls back in epoch %d, %d records", r.n.name, r.p.number, e, len(todo))
	r.busy++
	r.writeBack(e, append(todo, &diskOp{kind: blockdev.OpFlush}))
	r.w.moment(r.n)
}

// writeBack does one step after the other, unless a newer epoch has overtaken it.
func (r *replica) writeBack(e cluster.Epoch, todo []*diskOp) {
	if len(todo) == 0 {
		r.rolledBack()
		return
	}
	if r.vol.Epoch != e || r.stopping != notStopping {
		r.rollbackEnds()
		return
	}
	r.n.disk.start(r.p, todo[0], func(o *diskOp) {
		if o.err != nil {
			r.note(r.rollbackEnds)
			return
		}
		r.writeBack(e, todo[1:])
	})
}

func (r *replica) rolledBack() {
	r.store(func(s *super) {
		s.inconsistent = false
		r.w.oracle.rolledBack(r.n, s.failed)
	}, func() {
		r.undoGone = false
		r.discard()
		r.fileOp(func() {
			r.recv.Marked(false)
			r.rollbackEnds()
		})
	})
}

func (r *replica) rollbackEnds() {
	r.busy--
	r.kick()
}

// interrupted is what a replica held when a resync began to overwrite it: its last consistent point (R18).
type interrupted struct {
	is      bool
	content [blocks]value
}

// changes tells that an entry is about to change a replica.
func (o *oracle) changes(in *incoming) {
	p := &in.r.n.point
	switch {
	case in.closed:
	case in.resync && !p.is:
		p.is, p.content = true, in.r.n.disk.cache
	case !in.resync && p.is:
		o.w.violate("R18: %s is in pieces and taken for a member", in.r.n.name)
	}
}

// rolledBack checks that the replica is where it was. A disk that has failed may hold less: it is refreshed before it serves.
func (o *oracle) rolledBack(n *node, failed bool) {
	o.w.counts.RolledBack++
	if p := &n.point; p.is && (n.disk.cache != p.content || !failed && n.disk.durable != p.content) {
		o.w.violate("R18: %s returns to %v, on stable storage %v; when its resync began it held %v", n.name, n.disk.cache, n.disk.durable, p.content)
	}
	n.point.is = false
}
