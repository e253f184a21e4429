package failover

import (
	"testing"
	"time"

	"hacluster/heartbeat/cluster"
)

// faults.md F122: of two equal orders the second comes when the first is done; it must not move the volume back.
func TestHandOverOrderedTwiceMovesTheVolumeOnce(t *testing.T) {
	for name, o := range map[string]Order{
		"it is there already":       {To: "p"},
		"given in an earlier epoch": {To: "s", Epoch: 2},
		"to anybody, earlier":       {Epoch: 2},
		"by force, earlier":         {To: "s", Force: true, Epoch: 2},
	} {
		g := newRig(t)
		g.request("p")
		g.run(g.l.Order(g.now, "v", o))
		if len(g.orders) != 0 {
			t.Errorf("%s: ordered %+v", name, g.orders)
		}
		if g.giveUp(term, func(u *GiveUp) {}); len(g.l.orders) != 0 {
			t.Errorf("%s: the order is remembered", name)
		}
	}
}

func TestHandOverPromotesTheWantedMemberAtOnce(t *testing.T) { // R30
	g := newRig(t)
	g.request("p")
	g.run(g.l.Order(g.now, "v", Order{To: "s"}))
	if len(g.orders) != 1 || g.orders[0] != (HandOver{Volume: "v", Primary: "p", To: "s", Epoch: 3}) {
		t.Fatalf("ordered %+v", g.orders)
	}
	g.wantNoPromotion("nothing was given up yet")
	if !g.giveUp(term, func(u *GiveUp) { u.To = "s" }) {
		t.Fatal("the give-up does not count")
	}
	p := g.wantPromotion("s", cluster.BasisHandOver)
	if r := g.commit(cluster.Command{Promote: p}); r.Void != "" || r.Volume.Previous != "" {
		t.Fatalf("%q, previous %q", r.Void, r.Volume.Previous)
	}
}

func TestHandOverPrefersTheMemberThatWasNamed(t *testing.T) {
	for _, to := range []string{"s", "x"} {
		g := newRig(t)
		g.state.Apply(g.state.Index+1, term, cluster.Command{AddNode: &cluster.Node{Name: "x", DataDir: "dx", Start: 1}})
		g.voters, g.reach["x"], g.starts["x"] = []string{"p", "s", "x", "w"}, true, 1
		g.reports["x"] = g.reports["s"]
		g.change(func(v *cluster.Volume) {
			v.Replicas = append(v.Replicas, cluster.Replica{Node: "x"})
			v.Members["x"] = v.Members["s"]
		})
		g.request("p")
		g.reach["s"], g.reach["x"] = false, false
		g.giveUp(term, func(u *GiveUp) { u.To = to })
		round := g.l.round.number
		g.reach["s"], g.reach["x"] = true, true
		for g.l.round.number == round { // both answer before anything is decided
			g.now = g.now.Add(100 * time.Millisecond)
			g.l.Tick(g.now)
		}
		a := g.l.reports["s"]
		a.round, a.reports = g.l.round.number, map[string]cluster.Report{"v": g.reports["s"]}
		g.l.reports["s"] = a
		g.run(g.answer("x", g.l.round.number))
		g.wantPromotion(to, cluster.BasisHandOver)
	}
}

// threeRig is a rig with a third replica, x, which is a member and does not answer yet.
func threeRig(t *testing.T) *rig {
	t.Helper()
	g := newRig(t)
	g.state.Apply(g.state.Index+1, term, cluster.Command{AddNode: &cluster.Node{Name: "x", DataDir: "dx", Start: 1}})
	g.voters, g.starts["x"] = []string{"p", "s", "x"}, 1
	g.reports["x"] = g.reports["s"]
	g.change(func(v *cluster.Volume) {
		v.Replicas = append(v.Replicas, cluster.Replica{Node: "x"})
		v.Members["x"] = v.Members["s"]
	})
	g.request("p")
	return g
}

func TestHandOverWaitsForTheMemberThatWasNamedThoughAnotherIsHeard(t *testing.T) {
	g := threeRig(t)
	g.giveUp(term, func(u *GiveUp) { u.To = "x" })
	g.pass(lease / 2)
	g.wantNoPromotion("x was named, and s was heard")
	g.reach["x"] = true
	g.pass(lease / 2)
	g.wantPromotion("x", cluster.BasisHandOver)
}

func TestHandOverWaitsALeaseAtMostForTheMemberThatWasNamed(t *testing.T) {
	g := threeRig(t)
	g.giveUp(term, func(u *GiveUp) { u.To = "x" })
	g.pass(full + lease/2)
	g.wantPromotion("s", cluster.BasisHandOver)
}

func TestHandOverInSemisyncWaitsUntilTheMemberThatWasNamedHasWritten(t *testing.T) {
	g := threeRig(t)
	g.change(func(v *cluster.Volume) { v.Mode, v.Served = cluster.ModeSemisync, "p" })
	g.reach["x"] = true
	g.report("x", func(r *cluster.Report) { r.Taken, r.LastSeq = 9, 5 })
	g.giveUp(term, func(u *GiveUp) { u.To = "x" })
	g.pass(lease / 2)
	g.wantNoPromotion("x was named, and s has written all")
	g.report("x", func(r *cluster.Report) { r.LastSeq = 9 })
	g.pass(lease / 2)
	g.wantPromotion("x", cluster.BasisHandOver)
}

func TestGiveUpThatDoesNotCount(t *testing.T) { // R9, R10
	for name, change := range map[string]func(u *GiveUp){
		"older than the last request": func(u *GiveUp) { u.Number = 1 },
		"of another process":          func(u *GiveUp) { u.Start = 2 },
		"of another epoch":            func(u *GiveUp) { u.Epoch = 2 },
		"of a standby":                func(u *GiveUp) { u.Node = "s" },
		"of another volume":           func(u *GiveUp) { u.Volume = "u" },
	} {
		g := newRig(t)
		g.request("p")
		g.request("p")
		if g.giveUp(term, change) {
			t.Errorf("%s: it counts", name)
		}
		g.pass(time.Second)
		g.wantNoPromotion(name)
	}
}

func TestGiveUpToldTwiceCountsOnceAndSaysSo(t *testing.T) { // R27
	g := newRig(t)
	g.request("p")
	g.reach["s"] = false
	if !g.giveUp(term) {
		t.Fatal("it does not count")
	}
	again := func(u *GiveUp) { u.Number--; g.numbers["p"]-- }
	if !g.giveUp(term, again) {
		t.Fatal("told again, because the answer was lost, it is refused")
	}
}

func TestGiveUpDuringADecisionCanBeToldAgain(t *testing.T) { // R27
	g := newRig(t)
	g.request("p")
	g.reach["p"] = false
	g.pass(2 * full)
	g.wantPromotion("s", cluster.BasisUnchanged)
	if g.giveUp(term) {
		t.Fatal("a give-up counts while a promotion is decided")
	}
	g.reach["s"] = false
	g.restart("s", incA) // so the promotion is void, and nothing is heard of the new process yet
	g.change(func(v *cluster.Volume) { v.Version++ })
	if !g.giveUp(term, func(u *GiveUp) { u.Number--; g.numbers["p"]-- }) {
		t.Fatal("the same give-up is old now")
	}
}

func TestRenewalDoesNotUndoAGiveUp(t *testing.T) { // R10, R30
	g := newRig(t)
	g.request("p")
	g.reach["p"], g.reach["s"] = false, false
	g.run(g.l.Request(g.now, g.requestOf("p"))) // waits in the round
	g.giveUp(term)
	g.run(g.l.Request(g.now, g.requestOf("p"))) // made after: still not before the promotion is decided
	g.reach["p"] = true
	g.pass(2 * time.Second)
	for _, gr := range g.grants[1:] {
		if gr.Volumes["v"] != 0 {
			t.Fatalf("request %d was granted the volume that was given up", gr.Number)
		}
	}
	g.reach["s"] = true
	g.pass(time.Second)
	g.wantPromotion("s", cluster.BasisHandOver)
}

// faults.md F122
func TestHandOverWithNobodyToFollowIsVoidAndTheNextRequestResumes(t *testing.T) { // R30
	for name, prepare := range map[string]func(g *rig){
		"the standby is gone":         func(g *rig) { g.reach["s"] = false },
		"the standby has failed":      func(g *rig) { g.report("s", func(r *cluster.Report) { r.Failed = true }) },
		"the standby lost its memory": func(g *rig) { g.restart("s", incB) },
	} {
		g := newRig(t)
		g.request("p")
		prepare(g)
		g.run(g.l.Order(g.now, "v", Order{To: "s"}))
		g.giveUp(term, func(u *GiveUp) { u.To = "s" })
		g.pass(full + time.Second)
		g.wantNoPromotion(name)
		if !g.named("p") {
			t.Errorf("%s: the primary cannot resume", name)
		}
		if len(g.l.orders) != 0 {
			t.Errorf("%s: the order would be carried out some other day", name)
		}
	}
}

func TestGiveUpOfAFailedDiskNeverReturnsToIt(t *testing.T) { // R23
	g := newRig(t)
	g.request("p")
	g.reach["s"] = false
	g.giveUp(term, func(u *GiveUp) { u.Failed = true })
	for range 10 {
		g.pass(full)
		if g.named("p") {
			t.Fatal("granted again to a primary whose disk failed, with another member")
		}
	}
	g.wantNoPromotion("s is gone")
	g.reach["s"] = true
	g.pass(time.Second)
	g.wantPromotion("s", cluster.BasisUnchanged, "p")
}

// P gives up towards an earlier leader; the message is late. P's next renewal is granted by that leader, which never
// heard of the give-up. Then it reaches us.
func TestLateGiveUpIsNoProofInAYoungTerm(t *testing.T) { // R10
	g := youngRig(t)
	g.pass(time.Second)
	if !g.giveUp(term - 1) {
		t.Fatal("it does not count")
	}
	g.pass(full - time.Second - time.Millisecond)
	g.wantNoPromotion("p may serve by a grant of the earlier leader")
	g.pass(time.Second)
	p := g.wantPromotion("s", cluster.BasisUnchanged) // no hand-over: p may have resumed, so it has to leave
	if r := g.commit(cluster.Command{Promote: p}); r.Void != "" || r.Volume.Previous != "p" {
		t.Fatalf("%q, previous %q", r.Void, r.Volume.Previous)
	}
}

func TestLateGiveUpCountsOnceEarlierLeasesHaveRunOut(t *testing.T) { // R10
	g := youngRig(t)
	g.pass(2 * time.Second)
	g.request("p")
	g.giveUp(term - 1) // the answer of this term had not arrived
	g.pass(full - 2*time.Second + 200*time.Millisecond)
	g.wantPromotion("s", cluster.BasisUnchanged)
}

func TestGiveUpUnderAGrantOfThisTermIsProofAlsoInAYoungTerm(t *testing.T) { // R10, R30
	g := youngRig(t)
	g.request("p")
	g.giveUp(term)
	g.wantPromotion("s", cluster.BasisHandOver)
}

func TestPrimaryThatGaveUpForItsDiskIsNoCandidateWhateverItSaysLater(t *testing.T) { // R23
	g := newRig(t)
	g.request("p")
	g.reach["s"] = false
	g.giveUp(term, func(u *GiveUp) { u.Failed = true })
	g.restart("p", incB)
	g.report("p", func(r *cluster.Report) { r.Clean = &cluster.Clean{Incarnation: incA, Process: 1} })
	g.pass(3 * full)
	g.wantNoPromotion("s may have what it lost")
}
