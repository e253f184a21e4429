package cluster

import (
	"slices"
	"strings"
	"testing"
)

func TestPauseIsKeptForWhoeverIsPrimary(t *testing.T) {
	s := formed(t)
	ok(t, s, Command{PauseResync: &PauseResync{On: on(s), Nodes: []string{"x", "s"}, Paused: true}})
	before := on(s)
	ok(t, s, Command{PauseResync: &PauseResync{On: on(s), Nodes: []string{"s"}, Paused: true}}) // said twice
	if v := s.Volumes["v"]; !slices.Equal(v.Paused, []string{"s", "x"}) || v.Version != before.Version+1 {
		t.Fatalf("%+v", v)
	}
	if r := s.Apply(9, 5, Command{PauseResync: &PauseResync{On: before, Nodes: []string{"s"}}}); r.Void == "" {
		t.Fatal("an order decided on an older version was carried out (R7)")
	}
	ok(t, s, Command{Promote: promote(s, "s", BasisForced)})
	if v := s.Volumes["v"]; v.Primary != "s" || len(v.Paused) != 2 {
		t.Fatalf("a promotion took the pause away: %+v", v)
	}
	ok(t, s, Command{PauseResync: &PauseResync{On: on(s), Nodes: []string{"s", "x"}}})
	if v := s.Volumes["v"]; len(v.Paused) != 0 {
		t.Fatalf("%+v", v)
	}
	if r := s.Apply(9, 5, Command{PauseResync: &PauseResync{On: on(s), Nodes: []string{"w"}, Paused: true}}); r.Void == "" {
		t.Fatal("the resync of a node without a replica was paused")
	}
}

func TestOnlyAnAdmissionAfterAFullComparisonEndsTheOrder(t *testing.T) {
	s := formed(t)
	ok(t, s, Command{By: "p", Drop: &Drop{On: on(s), Node: "s", Reason: "gone"}})
	ok(t, s, Command{FullResync: &FullResync{On: on(s), Node: "s"}})
	admit := func(full bool) Command {
		return Command{By: "p", Admit: &Admit{On: on(s), Node: "s", Member: Member{incA, 1}, Full: full}}
	}
	if r := s.Apply(9, 5, admit(false)); !strings.Contains(r.Void, "as a whole") {
		t.Fatalf("admitted without the comparison: %+v", r)
	}
	ok(t, s, admit(true))
	if v := s.Volumes["v"]; !v.IsMember("s") || len(v.Full) != 0 {
		t.Fatalf("%+v", v)
	}
	if r := s.Apply(9, 5, Command{FullResync: &FullResync{On: on(s), Node: "p"}}); !strings.Contains(r.Void, "is the primary") {
		t.Fatalf("the primary was ordered to be overwritten: %+v", r)
	}
}

func TestPromotionEndsTheOrderToCompareThePromoted(t *testing.T) {
	s := formed(t)
	ok(t, s, Command{FullResync: &FullResync{On: on(s), Node: "s"}})
	ok(t, s, Command{Promote: promote(s, "s", BasisHandOver)})
	if v := s.Volumes["v"]; v.Primary != "s" || v.WantsFull("s") {
		t.Fatalf("%+v", v)
	}
}
