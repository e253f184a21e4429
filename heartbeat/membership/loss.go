package membership

// LinkCounts are the probes of one link to one peer since the start. What was sent and not answered is lost, or still
// on its way: a handful at most.
type LinkCounts struct {
	Peer, Address  string
	Sent, Answered uint64
}

// LinkCounts are the counts so far, in the order of the configuration.
func (m *Membership) LinkCounts() (all []LinkCounts) {
	for _, r := range m.remotes {
		for _, l := range r.links {
			answered := l.echoes.Load() // first, so that it is never more than what was sent
			all = append(all, LinkCounts{Peer: r.name, Address: l.address, Sent: l.probes.Load(), Answered: answered})
		}
	}
	return all
}
