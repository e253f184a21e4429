package cluster

import (
	"reflect"
	"slices"
	"testing"
)

// acknowledgesAhead is formed in async, served by p.
func acknowledgesAhead(t *testing.T) *State {
	s := formed(t)
	v := s.Volumes["v"]
	v.Mode, v.Served = ModeAsync, "p"
	s.Volumes["v"] = v
	return s
}

// In async a standby is one process, also after a clean stop: only a promotion goes by its mark.
func TestAsyncMemberIsOneProcess(t *testing.T) { // R25
	for name, c := range map[string]struct {
		node                    string
		report                  Report
		unchanged, kept, rejoin bool
	}{
		"the member itself":        {"s", Report{Incarnation: incA, Process: 1}, true, false, true},
		"a new process":            {"s", Report{Incarnation: incA, Process: 2}, false, false, false},
		"after a clean stop":       {"s", Report{Incarnation: incA, Process: 2, Clean: &Clean{incA, 1}}, false, true, false},
		"with empty maps":          {"s", Report{Incarnation: incA, Process: 2, Unmarked: &Keeper{incA.Boot, 1}}, false, false, false},
		"who served, restarted":    {"p", Report{Incarnation: incA, Process: 2}, true, false, true},
		"who served, after a stop": {"p", Report{Incarnation: incB, Process: 2, Clean: &Clean{incA, 1}}, false, true, true},
	} {
		s := acknowledgesAhead(t)
		v := s.Volumes["v"]
		if u, k, r := v.Unchanged(c.node, &c.report), v.Kept(c.node, &c.report), v.MayRejoin(c.node, &c.report); u != c.unchanged || k != c.kept || r != c.rejoin {
			t.Errorf("%s: unchanged %t, kept %t, may rejoin %t", name, u, k, r)
		}
		r := s.Apply(s.Index+1, 5, Command{By: "s", Rejoin: &Rejoin{On: on(s), Node: "s", Clean: c.report.Clean, Unmarked: c.report.Unmarked,
			Member: Member{c.report.Incarnation, c.report.Process}}})
		if c.node == "s" && (r.Void == "") != c.rejoin {
			t.Errorf("%s: goes on as the member: %t, want %t (%s)", name, r.Void == "", c.rejoin, r.Void)
		}
	}
}

// Who is promoted instead of the one that served may lack what that one acknowledged: it is held with all others, from the
// promotion on, and stays promotable until the new one acts.
func TestAsyncPromotionHoldsWhoMayHaveMore(t *testing.T) { // R6, R19
	s := acknowledgesAhead(t)
	ok(t, s, Command{Promote: promote(s, "s", BasisUnchanged)})
	v := s.Volumes["v"]
	if !slices.Equal(v.MemberNames(), []string{"p", "s"}) || v.Previous != "p" || !slices.Equal(v.Held, []string{"p", "x"}) || v.HeldSince != 4 {
		t.Fatalf("set %v, previous %q, held %v since %d", v.MemberNames(), v.Previous, v.Held, v.HeldSince)
	}
	if v.Acts() || v.Served != "p" || !v.IsProcess("s") {
		t.Fatalf("it acts: %t, served %q", v.Acts(), v.Served)
	}
	back := s.Clone()

	ok(t, s, Command{By: "s", Drop: &Drop{On: on(s), Node: "p"}})
	if v = s.Volumes["v"]; !v.Acts() || v.Served != "s" || !slices.Equal(v.MemberNames(), []string{"s"}) || !v.IsHeld("p") {
		t.Fatalf("it acts: %t, served %q, set %v, held %v", v.Acts(), v.Served, v.MemberNames(), v.Held)
	}
	for _, rescued := range []bool{false, true} {
		r := s.Apply(s.Index+1, 5, Command{By: "s", Admit: &Admit{On: on(s), Node: "p", Member: Member{incA, 1}, Rescued: rescued}})
		if (r.Void == "") != rescued {
			t.Errorf("p is admitted, what it had kept aside %t: %q", rescued, r.Void)
		}
	}

	// The new one ended before it acted: who served lacks nothing.
	ok(t, back, Command{Promote: promote(back, "p", BasisUnchanged)})
	if v = back.Volumes["v"]; v.IsHeld("p") || v.Served != "p" || v.Previous != "s" {
		t.Fatalf("back: held %v, served %q, previous %q", v.Held, v.Served, v.Previous)
	}
}

// What each promotion in async holds, and what its record says may be lost.
func TestAsyncWhatAPromotionLeavesBehind(t *testing.T) { // R6, R19, R25
	bound, last := &Lag{MaxBytes: 1 << 20, MaxMs: 5000}, &Lag{Bytes: 4096, Ms: 30, MaxBytes: 1 << 20, MaxMs: 9000}
	for name, c := range map[string]struct {
		p      *Promote
		void   bool
		held   []string
		rpo    int64
		rpoMs  int64
		record *Lag
	}{
		"another":         {p: &Promote{Candidate: "s", Basis: BasisUnchanged, Lag: last, Bound: bound}, held: []string{"p", "x"}, rpo: 1 << 20, rpoMs: 9000, record: last},
		"its last word":   {p: &Promote{Candidate: "s", Basis: BasisUnchanged, Bound: bound}, held: []string{"p", "x"}, rpo: 1 << 20, rpoMs: 5000},
		"nothing known":   {p: &Promote{Candidate: "s", Basis: BasisUnchanged}, held: []string{"p", "x"}, rpo: RPOUnknown, rpoMs: RPOUnknown},
		"another's mark":  {p: &Promote{Candidate: "s", Basis: BasisClean, Clean: &Clean{incA, 1}, Bound: bound}, held: []string{"p", "x"}, rpo: 1 << 20, rpoMs: 5000},
		"who served":      {p: &Promote{Candidate: "p", Basis: BasisUnchanged, Lag: last, Bound: bound}},
		"hand-over":       {p: &Promote{Candidate: "s", Basis: BasisHandOver, Lag: last, Bound: bound}},
		"last primary":    {p: &Promote{Candidate: "p", Basis: BasisLastPrimary}, held: []string{"s", "x"}},
		"not the last":    {p: &Promote{Candidate: "s", Basis: BasisLastPrimary}, void: true},
		"all lost memory": {p: &Promote{Candidate: "s", Basis: BasisAllLost, Leave: []string{"p"}}, void: true},
		"somebody stays":  {p: &Promote{Candidate: "s", Basis: BasisUnchanged, Stay: map[string]Member{"x": {incA, 1}}}, void: true},
		"forced":          {p: &Promote{Candidate: "s", Basis: BasisForced, Lag: last, Bound: bound}, held: []string{"p", "x"}, rpo: 1 << 20},
	} {
		s := acknowledgesAhead(t)
		c.p.On, c.p.Term, c.p.Member = on(s), 5, Member{incA, 1}
		r := s.Apply(s.Index+1, 5, Command{Promote: c.p})
		if (r.Void != "") != c.void {
			t.Errorf("%s: void %q", name, r.Void)
		}
		if v := s.Volumes["v"]; c.void || r.Void != "" {
			continue
		} else if !slices.Equal(v.Held, c.held) || len(v.Held) > 0 && v.HeldSince != v.Epoch {
			t.Errorf("%s: held %v since %d, want %v", name, v.Held, v.HeldSince, c.held)
		}
		f := s.Failovers[len(s.Failovers)-1]
		if f.RPOBytes != c.rpo || f.RPOMillis != c.rpoMs || !reflect.DeepEqual(f.Lag, c.record) {
			t.Errorf("%s: recorded %d bytes, %d ms, %+v; want %d, %d, %+v", name, f.RPOBytes, f.RPOMillis, f.Lag, c.rpo, c.rpoMs, c.record)
		}
	}
}

// The last primary is who served, not one that was promoted since and had not acted: that one may lack more than the bound of
// what was flushed.
func TestAsyncLastPrimaryIsWhoServed(t *testing.T) { // R25
	s := acknowledgesAhead(t)
	ok(t, s, Command{Promote: promote(s, "s", BasisUnchanged)})
	if r := s.Apply(s.Index+1, 5, Command{Promote: promote(s, "s", BasisLastPrimary)}); r.Void == "" {
		t.Error("s is promoted, which never served")
	}
	ok(t, s, Command{Promote: promote(s, "p", BasisLastPrimary)})
	if v := s.Volumes["v"]; v.IsHeld("p") || !v.IsHeld("s") {
		t.Errorf("held %v", v.Held)
	}
}

func TestAsyncNamesOnTheWire(t *testing.T) {
	c := Command{Format: commandFormat, Promote: &Promote{Lag: &Lag{1, 2, 3, 4}, LagAgeMillis: 5, Bound: &Lag{MaxBytes: 6, MaxMs: 7}}}
	const want = `{"format":1,"by":"","at_ms":0,"promote":{"volume":"","epoch":0,"version":0,"term":0,"candidate":"","member":{"incarnation":{"boot":"","attachment":""},"process":0},"basis":"","reason":"",` +
		`"lag":{"bytes":1,"ms":2,"max_bytes":3,"max_ms":4},"lag_age_ms":5,"bound":{"max_bytes":6,"max_ms":7}}}`
	got, err := DecodeCommand(c.Encode())
	if string(c.Encode()) != want || err != nil || !reflect.DeepEqual(got, c) {
		t.Errorf("%s (%v)\nwant %s", c.Encode(), err, want)
	}
}

// One that is promoted again before it ever acted has not who served leave: that one lacks nothing.
func TestAsyncWhoServedStaysUntilTheNewOneActs(t *testing.T) { // R6
	s := acknowledgesAhead(t)
	ok(t, s, Command{Promote: promote(s, "s", BasisUnchanged)})
	ok(t, s, Command{Promote: promote(s, "s", BasisUnchanged)})
	v := s.Volumes["v"]
	if !v.IsMember("p") || v.Previous != "p" || v.HeldSince != v.Epoch || !v.IsHeld("p") {
		t.Fatalf("set %v, previous %q, held %v since %d", v.MemberNames(), v.Previous, v.Held, v.HeldSince)
	}
	ok(t, s, Command{By: "s", Drop: &Drop{On: on(s), Node: "p"}})
	if v = s.Volumes["v"]; !v.Acts() || v.Served != "s" || v.IsMember("p") {
		t.Fatalf("acts %t, served %q, set %v", v.Acts(), v.Served, v.MemberNames())
	}
}
