package node

import (
	"fmt"
	"slices"
	"time"

	"hacluster/cmd/internal/api"
	"hacluster/cmd/internal/config"
	"hacluster/cmd/internal/control"
	"hacluster/heartbeat/cluster"
)

// boundFrom is the configured bound as nodes tell each other.
func boundFrom(a config.Async) *control.Bound {
	return &control.Bound{Bytes: a.MaxLagBytes, Ms: a.MaxLag.Milliseconds(), PatienceMs: a.Patience.Milliseconds()}
}

// bound is what a volume in async may lose: what its primary says is in force, else what is configured; nil in other modes, and
// when neither is known.
func (v *view) bound(vol *cluster.Volume) *control.Bound {
	if !vol.HasAsync() {
		return nil
	}
	if s := v.serving(vol); s != nil && s.Bound != nil {
		return s.Bound
	}
	return v.bounds[vol.Name]
}

// async tells what a failover would lose and how writers fare; nil in other modes.
func (v *view) async(vol *cluster.Volume, promotable []string) *api.AsyncStatus {
	b := v.bound(vol)
	if b == nil {
		return nil
	}
	out := &api.AsyncStatus{MaxLagBytes: b.Bytes, MaxLagMs: b.Ms, PatienceMs: b.PatienceMs, Writers: api.WritersFree}
	s := v.serving(vol)
	if s == nil {
		return out
	}
	if s.Spool != nil {
		out.SpoolBytes, out.SpoolReason = s.Spool.Bytes, s.Spool.Reason
	}
	for i := range s.Peers {
		p := &s.Peers[i]
		if p.Lag == nil {
			if none := int64(0); slices.Contains(promotable, p.Node) { // it is in sync or semisync with the primary, and lacks nothing
				out.LossBytes, out.LossMs = &none, &none
			}
			continue
		}
		// Who lacks least follows.
		if slices.Contains(promotable, p.Node) && (out.LossBytes == nil || p.Lag.Bytes < *out.LossBytes) {
			out.LossBytes, out.LossMs = &p.Lag.Bytes, &p.Lag.Ms
		}
		// Who lacks most is waited for.
		if p.Lag.PerMille/10 < out.UsedPercent && !p.Lag.Held {
			continue
		}
		out.UsedPercent = p.Lag.PerMille / 10
		switch {
		case p.Lag.Held:
			out.Writers, out.Reason = api.WritersHeld, heldText(p, b)
		case p.Lag.Slowed:
			out.Writers, out.Reason = api.WritersSlowed, slowedText(p, b)
		}
	}
	return out
}

// slowedText says which standby slows writers and why.
func slowedText(p *control.Peer, b *control.Bound) string {
	return fmt.Sprintf("%s; beyond half of the bound writers come down to its speed", behindText(p, b))
}

// heldText says which standby holds writers, why, and what comes of it.
func heldText(p *control.Peer, b *control.Bound) string {
	return fmt.Sprintf("%s; that has held writers for %v, and after %v it is dropped and they go on without it",
		behindText(p, b), millis(p.Lag.HeldMs).Round(100*time.Millisecond), millis(b.PatienceMs))
}

// behindText says how far a standby is behind, of how much, and what one can know of the cause.
func behindText(p *control.Peer, b *control.Bound) string {
	why := "the line to it, or its disk, is slower than the writers"
	switch {
	case !p.Connected && p.Reason != "":
		why = "it is not connected: " + p.Reason
	case !p.Connected:
		why = "it is not connected"
	}
	return fmt.Sprintf("%s lacks %d bytes of at most %d, the oldest acknowledged %v ago (from %v on nothing more is): %s", p.Node, p.Lag.Bytes, b.Bytes, millis(p.Lag.Ms).Round(10*time.Millisecond), millis(b.Ms), why)
}

// pointOfMember is what a promotion of a sound standby in async gives: all but what it lacks. While nobody serves, that is no more
// than the bound, and since when is not known.
func (v *view) pointOfMember(vol *cluster.Volume, node string) *api.PointStatus {
	p := &api.PointStatus{Epoch: uint64(vol.Epoch)}
	peer, b := v.peer(vol, node), v.bound(vol)
	switch {
	case peer != nil && peer.Lag != nil:
		at := wallClock().Add(-millis(peer.Lag.Ms))
		p.At, p.LossBytes = &at, peer.Lag.Bytes
	case node == vol.Served:
		now := wallClock()
		p.At = &now
	case b != nil:
		p.LossBytes = b.Bytes
	default:
		p.LossBytes = vol.Size
	}
	return p
}
