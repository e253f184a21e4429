package cluster

import (
	"bytes"
	"strings"
	"testing"
)

// mixed is a volume of p, which serves, s in sync with it, and x in async.
func mixed(t *testing.T) *State {
	t.Helper()
	s := inMode(t, ModeSync, "")
	v := s.Volumes["v"].Clone()
	v.Replicas[2].Mode, v.Served = ModeAsync, "p"
	s.Volumes["v"] = v
	return s
}

func TestModeBetweenTwoReplicasIsTheWeakerOne(t *testing.T) {
	v := Volume{Mode: ModeSync, Replicas: []Replica{{Node: "p"}, {Node: "s", Mode: ModeSemisync}, {Node: "x", Mode: ModeAsync}}}
	for _, c := range []struct{ a, b, want string }{
		{"p", "s", ModeSemisync}, {"p", "x", ModeAsync}, {"s", "x", ModeAsync}, {"x", "p", ModeAsync}, {"s", "p", ModeSemisync},
	} {
		if got := v.ModeBetween(c.a, c.b); got != c.want {
			t.Errorf("%s and %s: %s, want %s", c.a, c.b, got, c.want)
		}
	}
	v.NextMode, v.Replicas[2].NextMode = ModeSync, ModeSync // s loses its own
	for _, c := range []struct{ node, want string }{{"s", ModeSync}, {"x", ModeSync}} {
		if got := v.AckMode("p", c.node); got != c.want {
			t.Errorf("towards %s while it changes: %s, want %s", c.node, got, c.want)
		}
	}
	if v.Fences("p", "s") || !v.Fences("p", "x") {
		t.Error("what is durable is fenced for the one in async alone")
	}
	if got := v.ModesText(); got != "sync (s semisync, x async)" || v.ModesToBeText() != ModeSync {
		t.Errorf("%s, then %s", got, v.ModesToBeText())
	}
}

// R6, R19, R25: beside one that follows in sync those in async leave, held by nobody; one in async leaves all others behind.
func TestPromotionsOfAVolumeWithTwoModes(t *testing.T) {
	promote := func(s *State, p Promote) string {
		v := s.Volumes["v"]
		p.On, p.Term = On{"v", v.Epoch, v.Version}, 5
		return s.Apply(s.Index+1, 5, Command{By: "p", Promote: &p}).Void
	}
	s := mixed(t)
	before := s.Volumes["v"]
	if v := &before; v.IsProcess("s") || !v.IsProcess("x") || v.Lags("s") || !v.Lags("x") || v.Lags("p") {
		t.Fatalf("%+v", v)
	}
	if void := promote(s, Promote{Candidate: "s", Member: before.Members["s"], Basis: BasisUnchanged, Stay: map[string]Member{"x": before.Members["x"]}}); void == "" {
		t.Error("one in async stays")
	}
	if void := promote(s, Promote{Candidate: "x", Member: before.Members["x"], Basis: BasisAllLost, Leave: []string{"p"}}); void == "" {
		t.Error("one in async follows those that lost their memory")
	}
	if void := promote(s, Promote{Candidate: "s", Member: before.Members["s"], Basis: BasisUnchanged}); void != "" {
		t.Fatal(void)
	}
	v := s.Volumes["v"]
	if v.IsMember("x") || v.Previous != "p" || len(v.Held) != 0 || v.Served != "p" || v.Acts() {
		t.Errorf("%+v", v)
	}
	if s.Failovers[len(s.Failovers)-1].RPOBytes != 0 {
		t.Error("it lost something")
	}
	if r := s.Apply(s.Index+1, 5, Command{By: "p", Drop: &Drop{On: On{"v", v.Epoch, v.Version}, Node: "p"}}); r.Void != "" {
		t.Fatal(r.Void)
	}
	if v = s.Volumes["v"]; !v.Acts() || v.Served != "s" { // who leaves by its own word, too, leaves the new one as who serves
		t.Errorf("served %q, acts %t", v.Served, v.Acts())
	}

	s = mixed(t) // with its failed primary gone at once nothing is left to be decided
	if void := promote(s, Promote{Candidate: "s", Member: before.Members["s"], Basis: BasisUnchanged, Leave: []string{"p"}}); void != "" {
		t.Fatal(void)
	}
	if v := s.Volumes["v"]; !v.Acts() || v.Served != "s" {
		t.Errorf("served %q, acts %t", v.Served, v.Acts())
	}

	s = mixed(t)
	if void := promote(s, Promote{Candidate: "x", Member: before.Members["x"], Basis: BasisUnchanged, Bound: &Lag{MaxBytes: 7}}); void != "" {
		t.Fatal(void)
	}
	if v := s.Volumes["v"]; v.IsMember("s") || v.Previous != "p" || !v.IsHeld("p") || !v.IsHeld("s") || s.Failovers[len(s.Failovers)-1].RPOBytes != 7 {
		t.Errorf("%+v, %+v", v, s.Failovers[len(s.Failovers)-1])
	}
}

// s follows p in sync, and x, in async, leaves with that, held by nobody: s has all that it has. Then s alone loses its memory: what it
// had not flushed, x may have.
func TestOneInAsyncIsHeldWhenWhoFollowedLosesItsMemory(t *testing.T) { // R19, R25
	for _, basis := range []Basis{BasisLastPrimary, BasisUnmarked} {
		s := mixed(t)
		ok(t, s, Command{Promote: promote(s, "s", BasisUnchanged)})
		ok(t, s, Command{By: "s", Drop: &Drop{On: on(s), Node: "p"}})
		if v := s.Volumes["v"]; v.IsMember("x") || len(v.Held) > 0 {
			t.Fatalf("set %v, held %v", v.MemberNames(), v.Held)
		}
		again := promote(s, "s", basis)
		again.Member.Incarnation = Incarnation{Boot: "another"}
		again.Unmarked = &Keeper{incA.Boot, s.Volumes["v"].Members["s"].Process}
		ok(t, s, Command{Promote: again})
		if v := s.Volumes["v"]; v.IsHeld("x") != (basis == BasisLastPrimary) || v.IsHeld("x") && v.HeldSince != v.Epoch || v.IsHeld("s") || v.IsHeld("p") {
			t.Errorf("%s: held %v since %d in epoch %d", basis, v.Held, v.HeldSince, v.Epoch)
		}
	}
}

func TestModeOfAReplicaChanges(t *testing.T) {
	s := mixed(t)
	change := func(mode string, own map[string]string) string {
		v := s.Volumes["v"]
		r := s.Apply(s.Index+1, 5, Command{Configure: &Configure{Version: s.ConfigVersion, Config: []byte("x"), RTOMillis: 1,
			Modes: []ChangeMode{{Name: "v", ID: v.ID, Epoch: v.Epoch, Version: v.Version, Mode: mode, Replicas: own}}}})
		return r.Void
	}
	if void := change(ModeSync, map[string]string{"x": ModeAsync}); void == "" {
		t.Error("what it has is changed")
	}
	if void := change(ModeSync, map[string]string{"y": ModeAsync}); void == "" {
		t.Error("it has no replica y")
	}
	if void := change(ModeSync, map[string]string{"x": "eventual"}); void == "" {
		t.Error("there is no such mode")
	}
	if void := change(ModeSync, map[string]string{"s": ModeSemisync}); void != "" { // and x loses its own
		t.Fatal(void)
	}
	v := s.Volumes["v"]
	if v.ModeOf("x") != ModeAsync || v.ModeToBeOf("x") != ModeSync || v.ModeToBeOf("s") != ModeSemisync || v.NextMode != ModeSync {
		t.Fatalf("%+v", v)
	}
	if b, err := s.Encode(); err != nil || !bytes.Contains(b, []byte(`"format":5`)) {
		t.Errorf("%.40s, %v", b, err)
	}
	if void := change(ModeSync, map[string]string{"x": ModeAsync}); void != "" { // taken back
		t.Fatal(void)
	}
	if v = s.Volumes["v"]; v.NextMode != "" || v.ModeToBeOf("x") != ModeAsync || v.Replicas[1].NextMode != "" {
		t.Fatalf("%+v", v)
	}
	if void := change(ModeSync, nil); void != "" {
		t.Fatal(void)
	}
	v = s.Volumes["v"]
	set := &SetMode{On: On{"v", v.Epoch, v.Version}, Mode: ModeSync, Members: map[string]Member{"s": v.Members["s"], "x": v.Members["x"]}}
	if r := s.Apply(s.Index+1, 5, Command{By: "p", SetMode: set}); r.Void != "" {
		t.Fatal(r.Void)
	}
	if v = s.Volumes["v"]; v.HasAsync() || v.NextMode != "" || v.ModesText() != ModeSync {
		t.Errorf("%+v", v)
	}
	if e := s.Events[len(s.Events)-1]; !strings.Contains(e.Text, "sync (x async)") {
		t.Errorf("nobody is told: %+v", e)
	}
	if b, err := s.Encode(); err != nil || bytes.Contains(b, []byte(`"format":5`)) {
		t.Errorf("%.40s, %v", b, err)
	}
}
