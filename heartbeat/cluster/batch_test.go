package cluster

import (
	"reflect"
	"strings"
	"testing"
)

// formedMany is formed with a second volume of the same standing, u.
func formedMany(t *testing.T) *State {
	t.Helper()
	s := formed(t)
	v := s.Volumes["v"].Clone()
	v.Name, v.ID = "u", "j"
	s.Volumes["u"] = v
	return s
}

func onVolume(s *State, name string) On {
	v := s.Volumes[name]
	return On{Volume: name, Epoch: v.Epoch, Version: v.Version}
}

func promoteOn(s *State, name, to string) Command {
	return Command{Promote: &Promote{On: onVolume(s, name), Term: 5, Candidate: to, Member: Member{incA, 1}, Basis: BasisUnchanged}}
}

// One entry moves all volumes; one that is void by its own version, or by its term, leaves the others as they are.
func TestVoidPartsOfABatchLeaveTheOthers(t *testing.T) { // R7
	for name, c := range map[string]struct {
		spoil func(*Command)
		why   string
	}{
		"decided on an older version": {func(c *Command) { c.Promote.Version-- }, "decided on"},
		"of another term":             {func(c *Command) { c.Promote.Term++ }, "term"},
		"a volume that is gone":       {func(c *Command) { c.Promote.Volume = "w" }, "does not exist"},
		"a batch within":              {func(c *Command) { *c = Command{Batch: []Command{*c}} }, "no batch holds"},
		"of a kind that is no item":   {func(c *Command) { *c = Command{RemoveNode: &RemoveNode{Node: "x"}} }, "no batch holds"},
		"of no kind":                  {func(c *Command) { *c = Command{} }, "no batch holds"},
	} {
		for at := range 2 {
			s := formedMany(t)
			items := []Command{promoteOn(s, "u", "s"), promoteOn(s, "v", "s")}
			c.spoil(&items[at])
			r := s.Apply(s.Index+1, 5, Command{By: "w", Batch: items})
			good := []string{"u", "v"}[1-at]
			bad := []string{"u", "v"}[at]
			if len(r.Items) != 2 || r.Items[1-at].Void != "" || !strings.Contains(r.Items[at].Void, c.why) {
				t.Fatalf("%s, item %d: %+v", name, at, r)
			}
			if s.Volumes[good].Primary != "s" || r.Items[1-at].Volume.Epoch != s.Volumes[good].Epoch {
				t.Errorf("%s, item %d: the other volume was not promoted: %+v", name, at, s.Volumes[good])
			}
			if s.Volumes[bad].Primary == "s" {
				t.Errorf("%s, item %d: it was promoted", name, at)
			}
		}
	}
}

// An entry that comes a second time changes nothing, and two items on one volume are two commands.
func TestBatchAppliedTwiceIsVoid(t *testing.T) { // R7, R27
	s := formedMany(t)
	c := Command{By: "w", Batch: []Command{promoteOn(s, "u", "s"), promoteOn(s, "v", "s"), promoteOn(s, "v", "s")}}
	r := s.Apply(s.Index+1, 5, c)
	if r.Items[0].Void != "" || r.Items[1].Void != "" || r.Items[2].Void == "" {
		t.Fatalf("%+v", r)
	}
	before := s.Clone()
	for _, i := range s.Apply(s.Index+1, 5, c).Items {
		if i.Void == "" {
			t.Fatalf("applied twice: %+v", i)
		}
	}
	before.Index = s.Index
	if !reflect.DeepEqual(before, s) {
		t.Error("the second one changed the state")
	}
}

// An item may be another node's than the rest: who proposes is part of what is judged (R4, R5).
func TestItemsOfABatchKeepWhoProposed(t *testing.T) {
	s := formedMany(t)
	drop := func(name string) Command {
		return Command{Drop: &Drop{On: onVolume(s, name), Node: "x", Reason: "no answer"}}
	}
	u, v := drop("u"), drop("v")
	u.By = "s" // no primary
	r := s.Apply(s.Index+1, 5, Command{By: "p", AtMillis: 7, Batch: []Command{u, v}})
	if r.Items[0].Void == "" || r.Items[1].Void != "" {
		t.Fatalf("%+v", r)
	}
	if e := s.Events[len(s.Events)-1]; e.AtMillis != 7 || e.Volume != "v" {
		t.Errorf("%+v", e)
	}
}

func TestTooLargeABatchIsVoid(t *testing.T) { // R28
	s := formedMany(t)
	c := Command{By: "w", Batch: make([]Command, MaxBatch+1)}
	c.Batch[0] = promoteOn(s, "u", "s")
	if r := s.Apply(s.Index+1, 5, c); r.Void == "" || s.Volumes["u"].Primary == "s" {
		t.Errorf("%+v", r)
	}
}

func TestTogetherLeavesASingleCommandAsItWas(t *testing.T) {
	for _, c := range commands() {
		if c.Batch == nil && !reflect.DeepEqual(Together(c.Items()), c) {
			t.Errorf("%+v became %+v", c, Together(c.Items()))
		}
	}
	s := formedMany(t)
	a, b := promoteOn(s, "u", "s"), promoteOn(s, "v", "s")
	a.By, b.By, a.AtMillis, b.AtMillis = "w", "x", 1, 2
	if got := Together([]Command{a, b}).Items(); !reflect.DeepEqual(got, []Command{a, b}) {
		t.Errorf("%+v", got)
	}
}

// What readers were given before an entry stays as it was, whatever the entry is: a copy for the next one shares records.
func TestApplyLeavesTheStateBefore(t *testing.T) {
	full := func(t *testing.T) *State {
		s := formedMany(t)
		for _, name := range []string{"u", "v"} {
			v := s.Volumes[name]
			v.Held, v.Paused, v.Full, v.NextMode, v.Next = []string{"s", "x"}, []string{"s", "x"}, []string{"s", "x"}, ModeAsync, 4096
			v.Promotions = map[Basis]uint64{BasisUnchanged: 3}
			s.Volumes[name] = v
		}
		s.Failovers = []Failover{{Volume: "v", Epoch: 4}, {Volume: "u", Epoch: 4}}
		return s
	}
	s := full(t)
	o, m := onVolume(s, "v"), Member{incA, 1}
	some := append(commands(), promoteOn(s, "v", "s"),
		Command{By: "w", Promote: &Promote{On: o, Term: 5, Candidate: "s", Member: m, Basis: BasisForced}},
		Command{By: "p", Drop: &Drop{On: o, Node: "x"}}, Command{By: "p", Admit: &Admit{On: o, Node: "x", Member: m, Full: true, Rescued: true}},
		Command{By: "s", Rejoin: &Rejoin{On: o, Node: "s", Member: m}}, Command{AllowResync: &AllowResync{On: o, Node: "s"}},
		Command{PauseResync: &PauseResync{On: o, Nodes: []string{"s"}}}, Command{FullResync: &FullResync{On: o, Node: "s"}},
		Command{By: "p", SetMode: &SetMode{On: o, Mode: ModeAsync, Members: map[string]Member{"s": m, "x": m}}}, Command{RemoveNode: &RemoveNode{Node: "x"}},
		Command{Failover: &Failover{Volume: "v", Epoch: 4, Amended: true}},
		Command{Configure: &Configure{Version: s.ConfigVersion, Hash: "g", Config: []byte{1}, RTOMillis: 1, Remove: []RemoveVolume{{Name: "u", ID: "j"}},
			Resize: []ResizeVolume{{Name: "v", ID: "i", Epoch: o.Epoch, Version: o.Version, Size: 1 << 22}}}})
	applied := 0
	for _, c := range some {
		s := full(t)
		next := s.Next()
		if r := next.Apply(s.Index+1, 5, c); r.Void == "" {
			applied++
		}
		if want := full(t); !reflect.DeepEqual(s, want) {
			t.Errorf("%s changed what readers have:\n got %+v\nwant %+v", c.Encode(), s, want)
		}
	}
	if applied < 10 {
		t.Errorf("only %d commands were applied: the test shows little", applied)
	}
}
