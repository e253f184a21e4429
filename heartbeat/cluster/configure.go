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
	s.RTOMillis, s.ConfigHash, s.Config = n.RTOMillis, n.Hash, n.Config
	for _, r := range n.Remove {
		s.removeVolume(c, r)
	}
	for _, v := range n.Create {
		s.createVolume(c, v)
	}
	for _, g := range n.Grow {
		s.growVolume(c, g)
	}
	s.event(c, "configuration applied", nil, "", fmt.Sprintf("version %d: %d volumes added, %d removed", s.ConfigVersion, len(n.Create), len(n.Remove)))
	return ""
}

// mayConfigure says why the change cannot be made as a whole; empty: it can.
func (s *State) mayConfigure(n *Configure) string {
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
	for _, g := range n.Grow {
		v, ok := s.Volumes[g.Name]
		if !ok || v.ID != g.ID || names[g.Name] {
			return fmt.Sprintf("volume %q with id %s does not exist", g.Name, g.ID)
		}
		if g.Epoch != v.Epoch || g.Version != v.Version {
			return fmt.Sprintf("decided on epoch %d, version %d of volume %q, it has epoch %d, version %d", g.Epoch, g.Version, g.Name, v.Epoch, v.Version)
		}
		if g.Size <= max(v.Size, v.Grow) {
			return fmt.Sprintf("volume %q has %d bytes and does not shrink to %d", g.Name, max(v.Size, v.Grow), g.Size)
		}
		names[g.Name] = true
	}
	for _, v := range n.Create {
		if void := s.mayCreate(v); void != "" {
			return void
		}
		if names[v.Name] {
			return fmt.Sprintf("volume %q is named twice", v.Name)
		}
		names[v.Name] = true
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
	return ""
}

func (s *State) removeVolume(c Command, r RemoveVolume) {
	v := s.Volumes[r.Name]
	delete(s.Volumes, r.Name)
	s.Removed = append(s.Removed, Removed{Name: v.Name, ID: v.ID, Replicas: slices.Clone(v.Replicas), DeleteData: r.DeleteData})
	if n := len(s.Removed) - maxRemoved; n > 0 {
		s.Removed = slices.Clone(s.Removed[n:])
	}
	kept := "its data is kept"
	if r.DeleteData {
		kept = "its data is deleted"
	}
	s.event(c, "volume removed", &v, "", fmt.Sprintf("volume %q was removed; %s", v.Name, kept))
}

// growVolume notes the size. It is in force from the next promotion on at which every replica is a member (growNow).
func (s *State) growVolume(c Command, g GrowVolume) {
	v := s.Volumes[g.Name].Clone()
	v.Grow = g.Size
	v.Version++ // every applied command does (R7)
	s.Volumes[g.Name] = v
	s.event(c, "volume grows", &v, "", fmt.Sprintf("volume %q has %d bytes, and %d from the next promotion on at which every replica is a member", v.Name, v.Size, v.Grow))
}

// growNow is for a promotion, before it changes the set: within an epoch all replicas, streams and clients have one size, and
// no primary has answered in the next epoch yet. The size waits for a promotion at which every replica is a member: one in the
// middle of a resync has a way back, to a state of the old size (R18). A promotion by force may be by that way, and what others
// held is kept aside from then on (R19), of the old size too: it gives the growth up.
func (s *State) growNow(c Command, v *Volume) {
	switch {
	case v.Grow == 0:
	case c.Promote.Basis == BasisForced:
		s.event(c, "volume does not grow", v, "", fmt.Sprintf("volume %q keeps its %d bytes, for it was promoted by force before the %d were in force: resize it again when every replica is in sync", v.Name, v.Size, v.Grow))
		v.Grow = 0
	case len(v.Members) == len(v.Replicas):
		v.Size, v.Grow = v.Grow, 0
	}
}

func (s *State) settleLeases(l *SettleLeases) string {
	if l.Version != s.ConfigVersion {
		return fmt.Sprintf("waited under configuration version %d, the cluster has version %d", l.Version, s.ConfigVersion)
	}
	s.LongestRTOMillis = s.RTOMillis
	return ""
}
