package cluster

import (
	"fmt"
	"testing"
)

func TestInitOnlyOnce(t *testing.T) {
	s := NewState()
	if r := s.Apply(1, 5, Command{AddNode: &Node{Name: "p"}}); r.Void == "" {
		t.Fatal("a command before the cluster has an identity was applied")
	}
	s = formed(t)
	if r := s.Apply(s.Index+1, 5, Command{Init: &Init{ID: "other"}}); r.Void == "" || s.ID != "c" {
		t.Fatalf("formed a second time: %q, id %s", r.Void, s.ID)
	}
}

// faults.md M61, M70, G53
func TestProcessOfARestoredOrCopiedDirectoryIsRefused(t *testing.T) { // R10, R32
	for name, c := range map[string]struct {
		r    StartNode
		void bool
	}{
		"the next process":        {StartNode{Node: "s", DataDir: "ds", Start: 2}, false},
		"a process after a gap":   {StartNode{Node: "s", DataDir: "ds", Start: 9}, false},
		"the same number again":   {StartNode{Node: "s", DataDir: "ds", Start: 1}, true},
		"a number that went back": {StartNode{Node: "s", DataDir: "ds", Start: 0}, true},
		"another directory":       {StartNode{Node: "s", DataDir: "dx", Start: 2}, true},
		"a stranger":              {StartNode{Node: "y", DataDir: "dy", Start: 1}, true},
	} {
		s := formed(t)
		r := s.Apply(s.Index+1, 5, Command{By: c.r.Node, StartNode: &c.r})
		if (r.Void != "") != c.void {
			t.Errorf("%s: void %q", name, r.Void)
		}
		if n := s.Nodes["s"]; !c.void && n.Start != c.r.Start || c.void && n.Start != 1 {
			t.Errorf("%s: process %d is registered", name, n.Start)
		}
	}
}

// faults.md G53
func TestTakenNodeNameIsRefused(t *testing.T) {
	s := formed(t)
	if r := s.Apply(s.Index+1, 5, Command{AddNode: &Node{Name: "s", DataDir: "new"}}); r.Void == "" || s.Nodes["s"].DataDir != "ds" {
		t.Fatalf("%q, directory %s", r.Void, s.Nodes["s"].DataDir)
	}
	ok(t, s, Command{AddNode: &Node{Name: "y", DataDir: "dy"}})
}

// faults.md F123
func TestNodeThatAVolumeCannotDoWithoutIsNotRemoved(t *testing.T) {
	for name, c := range map[string]struct {
		node    string
		prepare func(v *Volume)
		void    bool
	}{
		"primary":     {"p", func(*Volume) {}, true},
		"last member": {"s", func(v *Volume) { v.Primary = ""; v.Members = map[string]Member{"s": {}} }, true},
		"member":      {"s", func(*Volume) {}, false},
		"witness":     {"w", func(*Volume) {}, false},
		"stranger":    {"y", func(*Volume) {}, true},
	} {
		s := formed(t)
		v := s.Volumes["v"]
		c.prepare(&v)
		s.Volumes["v"] = v
		r := s.Apply(s.Index+1, 5, Command{RemoveNode: &RemoveNode{Node: c.node}})
		if (r.Void != "") != c.void {
			t.Errorf("%s: void %q", name, r.Void)
		}
		if _, there := s.Nodes[c.node]; !c.void && there {
			t.Errorf("%s: still there", name)
		}
		if v := s.Volumes["v"]; !c.void && v.IsMember(c.node) {
			t.Errorf("%s: still in the set %v", name, v.MemberNames())
		}
	}
}

func TestAdmissionUnderWayIsVoidWhenItsNodeIsRemoved(t *testing.T) { // R5, R7
	s := formed(t)
	ok(t, s, Command{By: "p", Drop: &Drop{On: on(s), Node: "s"}})
	late := Command{By: "p", Admit: &Admit{On: on(s), Node: "s", Member: Member{incA, 1}}}
	ok(t, s, Command{RemoveNode: &RemoveNode{Node: "s"}})
	if r := s.Apply(s.Index+1, 5, late); r.Void == "" {
		t.Fatal("a node that was removed was admitted")
	}
	again := s.Clone()
	ok(t, again, Command{AddNode: &Node{Name: "s", DataDir: "new"}})
	if r := again.Apply(again.Index+1, 5, late); r.Void == "" {
		t.Fatal("a node that was removed and added again was admitted for what it held before")
	}
	late.Admit.On = on(s)
	if r := s.Apply(s.Index+1, 5, late); r.Void == "" {
		t.Fatal("a node that was removed was admitted on the new version")
	}
	if r := s.Apply(s.Index+1, 5, Command{Promote: &Promote{On: on(s), Term: 5, Candidate: "s", Basis: BasisForced}}); r.Void == "" {
		t.Fatal("a node that was removed was promoted")
	}
}

func TestPreviousPrimaryThatIsRemovedIsNotWaitedFor(t *testing.T) { // R6
	s := formed(t)
	ok(t, s, Command{Promote: promote(s, "s", BasisUnchanged)})
	ok(t, s, Command{RemoveNode: &RemoveNode{Node: "p"}})
	if v := s.Volumes["v"]; v.Previous != "" || v.IsMember("p") {
		t.Fatalf("previous %q, set %v", v.Previous, v.MemberNames())
	}
}

func TestVolumeIsRefused(t *testing.T) {
	for name, v := range map[string]CreateVolume{
		"that exists":           {Name: "v"},
		"with a witness":        {Name: "u", Replicas: []Replica{{Node: "p"}, {Node: "w"}}},
		"on a node that is not": {Name: "u", Replicas: []Replica{{Node: "y"}}},
	} {
		s := formed(t)
		if r := s.Apply(s.Index+1, 5, Command{CreateVolume: &v}); r.Void == "" || len(s.Volumes) != 1 {
			t.Errorf("%s: %q, %d volumes", name, r.Void, len(s.Volumes))
		}
	}
	s := formed(t)
	if v := ok(t, s, Command{CreateVolume: &CreateVolume{Name: "u", Replicas: []Replica{{Node: "p"}}}}).Volume; v.Version != 1 || v.Members == nil {
		t.Fatalf("%+v", v)
	}
}

func TestFiguresOfAFailoverAreAmendedOnce(t *testing.T) {
	s := formed(t)
	f := Failover{Volume: "v", Epoch: 4, RTOMillis: 900}
	ok(t, s, Command{Failover: &f})
	f.RTOMillis, f.Amended = 1200, true
	ok(t, s, Command{Failover: &f})
	if len(s.Failovers) != 1 || s.Failovers[0].RTOMillis != 1200 {
		t.Fatalf("%+v", s.Failovers)
	}
	f.RTOMillis = 1
	if r := s.Apply(s.Index+1, 5, Command{Failover: &f}); r.Void == "" || s.Failovers[0].RTOMillis != 1200 {
		t.Fatal("final figures were replaced")
	}
}

func TestHistoryIsBounded(t *testing.T) { // R28
	s := formed(t)
	for i := range maxFailovers + 50 {
		ok(t, s, Command{Failover: &Failover{Volume: "v", Epoch: Epoch(i + 1)}})
	}
	if n := len(s.Failovers); n != maxFailovers || s.Failovers[n-1].Epoch != maxFailovers+50 {
		t.Fatalf("%d failovers, the newest of epoch %d", n, s.Failovers[n-1].Epoch)
	}
	for i := range maxEvents + 50 {
		ok(t, s, Command{StartNode: &StartNode{Node: "s", DataDir: "ds", Start: uint64(i + 2)}})
	}
	if n := len(s.Events); n != maxEvents || s.Events[n-1].Text != fmt.Sprintf("process %d of s", maxEvents+51) {
		t.Fatalf("%d events, the newest %q", n, s.Events[n-1].Text)
	}
	for i, e := range s.Events[1:] {
		if e.Number != s.Events[i].Number+1 {
			t.Fatalf("event %d after %d", e.Number, s.Events[i].Number)
		}
	}
}
