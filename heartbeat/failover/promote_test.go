package failover

import (
	"maps"
	"testing"
	"time"

	"hacluster/heartbeat/cluster"
)

// faults.md X98, K109
func TestPromotionWaitsForTheLastGrantThatNamedTheVolume(t *testing.T) { // R10
	g := newRig(t)
	g.request("p")
	granted := g.now
	g.reach["p"] = false
	g.pass(full - time.Millisecond)
	g.wantNoPromotion("before the lease has run out")
	g.pass(2 * time.Millisecond)
	g.wantPromotion("s", cluster.BasisUnchanged)
	if g.now.Sub(granted) > full+time.Second {
		t.Fatalf("it took %v", g.now.Sub(granted))
	}
}

// A node's other volume was granted later: that does not count for this one, and the other way round.
func TestLeaseIsCountedForEachVolume(t *testing.T) { // R10
	g := newRig(t)
	g.state = g.state.Clone()
	u := g.vol().Clone()
	u.Name, u.Primary, u.Process = "u", "s", 1
	g.state.Volumes["u"] = u
	g.applied()
	g.request("p")
	g.now = g.now.Add(2 * time.Second)
	g.request("s") // names u only
	g.reach["p"] = false
	g.pass(full - 2*time.Second + 10*time.Millisecond)
	if p := g.promotion(); p == nil || p.Volume != "v" || p.Candidate != "s" {
		t.Fatalf("%+v, want v to move: the grant of s does not keep it", p)
	}
	for _, c := range g.proposals {
		if c.Promote.Volume == "u" {
			t.Fatal("u was taken although its grant is in force")
		}
	}
}

func TestNewLeaderCountsAFullLease(t *testing.T) { // R10
	g := youngRig(t)
	g.reach["p"] = false
	g.pass(full - time.Millisecond)
	g.wantNoPromotion("an earlier leader may have granted just before this term")
	g.pass(time.Second)
	g.wantPromotion("s", cluster.BasisUnchanged)
}

func TestNewPrimaryHasALeaseOfTimeForItsFirstRequest(t *testing.T) {
	g := newRig(t)
	g.change(func(v *cluster.Volume) { v.Epoch, v.Version, v.Primary = 4, 11, "s" })
	g.pass(full - time.Millisecond)
	g.wantNoPromotion("just promoted")
}

func TestPrimaryThatAnswersAndAsksAgainKeepsTheVolume(t *testing.T) {
	g := newRig(t)
	g.request("p")
	g.pass(full + time.Second) // its renewals are late, its process answers
	g.wantNoPromotion("it answers under its own process")
	if !g.named("p") {
		t.Fatal("not granted again")
	}
	g.pass(full + 100*time.Millisecond)
	g.wantNoPromotion("it was granted again")
	g.pass(2 * full) // it answers, and does not ask
	g.wantPromotion("s", cluster.BasisUnchanged)
}

func TestReportFromBeforeTheEndOfTheLeaseDoesNotCount(t *testing.T) { // R25
	g := newRig(t)
	g.request("p") // brings reports of all
	g.reach["p"], g.reach["s"] = false, false
	g.pass(3 * full)
	g.wantNoPromotion("s was last heard before the lease ended")
	g.reach["s"] = true
	g.pass(time.Second)
	g.wantPromotion("s", cluster.BasisUnchanged)
}

func TestReportAskedForInTheSameInstantButBeforeTheEndDoesNotCount(t *testing.T) { // R25
	g := newRig(t)
	g.request("p")
	g.reach["p"], g.reach["s"] = false, false
	g.run(g.l.Request(g.now, g.requestOf("p")))
	round := g.l.round.number
	if !g.giveUp(term) {
		t.Fatal("the give-up does not count")
	}
	g.run(g.answer("s", round)) // asked before, answered after
	g.wantNoPromotion("the question went out before the give-up")
}

func TestReportOfAnUnregisteredProcessDoesNotCount(t *testing.T) { // R6, R25
	g := newRig(t)
	g.report("s", func(r *cluster.Report) { r.Process = 2 })
	g.reach["p"] = false
	g.pass(2 * full)
	g.wantNoPromotion("process 2 of s has not registered")
}

// Who follows, given what the members say after the lease has ended.
func TestWhoFollows(t *testing.T) { // R6, R23, R25
	gone := func(g *rig, n string) { g.reach[n] = false }
	lost := func(g *rig, n string) { g.restart(n, incB) }
	clean := func(g *rig, n string) {
		g.restart(n, incB)
		g.report(n, func(r *cluster.Report) { r.Clean = &cluster.Clean{Incarnation: incA, Process: 1} })
	}
	same := func(g *rig, n string) { g.restart(n, incA) }
	bad := func(g *rig, n string) { g.report(n, func(r *cluster.Report) { r.Failed = true }) }
	hangs := func(g *rig, n string) { g.report(n, func(r *cluster.Report) { r.Stalled = true }) }
	closed := func(g *rig, n, boot string) {
		g.restart(n, cluster.Incarnation{Boot: boot})
		g.report(n, func(r *cluster.Report) { r.Held, r.Problem = false, "it cannot be opened" })
	}
	kept := func(g *rig, n string) {
		g.restart(n, incB)
		g.report(n, func(r *cluster.Report) { r.Unmarked = &cluster.Keeper{Boot: incA.Boot, Process: 1} })
	}
	sole := func(g *rig) { g.change(func(v *cluster.Volume) { v.Version++; delete(v.Members, "s") }) }
	for name, c := range map[string]struct {
		prepare func(g *rig)
		who     string
		basis   cluster.Basis
		leave   []string
	}{
		"p is gone":                     {func(g *rig) { gone(g, "p") }, "s", cluster.BasisUnchanged, nil},
		"p is gone, s is a new process": {func(g *rig) { gone(g, "p"); same(g, "s") }, "s", cluster.BasisUnchanged, nil},
		"p is gone, s has failed":       {func(g *rig) { gone(g, "p"); bad(g, "s") }, "", "", nil},
		"p is gone, s lost its memory":  {func(g *rig) { gone(g, "p"); lost(g, "s") }, "", "", nil},
		"p is gone, s stopped cleanly":  {func(g *rig) { gone(g, "p"); clean(g, "s") }, "s", cluster.BasisClean, nil},
		"p is gone, s is no member":     {func(g *rig) { sole(g); gone(g, "p") }, "", "", nil},
		"p is gone, s has a mark that is not its own": {func(g *rig) {
			gone(g, "p")
			clean(g, "s")
			g.report("s", func(r *cluster.Report) { r.Clean.Process = 7 })
		}, "", "", nil},
		"p lost its memory, s has not":       {func(g *rig) { lost(g, "p") }, "s", cluster.BasisUnchanged, []string{"p"}},
		"p lost its memory, s is gone":       {func(g *rig) { lost(g, "p"); gone(g, "s") }, "", "", nil},
		"p lost its memory, s has failed":    {func(g *rig) { lost(g, "p"); bad(g, "s") }, "", "", nil},
		"both lost their memory":             {func(g *rig) { lost(g, "p"); lost(g, "s") }, "p", cluster.BasisLastPrimary, nil},
		"both lost it, p's disk failed too":  {func(g *rig) { lost(g, "p"); lost(g, "s"); bad(g, "p") }, "s", cluster.BasisAllLost, []string{"p"}},
		"both lost it, both disks failed":    {func(g *rig) { lost(g, "p"); lost(g, "s"); bad(g, "p"); bad(g, "s") }, "", "", nil},
		"both lost it, p hangs":              {func(g *rig) { lost(g, "p"); lost(g, "s"); hangs(g, "p") }, "s", cluster.BasisAllLost, []string{"p"}},
		"p lost it and hangs, s is gone":     {func(g *rig) { lost(g, "p"); hangs(g, "p"); gone(g, "s") }, "", "", nil},
		"p is gone, s had nothing unflushed": {func(g *rig) { gone(g, "p"); kept(g, "s") }, "", "", nil},
		"p lost it, s had nothing unflushed": {func(g *rig) { lost(g, "p"); kept(g, "s") }, "s", cluster.BasisUnmarked, []string{"p"}},
		"p had nothing unflushed, s is gone": {func(g *rig) { kept(g, "p"); gone(g, "s") }, "", "", nil},
		"p lost it, s has empty maps of an older process": {func(g *rig) {
			lost(g, "p")
			kept(g, "s")
			g.report("s", func(r *cluster.Report) { r.Unmarked.Process = 0 })
		}, "p", cluster.BasisLastPrimary, nil},
		"p is well, s had nothing unflushed": {func(g *rig) { same(g, "p"); kept(g, "s") }, "p", cluster.BasisUnchanged, nil},
		"p lost it and cannot be used, s stopped cleanly and failed": {func(g *rig) {
			lost(g, "p")
			hangs(g, "p")
			clean(g, "s")
			bad(g, "s")
		}, "", "", nil},
		"both lost it, p is gone, its disk failed": {func(g *rig) { lost(g, "p"); lost(g, "s"); bad(g, "p"); gone(g, "p") }, "", "", nil},
		"p lost it and failed, s is gone":          {func(g *rig) { lost(g, "p"); bad(g, "p"); gone(g, "s") }, "", "", nil},
		"p lost it and failed, s is unchanged but cannot be used": {func(g *rig) {
			lost(g, "p")
			bad(g, "p")
			g.report("s", func(r *cluster.Report) { r.Problem = "x" })
		}, "", "", nil},
		"p lost it, s was not restarted and cannot open its backing": {func(g *rig) { lost(g, "p"); closed(g, "s", incA.Boot) }, "", "", nil},
		"p lost it, s was restarted and cannot open its backing":     {func(g *rig) { lost(g, "p"); closed(g, "s", incB.Boot) }, "p", cluster.BasisLastPrimary, []string{"s"}},
		"both lost it, s stopped cleanly":                            {func(g *rig) { lost(g, "p"); clean(g, "s") }, "s", cluster.BasisClean, []string{"p"}},
		"both stopped cleanly":                                       {func(g *rig) { clean(g, "p"); clean(g, "s") }, "p", cluster.BasisClean, nil},
		"p is a new process, s is well":                              {func(g *rig) { same(g, "p") }, "s", cluster.BasisUnchanged, nil},
		"p is a new process, s is gone":                              {func(g *rig) { same(g, "p"); gone(g, "s") }, "p", cluster.BasisUnchanged, nil},
		"p is a new process, s lost its memory":                      {func(g *rig) { same(g, "p"); lost(g, "s") }, "p", cluster.BasisUnchanged, []string{"s"}},
		"p alone lost its memory, no other member":                   {func(g *rig) { sole(g); lost(g, "p") }, "p", cluster.BasisLastPrimary, nil},
		"p alone is a new process, no other member":                  {func(g *rig) { sole(g); same(g, "p") }, "p", cluster.BasisUnchanged, nil},
		"s is not held":     {func(g *rig) { gone(g, "p"); g.report("s", func(r *cluster.Report) { r.Held = false }) }, "", "", nil},
		"s is inconsistent": {func(g *rig) { gone(g, "p"); g.report("s", func(r *cluster.Report) { r.Inconsistent = true }) }, "", "", nil},
		"s is stalled":      {func(g *rig) { gone(g, "p"); g.report("s", func(r *cluster.Report) { r.Stalled = true }) }, "", "", nil},
		"s cannot be used":  {func(g *rig) { gone(g, "p"); g.report("s", func(r *cluster.Report) { r.Problem = "x" }) }, "", "", nil},
	} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t)
			g.request("p")
			c.prepare(g)
			g.pass(4 * full)
			if c.who == "" {
				g.wantNoPromotion("a person decides, or who is missing returns")
				return
			}
			p := g.wantPromotion(c.who, c.basis, c.leave...)
			if r := g.reports[c.who]; p.Member != (cluster.Member{Incarnation: r.Incarnation, Process: r.Process}) {
				t.Fatalf("promoted as %+v, it reported %+v", p.Member, r)
			}
			if r := g.commit(cluster.Command{By: "w", Promote: p}); r.Void != "" {
				t.Fatalf("the promotion is void: %s", r.Void)
			}
		})
	}
}

// Who stays beside the promoted one, to be settled with.
func TestWhoStaysToBeSettled(t *testing.T) { // R6, R25, R29
	m := func(inc cluster.Incarnation, process uint64) map[string]cluster.Member {
		return map[string]cluster.Member{"s": {Incarnation: inc, Process: process}}
	}
	for name, c := range map[string]struct {
		prepare func(g *rig)
		who     string
		stay    map[string]cluster.Member
	}{
		"all lost their memory": {func(g *rig) { g.restart("p", incB); g.restart("s", incB) }, "p", m(incB, 2)},
		"all lost it, and s failed": {func(g *rig) {
			g.restart("p", incB)
			g.restart("s", incB)
			g.report("s", func(r *cluster.Report) { r.Failed = true })
		}, "p", nil},
		"p is a new process, s lost its memory": {func(g *rig) { g.restart("p", incA); g.restart("s", incB) }, "p", nil},
		"p is a new process, s had nothing unflushed": {func(g *rig) {
			g.restart("p", incA)
			g.restart("s", incB)
			g.report("s", func(r *cluster.Report) { r.Unmarked = &cluster.Keeper{Boot: incA.Boot, Process: 1} })
		}, "p", m(incA, 1)}, // it says itself which process follows
		"p is a new process, s is not heard": {func(g *rig) { g.restart("p", incA); g.reach["s"] = false }, "p", nil},
		"p is a new process, s cannot follow yet": {func(g *rig) {
			g.restart("p", incA)
			g.report("s", func(r *cluster.Report) { r.Held = false })
		}, "p", m(incA, 1)},
	} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t)
			g.request("p")
			c.prepare(g)
			g.pass(4 * full)
			p := g.promotion()
			if p == nil || p.Candidate != c.who || !maps.Equal(p.Stay, c.stay) {
				t.Fatalf("%+v, want %s with %v", p, c.who, c.stay)
			}
			r := g.commit(cluster.Command{By: "w", Promote: p})
			if r.Void != "" || len(r.Volume.Members) != 1+len(c.stay) {
				t.Fatalf("void %q, set %v", r.Void, r.Volume.Members)
			}
			for n, m := range c.stay {
				if r.Volume.Members[n] != m {
					t.Fatalf("the set names %+v", r.Volume.Members)
				}
			}
		})
	}
}

func TestMarkOfACleanStopWaitsForOneThatMayBeUnchanged(t *testing.T) { // R25
	g := newRig(t)
	g.reach["p"] = false
	g.restart("s", incB)
	g.report("s", func(r *cluster.Report) { r.Clean = &cluster.Clean{Incarnation: incA, Process: 1} })
	g.pass(full - time.Second)
	g.wantNoPromotion("p may be there, unchanged")
	g.pass(2 * time.Second)
	g.wantPromotion("s", cluster.BasisClean)
}

func TestNobodyIsWaitedForWhenAllWereHeard(t *testing.T) { // R25
	g := newRig(t)
	g.reach["p"], g.reach["s"] = false, false
	g.restart("p", incB)
	g.restart("s", incB)
	g.reach["p"], g.reach["s"] = true, true
	g.pass(lease / 2)
	g.wantPromotion("p", cluster.BasisLastPrimary)
}

// faults.md K111
func TestChangedMemberWaitsForOneThatMayLive(t *testing.T) { // R25
	g := newRig(t)
	g.reach["s"] = false
	g.restart("p", incB)
	g.pass(10 * full)
	g.wantNoPromotion("s may be unchanged")
	g.reach["s"] = true
	g.pass(time.Second)
	g.wantPromotion("s", cluster.BasisUnchanged, "p")
}

func TestNewProcessOfThePrimaryEndsTheLeaseOnlyWithProof(t *testing.T) { // R10
	for name, c := range map[string]struct {
		change func(r *cluster.LeaseRequest)
		proof  bool
	}{
		"same boot, backing held": {func(r *cluster.LeaseRequest) {}, true},
		"backing not held":        {func(r *cluster.LeaseRequest) { r.Reports[0].Held = false }, false},
		"no report":               {func(r *cluster.LeaseRequest) { r.Reports = nil }, false},
		"another boot":            {func(r *cluster.LeaseRequest) { r.Boot = "b" }, false},
		"another data directory":  {func(r *cluster.LeaseRequest) { r.DataDir = "else" }, false},
		"report of another":       {func(r *cluster.LeaseRequest) { r.Reports[0].Process = 1 }, false},
		"the promoted process":    {func(r *cluster.LeaseRequest) { r.Start, r.Number, r.Reports[0].Process = 1, 9, 1 }, false},
		"another node":            {func(r *cluster.LeaseRequest) { r.Node, r.DataDir = "s", "ds" }, false},
	} {
		g := newRig(t)
		g.request("p")
		g.restart("p", incA)
		r := g.requestOf("p")
		c.change(&r)
		g.run(g.l.Request(g.now, r))
		g.pass(time.Second)
		if got := g.promotion() != nil; got != c.proof {
			t.Errorf("%s: promoted before the lease ran out: %t, want %t", name, got, c.proof)
		}
	}
}

func TestDecisionIsTakenOnceUntilItsOutcomeIsSeen(t *testing.T) { // R10, R27
	g := newRig(t)
	g.reach["p"] = false
	g.pass(5 * full)
	if n := len(g.proposals); n != 1 {
		t.Fatalf("proposed %d times", n)
	}
	g.l.Retry("v") // it never reached the log
	g.pass(time.Second)
	if n := len(g.proposals); n != 2 {
		t.Fatalf("proposed %d times after a retry", n)
	}
}

// The candidate restarts between the decision and its entry: the entry is void, and the leader has to decide anew.
func TestVoidPromotionIsDecidedAnew(t *testing.T) { // R10
	g := newRig(t)
	g.reach["p"] = false
	g.pass(2 * full)
	p := g.wantPromotion("s", cluster.BasisUnchanged)
	g.restart("s", incA)
	if r := g.commit(cluster.Command{Promote: p}); r.Void == "" {
		t.Fatal("a process that is gone was promoted")
	}
	g.pass(2 * time.Second)
	if p = g.wantPromotion("s", cluster.BasisUnchanged); p.Member.Process != 2 {
		t.Fatalf("process %d is promoted, want 2", p.Member.Process)
	}
}

func TestNewVolumeIsFormedOfFreshReplicasAndPromoted(t *testing.T) {
	fresh := func(g *rig, nodes ...string) {
		for _, n := range nodes {
			g.report(n, func(r *cluster.Report) { r.Fresh, r.Epoch = true, 0 })
		}
		g.change(func(v *cluster.Volume) {
			v.Epoch, v.Version, v.Primary, v.Process, v.Members = 0, 1, "", 0, map[string]cluster.Member{}
		})
	}
	for name, nodes := range map[string][]string{"one has content": {"p"}, "none is fresh": nil} {
		g := youngRig(t)
		fresh(g, nodes...)
		g.pass(2 * full)
		if len(g.proposals) != 0 {
			t.Fatalf("%s: %+v; a person decides whose content is kept", name, g.proposals)
		}
	}
	g := youngRig(t)
	g.reach["s"] = false
	fresh(g, "p", "s")
	g.pass(2 * full)
	if len(g.proposals) != 0 {
		t.Fatalf("formed without all: %+v", g.proposals)
	}
	g.reach["s"] = true
	g.pass(time.Second)
	if len(g.proposals) != 1 || len(g.proposals[0].Form.Members) != 2 {
		t.Fatalf("%+v", g.proposals)
	}
	if r := g.commit(g.proposals[0]); r.Void != "" {
		t.Fatal(r.Void)
	}
	g.pass(time.Second)
	g.wantPromotion("p", cluster.BasisFirst)
}

func TestRemovedNodeStartsOverWhenItIsAddedAgain(t *testing.T) { // R10, R32
	g := newRig(t)
	g.change(func(v *cluster.Volume) { v.Version++; delete(v.Members, "s") })
	g.starts["s"], g.numbers["s"] = 17, 40
	if g.requestInTime("s") == nil {
		t.Fatal("not answered")
	}
	if r := g.commit(cluster.Command{RemoveNode: &cluster.RemoveNode{Node: "s"}}); r.Void != "" {
		t.Fatal(r.Void)
	}
	g.commit(cluster.Command{AddNode: &cluster.Node{Name: "s", DataDir: "ds", Start: 1}})
	g.starts["s"], g.numbers["s"] = 1, 0
	if g.requestInTime("s") == nil {
		t.Fatal("a node that was added again is not heard for the rest of the term")
	}
}

func TestReportsAreNotAskedForWithoutPause(t *testing.T) { // R28
	g := newRig(t)
	g.reach["p"], g.reach["s"] = false, false
	g.pass(20 * lease)
	if g.asks == 0 || g.asks > 110 {
		t.Fatalf("asked %d times in 20 leases, want about four in each", g.asks)
	}
}

// One whose replica is to go follows where nobody that stays can; in async also where it has more.
func TestMemberThatLeavesFollowsLast(t *testing.T) {
	member := func(n string) cluster.Member {
		return cluster.Member{Incarnation: cluster.Incarnation{Boot: n, Attachment: "1"}, Process: 1}
	}
	for name, c := range map[string]struct {
		mode  string
		place uint64 // of the one that leaves
		heard []string
		want  string
	}{
		"sync":                       {cluster.ModeSync, 7, []string{"b", "s"}, "s"},
		"sync, nobody else is there": {cluster.ModeSync, 7, []string{"b"}, "b"},
		"async, it has the same":     {cluster.ModeAsync, 7, []string{"b", "s"}, "s"},
		"async, it has more":         {cluster.ModeAsync, 8, []string{"b", "s"}, "b"},
	} {
		v := &cluster.Volume{Name: "v", Mode: c.mode, Epoch: 3, Version: 9, Primary: "p", Served: "p", Process: 1, LastNumber: 3,
			Replicas: []cluster.Replica{{Node: "p", Number: 1}, {Node: "b", Number: 2, Leaving: true}, {Node: "s", Number: 3}},
			Members:  map[string]cluster.Member{"p": member("p"), "b": member("b"), "s": member("s")}}
		l := NewLeader(Config{Lease: lease}, 1)
		l.state = cluster.NewState()
		reports := map[string]cluster.Report{}
		for _, n := range c.heard {
			reports[n] = cluster.Report{Incarnation: member(n).Incarnation, Process: 1, Epoch: 3, Held: true, Place: 7}
		}
		if r, ok := reports["b"]; ok {
			r.Place = c.place
			reports["b"] = r
		}
		a := &account{first: 1}
		names := l.candidates(v, a, reports)
		got := ""
		if c.mode == cluster.ModeSync {
			if p := l.pickMember(v, a, reports, true); p != nil {
				got = p.Candidate
			}
		} else {
			got = longest(reports, nextUnchanged(v, reports, names), names, v)
		}
		if got != c.want {
			t.Errorf("%s: %q of %v follows, want %q", name, got, names, c.want)
		}
	}
}
