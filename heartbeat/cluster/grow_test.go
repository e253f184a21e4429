package cluster

import (
	"strings"
	"testing"
)

// A size never changes within an epoch: nobody who serves, or takes a stream, in this one sees another.
func TestSizeComesIntoForceWithTheNextPromotionOnly(t *testing.T) {
	for name, basis := range map[string]Basis{"handed over": BasisHandOver, "failed over": BasisUnchanged} {
		s := formed(t)
		was := on(s)
		configured(t, s, Configure{Grow: []GrowVolume{{Name: "v", ID: "i", Epoch: 3, Version: 10, Size: 3 << 20}}})
		if v := s.Volumes["v"]; v.Size != 1<<20 || v.Grow != 3<<20 || v.Epoch != 3 || v.Primary != "p" {
			t.Fatalf("%s: committed: %+v", name, v)
		}
		if r := s.Apply(s.Index+1, 5, Command{By: "p", Drop: &Drop{On: was, Node: "x"}}); r.Void == "" {
			t.Errorf("%s: a command decided before it is not void (R7)", name)
		}
		ok(t, s, Command{By: "s", Rejoin: &Rejoin{On: on(s), Node: "s", Member: Member{incA, 1}}})
		if v := s.Volumes["v"]; v.Size != 1<<20 || v.Grow != 3<<20 {
			t.Errorf("%s: another change of the record: %+v", name, v)
		}
		ok(t, s, Command{Promote: promote(s, "s", basis)})
		if v := s.Volumes["v"]; v.Size != 3<<20 || v.Grow != 0 || v.Epoch != 4 {
			t.Errorf("%s: promoted: %+v", name, v)
		}
		ok(t, s, Command{Promote: promote(s, "s", BasisForced)})
		if v := s.Volumes["v"]; v.Size != 3<<20 {
			t.Errorf("%s: promoted again: %+v", name, v)
		}
	}
}

// A replica in the middle of a resync has a way back to a state of the old size: no promotion takes that away.
func TestSizeWaitsForAPromotionAtWhichEveryReplicaIsAMember(t *testing.T) { // R18
	s := formed(t)
	configured(t, s, Configure{Grow: []GrowVolume{{Name: "v", ID: "i", Epoch: 3, Version: 10, Size: 3 << 20}}})
	ok(t, s, Command{By: "p", Drop: &Drop{On: on(s), Node: "x"}})
	ok(t, s, Command{Promote: promote(s, "s", BasisHandOver)})
	if v := s.Volumes["v"]; v.Size != 1<<20 || v.Grow != 3<<20 || v.Epoch != 4 {
		t.Fatalf("it grew while a replica was being resynced: %+v", v)
	}
	ok(t, s, Command{By: "s", Admit: &Admit{On: on(s), Node: "x", Member: Member{incA, 1}}})
	ok(t, s, Command{Promote: promote(s, "x", BasisUnchanged)})
	if v := s.Volumes["v"]; v.Size != 3<<20 || v.Grow != 0 || v.Epoch != 5 {
		t.Errorf("every replica was a member: %+v", v)
	}
}

func TestPromotionByForceGivesAGrowthUp(t *testing.T) { // R18, R19
	s := formed(t)
	grow := Configure{Grow: []GrowVolume{{Name: "v", ID: "i", Epoch: 3, Version: 10, Size: 3 << 20}}}
	configured(t, s, grow)
	ok(t, s, Command{Promote: promote(s, "x", BasisForced)})
	if v := s.Volumes["v"]; v.Size != 1<<20 || v.Grow != 0 || v.Epoch != 4 {
		t.Fatalf("promoted by force: %+v", v)
	}
	if e := s.Events[len(s.Events)-2]; e.Kind != "volume does not grow" || !strings.Contains(e.Text, "resize it again") {
		t.Errorf("nobody is told: %+v", e)
	}
	grow.Grow[0].Epoch, grow.Grow[0].Version = 4, s.Volumes["v"].Version
	configured(t, s, grow)
	if v := s.Volumes["v"]; v.Grow != 3<<20 {
		t.Errorf("it cannot be resized again: %+v", v)
	}
}
