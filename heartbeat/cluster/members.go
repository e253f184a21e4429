package cluster

import (
	"fmt"
	"maps"
	"slices"
)

// The replicas of a volume change while it is served, by Configure:
//
//	added    it is in the record, and no member: its number is new, nothing is known of it, and the primary resyncs and admits it
//	         as it does one whose disk was replaced. What is acknowledged when does not change before that (R5)
//	leaving  it is to go. While it is a member, it counts as one (R4): the primary proposes to drop it. The only other one that has all
//	         stays, as long as it answers, until one that comes is a member (AwaitsNext). It is never the primary,
//	         unless it is promoted because nobody else could follow; then it leaves when it has handed the role over
//	gone     the entry with which it is no member any more takes it out of the record, so the record never has one that left the set
//	         and might be admitted again. Its number is not given again

// MaxReplicas is how many a volume has at most, those that leave included.
const MaxReplicas = 4

// ChangeReplicas adds replicas to a volume and has others leave. It was decided on this epoch and version.
type ChangeReplicas struct {
	Name    string       `json:"name"`
	ID      string       `json:"id"`
	Epoch   Epoch        `json:"epoch"`
	Version uint64       `json:"version"`
	Add     []AddReplica `json:"add,omitempty"`
	Leave   []string     `json:"leave,omitempty"`
}

// AddReplica is a replica that comes.
type AddReplica struct {
	Node   string `json:"node"`
	Device string `json:"device"`
	// Devices are, for a consistency group, those of its parts, in their order.
	Devices []string `json:"devices,omitempty"`
}

// Leaves reports whether node's replica is to go.
func (v *Volume) Leaves(node string) bool {
	r, ok := v.Replica(node)
	return ok && r.Leaving
}

// HasLeaving reports whether some replica is to go.
func (v *Volume) HasLeaving() bool {
	return slices.ContainsFunc(v.Replicas, func(r Replica) bool { return r.Leaving })
}

// AwaitsNext reports whether a member that leaves is the only other one, or the only one not in async, and one that could take its place
// is no member yet: without it the primary would be alone with what it acknowledges, until that one is resynced.
func (v *Volume) AwaitsNext(node string) bool {
	if !v.Leaves(node) || !v.IsMember(node) || node == v.Primary {
		return false
	}
	firm := func(n string) bool { return v.ModeBetween(v.Primary, n) != ModeAsync }
	others, firmOthers, comes, firmComes := 0, 0, false, false
	for _, r := range v.Replicas {
		n := r.Node
		switch {
		case n == v.Primary || n == node:
		case v.IsMember(n):
			others++
			if firm(n) {
				firmOthers++
			}
		case !r.Leaving:
			comes, firmComes = true, firmComes || firm(n)
		}
	}
	return comes && others == 0 || firmComes && firm(node) && firmOthers == 0
}

// mayChangeReplicas says why the replicas cannot be changed; empty: they can.
func (s *State) mayChangeReplicas(v *Volume, m ChangeReplicas) string {
	switch {
	case m.Epoch != v.Epoch || m.Version != v.Version:
		return fmt.Sprintf("decided on epoch %d, version %d of volume %q, it has epoch %d, version %d", m.Epoch, m.Version, m.Name, v.Epoch, v.Version)
	case len(m.Add)+len(m.Leave) == 0:
		return fmt.Sprintf("no replica of volume %q is named", m.Name)
	case v.Primary == "" || !v.Acts():
		return fmt.Sprintf("volume %q is not served: its replicas are changed when it is", m.Name)
	case v.Next != 0 || v.NextMode != "":
		return fmt.Sprintf("a size or mode of volume %q is not in force yet: its replicas are changed when it is", m.Name)
	case len(v.Replicas)+len(m.Add) > MaxReplicas:
		return fmt.Sprintf("volume %q would have %d replicas, those that leave included: %d are the most", m.Name, len(v.Replicas)+len(m.Add), MaxReplicas)
	}
	for i, a := range m.Add {
		if void := s.mayAddReplica(v, m, i); void != "" {
			return fmt.Sprintf("a replica of volume %q on %q: %s", m.Name, a.Node, void)
		}
	}
	for i, n := range m.Leave {
		if void := mayLeave(v, n); void != "" {
			return fmt.Sprintf("the replica of volume %q on %q: %s", m.Name, n, void)
		}
		if slices.Contains(m.Leave[:i], n) {
			return fmt.Sprintf("the replica of volume %q on %q is named twice", m.Name, n)
		}
	}
	return ""
}

func (s *State) mayAddReplica(v *Volume, m ChangeReplicas, i int) string {
	a := m.Add[i]
	node, known := s.Nodes[a.Node]
	switch r, has := v.Replica(a.Node); {
	case !known || node.Witness:
		return "the node cannot hold one"
	case has && r.Leaving:
		return "the one before has not left yet"
	case has:
		return "there is one"
	case slices.ContainsFunc(m.Add[:i], func(o AddReplica) bool { return o.Node == a.Node }):
		return "it is named twice"
	case a.Device == "" || len(a.Devices) != len(v.Parts) || slices.Contains(a.Devices, ""):
		return fmt.Sprintf("it has %d devices, the volume %d parts", len(a.Devices), max(1, len(v.Parts)))
	}
	return ""
}

// mayLeave: the primary hands over first, so a member that holds every acknowledged write stays, and what may hold acknowledged writes
// that nobody else has is not forgotten (R19).
func mayLeave(v *Volume, node string) string {
	switch r, has := v.Replica(node); {
	case !has:
		return "there is none"
	case r.Leaving:
		return "it is leaving already"
	case node == v.Primary:
		return "it is the primary: hand the role over first"
	case v.Leaves(v.Primary):
		return fmt.Sprintf("the primary %s is leaving itself: hand the role over first", v.Primary)
	case v.IsHeld(node):
		return "it may hold acknowledged writes that this epoch lacks: have it resynced first, or allow to discard them"
	}
	return ""
}

// changeReplicas adds those that come, and notes or removes those that go.
func (s *State) changeReplicas(c Command, m ChangeReplicas) {
	v := s.Volumes[m.Name].Clone()
	v.Version++ // every applied command does (R7): also what was decided about a replica that comes back is void
	v.writeNumbers()
	wasAhead := v.ahead()
	for _, n := range m.Leave {
		for i := range v.Replicas {
			if v.Replicas[i].Node == n {
				v.Replicas[i].Leaving = true
			}
		}
		if v.IsMember(n) {
			s.event(c, "replica leaves", &v, n, fmt.Sprintf("the replica of %s is to leave the volume: it is a member until its primary has it dropped", n))
		}
	}
	for _, a := range m.Add {
		v.LastNumber = v.nextNumber()
		v.Replicas = append(v.Replicas, Replica{Node: a.Node, Device: a.Device, Number: v.LastNumber, Added: true})
		for i := range v.Parts {
			v.Parts[i].Devices = maps.Clone(v.Parts[i].Devices)
			v.Parts[i].Devices[a.Node] = a.Devices[i]
		}
		s.event(c, "replica added", &v, a.Node, fmt.Sprintf("%s gets replica number %d on %s: it is a member when it has been resynced", a.Node, v.LastNumber, a.Device))
	}
	if !wasAhead && v.ahead() {
		v.Served = v.Primary // it was let act, and has written all that was acknowledged
	}
	s.depart(c, &v)
	s.Volumes[m.Name] = v
}

// depart takes those that leave out of the record when nothing of the set or of a promotion rests on them any more, and they hold no
// acknowledged write that others lack: one that is held is resynced once more before it goes, so that this is kept aside (R19).
func (s *State) depart(c Command, v *Volume) {
	for _, r := range v.Replicas {
		n := r.Node
		if !r.Leaving || v.IsMember(n) || v.IsHeld(n) || n == v.Primary || n == v.Previous || v.ahead() && n == v.Served {
			continue
		}
		v.Replicas = slices.DeleteFunc(slices.Clone(v.Replicas), func(o Replica) bool { return o.Node == n })
		v.Paused, v.Full = without(v.Paused, n), without(v.Full, n)
		for i := range v.Parts {
			v.Parts[i].Devices = maps.Clone(v.Parts[i].Devices)
			delete(v.Parts[i].Devices, n)
		}
		s.event(c, "replica removed", v, n, fmt.Sprintf("%s holds no replica of the volume any more; its number %d is not given again", n, r.Number))
	}
}
