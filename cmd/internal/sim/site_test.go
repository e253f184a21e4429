package sim

import (
	"hacluster/heartbeat/cluster"
	"hacluster/heartbeat/failover"
)

// farSeeds are the seeds, of 16, in which the last replica is at another site: one of each mode.
var farSeeds = map[uint64]bool{5: true, 6: true, 15: true}

// sites are those of the run: all together, or the last replica apart.
func (w *world) sites() failover.Sites {
	if !farSeeds[w.seed%16] {
		return failover.Sites{}
	}
	return failover.Sites{Of: map[string]string{w.shape.names[w.shape.replicas-1]: "far"}}
}

// apart reports whether n is at another site than the primary.
func (w *world) apart(v *cluster.Volume, n string) bool {
	s := w.sites()
	return v.Primary != "" && s.Of[n] != s.Of[v.Primary]
}

// named notes a person's order.
func (o *oracle) named(to string) {
	if o.orders == nil {
		o.orders = map[string]cluster.Epoch{}
	}
	o.orders[to] = o.w.truth.state.Volumes[volumeName].Epoch
}

// stays checks that the role leaves a site only to a node that a person named in this epoch, or back to one that served before
// the present primary has acted.
func (o *oracle) stays(l *leader, p *cluster.Promote) {
	v := l.p.state.Volumes[volumeName]
	n := p.Candidate
	if p.Epoch != v.Epoch || !o.w.apart(&v, n) || n == v.Previous || v.Mode != cluster.ModeSync && n == v.Served {
		return
	}
	if e, ok := o.orders[n]; !ok || e < v.Epoch {
		o.w.violate("%s is promoted in the place of %s, which is at another site, and nobody named it in epoch %d", n, v.Primary, v.Epoch)
	}
	o.w.counts.Moved++
}

// waits is a member at another site that could follow, for which a volume waits for a person; empty: there is none.
func (w *world) waits(v *cluster.Volume) string {
	for _, n := range w.data() {
		if n.proc == nil || !v.IsMember(n.name) || !w.apart(v, n.name) {
			continue
		}
		if r := n.proc.replica.report(); r.Usable() && (v.Unchanged(n.name, &r) || v.Kept(n.name, &r)) {
			return n.name
		}
	}
	return ""
}
