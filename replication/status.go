package replication

import (
	"sync/atomic"
	"time"

	"hacluster/blockdev"
	"hacluster/heartbeat/cluster"
	"hacluster/replication/primary"
)

// Serving is what a primary tells of itself and of its peers.
type Serving struct {
	Volume    string
	Epoch     cluster.Epoch
	Suspended bool
	Peers     []PeerStatus
	// Counts of clients' operations in this tenure.
	ReadOps, WriteOps, ReadBytes, WriteBytes uint64
}

// PeerStatus is one other replica, as the primary sees it.
type PeerStatus struct {
	Node string
	primary.Progress
	RateBytesPerSec int64  // of the resync, over its last seconds
	Reason          string // why there is no stream, or the last one ended
}

// counters count clients' operations.
type counters struct{ readOps, writeOps, readBytes, writeBytes atomic.Uint64 }

func (c *counters) count(req *blockdev.Request) {
	switch req.Op {
	case blockdev.OpRead:
		c.readOps.Add(1)
		c.readBytes.Add(uint64(req.Range.Len))
	case blockdev.OpWrite, blockdev.OpZero:
		c.writeOps.Add(1)
		c.writeBytes.Add(uint64(req.Range.Len))
	}
}

// Serving tells how it stands, if this node is primary.
func (r *Replica) Serving() (s Serving, ok bool) {
	t := r.Tenure()
	if t == nil {
		return s, false
	}
	s = Serving{Volume: r.cfg.Volume.Name, Epoch: t.epoch, Suspended: !t.gate.try(),
		ReadOps: t.counts.readOps.Load(), WriteOps: t.counts.writeOps.Load(),
		ReadBytes: t.counts.readBytes.Load(), WriteBytes: t.counts.writeBytes.Load()}
	now := r.node.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, n := range t.core.Peers() {
		p := t.peers[n]
		g := t.core.Peer(n)
		p.mu.Lock()
		s.Peers = append(s.Peers, PeerStatus{Node: n, Progress: g, Reason: p.reason, RateBytesPerSec: p.rate.of(now, g)})
		p.mu.Unlock()
	}
	return s, true
}

// rate is the speed of a resync between two looks at it that are at least a second apart.
type rate struct {
	at        cluster.Instant
	remaining int64
	value     int64
}

func (r *rate) of(now cluster.Instant, g primary.Progress) int64 {
	if !g.Resyncing {
		*r = rate{}
		return 0
	}
	if passed := now.Sub(r.at); r.at == 0 || passed >= time.Second {
		if r.at != 0 {
			r.value = max(int64(float64(r.remaining-g.RemainingBytes)/passed.Seconds()), 0)
		}
		r.at, r.remaining = now, g.RemainingBytes
	}
	return r.value
}

// LeaseChanged tells that the node's lease was renewed or given up.
func (r *Replica) LeaseChanged() {
	if t := r.Tenure(); t != nil {
		t.LeaseChanged()
		return
	}
	r.wake()
}
