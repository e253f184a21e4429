package node

import (
	"slices"
	"time"

	"hacluster/cmd/internal/control"
	"hacluster/heartbeat/cluster"
)

// record is what only the leader that decided a failover knows of it: by its own clock.
type record struct {
	silent, decide time.Duration // since the old primary was last heard; from the decision to its commit
	decided        cluster.Instant
}

// served notes how far a failover has come: first when the new primary accepts writes, then once more with the first
// acknowledged write of a client. The leader that decided it may be gone meanwhile: then the new primary's own figures
// have to do.
func (l *leading) served(s *control.Served) {
	past := l.n.state.get().Failovers
	i := slices.IndexFunc(past, func(f cluster.Failover) bool { return f.Volume == s.Volume && f.Epoch == s.Epoch })
	if i < 0 || past[i].Amended {
		return // the first start of a volume is none
	}
	f := past[i]
	f.Stages = slices.Clone(f.Stages)
	l.mu.Lock()
	rec := l.records[recordKey{s.Volume, s.Epoch}]
	switch {
	case rec != nil:
		f.Stages = []cluster.Stage{{Name: "detect", Millis: rec.silent.Milliseconds()}, {Name: "decide", Millis: rec.decide.Milliseconds()}}
		f.RTOMillis = (rec.silent + l.n.now().Sub(rec.decided)).Milliseconds()
	case !promoted(f):
		f.RTOMillis += s.SinceMs
	default:
		f.RTOMillis += s.SinceMs - s.PromoteMs
	}
	l.mu.Unlock()
	if !promoted(f) {
		f.Stages = append(f.Stages, cluster.Stage{Name: "promote", Millis: s.PromoteMs})
	}
	if s.FirstAck {
		f.Stages = append(f.Stages, cluster.Stage{Name: "first write", Millis: s.SinceMs - s.PromoteMs})
		f.Amended = true
	}
	l.proposeAside(l.n.command(cluster.Command{Failover: &f}), nil)
}

// promoted reports whether the figures reach to the new primary's readiness.
func promoted(f cluster.Failover) bool {
	return slices.ContainsFunc(f.Stages, func(st cluster.Stage) bool { return st.Name == "promote" })
}
