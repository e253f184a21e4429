package cluster

import "testing"

// A size never changes within an epoch: nobody who serves, or takes a stream, in this one sees another.
func TestSizeComesIntoForceWithTheNextPromotionOnly(t *testing.T) {
	for name, basis := range map[string]Basis{"handed over": BasisHandOver, "failed over": BasisUnchanged, "forced": BasisForced} {
		s := formed(t)
		was := on(s)
		configured(t, s, Configure{Grow: []GrowVolume{{Name: "v", ID: "i", Epoch: 3, Size: 3 << 20}}})
		if v := s.Volumes["v"]; v.Size != 1<<20 || v.Grow != 3<<20 || v.Epoch != 3 || v.Primary != "p" {
			t.Fatalf("%s: committed: %+v", name, v)
		}
		if r := s.Apply(s.Index+1, 5, Command{By: "p", Drop: &Drop{On: was, Node: "x"}}); r.Void == "" {
			t.Errorf("%s: a command decided before it is not void (R7)", name)
		}
		ok(t, s, Command{By: "p", Drop: &Drop{On: on(s), Node: "x"}})
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
