package cluster

import "testing"

// R25: in semisync a standby is one process, and only a clean stop leads to another one.
func TestSemisyncMemberIsOneProcess(t *testing.T) {
	for name, c := range map[string]struct {
		node                     string
		report                   Report
		unchanged, kept, lost    bool
		keptInSync, unchangedToo bool // what holds in sync
	}{
		"the member itself":      {"s", Report{Incarnation: incA, Process: 1}, true, false, false, false, true},
		"a new process":          {"s", Report{Incarnation: incA, Process: 2}, false, false, true, false, true},
		"after a clean stop":     {"s", Report{Incarnation: incA, Process: 2, Clean: &Clean{incA, 1}}, false, true, true, true, true},
		"with empty maps":        {"s", Report{Incarnation: incA, Process: 2, Unmarked: &Keeper{incA.Boot, 1}}, false, false, true, true, true},
		"mark of another":        {"s", Report{Incarnation: incA, Process: 3, Clean: &Clean{incA, 2}}, false, false, true, false, true},
		"restarted machine":      {"s", Report{Incarnation: incB, Process: 2}, false, false, true, false, false},
		"the primary, restarted": {"p", Report{Incarnation: incA, Process: 2}, true, false, false, false, true},
	} {
		s := formed(t)
		v := s.Volumes["v"]
		v.Mode = ModeSync
		if v.Unchanged(c.node, &c.report) != c.unchangedToo || v.Kept(c.node, &c.report) != c.keptInSync {
			t.Errorf("%s, sync: unchanged %t, kept %t", name, v.Unchanged(c.node, &c.report), v.Kept(c.node, &c.report))
		}
		v.Mode, v.Served = ModeSemisync, "p"
		if u, k, l := v.Unchanged(c.node, &c.report), v.Kept(c.node, &c.report), v.LostMemory(c.node, &c.report); u != c.unchanged || k != c.kept || l != c.lost {
			t.Errorf("%s: unchanged %t, kept %t, lost its memory %t", name, u, k, l)
		}
		s.Volumes["v"] = v
		if c.node != "s" || c.report.Process == 1 {
			continue
		}
		r := s.Apply(s.Index+1, 5, Command{By: "s", Rejoin: &Rejoin{On: on(s), Node: "s", Clean: c.report.Clean, Unmarked: c.report.Unmarked,
			Member: Member{c.report.Incarnation, c.report.Process}}})
		if (r.Void == "") != c.kept {
			t.Errorf("%s: goes on as the member: %t, want %t (%s)", name, r.Void == "", c.kept, r.Void)
		}
	}
}

// R6, R25: who served stays promotable under a new process until the new one acts, which is an entry of its own, also where nobody
// is left to be removed; until then the new one is one process.
func TestSemisyncWhoServedLast(t *testing.T) {
	is := func(s *State, what, primary, previous, served string) {
		t.Helper()
		if v := s.Volumes["v"]; v.Primary != primary || v.Previous != previous || v.Served != served {
			t.Fatalf("%s: primary %q, previous %q, served %q", what, v.Primary, v.Previous, v.Served)
		}
	}
	started := func() *State {
		s := formed(t)
		v := s.Volumes["v"]
		v.Mode, v.Served = ModeSemisync, "p"
		s.Volumes["v"] = v
		return s
	}
	act := func(s *State, by, of string) { ok(t, s, Command{By: by, Drop: &Drop{On: on(s), Node: of}}) }

	s := started()
	stay := map[string]Member{"x": {incA, 1}}
	p := promote(s, "s", BasisUnchanged)
	p.Stay = stay
	ok(t, s, Command{Promote: p})
	is(s, "promoted", "s", "p", "p")
	act(s, "s", "p")
	is(s, "it acts", "s", "", "s")

	s = started()
	p = promote(s, "s", BasisUnchanged)
	p.Leave, p.Stay = []string{"p"}, stay
	ok(t, s, Command{Promote: p})
	is(s, "promoted, the last one left with it", "s", "", "p")
	if v := s.Volumes["v"]; v.Acts() || !v.IsProcess("s") {
		t.Error("it acts, and nobody has said that nothing is unwritten")
	}
	act(s, "s", "p")
	is(s, "it acts", "s", "", "s")

	s = started()
	p = promote(s, "s", BasisUnchanged)
	p.Stay = stay
	ok(t, s, Command{Promote: p})
	ok(t, s, Command{By: "w", RemoveNode: &RemoveNode{Node: "p"}})
	is(s, "the last one was removed from the cluster", "s", "", "p")

	s = started()
	p = promote(s, "s", BasisUnchanged)
	p.Stay = stay
	ok(t, s, Command{Promote: p})
	p = promote(s, "p", BasisUnchanged)
	p.Stay = stay
	ok(t, s, Command{Promote: p})
	is(s, "back before the new one acted", "p", "s", "p")
	if v := s.Volumes["v"]; v.IsProcess("p") || !v.IsProcess("s") {
		t.Error("who never acted is taken for the member under another process")
	}

	for basis, served := range map[Basis]string{BasisHandOver: "s", BasisForced: "s"} {
		s = started()
		ok(t, s, Command{Promote: promote(s, "s", basis)})
		if v := s.Volumes["v"]; v.Served != served || !v.Acts() {
			t.Errorf("%s: served %q, acts %t", basis, v.Served, v.Acts())
		}
	}
	s = formed(t)
	p = promote(s, "s", BasisUnchanged)
	p.Leave = []string{"p"}
	ok(t, s, Command{Promote: p})
	if v := s.Volumes["v"]; v.Served != "" || !v.Acts() {
		t.Errorf("in sync: served %q, acts %t", v.Served, v.Acts())
	}
}
