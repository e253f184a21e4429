package cluster

import (
	"fmt"
	"slices"
)

// configure replaces the configuration if nothing came between its plan and now (R7). The version rises also when the
// entry is void for another reason, so that a late copy of it cannot take effect.
func (s *State) configure(c Command, n *Configure) string {
	if n.Version != s.ConfigVersion {
		return fmt.Sprintf("decided on configuration version %d, the cluster has version %d", n.Version, s.ConfigVersion)
	}
	s.ConfigVersion++
	if void := s.mayConfigure(n); void != "" {
		return void
	}
	s.LongestRTOMillis = max(s.LongestRTOMillis, s.RTOMillis, n.RTOMillis)
	s.RTOMillis, s.ConfigHash, s.Config, s.Fencing = n.RTOMillis, n.Hash, n.Config, n.Fencing
	for _, r := range n.Remove {
		s.removeVolume(c, r)
	}
	for _, v := range n.Create {
		s.createVolume(c, v)
	}
	for _, r := range n.Resize {
		s.resizeVolume(c, r)
	}
	for _, m := range n.Modes {
		s.changeMode(c, m)
	}
	for _, m := range n.Replicas {
		s.changeReplicas(c, m)
	}
	s.event(c, "configuration applied", nil, "", fmt.Sprintf("version %d: %d volumes added, %d removed", s.ConfigVersion, len(n.Create), len(n.Remove)))
	return ""
}

// mayConfigure says why the change cannot be made as a whole; empty: it can.
func (s *State) mayConfigure(n *Configure) string {
	if n.Fencing != "" && n.Fencing != FencingRequired {
		return fmt.Sprintf("unknown fencing %q", n.Fencing)
	}
	if n.RTOMillis <= 0 || len(n.Config) == 0 {
		return "a configuration without content"
	}
	names := map[string]bool{}
	for _, r := range n.Remove {
		if v, ok := s.Volumes[r.Name]; !ok || v.ID != r.ID || names[r.Name] {
			return fmt.Sprintf("volume %q with id %s does not exist", r.Name, r.ID)
		}
		names[r.Name] = true
	}
	for _, r := range n.Resize {
		if v, ok := s.Volumes[r.Name]; !ok || v.ID != r.ID || names[r.Name] {
			return fmt.Sprintf("volume %q with id %s does not exist", r.Name, r.ID)
		} else if void := mayResize(&v, r); void != "" {
			return void
		}
		names[r.Name] = true
	}
	changed := map[string]bool{} // a volume may get another size with another mode
	for _, m := range n.Modes {
		v, ok := s.Volumes[m.Name]
		removed := slices.ContainsFunc(n.Remove, func(r RemoveVolume) bool { return r.Name == m.Name })
		if !ok || v.ID != m.ID || changed[m.Name] || removed {
			return fmt.Sprintf("volume %q with id %s does not exist", m.Name, m.ID)
		}
		if void := mayChangeMode(&v, m); void != "" {
			return void
		}
		changed[m.Name] = true
	}
	for _, m := range n.Replicas { // of a volume that nothing else is decided about, for that was decided on the same version
		v, ok := s.Volumes[m.Name]
		if !ok || v.ID != m.ID || names[m.Name] || changed[m.Name] {
			return fmt.Sprintf("volume %q with id %s does not exist, or something else of it is changed, too", m.Name, m.ID)
		}
		if void := s.mayChangeReplicas(&v, m); void != "" {
			return void
		}
		names[m.Name] = true
	}
	for _, v := range n.Create {
		if void := s.mayCreate(v); void != "" {
			return void
		}
		for _, name := range v.names() {
			if names[name] {
				return fmt.Sprintf("volume %q is named twice", name)
			}
			names[name] = true
		}
	}
	return ""
}

func (s *State) mayCreate(n CreateVolume) string {
	if _, ok := s.Volumes[n.Name]; ok {
		return fmt.Sprintf("volume %q exists already", n.Name)
	}
	for _, r := range n.Replicas {
		if node, ok := s.Nodes[r.Node]; !ok || node.Witness {
			return fmt.Sprintf("node %q cannot hold a replica of %q", r.Node, n.Name)
		}
	}
	return s.mayGroup(n)
}

func (s *State) removeVolume(c Command, r RemoveVolume) {
	v := s.Volumes[r.Name]
	delete(s.Volumes, r.Name)
	s.Removed = append(s.Removed, Removed{Name: v.Name, ID: v.ID, Replicas: slices.Clone(v.Replicas), DeleteData: r.DeleteData, Parts: v.Parts})
	if n := len(s.Removed) - maxRemoved; n > 0 {
		s.Removed = slices.Clone(s.Removed[n:])
	}
	kept := "its data is kept"
	if r.DeleteData {
		kept = "its data is deleted"
	}
	s.event(c, "volume removed", &v, "", fmt.Sprintf("volume %q was removed; %s", v.Name, kept))
}

func (s *State) settleLeases(l *SettleLeases) string {
	if l.Version != s.ConfigVersion {
		return fmt.Sprintf("waited under configuration version %d, the cluster has version %d", l.Version, s.ConfigVersion)
	}
	s.LongestRTOMillis = s.RTOMillis
	return ""
}
