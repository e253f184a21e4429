package cluster

import (
	"strings"
	"testing"
)

// inMode is formed, in a mode, with another decided; empty: none.
func inMode(t *testing.T, mode, next string) *State {
	t.Helper()
	s := formed(t)
	v := s.Volumes["v"]
	if v.Mode = mode; v.ahead() {
		v.Served = "p"
	}
	s.Volumes["v"] = v
	if next != "" {
		configured(t, s, Configure{Modes: []ChangeMode{{Name: "v", ID: "i", Epoch: 3, Version: 10, Mode: next}}})
	}
	return s
}

// setMode is what the primary proposes.
func setMode(s *State, mode string) *SetMode {
	return &SetMode{On: on(s), Mode: mode, Members: map[string]Member{"s": {incA, 1}, "x": {incA, 1}}}
}

func TestModeIsNotedAndComesIntoForceByTheWordOfThePrimary(t *testing.T) { // R13
	modes := []string{ModeSync, ModeSemisync, ModeAsync}
	for _, from := range modes {
		for _, to := range modes {
			if from == to {
				continue
			}
			s := inMode(t, from, "")
			was := on(s)
			configured(t, s, Configure{Modes: []ChangeMode{{Name: "v", ID: "i", Epoch: 3, Version: 10, Mode: to}}})
			if v := s.Volumes["v"]; v.Mode != from || v.NextMode != to || v.ModeToBe() != to || v.Epoch != 3 || v.Primary != "p" {
				t.Fatalf("%s to %s: noted: %+v", from, to, v)
			}
			if e := s.Events[len(s.Events)-2]; e.Kind != "volume's mode changes" {
				t.Errorf("%s to %s: nobody is told: %+v", from, to, e)
			}
			if r := s.Apply(s.Index+1, 5, Command{By: "p", Drop: &Drop{On: was, Node: "x"}}); r.Void == "" {
				t.Errorf("%s to %s: a command decided before it is not void (R7)", from, to)
			}
			ok(t, s, Command{By: "p", SetMode: setMode(s, to)})
			v := s.Volumes["v"]
			if v.Mode != to || v.NextMode != "" || v.ModeToBe() != to || v.Epoch != 3 || !v.Acts() || v.Version != was.Version+2 {
				t.Errorf("%s to %s: in force: %+v", from, to, v)
			}
			if v.ahead() && v.Served != "p" {
				t.Errorf("%s to %s: %q is who served last", from, to, v.Served)
			}
			if e := s.Events[len(s.Events)-1]; e.Kind != "volume's mode changed" || !strings.Contains(e.Text, from) || !strings.Contains(e.Text, to) {
				t.Errorf("%s to %s: nobody is told: %+v", from, to, e)
			}
		}
	}
}

func TestWhileAModeChangesTheStrongerCounts(t *testing.T) { // R5, R13
	for _, c := range []struct{ mode, next, want string }{
		{ModeSync, "", ModeSync}, {ModeAsync, "", ModeAsync}, {ModeSemisync, "", ModeSemisync},
		{ModeSync, ModeAsync, ModeSync}, {ModeAsync, ModeSync, ModeSync}, {ModeSync, ModeSemisync, ModeSync},
		{ModeSemisync, ModeSync, ModeSync}, {ModeSemisync, ModeAsync, ModeSemisync}, {ModeAsync, ModeSemisync, ModeSemisync},
	} {
		v := Volume{Mode: c.mode, NextMode: c.next, Replicas: []Replica{{Node: "p"}, {Node: "s"}}}
		if got := v.AckMode("p", "s"); got != c.want {
			t.Errorf("%s with %q to follow: acknowledged by %s, want %s", c.mode, c.next, got, c.want)
		}
		if got, want := v.Fences("p", "s"), c.mode == ModeAsync || c.next == ModeAsync; got != want {
			t.Errorf("%s with %q to follow: fences %t", c.mode, c.next, got)
		}
	}
}

func TestModeThatIsTakenBackWasNeverInForce(t *testing.T) {
	s := inMode(t, ModeSync, ModeAsync)
	late := setMode(s, ModeAsync)
	configured(t, s, Configure{Modes: []ChangeMode{{Name: "v", ID: "i", Epoch: 3, Version: 11, Mode: ModeSync}}})
	if v := s.Volumes["v"]; v.Mode != ModeSync || v.NextMode != "" {
		t.Fatalf("taken back: %+v", v)
	}
	if r := s.Apply(s.Index+1, 5, Command{By: "p", SetMode: late}); r.Void == "" {
		t.Error("what the primary had proposed before is applied")
	}
	configured(t, s, Configure{Modes: []ChangeMode{{Name: "v", ID: "i", Epoch: 3, Version: 12, Mode: ModeSemisync}}})
	configured(t, s, Configure{Modes: []ChangeMode{{Name: "v", ID: "i", Epoch: 3, Version: 13, Mode: ModeAsync}}})
	if v := s.Volumes["v"]; v.NextMode != ModeAsync {
		t.Errorf("another one was decided: %+v", v)
	}
}

func TestChangeOfModeStaysOverPromotions(t *testing.T) {
	for _, basis := range []Basis{BasisHandOver, BasisUnchanged, BasisForced} {
		s := inMode(t, ModeSync, ModeSemisync)
		ok(t, s, Command{Promote: promote(s, "s", basis)})
		if v := s.Volumes["v"]; v.Mode != ModeSync || v.NextMode != ModeSemisync {
			t.Errorf("%s: %+v", basis, v)
		}
	}
}

func TestModeIsChangedAsItWasDecidedOnly(t *testing.T) { // R7
	good := ChangeMode{Name: "v", ID: "i", Epoch: 3, Version: 10, Mode: ModeSemisync}
	for name, change := range map[string]func(*Configure){
		"no such volume":   func(c *Configure) { c.Modes[0].Name = "u" },
		"another volume":   func(c *Configure) { c.Modes[0].ID = "j" },
		"an older epoch":   func(c *Configure) { c.Modes[0].Epoch = 2 },
		"an older version": func(c *Configure) { c.Modes[0].Version = 9 },
		"no mode":          func(c *Configure) { c.Modes[0].Mode = "" },
		"unknown mode":     func(c *Configure) { c.Modes[0].Mode = "later" },
		"the same mode":    func(c *Configure) { c.Modes[0].Mode = ModeSync },
		"twice":            func(c *Configure) { c.Modes = append(c.Modes, good) },
		"removed":          func(c *Configure) { c.Remove = []RemoveVolume{{Name: "v", ID: "i"}} },
	} {
		s := formed(t)
		c := Configure{Version: s.ConfigVersion, Hash: "h2", Config: []byte("x"), RTOMillis: 1000, Modes: []ChangeMode{good}}
		change(&c)
		if r := s.Apply(s.Index+1, 5, Command{Configure: &c}); r.Void == "" {
			t.Errorf("%s: applied", name)
		}
		if v := s.Volumes["v"]; v.NextMode != "" || v.Version != 10 {
			t.Errorf("%s: %+v", name, v)
		}
	}
	s := formed(t)
	configured(t, s, Configure{Modes: []ChangeMode{good}, Resize: []ResizeVolume{{Name: "v", ID: "i", Epoch: 3, Version: 10, Size: 3 << 20}}})
	if v := s.Volumes["v"]; v.NextMode != ModeSemisync || v.Next != 3<<20 || v.Version != 12 {
		t.Errorf("with another size: %+v", v)
	}
}

func TestModeIsSetByThePrimaryWithTheMembersThatItGreeted(t *testing.T) { // R25
	for name, c := range map[string]struct {
		mode   string
		change func(*State, *Command)
	}{
		"by another":        {ModeSync, func(_ *State, c *Command) { c.By = "s" }},
		"an older epoch":    {ModeSync, func(_ *State, c *Command) { c.SetMode.Epoch-- }},
		"an older version":  {ModeSync, func(_ *State, c *Command) { c.SetMode.Version-- }},
		"another mode":      {ModeSync, func(_ *State, c *Command) { c.SetMode.Mode = ModeAsync }},
		"no mode":           {ModeSync, func(_ *State, c *Command) { c.SetMode.Mode = "" }},
		"one not named":     {ModeSync, func(_ *State, c *Command) { delete(c.SetMode.Members, "x") }},
		"one that left":     {ModeSync, func(s *State, c *Command) { drop(s, "x") }},
		"the primary":       {ModeSync, func(_ *State, c *Command) { swap(c, "x", "p", Member{incA, 1}) }},
		"a stranger":        {ModeSync, func(_ *State, c *Command) { swap(c, "x", "w", Member{incA, 1}) }},
		"other incarnation": {ModeSync, func(_ *State, c *Command) { c.SetMode.Members["s"] = Member{incB, 1} }},
		"a later process":   {ModeSync, func(_ *State, c *Command) { c.SetMode.Members["s"] = Member{incA, 2} }},
		"an older process": {ModeSync, func(s *State, c *Command) {
			restart(s, "s", 2)
			v := s.Volumes["v"]
			v.Members["s"] = Member{incA, 2}
		}},
		"one that ended":                 {ModeSync, func(s *State, c *Command) { restart(s, "s", 2) }},
		"another of a process":           {ModeSemisync, func(s *State, c *Command) { restart(s, "s", 2); c.SetMode.Members["s"] = Member{incA, 2} }},
		"before the last one is removed": {ModeSync, func(s *State, _ *Command) { change(s, func(v *Volume) { v.Previous = "x" }) }},
		"before it acts":                 {ModeAsync, func(s *State, _ *Command) { change(s, func(v *Volume) { v.Served = "s" }) }},
		"taken back":                     {ModeSync, func(s *State, _ *Command) { change(s, func(v *Volume) { v.NextMode = "" }) }},
	} {
		next := ModeSemisync
		if c.mode == ModeSemisync {
			next = ModeSync
		}
		s := inMode(t, c.mode, next)
		cmd := Command{By: "p", SetMode: setMode(s, next)}
		c.change(s, &cmd)
		version := s.Volumes["v"].Version
		if r := s.Apply(s.Index+1, 5, cmd); r.Void == "" {
			t.Errorf("%s: applied", name)
		}
		if v := s.Volumes["v"]; v.Mode != c.mode || v.Version != version {
			t.Errorf("%s: %+v", name, v)
		}
	}
	s := inMode(t, ModeSync, ModeAsync) // a standby was started anew, which in sync stays a member by what is written
	restart(s, "s", 2)
	m := setMode(s, ModeAsync)
	m.Members["s"] = Member{incA, 2}
	ok(t, s, Command{By: "p", SetMode: m})
	if v := s.Volumes["v"]; v.Members["s"].Process != 2 || !v.IsProcess("s") || v.IsProcess("p") {
		t.Errorf("the process that the primary has greeted is not the member: %+v", v)
	}
}

func change(s *State, f func(*Volume)) {
	v := s.Volumes["v"].Clone()
	f(&v)
	s.Volumes["v"] = v
}

func drop(s *State, node string) { change(s, func(v *Volume) { delete(v.Members, node) }) }

func swap(c *Command, from, to string, m Member) {
	delete(c.SetMode.Members, from)
	c.SetMode.Members[to] = m
}

func restart(s *State, node string, start uint64) {
	n := s.Nodes[node]
	n.Start = start
	s.Nodes[node] = n
}
