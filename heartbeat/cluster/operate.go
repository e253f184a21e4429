package cluster

// What an operator wants not to happen by itself. Neither changes who is primary now.

// SetDrained is an operator's word that a node is not to become primary by itself, or may again.
type SetDrained struct {
	Node    string `json:"node"`
	Drained bool   `json:"drained"`
}

// SetMaintenance is an operator's word that no volume goes to another node by itself, or may again.
type SetMaintenance struct {
	On bool `json:"on"`
}

func (s *State) setDrained(c Command, d *SetDrained) string {
	n, ok := s.Nodes[d.Node]
	switch {
	case !ok:
		return "node \"" + d.Node + "\" is not part of the cluster"
	case n.Drained == d.Drained:
		return ""
	}
	n.Drained = d.Drained
	s.Nodes[d.Node] = n
	if d.Drained {
		s.event(c, "node drained", nil, d.Node, d.Node+" does not become primary by itself until it is undrained")
	} else {
		s.event(c, "node undrained", nil, d.Node, d.Node+" may become primary by itself again")
	}
	return ""
}

func (s *State) setMaintenance(c Command, m *SetMaintenance) string {
	if s.Maintenance == m.On {
		return ""
	}
	if s.Maintenance = m.On; m.On {
		s.event(c, "maintenance on", nil, "", "no volume goes to another node by itself: `ha-admin failover` moves one, `ha-admin maintenance off` ends it")
	} else {
		s.event(c, "maintenance off", nil, "", "volumes go to other nodes by themselves again")
	}
	return ""
}

// mayFollow: an operator's word counts from its own entry on, also for what the leader had decided before.
func (s *State) mayFollow(p *Promote, v *Volume) string {
	switch {
	case p.Ordered || p.Basis == BasisForced || v.Primary == "" || p.Candidate == v.Primary || p.Candidate == v.Previous || v.ServedLast(p.Candidate):
		return ""
	case s.Nodes[p.Candidate].Drained:
		return p.Candidate + " was drained meanwhile"
	case s.Maintenance:
		return "there is maintenance meanwhile"
	}
	return ""
}

// operated reports whether an older program would miss what an operator said.
func (s *State) operated() bool {
	for _, n := range s.Nodes {
		if n.Drained {
			return true
		}
	}
	return s.Maintenance
}
