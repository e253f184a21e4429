package cluster

import (
	"fmt"
	"slices"
)

func (s *State) init(c Command, i *Init) string {
	if s.ID != "" {
		return fmt.Sprintf("the cluster exists already with id %s", s.ID)
	}
	s.ID, s.Name, s.RTOMillis = i.ID, i.Name, i.RTOMillis
	s.ConfigVersion, s.ConfigHash, s.Config, s.LongestRTOMillis, s.Fencing = 1, i.ConfigHash, i.Config, i.RTOMillis, i.Fencing
	for _, n := range i.Nodes {
		s.Nodes[n.Name] = n
	}
	for _, v := range i.Volumes {
		s.createVolume(c, v)
	}
	s.event(c, "cluster formed", nil, "", fmt.Sprintf("cluster %q with %d nodes and %d volumes", s.Name, len(s.Nodes), len(s.Volumes)))
	return ""
}

func (s *State) createVolume(c Command, n CreateVolume) string {
	if void := s.mayCreate(n); void != "" {
		return void
	}
	v := Volume{Name: n.Name, ID: n.ID, Size: n.Size, Mode: n.Mode, Replicas: n.Replicas, Parts: n.Parts, Version: 1, Members: map[string]Member{}}
	s.Volumes[n.Name] = v
	s.event(c, "volume created", &v, "", fmt.Sprintf("%d bytes, mode %s, %d replicas", n.Size, v.ModesText(), len(n.Replicas)))
	return ""
}

// startNode takes a process only of the data directory that is known, with a number above all before: a directory
// that was wiped, cloned or rolled back is refused here (R10, R32).
func (s *State) startNode(c Command, r *StartNode) string {
	n, ok := s.Nodes[r.Node]
	switch {
	case !ok:
		return fmt.Sprintf("node %q is not part of the cluster", r.Node)
	case n.DataDir != r.DataDir:
		return fmt.Sprintf("node %q has data directory %s, the cluster knows %s: remove the node and add it again", r.Node, r.DataDir, n.DataDir)
	case r.Start <= n.Start:
		return fmt.Sprintf("process %d of %q is not newer than process %d: was its data directory restored or copied?", r.Start, r.Node, n.Start)
	}
	n.Start, n.Boot, n.Config, n.Reads = r.Start, r.Boot, r.Config, r.Reads
	s.Nodes[r.Node] = n
	s.event(c, "node started", nil, r.Node, fmt.Sprintf("process %d of %s", r.Start, r.Node))
	return ""
}

func (s *State) addNode(c Command, n Node) string {
	if _, ok := s.Nodes[n.Name]; ok {
		return fmt.Sprintf("node %q is part of the cluster already: remove it first", n.Name)
	}
	s.Nodes[n.Name] = n
	s.event(c, "node added", nil, n.Name, fmt.Sprintf("%s at %s", n.Name, n.Address))
	return ""
}

// removeNode refuses to take away what a volume cannot do without; otherwise the node's replicas leave their sets.
// They stay configured: a node that is added again is resynced.
func (s *State) removeNode(c Command, name string) string {
	if _, ok := s.Nodes[name]; !ok {
		return fmt.Sprintf("node %q is not part of the cluster", name)
	}
	for _, v := range s.Volumes {
		if v.Primary == name && (v.IsMember(name) || s.Fencing == FencingRequired) { // nobody could be told any more that it is off
			return fmt.Sprintf("node %q is primary of volume %q: hand it over first", name, v.Name)
		}
		if v.IsMember(name) && len(v.Members) == 1 {
			return fmt.Sprintf("node %q holds the last in-sync replica of volume %q", name, v.Name)
		}
	}
	delete(s.Nodes, name)
	for k, v := range s.Volumes {
		if _, ok := v.Replica(name); !ok {
			continue
		}
		v = v.Clone() // the version rises also where it is no member: an admission under way is void
		delete(v.Members, name)
		if v.Previous == name {
			v.Previous = ""
		}
		v.noteServed()
		v.Version++
		s.depart(c, &v)
		s.Volumes[k] = v
	}
	s.event(c, "node removed", nil, name, name+" was removed from the cluster")
	return ""
}

// beganFailover keeps what is known of a failover when it is committed. Its figures follow, whoever leads then.
func (s *State) beganFailover(c Command, v *Volume, from string) {
	silent := c.Promote.SilentMillis
	f := Failover{Volume: v.Name, From: from, To: v.Primary, Reason: c.Promote.Reason, Epoch: v.Epoch, AtMillis: c.AtMillis,
		RTOMillis: silent, TargetMillis: s.RTOMillis, Stages: []Stage{{Name: "detect", Millis: silent}}}
	switch p := c.Promote; {
	case p.Basis == BasisForced:
		f.RPOBytes = v.Size // what the person was told is at risk
	case v.leavesBehind(p):
		f.RPOBytes, f.RPOMillis = p.Lag.atMost(p.Bound)
		f.Lag, f.LagAgeMillis = p.Lag, p.LagAgeMillis
	}
	s.recordFailover(f)
}

// recordFailover adds a failover's figures, or replaces those of the same volume and epoch once.
func (s *State) recordFailover(f Failover) string {
	for i := range s.Failovers {
		if o := &s.Failovers[i]; o.Volume == f.Volume && o.Epoch == f.Epoch {
			if o.Amended {
				return "the figures of this failover are final"
			}
			*o = f
			return ""
		}
	}
	s.Failovers = append(s.Failovers, f)
	return ""
}

func (s *State) event(c Command, kind string, v *Volume, node, text string) {
	s.NextEvent++
	e := Event{Number: s.NextEvent, Index: s.Index, AtMillis: c.AtMillis, Kind: kind, Node: node, Text: text}
	if v != nil {
		e.Volume, e.Epoch = v.Name, v.Epoch
	}
	s.Events = append(s.Events, e)
}

// forgetOld bounds the history, once for each entry. There is room for one failover of every volume, for all may move at once, and
// the figures of each follow its record.
func (s *State) forgetOld() {
	if n := len(s.Failovers) - max(maxFailovers, len(s.Volumes)); n > 0 {
		s.Failovers = slices.Clone(s.Failovers[n:])
	}
	if n := len(s.Events) - maxEvents; n > 0 {
		s.Events = slices.Clone(s.Events[n:])
	}
}
