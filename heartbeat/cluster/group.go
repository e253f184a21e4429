package cluster

import (
	"fmt"
	"slices"
)

// A consistency group is one Volume of this state: one epoch, primary and in-sync set, so one entry promotes all of it, at one point
// of one order of writes (R6, R13, R18). The volumes that clients know are its parts, which lie in it one behind the other.

// Part is one of the volumes of a consistency group.
type Part struct {
	Name string `json:"name"`
	Size int64  `json:"size"`
	// Devices has the path of its backing on each node that holds a replica of the group.
	Devices map[string]string `json:"devices"`
}

// Window is what clients know as a volume: where it lies in the Volume that it is part of.
type Window struct {
	Name      string
	Off, Size int64
}

// Windows are the volumes that clients know: the parts of a group in their order, or the volume itself.
func (v *Volume) Windows() []Window {
	if len(v.Parts) == 0 {
		return []Window{{Name: v.Name, Size: v.Size}}
	}
	all, off := make([]Window, 0, len(v.Parts)), int64(0)
	for _, p := range v.Parts {
		all = append(all, Window{p.Name, off, p.Size})
		off += p.Size
	}
	return all
}

// IsGroup reports whether it is a consistency group.
func (v *Volume) IsGroup() bool { return len(v.Parts) > 0 }

// Window finds the volume that clients know by a name.
func (s *State) Window(name string) (v Volume, w Window, ok bool) {
	if v, ok := s.Volumes[name]; ok && !v.IsGroup() {
		return v, v.Windows()[0], true
	}
	for _, v := range s.Volumes {
		if i := slices.IndexFunc(v.Parts, func(p Part) bool { return p.Name == name }); i >= 0 {
			return v, v.Windows()[i], true
		}
	}
	return Volume{}, Window{}, false
}

// Mirrored is the name of the Volume that a name stands for: its own, or that of a part. What is unknown is given back.
func (s *State) Mirrored(name string) string {
	if _, ok := s.Volumes[name]; ok {
		return name
	}
	if v, _, ok := s.Window(name); ok {
		return v.Name
	}
	return name
}

// Paths are the backings of a node's replica: one, or in a group one for each part.
func Paths(parts []Part, r Replica) []string {
	if len(parts) == 0 {
		return []string{r.Device}
	}
	var all []string
	for _, p := range parts {
		all = append(all, p.Devices[r.Node])
	}
	return all
}

// mayGroup says why a volume, or the parts of a group, cannot be created with these names and sizes; empty: they can.
func (s *State) mayGroup(n CreateVolume) string {
	if _, _, ok := s.Window(n.Name); ok {
		return fmt.Sprintf("volume %q exists already, as part of a group", n.Name)
	}
	size, names := int64(0), map[string]bool{n.Name: true}
	for _, p := range n.Parts {
		if _, _, ok := s.Window(p.Name); ok || names[p.Name] || s.Volumes[p.Name].Name != "" {
			return fmt.Sprintf("volume %q of group %q exists already", p.Name, n.Name)
		}
		if p.Size <= 0 {
			return fmt.Sprintf("volume %q of group %q has %d bytes", p.Name, n.Name, p.Size)
		}
		for _, r := range n.Replicas {
			if p.Devices[r.Node] == "" {
				return fmt.Sprintf("volume %q of group %q has no device on %s", p.Name, n.Name, r.Node)
			}
		}
		size += p.Size
		names[p.Name] = true
	}
	if len(n.Parts) > 0 && size != n.Size {
		return fmt.Sprintf("group %q has %d bytes, its volumes have %d together", n.Name, n.Size, size)
	}
	return ""
}

// names are those that the volume takes: of a group also those of its parts.
func (n *CreateVolume) names() []string {
	all := []string{n.Name}
	for _, p := range n.Parts {
		all = append(all, p.Name)
	}
	return all
}

// createsGroup reports whether a program that knows no groups must not read the command.
func (c *Command) createsGroup() bool {
	var all []CreateVolume
	if c.Init != nil {
		all = append(all, c.Init.Volumes...)
	}
	if c.Configure != nil {
		all = append(all, c.Configure.Create...)
	}
	if c.CreateVolume != nil {
		all = append(all, *c.CreateVolume)
	}
	for _, v := range all {
		if len(v.Parts) > 0 {
			return true
		}
	}
	return false
}
