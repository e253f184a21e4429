package cluster

import (
	"fmt"
	"slices"
	"strings"
)

// PauseResync is an operator's word that replicas which are no members are not copied to for a while, or are again.
type PauseResync struct {
	On
	Nodes  []string `json:"nodes"`
	Paused bool     `json:"paused"`
}

// FullResync is an operator's word that a replica is to be compared with the primary as a whole before it is a member
// again. If it is one, its primary sends it away first (R4).
type FullResync struct {
	On
	Node string `json:"node"`
}

// IsPaused reports whether an operator paused the resync of node's replica.
func (v *Volume) IsPaused(node string) bool { return slices.Contains(v.Paused, node) }

// WantsFull reports whether node's replica is to be compared as a whole.
func (v *Volume) WantsFull(node string) bool { return slices.Contains(v.Full, node) }

func (s *State) pauseResync(c Command, v *Volume) string {
	p := c.PauseResync
	for _, n := range p.Nodes {
		if _, ok := v.Replica(n); !ok {
			return fmt.Sprintf("node %q holds no replica", n)
		}
	}
	var changed []string
	for _, r := range v.Replicas {
		if slices.Contains(p.Nodes, r.Node) && v.IsPaused(r.Node) != p.Paused {
			changed = append(changed, r.Node)
		}
	}
	if len(changed) == 0 {
		return "" // as it is; said twice is no error (R27)
	}
	if p.Paused {
		v.Paused = append(v.Paused, changed...)
		slices.Sort(v.Paused)
		s.event(c, "resync paused", v, "", fmt.Sprintf("an operator paused the resync of %s: nothing is copied there while it is no member", strings.Join(changed, ", ")))
		return ""
	}
	v.Paused = without(v.Paused, changed...)
	s.event(c, "resync resumed", v, "", fmt.Sprintf("an operator ended the pause of the resync of %s", strings.Join(changed, ", ")))
	return ""
}

func (s *State) fullResync(c Command, v *Volume) string {
	n := c.FullResync.Node
	switch _, ok := v.Replica(n); {
	case !ok:
		return fmt.Sprintf("node %q holds no replica", n)
	case n == v.Primary:
		return fmt.Sprintf("%s is the primary: the others are compared with it", n)
	case v.WantsFull(n):
		return ""
	}
	v.Full = append(v.Full, n)
	slices.Sort(v.Full)
	s.event(c, "full resync asked for", v, n, fmt.Sprintf("an operator asked to have the whole replica of %s compared", n))
	return ""
}

// without leaves names out of all; nil when none is left, as in a record that never had any.
func without(all []string, names ...string) (rest []string) {
	for _, n := range all {
		if !slices.Contains(names, n) {
			rest = append(rest, n)
		}
	}
	return rest
}
