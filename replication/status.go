package replication

import (
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
	Spool     SpoolStatus
	ModeWaits string // what a change of the mode waits for; empty: there is none
	// Counts of clients' operations in this tenure.
	ReadOps, WriteOps, ReadBytes, WriteBytes uint64
}

// SpoolStatus is how the spool of a volume in async stands.
type SpoolStatus struct {
	primary.Spooling
	Reason string // why it takes nothing; empty: it does, or is not needed
}

// PeerStatus is one other replica, as the primary sees it.
type PeerStatus struct {
	Node string
	primary.Progress
	Lag             time.Duration // age of the oldest entry that it has not acknowledged; in async, of those that clients were told of
	RateBytesPerSec int64         // of the resync, over its last seconds
	ETA             time.Duration // until it ends; negative: not known
	By              string        // by way of which node its stream goes; empty: directly
	Reason          string        // why there is no stream, or the last one ended
	Blocked         string        // what of our own disk keeps its resync from ending
	Reads           Reads         // of clients, that it answered in this tenure
}

// Serving tells how it stands, if this node is primary.
func (r *Replica) Serving() (s Serving, ok bool) {
	t := r.Tenure()
	if t == nil {
		return s, false
	}
	c, b, there := r.meter.counts(), &t.base, r.ReadsAt()
	since := func(now, before *[blockdev.OpFlush + 1]uint64, op blockdev.Op) uint64 { return now[op] - before[op] }
	s = Serving{Volume: r.cfg.Volume.Name, Epoch: t.epoch, Suspended: !t.gate.try(),
		ReadOps: since(&c.ops, &b.ops, blockdev.OpRead), ReadBytes: since(&c.bytes, &b.bytes, blockdev.OpRead),
		WriteOps:   since(&c.ops, &b.ops, blockdev.OpWrite) + since(&c.ops, &b.ops, blockdev.OpZero),
		WriteBytes: since(&c.bytes, &b.bytes, blockdev.OpWrite) + since(&c.bytes, &b.bytes, blockdev.OpZero)}
	now := r.node.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	s.ModeWaits = t.core.ModeWaits()
	s.Spool = SpoolStatus{Spooling: t.core.Spooling()}
	s.Spool.Reason = t.spool.reason(s.Spool.Failed)
	for _, n := range t.core.Peers() {
		p := t.peer(n)
		g := t.core.Peer(n)
		var lag time.Duration
		if since := g.Oldest(); since != 0 {
			lag = max(now.Sub(since), 0)
		}
		p.mu.Lock()
		eta := time.Duration(-1)
		if left, ok := p.resync.speed.ETA(); ok && p.resync.running {
			eta = left
		}
		reads := Reads{there[n].Ops - t.readsBase[n].Ops, there[n].Bytes - t.readsBase[n].Bytes}
		s.Peers = append(s.Peers, PeerStatus{Node: n, Progress: g, Lag: lag, By: p.way.by, Reads: reads, Reason: p.reason, Blocked: p.blocked(g), RateBytesPerSec: p.resync.speed.BytesPerSec(), ETA: eta})
		p.mu.Unlock()
	}
	return s, true
}

// LeaseChanged tells that the node's lease was renewed or given up.
func (r *Replica) LeaseChanged() {
	if t := r.Tenure(); t != nil {
		t.LeaseChanged()
		return
	}
	r.mu.Lock()
	waits := r.vol.Primary == r.cfg.Node // else a lease is nothing to it
	r.mu.Unlock()
	if waits {
		r.wake()
	}
}
