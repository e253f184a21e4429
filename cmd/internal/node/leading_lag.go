package node

import (
	"slices"

	"hacluster/heartbeat/cluster"
	"hacluster/replication"
)

// bound is how much of a volume that is in async by its record may be acknowledged beyond what the others have, by the configuration
// here, which may want another mode already; nil: it is in no such mode, or not known.
func (n *Node) bound(vol *cluster.Volume) *cluster.Lag {
	v, ok := n.conf().Mirror(vol.Name)
	if !ok || !vol.HasAsync() {
		return nil
	}
	return &cluster.Lag{MaxBytes: v.Async.MaxLagBytes, MaxMs: v.Async.MaxLag.Milliseconds()}
}

// lag is what the primary of a volume in async tells the leader with each report, so that the record of a failover can say what
// was lost at most: the most that any member lacks of what clients were told. nil: it does not serve.
func lag(s replication.Serving, bound *cluster.Lag) *cluster.Lag {
	l := *bound
	for _, p := range s.Peers {
		if p.Async {
			l.Bytes, l.Ms = max(l.Bytes, p.LagBytes), max(l.Ms, p.Lag.Milliseconds())
		}
	}
	return &l
}

func (v *volumes) report(r *replication.Replica) cluster.Report {
	rep := r.Report()
	rep.Attached = slices.ContainsFunc(v.n.windowsOf(rep.Volume), v.n.devices.attached)
	vol := r.Volume()
	b := v.n.bound(&vol)
	if b == nil {
		return rep
	}
	if s, serves := r.Serving(); serves && s.Epoch == rep.Epoch {
		rep.Lag = lag(s, b)
	}
	return rep
}
