package sim

import "hacluster/heartbeat/cluster"

// pause is a person's word that nothing is copied to a replica while it is no member, or is again.
func (w *world) pause(paused bool) {
	v := w.truth.state.Volumes[volumeName]
	w.tell(cluster.Command{By: "person", PauseResync: &cluster.PauseResync{On: cluster.On{Volume: volumeName, Epoch: v.Epoch, Version: v.Version},
		Nodes: w.names(w.data()), Paused: paused}})
}

// copies checks that nothing is taken to be copied to a replica whose resync is paused, as far as the primary was told.
func (o *oracle) copies(s *session, to string) {
	o.w.counts.Compared++
	if v := &s.r.vol; v.IsPaused(to) && !v.IsMember(to) {
		o.w.violate("%s epoch %d goes on with the resync of %s, which is paused", s.r.n.name, s.epoch, to)
	}
}
