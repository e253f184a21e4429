package cluster

import (
	"reflect"
	"strings"
	"testing"
)

// changeReplicas applies other replicas to volume v as it stands.
func changeReplicas(s *State, add []AddReplica, leave ...string) Command {
	v := s.Volumes["v"]
	return Command{By: "w", Configure: &Configure{Version: s.ConfigVersion, RTOMillis: 1000, Config: []byte("x"),
		Replicas: []ChangeReplicas{{Name: "v", ID: "i", Epoch: v.Epoch, Version: v.Version, Add: add, Leave: leave}}}}
}

func TestReplicaLeavesWithTheEntryThatDropsIt(t *testing.T) {
	s := formed(t)
	ok(t, s, changeReplicas(s, nil, "s"))
	v := s.Volumes["v"]
	if !v.IsMember("s") || !v.Leaves("s") || v.Version != 11 {
		t.Fatalf("before it was dropped: %+v", v)
	}
	if r := s.Apply(s.Index+1, 5, changeReplicas(s, []AddReplica{{Node: "s", Device: "/dev/s"}})); !strings.Contains(r.Void, "not left yet") {
		t.Errorf("added again before it left: %q", r.Void)
	}
	late := &Admit{On: on(s), Node: "s", Member: Member{incA, 1}}
	ok(t, s, Command{By: "p", Drop: &Drop{On: on(s), Node: "s", Reason: "removed"}})
	v = s.Volumes["v"]
	if _, has := v.Replica("s"); has || v.IsMember("s") {
		t.Fatalf("after it was dropped: %+v", v)
	}
	if v.NumberOf("p") != 1 || v.NumberOf("x") != 3 || v.Stamp("x") != 0 {
		t.Errorf("the others have other numbers: %+v", v.Replicas)
	}
	for _, a := range []*Admit{late, {On: on(s), Node: "s", Member: Member{incA, 1}}} {
		if r := s.Apply(s.Index+1, 5, Command{By: "p", Admit: a}); r.Void == "" {
			t.Error("what left was admitted again")
		}
	}
}

func TestReplicaIsAddedAsNoMemberWithANumberOfItsOwn(t *testing.T) {
	s := formed(t)
	ok(t, s, changeReplicas(s, nil, "s"))
	ok(t, s, Command{By: "p", Drop: &Drop{On: on(s), Node: "s", Reason: "removed"}})
	for want := uint32(4); want < 40; want++ {
		ok(t, s, changeReplicas(s, []AddReplica{{Node: "s", Device: "/dev/s2"}}))
		v := s.Volumes["v"]
		r, _ := v.Replica("s")
		if want >= 33 && want <= 35 && v.NumberOf("s") != want { // 33 and 35 have the bits of p and x
			want = v.NumberOf("s")
		}
		if (r != Replica{Node: "s", Device: "/dev/s2", Number: want, Added: true}) || v.IsMember("s") || v.Stamp("s") != want {
			t.Fatalf("added: %+v of %+v, want number %d", r, v, want)
		}
		if b := NumberBit(want); b == 1 || b == 4 {
			t.Fatalf("number %d has the bit of p or x", want)
		}
		ok(t, s, changeReplicas(s, nil, "s")) // no member: it goes at once
		if v := s.Volumes["v"]; len(v.Replicas) != 2 {
			t.Fatalf("%+v", v.Replicas)
		}
	}
}

func TestReplicasOfAVolumeAreNotChanged(t *testing.T) {
	add := []AddReplica{{Node: "s", Device: "/dev/s"}}
	for want, c := range map[string]struct {
		add   []AddReplica
		leave []string
		as    func(v *Volume)
	}{
		"it is the primary":       {leave: []string{"p"}},
		"there is none":           {leave: []string{"w"}},
		"cannot hold one":         {add: []AddReplica{{Node: "w", Device: "/dev/w"}}},
		"there is one":            {add: add},
		"named twice":             {leave: []string{"s", "s"}},
		"no replica of volume":    {},
		"it is leaving already":   {leave: []string{"s"}, as: func(v *Volume) { v.Replicas[1].Leaving = true }},
		"is leaving itself":       {leave: []string{"s"}, as: func(v *Volume) { v.Replicas[0].Leaving = true }},
		"may hold acknowledged":   {leave: []string{"s"}, as: func(v *Volume) { delete(v.Members, "s"); v.Held = []string{"s"} }},
		"is not served":           {leave: []string{"s"}, as: func(v *Volume) { v.Previous = "x" }},
		"not in force yet":        {leave: []string{"s"}, as: func(v *Volume) { v.Next = 2 << 20 }},
		"4 are the most":          {add: []AddReplica{{Node: "a", Device: "/dev/a"}, {Node: "b", Device: "/dev/b"}}},
		"0 devices, the volume 1": {add: []AddReplica{{Node: "s"}}, as: func(v *Volume) { v.Replicas = append(v.Replicas[:1:1], v.Replicas[2]); delete(v.Members, "s") }},
	} {
		s := formed(t)
		v := s.Volumes["v"].Clone()
		if c.as != nil {
			c.as(&v)
		}
		s.Volumes["v"] = v
		r := s.Apply(s.Index+1, 5, changeReplicas(s, c.add, c.leave...))
		if !strings.Contains(r.Void, want) {
			t.Errorf("%q is to be said, void: %q", want, r.Void)
		}
		if !reflect.DeepEqual(s.Volumes["v"], v) {
			t.Errorf("%s: the record changed: %+v", want, s.Volumes["v"])
		}
	}
}

// R25: one that was removed may run still when its node gets another.
func TestEarlierReplicaIsNotTakenForTheLaterOne(t *testing.T) {
	s := formed(t)
	ok(t, s, changeReplicas(s, nil, "s"))
	ok(t, s, Command{By: "p", Drop: &Drop{On: on(s), Node: "s", Reason: "removed"}})
	ok(t, s, changeReplicas(s, []AddReplica{{Node: "s", Device: "/dev/s"}}))
	for _, i := range []Incarnation{incA, incA.Of(3), incA.Of(44)} {
		if r := s.Apply(s.Index+1, 5, Command{By: "p", Admit: &Admit{On: on(s), Node: "s", Member: Member{i, 1}}}); !strings.Contains(r.Void, "an earlier replica") {
			t.Errorf("%v was admitted as number 4: %q", i, r.Void)
		}
		p := promote(s, "s", BasisForced)
		p.Member.Incarnation = i
		if r := s.Apply(s.Index+1, 5, Command{By: "w", Promote: p}); !strings.Contains(r.Void, "an earlier replica") {
			t.Errorf("%v was promoted as number 4: %q", i, r.Void)
		}
	}
	ok(t, s, Command{By: "p", Admit: &Admit{On: on(s), Node: "s", Member: Member{incA.Of(4), 1}}})
	if r := s.Apply(s.Index+1, 5, Command{By: "s", Rejoin: &Rejoin{On: on(s), Node: "s", Member: Member{incA, 1}}}); !strings.Contains(r.Void, "an earlier replica") {
		t.Errorf("an earlier one goes on as a member: %q", r.Void)
	}
	v := s.Volumes["v"]
	if v.Is("x", incA.Of(4)) || !v.Is("x", incA) {
		t.Error("one that the volume was created with is another")
	}
}

// R19: what a held replica has of its own is not forgotten with it.
func TestHeldReplicaThatLeavesStaysUntilItIsHeldNoMore(t *testing.T) {
	s := formed(t)
	ok(t, s, changeReplicas(s, nil, "s"))
	c := promote(s, "x", BasisForced)
	ok(t, s, Command{By: "w", Promote: c})
	v := s.Volumes["v"]
	if !v.IsHeld("s") || !v.Leaves("s") || v.NumberOf("s") != 2 {
		t.Fatalf("a held replica is gone: %+v", v)
	}
	ok(t, s, Command{By: "x", AllowResync: &AllowResync{On: on(s), Node: "s"}})
	if v := s.Volumes["v"]; v.NumberOf("s") != 0 {
		t.Errorf("it stays although it is held no more: %+v", v)
	}
}

// One that leaves and has to follow, for nobody else could, leaves when it has handed over.
func TestReplicaThatLeavesAndWasPromotedGoesAfterItsHandOver(t *testing.T) {
	s := formed(t)
	ok(t, s, changeReplicas(s, nil, "s"))
	p := promote(s, "s", BasisUnchanged)
	p.Leave = []string{"p"}
	p.Stay = map[string]Member{"x": {incA, 1}}
	ok(t, s, Command{By: "w", Promote: p})
	if v := s.Volumes["v"]; v.Primary != "s" || v.NumberOf("s") != 2 {
		t.Fatalf("%+v", v)
	}
	ok(t, s, Command{By: "w", Promote: promote(s, "x", BasisHandOver)})
	ok(t, s, Command{By: "x", Drop: &Drop{On: on(s), Node: "s", Reason: "removed"}})
	if v := s.Volumes["v"]; v.NumberOf("s") != 0 || v.Primary != "x" {
		t.Errorf("%+v", v)
	}
}

func TestGroupGetsTheDevicesOfAReplicaForEachPart(t *testing.T) {
	s := formed(t)
	v := s.Volumes["v"].Clone()
	v.Replicas = v.Replicas[:2]
	delete(v.Members, "x")
	v.Parts = []Part{{Name: "d", Size: 1 << 19, Devices: map[string]string{"p": "/d/p", "s": "/d/s"}}, {Name: "l", Size: 1 << 19, Devices: map[string]string{"p": "/l/p", "s": "/l/s"}}}
	s.Volumes["v"] = v
	before := s.Next()
	ok(t, s, changeReplicas(s, []AddReplica{{Node: "x", Device: "/d/x + /l/x", Devices: []string{"/d/x", "/l/x"}}}))
	v = s.Volumes["v"]
	r, _ := v.Replica("x")
	if got := Paths(v.Parts, r); !reflect.DeepEqual(got, []string{"/d/x", "/l/x"}) {
		t.Errorf("devices %v", got)
	}
	if len(before.Volumes["v"].Parts[0].Devices) != 2 {
		t.Error("an earlier state changed with it")
	}
	ok(t, s, changeReplicas(s, nil, "x"))
	if got := s.Volumes["v"].Parts[1].Devices; len(got) != 2 {
		t.Errorf("a device of who left: %v", got)
	}
}

// A program that knows no numbers gets neither the command nor the state.
func TestChangesOfReplicasAreOfFormat9AndTheirStateOfFormat7(t *testing.T) {
	s := formed(t)
	if b, _ := s.Encode(); strings.Contains(string(b), `"format":7`) {
		t.Error("a state without numbers has their format")
	}
	c := changeReplicas(s, nil, "s")
	b := c.Encode()
	if !strings.Contains(string(b), `"format":9`) || s.Readable(b) {
		t.Errorf("sent to programs that do not read it: %s", b)
	}
	for n, node := range s.Nodes {
		node.Reads = 9
		s.Nodes[n] = node
	}
	if !s.Readable(b) {
		t.Error("not sent although all read it")
	}
	ok(t, s, c)
	b, err := s.Encode()
	if err != nil || !strings.Contains(string(b), `"format":7`) {
		t.Fatalf("state: %v", err)
	}
	back, err := Decode(b)
	if err != nil || !reflect.DeepEqual(back.Volumes["v"], s.Volumes["v"]) {
		t.Errorf("reads as %+v, %v", back.Volumes["v"], err)
	}
}

func TestWhoLeavesAwaitsWhoTakesItsPlace(t *testing.T) {
	r := func(node, mode string, leaving bool) Replica {
		return Replica{Node: node, Mode: mode, Leaving: leaving}
	}
	for name, c := range map[string]struct {
		replicas []Replica
		members  string
		want     bool
	}{
		"one comes":                      {[]Replica{r("p", "", false), r("l", "", true), r("n", "", false)}, "pl", true},
		"one came":                       {[]Replica{r("p", "", false), r("l", "", true), r("n", "", false)}, "pln", false},
		"nobody comes":                   {[]Replica{r("p", "", false), r("l", "", true)}, "pl", false},
		"who is away leaves too":         {[]Replica{r("p", "", false), r("l", "", true), r("n", "", true)}, "pl", false},
		"another stays":                  {[]Replica{r("p", "", false), r("l", "", true), r("s", "", false), r("n", "", false)}, "pls", false},
		"it is no member":                {[]Replica{r("p", "", false), r("l", "", true), r("n", "", false)}, "p", false},
		"another in async stays":         {[]Replica{r("p", "", false), r("l", "", true), r("s", ModeAsync, false), r("n", "", false)}, "pls", true},
		"in async itself, another stays": {[]Replica{r("p", "", false), r("l", ModeAsync, true), r("s", ModeAsync, false), r("n", "", false)}, "pls", false},
		"one in async comes":             {[]Replica{r("p", "", false), r("l", "", true), r("s", ModeAsync, false), r("n", ModeAsync, false)}, "pls", false},
		"the primary leaves":             {[]Replica{r("p", "", true), r("l", "", false), r("n", "", false)}, "pl", false},
	} {
		v := Volume{Mode: ModeSync, Primary: "p", Replicas: c.replicas, Members: map[string]Member{}}
		for _, n := range c.members {
			v.Members[string(n)] = Member{}
		}
		if got := v.AwaitsNext("l"); got != c.want || v.AwaitsNext("p") {
			t.Errorf("%s: %t", name, got)
		}
	}
}
