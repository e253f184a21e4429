package cluster

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
)

// A mode is changed without moving the role. The one that follows is noted in the record (NextMode, by Configure), and the primary
// puts it in force (SetMode) when every member has all that was acknowledged, durably. From the note on it acknowledges by the
// stronger of both, so nothing weaker than the new mode is told of between that and the entry that puts it in force (R5, R13). The
// note stays over failovers: the next primary carries it out.

// strength orders the modes: what is acknowledged by one also is by all weaker ones.
var strength = map[string]int{ModeSync: 3, ModeSemisync: 2, ModeAsync: 1}

// ModeToBe is the mode that the volume has when all that is decided is in force.
func (v *Volume) ModeToBe() string {
	if v.NextMode != "" {
		return v.NextMode
	}
	return v.Mode
}

// WillHave reports whether the volume has these modes when all that is decided is in force: its own, and those of replicas that have
// others.
func (v *Volume) WillHave(mode string, replicas map[string]string) bool {
	return mode == v.ModeToBe() && v.sameModes(mode, replicas, v.ModeToBeOf)
}

// has reports whether it has them now.
func (v *Volume) hasModes(mode string, replicas map[string]string) bool {
	return mode == v.Mode && v.sameModes(mode, replicas, v.ModeOf)
}

func (v *Volume) sameModes(mode string, replicas map[string]string, of func(node string) string) bool {
	for _, r := range v.Replicas {
		if of(r.Node) != cmp.Or(replicas[r.Node], mode) {
			return false
		}
	}
	return true
}

// mayChangeMode says why the mode cannot be changed; empty: it can.
func mayChangeMode(v *Volume, m ChangeMode) string {
	switch {
	case m.Epoch != v.Epoch || m.Version != v.Version:
		return fmt.Sprintf("decided on epoch %d, version %d of volume %q, it has epoch %d, version %d", m.Epoch, m.Version, m.Name, v.Epoch, v.Version)
	case strength[m.Mode] == 0:
		return fmt.Sprintf("volume %q cannot have mode %q: there are %s, %s and %s", m.Name, m.Mode, ModeSync, ModeSemisync, ModeAsync)
	case v.WillHave(m.Mode, m.Replicas):
		return fmt.Sprintf("volume %q has mode %s, or is to have it: there is nothing to change", m.Name, v.ModesToBeText())
	}
	for n, mode := range m.Replicas {
		if _, ok := v.Replica(n); !ok || strength[mode] == 0 {
			return fmt.Sprintf("the replica of volume %q on %q cannot have mode %q: one that it has is wanted, and there are %s, %s and %s", m.Name, n, mode, ModeSync, ModeSemisync, ModeAsync)
		}
	}
	return ""
}

// changeMode notes the mode.
func (s *State) changeMode(c Command, m ChangeMode) {
	v := s.Volumes[m.Name].Clone()
	v.Version++ // every applied command does (R7)
	v.NextMode = m.Mode
	for i := range v.Replicas {
		if v.Replicas[i].NextMode = m.Replicas[v.Replicas[i].Node]; v.Replicas[i].NextMode == m.Mode {
			v.Replicas[i].NextMode = ""
		}
	}
	if v.hasModes(m.Mode, m.Replicas) {
		v.noNextMode()
		s.event(c, "volume's mode stays", &v, "", fmt.Sprintf("volume %q stays in mode %s: the change was taken back before it was in force", v.Name, v.ModesText()))
	} else {
		s.event(c, "volume's mode changes", &v, "", fmt.Sprintf("volume %q is in mode %s, and in %s when every member has all that was acknowledged; until then both count", v.Name, v.ModesText(), v.ModesToBeText()))
	}
	s.Volumes[m.Name] = v
}

// setMode puts the mode in force. The members are those that the primary has greeted: in semisync and async they are processes (R25).
// One that is another by now, or was started anew since, makes it void: the primary proposes again when it has greeted that.
func (s *State) setMode(c Command, v *Volume) string {
	m := c.SetMode
	switch {
	case c.By != v.Primary || v.Epoch == 0:
		return fmt.Sprintf("%s is not the primary", c.By)
	case !v.Acts():
		return "the primary was not let act yet"
	case m.Mode == "" || m.Mode != v.NextMode:
		return fmt.Sprintf("mode %q is not the one that follows, which is %q", m.Mode, v.NextMode)
	case len(m.Members) != len(v.Members)-1:
		return fmt.Sprintf("%d other members are named, the set is %v", len(m.Members), v.MemberNames())
	}
	for _, n := range slices.Sorted(maps.Keys(m.Members)) {
		if void := s.mayName(v, n, m.Members[n]); void != "" {
			return void
		}
	}
	maps.Copy(v.Members, m.Members)
	was := v.ModesText()
	v.Mode = m.Mode
	for i := range v.Replicas {
		v.Replicas[i].Mode = v.Replicas[i].NextMode
	}
	v.noNextMode()
	if v.ahead() {
		v.Served = v.Primary // it was let act, and has written all that was acknowledged
	}
	s.event(c, "volume's mode changed", v, "", fmt.Sprintf("volume %q is in mode %s, before: %s; every member of %v has all that was acknowledged", v.Name, v.ModesText(), was, v.MemberNames()))
	return ""
}

func (v *Volume) noNextMode() {
	v.NextMode = ""
	for i := range v.Replicas {
		v.Replicas[i].NextMode = ""
	}
}

// mayName says why as is not the member of this name; empty: it is.
func (s *State) mayName(v *Volume, node string, as Member) string {
	has, member := v.Members[node]
	switch {
	case !member || node == v.Primary:
		return fmt.Sprintf("%s is no other member", node)
	case as.Incarnation != has.Incarnation:
		return fmt.Sprintf("%s is named under another incarnation than the set does", node)
	case as.Process < has.Process || as.Process != has.Process && v.IsProcess(node):
		return fmt.Sprintf("%s is named as process %d, the set names process %d", node, as.Process, has.Process)
	case as.Process != s.Nodes[node].Start:
		return fmt.Sprintf("%s is named as process %d, process %d runs", node, as.Process, s.Nodes[node].Start)
	}
	return ""
}
