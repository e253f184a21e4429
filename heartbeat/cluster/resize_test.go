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
		configured(t, s, Configure{Resize: []ResizeVolume{{Name: "v", ID: "i", Epoch: 3, Version: 10, Size: 3 << 20}}})
		if v := s.Volumes["v"]; v.Size != 1<<20 || v.Next != 3<<20 || v.Epoch != 3 || v.Primary != "p" {
			t.Fatalf("%s: committed: %+v", name, v)
		}
		if r := s.Apply(s.Index+1, 5, Command{By: "p", Drop: &Drop{On: was, Node: "x"}}); r.Void == "" {
			t.Errorf("%s: a command decided before it is not void (R7)", name)
		}
		ok(t, s, Command{By: "s", Rejoin: &Rejoin{On: on(s), Node: "s", Member: Member{incA, 1}}})
		if v := s.Volumes["v"]; v.Size != 1<<20 || v.Next != 3<<20 {
			t.Errorf("%s: another change of the record: %+v", name, v)
		}
		ok(t, s, Command{Promote: promote(s, "s", basis)})
		if v := s.Volumes["v"]; v.Size != 3<<20 || v.Next != 0 || v.Epoch != 4 {
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
	configured(t, s, Configure{Resize: []ResizeVolume{{Name: "v", ID: "i", Epoch: 3, Version: 10, Size: 3 << 20}}})
	ok(t, s, Command{By: "p", Drop: &Drop{On: on(s), Node: "x"}})
	ok(t, s, Command{Promote: promote(s, "s", BasisHandOver)})
	if v := s.Volumes["v"]; v.Size != 1<<20 || v.Next != 3<<20 || v.Epoch != 4 {
		t.Fatalf("it grew while a replica was being resynced: %+v", v)
	}
	ok(t, s, Command{By: "s", Admit: &Admit{On: on(s), Node: "x", Member: Member{incA, 1}}})
	ok(t, s, Command{Promote: promote(s, "x", BasisUnchanged)})
	if v := s.Volumes["v"]; v.Size != 3<<20 || v.Next != 0 || v.Epoch != 5 {
		t.Errorf("every replica was a member: %+v", v)
	}
}

func TestPromotionByForceGivesAGrowthUp(t *testing.T) { // R18, R19
	s := formed(t)
	grow := Configure{Resize: []ResizeVolume{{Name: "v", ID: "i", Epoch: 3, Version: 10, Size: 3 << 20}}}
	configured(t, s, grow)
	ok(t, s, Command{Promote: promote(s, "x", BasisForced)})
	if v := s.Volumes["v"]; v.Size != 1<<20 || v.Next != 0 || v.Epoch != 4 {
		t.Fatalf("promoted by force: %+v", v)
	}
	if e := s.Events[len(s.Events)-2]; e.Kind != "volume does not grow" || !strings.Contains(e.Text, "resize it again") {
		t.Errorf("nobody is told: %+v", e)
	}
	grow.Resize[0].Epoch, grow.Resize[0].Version = 4, s.Volumes["v"].Version
	configured(t, s, grow)
	if v := s.Volumes["v"]; v.Next != 3<<20 {
		t.Errorf("it cannot be resized again: %+v", v)
	}
}

// numbered is what a person's word for another size makes of a volume's record.
func numbered(t *testing.T, s *State, size, loses int64) {
	t.Helper()
	v := s.Volumes["v"]
	configured(t, s, Configure{Resize: []ResizeVolume{{Name: "v", ID: "i", Epoch: v.Epoch, Version: v.Version, Size: size, Number: v.Resized + 1, Loses: loses}}})
}

func TestEachSizeInForceHasTheNextNumber(t *testing.T) {
	s := formed(t)
	want := func(what string, size, next int64, resized uint64, oldEnd int64) {
		t.Helper()
		if v := s.Volumes["v"]; v.Size != size || v.Next != next || v.Resized != resized || v.OldEnd != oldEnd || (v.Next == 0) != (v.NextResized == 0) {
			t.Fatalf("%s: %+v; want %d, next %d, number %d, old content to %d", what, v, size, next, resized, oldEnd)
		}
	}
	const mib = 1 << 20
	numbered(t, s, 3*mib, 0)
	want("a growth is decided", mib, 3*mib, 0, 0)
	ok(t, s, Command{Promote: promote(s, "s", BasisHandOver)})
	want("it is in force", 3*mib, 0, 1, 0)
	numbered(t, s, mib, 2*mib)
	want("a shrink is decided", 3*mib, mib, 1, 0)
	ok(t, s, Command{Promote: promote(s, "x", BasisForced)})
	want("a force gives it up", 3*mib, 0, 1, 0)
	for _, n := range []string{"p", "s"} {
		ok(t, s, Command{By: "x", Admit: &Admit{On: on(s), Node: n, Member: Member{incA, 1}, Rescued: true}})
	}
	numbered(t, s, mib, 2*mib)
	ok(t, s, Command{Promote: promote(s, "p", BasisUnchanged)})
	want("it is in force", mib, 0, 2, 3*mib)
	for _, r := range s.Volumes["v"].Replicas {
		if v := s.Volumes["v"]; !v.IsMember(r.Node) {
			ok(t, s, Command{By: "p", Admit: &Admit{On: on(s), Node: r.Node, Member: Member{incA, 1}}})
		}
	}
	numbered(t, s, 2*mib, 0)
	numbered(t, s, mib, 0)
	want("a growth is taken back", mib, 0, 2, 3*mib)
	numbered(t, s, 2*mib, 0)
	ok(t, s, Command{Promote: promote(s, "s", BasisHandOver)})
	want("it grows over a part of what it had", 2*mib, 0, 3, 3*mib)
	numbered(t, s, 4*mib, 0)
	ok(t, s, Command{Promote: promote(s, "p", BasisHandOver)})
	want("and over the rest", 4*mib, 0, 4, 0)
}

func TestSizeIsVoidWithoutConsentOrOnAnotherNumber(t *testing.T) { // R7
	for name, c := range map[string]struct {
		r    ResizeVolume
		void string
	}{
		"without consent":                 {ResizeVolume{Size: 1 << 19, Number: 5}, "loss of 0"},
		"consent to less":                 {ResizeVolume{Size: 1 << 19, Number: 5, Loses: 1<<19 - 1}, "consent was given"},
		"consent to more":                 {ResizeVolume{Size: 1 << 19, Number: 5, Loses: 1 << 20}, "consent was given"},
		"of an earlier size":              {ResizeVolume{Size: 1 << 19, Number: 4, Loses: 1 << 19}, "it has size 4"},
		"of a later size":                 {ResizeVolume{Size: 2 << 20, Number: 6}, "it has size 4"},
		"by a program that numbers none":  {ResizeVolume{Size: 1 << 19, Loses: 1 << 19}, "does not shrink"},
		"the size that it has":            {ResizeVolume{Size: 1 << 20, Number: 5}, "nothing to change"},
		"none at all":                     {ResizeVolume{Size: 0, Number: 5, Loses: 1 << 20}, "nothing to change"},
		"less than none":                  {ResizeVolume{Size: -4096, Number: 5, Loses: 1<<20 + 4096}, "nothing to change"},
		"with consent, on the right size": {ResizeVolume{Size: 1 << 19, Number: 5, Loses: 1 << 19}, ""},
		"a growth of one that numbers":    {ResizeVolume{Size: 2 << 20, Number: 5}, ""},
	} {
		s := formed(t)
		v := s.Volumes["v"]
		v.Resized = 4
		s.Volumes["v"] = v
		c.r.Name, c.r.ID, c.r.Epoch, c.r.Version = "v", "i", 3, 10
		r := s.Apply(s.Index+1, 5, Command{Configure: &Configure{Version: s.ConfigVersion, Config: []byte("x"), RTOMillis: 1, Resize: []ResizeVolume{c.r}}})
		if (r.Void == "") != (c.void == "") || !strings.Contains(r.Void, c.void) {
			t.Errorf("%s: %q", name, r.Void)
		}
	}
}

// A log that an older program has written has the same effect on a node that replays it as it had on one that has a snapshot of
// after it: the numbers begin with the first size that has one.
func TestGrowthOfAnOlderProgramHasNoNumber(t *testing.T) {
	s := formed(t)
	configured(t, s, Configure{Resize: []ResizeVolume{{Name: "v", ID: "i", Epoch: 3, Version: 10, Size: 3 << 20}}})
	ok(t, s, Command{Promote: promote(s, "s", BasisHandOver)})
	if v := s.Volumes["v"]; v.Size != 3<<20 || v.Resized != 0 || v.NextResized != 0 || v.OldEnd != 0 {
		t.Errorf("%+v", v)
	}
}

func TestWhatIsClearedBeforeAGrowth(t *testing.T) {
	for _, c := range []struct{ size, oldEnd, to, want int64 }{{10, 0, 20, 10}, {10, 30, 20, 20}, {10, 15, 20, 15}, {10, 15, 5, 10}} {
		v := Volume{Size: c.size, OldEnd: c.oldEnd}
		if got := v.Cleared(c.to); got != c.want {
			t.Errorf("%+v: %d", c, got)
		}
	}
}

func TestAgeOfASize(t *testing.T) {
	for _, c := range []struct {
		size, recorded     int64
		number, recordedNo uint64
		want               SizeAge
	}{
		{10, 10, 0, 0, SizeSame}, {5, 10, 0, 0, SizeOlder}, {20, 10, 0, 0, SizeNewer},
		{10, 10, 3, 3, SizeSame}, {5, 10, 3, 3, SizeConflict}, {20, 10, 3, 3, SizeConflict},
		{20, 10, 0, 1, SizeOlder}, {5, 10, 0, 1, SizeOlder}, {10, 10, 1, 3, SizeOlder},
		{20, 10, 2, 1, SizeNewer}, {5, 10, 2, 1, SizeNewer}, {10, 10, 3, 1, SizeNewer},
	} {
		v := Volume{Size: c.recorded, Resized: c.recordedNo}
		if got := v.AgeOf(c.size, c.number); got != c.want {
			t.Errorf("%+v: %d", c, got)
		}
	}
}
