package replication

import (
	"context"
	"maps"
)

// Replicas come and go with the volume's record, while it is served. The Core says when: Join and Part, under the lock, in the order of
// all that it asks for. A link that was parted makes no stream any more; what its last one still says counts for nothing (primary). One
// to a later replica of the node begins when that has ended.

func newPeerLink(t *Tenure, node string) *peerLink {
	return &peerLink{t: t, node: node, wake: make(chan struct{}, 1), back: make(chan struct{}, 1), ended: make(chan struct{}), acks: t.r.meter.acksOf(node)}
}

// peer is the link to a node that holds a replica, or held one in this tenure.
func (t *Tenure) peer(node string) *peerLink { return (*t.peers.Load())[node] }

func (t *Tenure) links() map[string]*peerLink { return *t.peers.Load() }

func (t *Tenure) joinLocked(node string) {
	t.abortClearingLocked() // a round without it
	p := newPeerLink(t, node)
	if before := t.peer(node); before != nil && before.stop != nil {
		p.after = before.ended
	}
	links := maps.Clone(t.links())
	links[node] = p
	t.peers.Store(&links)
	if t.life != nil {
		p.beginLocked()
	}
}

// beginLocked makes streams for as long as the tenure lasts, or until it is parted, which may have been before the tenure began.
func (p *peerLink) beginLocked() {
	if p.parted {
		return
	}
	var ctx context.Context
	ctx, p.stop = context.WithCancel(p.t.life)
	p.t.goes.Go(func() { p.run(ctx) })
}

func (p *peerLink) partLocked() {
	p.t.abortClearingLocked()
	p.parted = true
	p.closeLocked()
	if p.stop != nil {
		p.stop()
	}
}
