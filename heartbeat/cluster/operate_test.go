package cluster

import (
	"strings"
	"testing"
)

func formatOf(t *testing.T, s *State) string {
	t.Helper()
	b, err := s.Encode()
	if err != nil {
		t.Fatal(err)
	}
	format, _, _ := strings.Cut(string(b), ",")
	return format
}

// What an operator said is of the state, and of snapshots that a program which would forget it refuses.
func TestDrainedNodesAndMaintenanceAreKept(t *testing.T) {
	s := NewState()
	s.Apply(1, 1, Command{Init: &Init{ID: "c", Nodes: []Node{{Name: "a", DataDir: "d"}, {Name: "b"}}}})
	plain := formatOf(t, s)
	do := func(index uint64, c Command, void bool) {
		t.Helper()
		d, err := DecodeCommand(c.Encode())
		if err != nil {
			t.Fatal(err)
		}
		if r := s.Apply(index, 1, d); (r.Void != "") != void {
			t.Errorf("%+v: void %q", c, r.Void)
		}
	}
	drain := func(node string, drained bool) Command {
		return Command{SetDrained: &SetDrained{Node: node, Drained: drained}}
	}
	maintain := func(on bool) Command { return Command{SetMaintenance: &SetMaintenance{On: on}} }
	do(2, drain("nobody", true), true)
	do(3, drain("a", true), false)
	do(4, Command{StartNode: &StartNode{Node: "a", DataDir: "d", Start: 1}}, false) // a new process of it is drained too
	if !s.Nodes["a"].Drained || s.Nodes["b"].Drained || formatOf(t, s) == plain {
		t.Errorf("%+v", s.Nodes)
	}
	do(5, drain("a", false), false)
	do(6, maintain(true), false)
	b, err := s.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if again, err := Decode(b); err != nil || !again.Maintenance || again.Nodes["a"].Drained {
		t.Errorf("%+v, %v", again, err)
	}
	events := len(s.Events)
	do(7, maintain(true), false)
	if len(s.Events) != events {
		t.Error("what is so already is told again")
	}
	do(8, maintain(false), false)
	if formatOf(t, s) != plain {
		t.Error("an older program could read it again, and is not let")
	}
}
