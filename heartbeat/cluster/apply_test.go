package cluster

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
)

var (
	incA = Incarnation{Boot: "a", Attachment: "1"}
	incB = Incarnation{Boot: "b", Attachment: "1"}
)

// formed is a cluster of p, s, x with data and the witness w; process 1 of each runs; volume v is at epoch 3, version
// 10, with p as primary and all three as members.
func formed(t *testing.T) *State {
	t.Helper()
	s := NewState()
	init := &Init{ID: "c", Name: "prod", ConfigHash: "h"}
	vol := CreateVolume{Name: "v", ID: "i", Size: 1 << 20, Mode: "sync"}
	for _, n := range []string{"p", "s", "x", "w"} {
		init.Nodes = append(init.Nodes, Node{Name: n, Witness: n == "w", DataDir: "d" + n})
		if n != "w" {
			vol.Replicas = append(vol.Replicas, Replica{Node: n, Device: "/dev/" + n})
		}
	}
	init.Volumes = []CreateVolume{vol}
	ok(t, s, Command{Init: init})
	for _, n := range []string{"p", "s", "x", "w"} {
		ok(t, s, Command{By: n, StartNode: &StartNode{Node: n, DataDir: "d" + n, Start: 1, Boot: "a"}})
	}
	v := s.Volumes["v"]
	v.Epoch, v.Version, v.Primary, v.Process = 3, 10, "p", 1
	v.Members = map[string]Member{"p": {incA, 1}, "s": {incA, 1}, "x": {incA, 1}}
	s.Volumes["v"] = v
	return s
}

func ok(t *testing.T, s *State, c Command) Result {
	t.Helper()
	r := s.Apply(s.Index+1, 5, c)
	if r.Void != "" {
		t.Fatalf("void: %s", r.Void)
	}
	return r
}

func on(s *State) On {
	v := s.Volumes["v"]
	return On{Volume: "v", Epoch: v.Epoch, Version: v.Version}
}

func promote(s *State, to string, basis Basis) *Promote {
	return &Promote{On: on(s), Term: 5, Candidate: to, Member: Member{incA, 1}, Basis: basis}
}

func TestCommandDecidedOnAnotherRecordIsVoidAndChangesNothing(t *testing.T) { // R7
	for name, make := range map[string]func(On) Command{
		"form": func(o On) Command { return Command{Form: &Form{On: o, Members: map[string]Member{"p": {}}}} },
		"promote": func(o On) Command {
			return Command{Promote: &Promote{On: o, Term: 5, Candidate: "s", Member: Member{incA, 1}, Basis: BasisUnchanged}}
		},
		"drop":  func(o On) Command { return Command{By: "p", Drop: &Drop{On: o, Node: "s"}} },
		"admit": func(o On) Command { return Command{By: "p", Admit: &Admit{On: o, Node: "s"}} },
		"rejoin": func(o On) Command {
			return Command{By: "s", Rejoin: &Rejoin{On: o, Node: "s", Member: Member{incA, 2}}}
		},
		"allow resync": func(o On) Command { return Command{AllowResync: &AllowResync{On: o, Node: "s"}} },
	} {
		for where, o := range map[string]On{"version before": {"v", 3, 9}, "version after": {"v", 3, 11}, "epoch before": {"v", 2, 10},
			"epoch after": {"v", 4, 10}, "no such volume": {"u", 3, 10}} {
			s := formed(t)
			before := s.Clone()
			r := s.Apply(s.Index+1, 5, make(o))
			if r.Void == "" {
				t.Errorf("%s, %s: applied", name, where)
			}
			if before.Index = s.Index; !reflect.DeepEqual(before, s) {
				t.Errorf("%s, %s: void, and the state changed", name, where)
			}
		}
	}
}

func TestEveryAppliedCommandRaisesTheVersionAlsoOneThatFindsNothingToDo(t *testing.T) { // R7
	for name, c := range map[string]func(s *State) Command{
		"drop":              func(s *State) Command { return Command{By: "p", Drop: &Drop{On: on(s), Node: "s"}} },
		"drop of no member": func(s *State) Command { return Command{By: "p", Drop: &Drop{On: on(s), Node: "w"}} },
		"admit":             func(s *State) Command { return Command{By: "p", Admit: &Admit{On: on(s), Node: "s"}} },
		"rejoin": func(s *State) Command {
			return Command{By: "s", Rejoin: &Rejoin{On: on(s), Node: "s", Member: Member{incA, 2}}}
		},
		"allow what isn't held": func(s *State) Command { return Command{AllowResync: &AllowResync{On: on(s), Node: "s"}} },
		"promote":               func(s *State) Command { return Command{Promote: promote(s, "s", BasisUnchanged)} },
	} {
		s := formed(t)
		cmd := c(s)
		if r := ok(t, s, cmd); r.Volume.Version != 11 {
			t.Errorf("%s: version %d, want 11", name, r.Volume.Version)
		}
		if r := s.Apply(s.Index+1, 5, cmd); r.Void == "" {
			t.Errorf("%s: applied a second time", name) // R27: repeating one is harmless
		}
	}
}

func TestLateAdmissionBehindADropOfNothingIsVoid(t *testing.T) { // R5, R7
	s := formed(t)
	ok(t, s, Command{By: "p", Drop: &Drop{On: on(s), Node: "s"}})
	late := Command{By: "p", Admit: &Admit{On: on(s), Node: "s", Member: Member{incA, 1}}}
	ok(t, s, Command{By: "p", Drop: &Drop{On: on(s), Node: "s"}})
	if r := s.Apply(s.Index+1, 5, late); r.Void == "" {
		t.Fatal("the primary had made sure that it is not admitted, and it was")
	}
}

func TestVoidDecisionOfTheLeaderStillMovesTheRecord(t *testing.T) { // R10: else the leader waits for ever
	s := formed(t)
	ok(t, s, Command{StartNode: &StartNode{Node: "s", DataDir: "ds", Start: 2}})
	c := Command{Promote: promote(s, "s", BasisUnchanged)} // of process 1
	r := s.Apply(s.Index+1, 5, c)
	if r.Void == "" || r.Volume.Version != 11 || r.Volume.Epoch != 3 || r.Volume.Primary != "p" || len(r.Volume.Members) != 3 {
		t.Fatalf("%q, %+v", r.Void, r.Volume)
	}
	f := Command{Form: &Form{On: on(s), Members: map[string]Member{"p": {}}}}
	if r = s.Apply(s.Index+1, 5, f); r.Void == "" || r.Volume.Version != 12 {
		t.Fatalf("%q, version %d", r.Void, r.Volume.Version)
	}
}

func TestPromotionRaisesTheEpochByOneAndNamesOneProcess(t *testing.T) { // R1, R2, R6
	s := formed(t)
	v := ok(t, s, Command{Promote: promote(s, "s", BasisUnchanged)}).Volume
	if v.Epoch != 4 || v.Primary != "s" || v.Process != 1 {
		t.Fatalf("epoch %d of %s process %d", v.Epoch, v.Primary, v.Process)
	}
	if v.Previous != "p" || !v.IsMember("p") || !v.IsMember("s") {
		t.Fatalf("previous %q, set %v: the old primary stays promotable until the new one acts", v.Previous, v.MemberNames())
	}
	if v.IsMember("x") {
		t.Fatal("x may differ from s in what was in flight and stays a member (R29)")
	}
}

func TestPromotionIsVoid(t *testing.T) { // R6, R7
	for name, change := range map[string]func(s *State, p *Promote){
		"in an entry of another term":        func(s *State, p *Promote) { p.Term = 4 },
		"of another process":                 func(s *State, p *Promote) { p.Member.Process = 2 },
		"of another incarnation":             func(s *State, p *Promote) { p.Member.Incarnation = incB },
		"of no member":                       func(s *State, p *Promote) { delete(s.Volumes["v"].Members, "s") },
		"of a node without a replica":        func(s *State, p *Promote) { p.Candidate = "w" },
		"of a node that is unknown":          func(s *State, p *Promote) { delete(s.Nodes, "s"); p.Member.Process = 0 },
		"of one that leaves":                 func(s *State, p *Promote) { p.Leave = []string{"s"} },
		"for no reason":                      func(s *State, p *Promote) { p.Basis = "" },
		"clean, without a mark":              func(s *State, p *Promote) { p.Basis = BasisClean },
		"clean, mark of another incarnation": func(s *State, p *Promote) { p.Basis, p.Clean = BasisClean, &Clean{incB, 1} },
		"clean, mark of another process":     func(s *State, p *Promote) { p.Basis, p.Clean = BasisClean, &Clean{incA, 2} },
		"last primary that is not":           func(s *State, p *Promote) { p.Basis = BasisLastPrimary },
		"all lost, the last primary stays":   func(s *State, p *Promote) { p.Basis = BasisAllLost },
		"hand-over to another incarnation":   func(s *State, p *Promote) { p.Basis, p.Member.Incarnation = BasisHandOver, incB },
		"first, of a volume that had one":    func(s *State, p *Promote) { p.Basis = BasisFirst },
		"with one that is no member": func(s *State, p *Promote) {
			p.Stay = map[string]Member{"x": {incA, 1}}
			delete(s.Volumes["v"].Members, "x")
		},
		"with another than the member":  func(s *State, p *Promote) { p.Stay = map[string]Member{"x": {incB, 1}} },
		"with another process":          func(s *State, p *Promote) { p.Stay = map[string]Member{"x": {incA, 2}} },
		"with the old primary":          func(s *State, p *Promote) { p.Stay = map[string]Member{"p": {incA, 1}} },
		"forced, with one that may not": func(s *State, p *Promote) { p.Basis, p.Stay = BasisForced, map[string]Member{"x": {incA, 1}} },
		"unmarked, of maps that an older process kept": func(s *State, p *Promote) {
			p.Basis, p.Unmarked = BasisUnmarked, &Keeper{incA.Boot, 0}
		},
		"unmarked, by nobody's word": func(s *State, p *Promote) { p.Basis = BasisUnmarked },
		"unmarked, of no member": func(s *State, p *Promote) {
			p.Basis, p.Unmarked = BasisUnmarked, &Keeper{incA.Boot, 1}
			delete(s.Volumes["v"].Members, "s")
		},
		"clean, of no member": func(s *State, p *Promote) {
			p.Basis, p.Clean = BasisClean, &Clean{incA, 1}
			delete(s.Volumes["v"].Members, "s")
		},
		"forced, of a node without a replica": func(s *State, p *Promote) { p.Basis, p.Candidate = BasisForced, "w" },
		"clean, no mark and no member": func(s *State, p *Promote) {
			p.Basis, p.Clean = BasisClean, &Clean{}
			delete(s.Volumes["v"].Members, "s")
		},
		"first, of no member": func(s *State, p *Promote) {
			v := s.Volumes["v"]
			v.Primary = ""
			delete(v.Members, "s")
			s.Volumes["v"] = v
			p.Basis = BasisFirst
		},
		"forced, of another process": func(s *State, p *Promote) { p.Basis, p.Member.Process = BasisForced, 7 },
	} {
		s := formed(t)
		p := promote(s, "s", BasisUnchanged)
		change(s, p)
		before := s.Volumes["v"].Clone()
		before.Version++
		r := s.Apply(s.Index+1, 5, Command{Promote: p})
		if r.Void == "" || !reflect.DeepEqual(*r.Volume, before) {
			t.Errorf("%s: %q, epoch %d of %s", name, r.Void, r.Volume.Epoch, r.Volume.Primary)
		}
	}
}

func TestWhoStaysInTheSetAtAPromotion(t *testing.T) { // R6, R23, R25, R29
	s0 := formed(t)
	dropP := func(s *State) { v := s.Volumes["v"]; v.Previous = ""; delete(v.Members, "p"); s.Volumes["v"] = v }
	for name, c := range map[string]struct {
		prepare  func(s *State)
		p        func(s *State) *Promote
		members  string
		previous string
	}{
		"failover":  {nil, func(s *State) *Promote { return promote(s, "s", BasisUnchanged) }, "[p s]", "p"},
		"hand-over": {nil, func(s *State) *Promote { return promote(s, "s", BasisHandOver) }, "[p s x]", ""},
		"the old primary failed": {nil, func(s *State) *Promote {
			p := promote(s, "s", BasisUnchanged)
			p.Leave = []string{"p"}
			return p
		}, "[s]", ""},
		"the old primary again":       {nil, func(s *State) *Promote { return promote(s, "p", BasisUnchanged) }, "[p]", ""},
		"the old primary left before": {dropP, func(s *State) *Promote { return promote(s, "s", BasisUnchanged) }, "[s]", ""},
		"all lost their memory": {nil, func(s *State) *Promote {
			p := promote(s, "p", BasisLastPrimary)
			p.Member.Incarnation = incB
			return p
		}, "[p]", ""},
		"all lost their memory, p its disk": {nil, func(s *State) *Promote {
			p := promote(s, "s", BasisAllLost)
			p.Member.Incarnation, p.Leave = incB, []string{"p"}
			return p
		}, "[s]", ""},
		"clean": {nil, func(s *State) *Promote {
			p := promote(s, "s", BasisClean)
			p.Clean, p.Member.Incarnation = &Clean{incA, 1}, incB
			return p
		}, "[p s]", "p"},
		"forced": {nil, func(s *State) *Promote { return promote(s, "s", BasisForced) }, "[s]", ""},
		"failover, x is settled": {nil, func(s *State) *Promote {
			p := promote(s, "s", BasisUnchanged)
			p.Stay = map[string]Member{"x": {incA, 1}}
			return p
		}, "[p s x]", "p"},
		"the old primary again, both are settled": {nil, func(s *State) *Promote {
			p := promote(s, "p", BasisUnchanged)
			p.Stay = map[string]Member{"s": {incA, 1}, "x": {incA, 1}}
			return p
		}, "[p s x]", ""},
		"all lost their memory, x is settled": {nil, func(s *State) *Promote {
			p := promote(s, "p", BasisLastPrimary)
			p.Member.Incarnation, p.Stay = incB, map[string]Member{"x": {incB, 1}}
			return p
		}, "[p x]", ""},
	} {
		s := s0.Clone()
		if c.prepare != nil {
			c.prepare(s)
		}
		p := c.p(s)
		v := ok(t, s, Command{Promote: p}).Volume
		if got := fmt.Sprint(v.MemberNames()); got != c.members || v.Previous != c.previous {
			t.Errorf("%s: set %s, previous %q; want %s, %q", name, got, v.Previous, c.members, c.previous)
		}
		for n, m := range p.Stay {
			if v.Members[n] != m {
				t.Errorf("%s: %s is %+v, want %+v", name, n, v.Members[n], m)
			}
		}
		if v.Members[p.Candidate] != p.Member {
			t.Errorf("%s: the set names %+v, want %+v", name, v.Members[p.Candidate], p.Member)
		}
	}
}

// The promoted one dies before it acted and the old primary returns: nothing of the second may stay in the set.
func TestPromotionBackRemovesTheOneThatDidNotAct(t *testing.T) { // R6
	s := formed(t)
	ok(t, s, Command{Promote: promote(s, "s", BasisUnchanged)})
	v := ok(t, s, Command{Promote: promote(s, "p", BasisUnchanged)}).Volume
	if v.Epoch != 5 || v.Previous != "s" {
		t.Fatalf("epoch %d, previous %q, want 5 and s", v.Epoch, v.Previous)
	}
}

func TestForcedPromotionHoldsTheOthersUntilAPersonAllows(t *testing.T) { // R6, R19
	s := formed(t)
	v := ok(t, s, Command{Promote: promote(s, "s", BasisForced)}).Volume
	if !slices.Equal(v.Held, []string{"p", "x"}) {
		t.Fatalf("held %v, want p and x", v.Held)
	}
	admit := func() Command { return Command{By: "s", Admit: &Admit{On: on(s), Node: "p", Member: Member{incA, 1}}} }
	if r := s.Apply(s.Index+1, 5, admit()); r.Void == "" {
		t.Fatal("a replica with acknowledged writes of its own was admitted")
	}
	ok(t, s, Command{AllowResync: &AllowResync{On: on(s), Node: "p"}})
	v = ok(t, s, admit()).Volume
	if !v.IsMember("p") || !slices.Equal(v.Held, []string{"x"}) {
		t.Fatalf("set %v, held %v", v.MemberNames(), v.Held)
	}
	v = ok(t, s, Command{Promote: promote(s, "x", BasisForced)}).Volume
	if !slices.Equal(v.Held, []string{"p", "s"}) || v.HeldSince != v.Epoch {
		t.Fatalf("held %v since epoch %d after x was forced in epoch %d, want p and s", v.Held, v.HeldSince, v.Epoch)
	}
	since := v.HeldSince
	if r := s.Apply(s.Index+1, 5, Command{By: "x", Admit: &Admit{On: on(s), Node: "p", Member: Member{incA, 1}}}); r.Void == "" {
		t.Fatal("a held replica was admitted although nothing was kept aside")
	}
	v = ok(t, s, Command{By: "x", Admit: &Admit{On: on(s), Node: "p", Member: Member{incA, 1}, Rescued: true}}).Volume
	if !v.IsMember("p") || !slices.Equal(v.Held, []string{"s"}) || v.HeldSince != since {
		t.Fatalf("set %v, held %v since %d, want p in it and s held since %d", v.MemberNames(), v.Held, v.HeldSince, since)
	}
}

func TestDrop(t *testing.T) { // R4
	for name, c := range map[string]struct {
		by, node string
		members  []string
		void     bool
	}{
		"by the primary":        {"p", "s", []string{"p", "s", "x"}, false},
		"by the replica itself": {"s", "s", []string{"p", "s", "x"}, false},
		"by another replica":    {"x", "s", []string{"p", "s", "x"}, true},
		"by the witness":        {"w", "s", []string{"p", "s", "x"}, true},
		"of the primary":        {"p", "p", []string{"p", "s", "x"}, true},
		"of the last one":       {"s", "s", []string{"s"}, true},
		"of no member":          {"p", "s", []string{"p", "x"}, false},
	} {
		s := formed(t)
		v := s.Volumes["v"]
		maps.DeleteFunc(v.Members, func(n string, _ Member) bool { return !slices.Contains(c.members, n) })
		r := s.Apply(s.Index+1, 5, Command{By: c.by, Drop: &Drop{On: on(s), Node: c.node}})
		if (r.Void != "") != c.void {
			t.Errorf("%s: void %q", name, r.Void)
		}
		if r.Volume.IsMember(c.node) != (c.void && slices.Contains(c.members, c.node)) {
			t.Errorf("%s: member %t", name, r.Volume.IsMember(c.node))
		}
	}
}

func TestDropOfThePreviousPrimaryClearsTheWayForTheNewOne(t *testing.T) { // R6
	s := formed(t)
	ok(t, s, Command{Promote: promote(s, "s", BasisUnchanged)})
	if v := ok(t, s, Command{By: "s", Drop: &Drop{On: on(s), Node: "p"}}).Volume; v.Previous != "" || v.IsMember("p") {
		t.Fatalf("previous %q, set %v", v.Previous, v.MemberNames())
	}
}

func TestAdmit(t *testing.T) { // R5
	for name, c := range map[string]struct {
		by, node string
		void     bool
	}{
		"by the primary":              {"p", "s", false},
		"by the replica itself":       {"s", "s", true},
		"by a member":                 {"x", "s", true},
		"of a node without a replica": {"p", "w", true},
		"of the primary":              {"p", "p", true},
		"of a stranger":               {"p", "y", true},
		"before the first promotion":  {"", "s", true},
	} {
		s := formed(t)
		delete(s.Volumes["v"].Members, "s")
		if c.by == "" {
			v := s.Volumes["v"]
			v.Epoch, v.Primary = 0, ""
			s.Volumes["v"] = v
		}
		r := s.Apply(s.Index+1, 5, Command{By: c.by, Admit: &Admit{On: on(s), Node: c.node, Member: Member{incB, 1}}})
		if (r.Void != "") != c.void {
			t.Errorf("%s: void %q", name, r.Void)
		}
		if !c.void && r.Volume.Members["s"] != (Member{incB, 1}) {
			t.Errorf("%s: the set names %+v", name, r.Volume.Members["s"])
		}
		if c.void && (r.Volume.IsMember("s") || r.Volume.Members["p"] != (Member{incA, 1})) {
			t.Errorf("%s: set %v", name, r.Volume.Members)
		}
	}
}

func TestRejoin(t *testing.T) { // R25
	for name, c := range map[string]struct {
		by, node string
		member   Member
		clean    *Clean
		void     bool
	}{
		"unmarked":                    {"s", "s", Member{incB, 3}, nil, false},
		"unmarked primary":            {"p", "p", Member{incB, 3}, nil, true},
		"unmarked, by an older one":   {"s", "s", Member{incB, 4}, nil, true},
		"same incarnation":            {"s", "s", Member{incA, 2}, nil, false},
		"clean stop":                  {"s", "s", Member{incB, 2}, &Clean{incA, 1}, false},
		"lost its memory":             {"s", "s", Member{incB, 2}, nil, true},
		"mark of another process":     {"s", "s", Member{incB, 2}, &Clean{incA, 2}, true},
		"mark of another incarnation": {"s", "s", Member{incB, 2}, &Clean{incB, 1}, true},
		"for another":                 {"x", "s", Member{incA, 2}, nil, true},
		"no member":                   {"w", "w", Member{incA, 2}, nil, true},
		"no member and no mark":       {"w", "w", Member{incA, 2}, &Clean{}, true},
		"primary":                     {"p", "p", Member{incA, 2}, nil, true}, // R2: it is promoted anew
	} {
		keepers := map[uint64]*Keeper{3: {incA.Boot, 1}, 4: {incA.Boot, 0}}
		s := formed(t)
		r := s.Apply(s.Index+1, 5, Command{By: c.by, Rejoin: &Rejoin{On: on(s), Node: c.node, Member: c.member, Clean: c.clean, Unmarked: keepers[c.member.Process]}})
		if (r.Void != "") != c.void || !c.void && r.Volume.Members[c.node] != c.member {
			t.Errorf("%s: void %q, the set names %+v", name, r.Void, r.Volume.Members[c.node])
		}
		if c.void && c.node == "s" && r.Volume.Members["s"] != (Member{incA, 1}) {
			t.Errorf("%s: void, and the set names %+v", name, r.Volume.Members["s"])
		}
	}
}

func TestFormOnlyANewVolume(t *testing.T) {
	fresh := func(t *testing.T) *State {
		s := formed(t)
		v := s.Volumes["v"]
		v.Epoch, v.Version, v.Primary, v.Process, v.Members = 0, 1, "", 0, map[string]Member{}
		s.Volumes["v"] = v
		return s
	}
	s := fresh(t)
	v := ok(t, s, Command{Form: &Form{On: on(s), Members: map[string]Member{"p": {incA, 1}, "s": {incA, 1}}, InitialFrom: "p"}}).Volume
	if fmt.Sprint(v.MemberNames()) != "[p s]" || v.InitialFrom != "p" || v.Epoch != 0 {
		t.Fatalf("%+v", v)
	}
	if r := s.Apply(s.Index+1, 5, Command{Form: &Form{On: on(s), Members: map[string]Member{"x": {}}}}); r.Void == "" {
		t.Fatal("formed a second time")
	}
	for name, members := range map[string]map[string]Member{"nobody": nil, "a witness": {"w": {}}, "a stranger": {"p": {}, "y": {}}} {
		s := fresh(t)
		if r := s.Apply(s.Index+1, 5, Command{Form: &Form{On: on(s), Members: members}}); r.Void == "" || len(r.Volume.Members) != 0 {
			t.Errorf("formed of %s: %+v", name, r.Volume.Members)
		}
	}
	s = fresh(t)
	ok(t, s, Command{Form: &Form{On: on(s), Members: map[string]Member{"s": {incA, 1}}}})
	first := promote(s, "s", BasisFirst)
	first.Member.Incarnation = incB // nothing was written that its memory could have lost
	if v := ok(t, s, Command{Promote: first}).Volume; v.Epoch != 1 || v.Previous != "" {
		t.Fatalf("%+v", v)
	}
}

func TestUnknownCommandIsVoid(t *testing.T) {
	s := formed(t)
	if r := s.Apply(s.Index+1, 5, Command{}); r.Void == "" || r.Volume != nil {
		t.Fatalf("%+v", r)
	}
}

func TestResultSharesNothingWithTheState(t *testing.T) {
	s := formed(t)
	r := ok(t, s, Command{By: "p", Drop: &Drop{On: on(s), Node: "x"}})
	delete(r.Volume.Members, "s")
	if !strings.Contains(fmt.Sprint(s.Volumes["v"].Members), "s:") {
		t.Fatal("a result is the state itself")
	}
}

// Any commands in any order: the invariants of the package hold, what was handed out before stays as it was, and a
// second state that applies the same log is the same (R1, R7).
func TestRandomLogsKeepTheInvariants(t *testing.T) {
	for seed := range uint64(60) {
		rng := rand.New(rand.NewPCG(seed, 8))
		s, twin := formed(t), formed(t)
		for _, st := range []*State{s, twin} {
			v := st.Volumes["v"]
			v.Mode, v.Served = []string{ModeSync, ModeSemisync, ModeAsync}[seed%3], "p"
			st.Volumes["v"] = v
		}
		names := []string{"p", "s", "x", "w", "y"}
		pick := func() string { return names[rng.IntN(len(names))] }
		applied := 0
		for range 300 {
			v := s.Volumes["v"]
			o := On{"v", v.Epoch, v.Version - uint64(rng.IntN(8)/7)}
			n, by := pick(), pick()
			m := Member{[]Incarnation{incA, incB}[rng.IntN(2)], s.Nodes[n].Start}
			if rng.IntN(2) == 0 {
				by = v.Primary
			}
			var c Command
			switch rng.IntN(9) {
			case 0:
				bases := Bases()
				c.Promote = &Promote{On: o, Term: 5, Candidate: n, Member: m, Basis: bases[rng.IntN(len(bases))], Clean: &Clean{incA, 1}, Leave: []string{pick()}[:rng.IntN(2)]}
				if stays := pick(); rng.IntN(2) == 0 {
					c.Promote.Stay = map[string]Member{stays: v.Members[stays]}
				}
			case 1, 2:
				c.Drop = &Drop{On: o, Node: n}
			case 3, 4, 5:
				c.Admit = &Admit{On: o, Node: n, Member: m}
			case 6:
				by = n
				c.Rejoin = &Rejoin{On: o, Node: n, Member: m}
			case 7:
				c.AllowResync = &AllowResync{On: o, Node: n}
			case 8:
				switch rng.IntN(9) {
				case 8:
					c.Failover = &Failover{Volume: "v", Epoch: Epoch(rng.IntN(2)), RTOMillis: rng.Int64N(99)}
				case 0:
					c.RemoveNode = &RemoveNode{Node: n}
				case 1:
					c.AddNode = &Node{Name: n, Witness: n == "w", DataDir: "d" + n, Start: 1}
				default:
					c.StartNode = &StartNode{Node: n, DataDir: "d" + n, Start: s.Nodes[n].Start + 1}
				}
			}
			c.By = by
			old := s.Clone()
			var frozen []byte
			closely := rng.IntN(12) == 0 // encoding is slow
			if closely {
				frozen, _ = old.Encode()
			}
			r := s.Apply(s.Index+1, 5, c)
			twin.Apply(twin.Index+1, 5, c)
			now := s.Volumes["v"]
			if r.Void == "" {
				applied++
			}
			switch {
			case now.Epoch < v.Epoch || now.Epoch > v.Epoch+1:
				t.Fatalf("seed %d: epoch %d after %d", seed, now.Epoch, v.Epoch)
			case now.Epoch == v.Epoch && (now.Primary != v.Primary || now.Process != v.Process):
				t.Fatalf("seed %d: epoch %d changed its primary to %s/%d", seed, now.Epoch, now.Primary, now.Process)
			case !now.IsMember(now.Primary):
				t.Fatalf("seed %d: the primary %s is not in %v after %+v", seed, now.Primary, now.Members, c)
			case now.IsHeld(now.Primary):
				t.Fatalf("seed %d: the primary %s is held after %+v", seed, now.Primary, c)
			case c.Promote != nil && r.Void == "" && v.Mode == ModeAsync && now.Primary != v.Served && c.Promote.Basis != BasisHandOver &&
				(len(now.Held) != len(now.Replicas)-1 || now.HeldSince != now.Epoch):
				t.Fatalf("seed %d: only %v are held since %d after %+v", seed, now.Held, now.HeldSince, c)
			case now.Previous != "" && !now.IsMember(now.Previous):
				t.Fatalf("seed %d: previous %s is not in %v", seed, now.Previous, now.Members)
			case now.Version < v.Version, r.Void == "" && r.Volume != nil && now.Version != v.Version+1:
				t.Fatalf("seed %d: version %d after %d", seed, now.Version, v.Version)
			case now.Version == v.Version && !reflect.DeepEqual(now, v):
				t.Fatalf("seed %d: the record changed without its version", seed)
			}
			if !reflect.DeepEqual(v, old.Volumes["v"]) {
				t.Fatalf("seed %d: a record that was read before changed with the state", seed)
			}
			if !closely {
				continue
			}
			if again, _ := old.Encode(); string(again) != string(frozen) {
				t.Fatalf("seed %d: a clone changed with the state", seed)
			}
			a, _ := s.Encode()
			if b, _ := twin.Encode(); string(a) != string(b) {
				t.Fatalf("seed %d: two nodes applied the same log and differ", seed)
			}
		}
		if applied < 50 {
			t.Fatalf("seed %d: only %d commands were applied", seed, applied)
		}
	}
}
