package node

import (
	"path/filepath"
	"time"

	"hacluster/cmd/internal/config"
	"hacluster/cmd/internal/control"
	"hacluster/replication"
	"hacluster/replication/primary"
)

// What a volume in async may lose comes from the configuration and is kept by the replica that serves.

// boundOf is the configured bound as replicas take it. It counts while the mode is async.
func boundOf(a config.Async) primary.Bound {
	return primary.Bound{Bytes: a.MaxLagBytes, Time: a.MaxLag, Patience: a.Patience}
}

// spoolOf is where data goes that standbys lack and memory does not hold: it leaves room in its file system as undo areas do.
func (v *volumes) spoolOf(volume string, a config.Async) replication.SpoolConfig {
	return replication.SpoolConfig{Dir: v.spoolDir(volume, a), Reserve: undoReserve}
}

func (v *volumes) spoolDir(volume string, a config.Async) string {
	if a.Spool != "" {
		return a.Spool
	}
	return filepath.Join(v.n.cfg.DataDir(), "volumes", volume)
}

// boundInForce is what a replica was given last; nil in another mode.
func (v *volumes) boundInForce(r *replication.Replica) *control.Bound {
	vol := r.Volume()
	if !vol.HasAsync() {
		return nil
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	h := v.all[vol.Name]
	if h == nil {
		return nil
	}
	return &control.Bound{Bytes: h.bound.Bytes, Ms: h.bound.Time.Milliseconds(), PatienceMs: h.bound.Patience.Milliseconds()}
}

// toDrain is how much longer a hand-over of the volume may take than in sync: in async the standby is sent what it lacks first, which
// is no more than its line took in that time.
func (n *Node) toDrain(volume string) time.Duration {
	v, ok := n.conf().Mirror(volume)
	if vol := n.state.get().Volumes[volume]; !ok || !vol.HasAsync() {
		return 0
	}
	return v.Async.MaxLag
}

// heldFrom is how long a write waits before writers count as held: shorter waits are how they are slowed.
const heldFrom = time.Second

// lagBehind is how far a member is behind.
func lagBehind(p replication.PeerStatus) *control.Lag {
	l := &control.Lag{Bytes: p.LagBytes, Ms: p.Lag.Milliseconds(), PerMille: p.Filled, Slowed: p.Slowed}
	if p.Held >= heldFrom {
		l.Held, l.HeldMs = true, p.Held.Milliseconds()
	}
	return l
}

// lags tells of what this node serves in async.
func (v *volumes) lags() (all []control.Serving) {
	for _, r := range v.asked() {
		if vol := r.Volume(); !vol.HasAsync() {
			continue
		}
		if s, ok := v.servingOf(r); ok {
			all = append(all, s)
		}
	}
	return all
}
