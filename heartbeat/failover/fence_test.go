package failover

import (
	"slices"
	"testing"

	"hacluster/heartbeat/cluster"
)

// required is a rig in whose cluster fencing is required; p is not heard any more and its lease has ended.
func required(t *testing.T) *rig {
	t.Helper()
	g := newRig(t)
	g.state.Fencing = cluster.FencingRequired
	g.applied()
	g.lose()
	return g
}

// say has the cluster note a word of p's fencing.
func (g *rig) say(words ...cluster.FenceWord) {
	g.t.Helper()
	for _, w := range words {
		f := cluster.FenceNode{Node: "p", Word: w, Start: g.state.Nodes["p"].Start, Attempt: 1}
		if r := g.state.Nodes["p"].Fence; r != nil {
			if f.Attempt = r.Attempt; w == cluster.FenceBegun || w == cluster.FenceConfirmed || w == cluster.FenceRefuted {
				f.Attempt++
			}
		}
		if r := g.commit(cluster.Command{FenceNode: &f}); r.Void != "" {
			g.t.Fatal(r.Void)
		}
	}
}

// wantFences compares what was asked for, but for the reasons, and forgets it.
func (g *rig) wantFences(want ...Action) {
	g.t.Helper()
	var got []Action
	for _, a := range g.fences {
		switch a := a.(type) {
		case Fence:
			a.Why = ""
			got = append(got, a)
		case Spare:
			a.Why = ""
			got = append(got, a)
		default:
			got = append(got, a)
		}
	}
	if !slices.Equal(got, want) {
		g.t.Fatalf("asked for %+v, want %+v", got, want)
	}
	g.fences = nil
}

const begun, off, failed, confirmed, refuted = cluster.FenceBegun, cluster.FenceOff, cluster.FenceFailed, cluster.FenceConfirmed, cluster.FenceRefuted

func TestWhereFencingIsRequiredThePromotionWaitsForIt(t *testing.T) {
	for name, words := range map[string][]cluster.FenceWord{"fenced": {begun, off}, "at the second try": {begun, failed, begun, off}, "a person says so": {confirmed}} {
		for _, mode := range allModes {
			g := newRig(t)
			g.state.Fencing = cluster.FencingRequired
			g.mode(mode)
			g.lose()
			g.wantFences(Fence{Node: "p", Start: 1})
			g.pass(20 * lease)
			g.wantFences()
			g.wantNoPromotion(name + ", " + mode + ": nothing is known")
			for _, w := range words {
				g.wantNoPromotion(name + ", " + mode + ": before the last word")
				g.say(w)
			}
			g.pass(lease)
			if p := g.promotion(); p == nil || p.Candidate != "s" {
				t.Fatalf("%s, %s: %+v", name, mode, p)
			}
			if r := g.commit(cluster.Command{Promote: g.promotion()}); r.Void != "" {
				t.Fatalf("%s, %s: void: %s", name, mode, r.Void)
			}
		}
	}
}

func TestAFencingThatFailedPromotesNobody(t *testing.T) {
	g := required(t)
	for range 5 {
		g.say(begun, failed)
		g.pass(2 * lease)
		g.wantNoPromotion("it failed")
	}
	g.wantFences(Fence{Node: "p", Start: 1}) // once: who carries it out tries again and again
}

// Not before the end of the lease: an agent that lies about a node that nobody hears does no harm then.
func TestFencingDoesNotShortenTheLease(t *testing.T) {
	g := newRig(t)
	g.state.Fencing = cluster.FencingRequired
	g.applied()
	g.named("p")
	g.reach["p"] = false
	g.say(begun, off)
	g.pass(lease - lease/10)
	g.wantNoPromotion("its lease runs")
	g.pass(lease)
	g.wantPromotion("s", cluster.BasisUnchanged)
}

func TestWhoAnswersAfterItWasSaidToBeOffIsNotFollowed(t *testing.T) {
	for name, speaks := range map[string]func(g *rig){
		"it answers":            func(g *rig) { g.reach["p"] = true; g.pass(lease / 4) },
		"it asks for its lease": func(g *rig) { g.run(g.l.Request(g.now, g.requestOf("p"))) },
	} {
		g := required(t)
		g.wantFences(Fence{Node: "p", Start: 1})
		g.say(begun, off)
		g.wantFences(Spare{Node: "p"})
		speaks(g)
		g.reach["p"] = false
		if !slices.Contains(g.fences, Action(Refute{Node: "p", Start: 1})) {
			t.Fatalf("%s: %+v", name, g.fences)
		}
		g.pass(4 * lease)
		g.wantNoPromotion(name + ": and nobody has noted that it lied")
		if !slices.ContainsFunc(g.fences, func(a Action) bool { f, ok := a.(Fence); return ok && f.Node == "p" }) {
			t.Fatalf("%s: it is not fenced anew: %+v", name, g.fences)
		}
		g.say(refuted)
		g.pass(4 * lease)
		g.wantNoPromotion(name + ": it lied")
		g.say(begun, off)
		g.pass(lease)
		g.wantPromotion("s", cluster.BasisUnchanged)
	}
}

// What was asked before the node was off may be answered late.
func TestAnAnswerToAnEarlierQuestionIsNoSignOfLife(t *testing.T) {
	g := required(t)
	g.say(begun)
	g.pass(lease / 4)
	round := g.l.round.number
	g.say(off)
	g.fences = nil
	g.run(g.answer("p", round))
	g.wantFences()
}

func TestOwnWordOfTheOldPrimaryIsEnough(t *testing.T) {
	t.Run("it gave up", func(t *testing.T) {
		g := newRig(t)
		g.state.Fencing = cluster.FencingRequired
		g.applied()
		g.named("p")
		if !g.giveUp(term) {
			t.Fatal("refused")
		}
		g.pass(lease / 4)
		if p := g.wantPromotion("s", cluster.BasisHandOver); !p.GaveUp {
			t.Error("not said")
		}
		g.wantFences()
	})
	t.Run("its process was replaced", func(t *testing.T) {
		g := newRig(t)
		g.state.Fencing = cluster.FencingRequired
		g.applied()
		g.named("p")
		g.restart("p", incA)
		g.request("p")
		g.pass(lease / 4)
		g.wantPromotion("s", cluster.BasisUnchanged)
		g.wantFences()
	})
	t.Run("its process was replaced, and the cluster does not know that yet", func(t *testing.T) {
		g := newRig(t)
		g.state.Fencing = cluster.FencingRequired
		g.applied()
		g.named("p")
		g.starts["p"], g.numbers["p"] = 2, 0
		g.report("p", func(r *cluster.Report) { r.Process = 2 })
		g.request("p")
		g.pass(4 * lease)
		g.wantNoPromotion("an entry would be void")
		g.wantFences()
	})
	t.Run("its machine was started anew", func(t *testing.T) {
		g := required(t)
		g.wantFences(Fence{Node: "p", Start: 1})
		g.restart("p", incB)
		g.pass(2 * lease)
		g.wantPromotion("s", cluster.BasisUnchanged)
		if len(g.fences) == 0 || g.fences[0] != Action(Spare{Node: "p", Why: "nobody waits for that any more"}) {
			t.Errorf("%+v", g.fences)
		}
	})
}

func TestWhoServesAgainIsSpared(t *testing.T) {
	g := required(t)
	g.wantFences(Fence{Node: "p", Start: 1})
	g.say(begun)
	g.reach["p"] = true
	if !g.named("p") {
		t.Fatal("no grant")
	}
	g.wantFences(Spare{Node: "p"})
	g.pass(lease / 2)
	g.wantNoPromotion("it serves")
}

// Turning it off would help nobody.
func TestNobodyIsFencedWhomNobodyCouldFollow(t *testing.T) {
	g := newRig(t)
	g.state.Fencing = cluster.FencingRequired
	g.applied()
	g.reach["s"] = false
	g.lose()
	g.pass(10 * lease)
	g.wantFences()
	g.reach["s"] = true
	g.pass(lease)
	g.wantFences(Fence{Node: "p", Start: 1})
	g.maintain(true)
	g.pass(10 * lease)
	g.wantNoPromotion("maintenance")
}

func TestLeaderDoesNotFenceItself(t *testing.T) {
	g := newRig(t)
	g.state.Fencing = cluster.FencingRequired
	g.l = NewLeader(Config{Self: "p", Term: term, Lease: lease}, g.now)
	g.applied()
	g.report("p", func(r *cluster.Report) { r.Stalled = true })
	g.pass(3 * full)
	g.wantNoPromotion("p is not off")
	g.wantFences()
	g.pass(8 * lease)
	if len(g.moves) == 0 {
		t.Error("leadership stays with it")
	}
}

// An agent that runs would be killed, and asked once more by the next leader.
func TestLeadershipStaysWhileANodeIsBeingFenced(t *testing.T) {
	for _, fencing := range []string{"", cluster.FencingRequired} {
		g := newRig(t)
		g.state = g.state.Clone()
		v := g.state.Volumes["v"].Clone()
		v.Name, v.Primary, v.Replicas = "u", "w", append(v.Replicas, cluster.Replica{Node: "w"})
		g.state.Volumes["u"] = v // the leader is primary of another
		g.state.Fencing = fencing
		g.applied()
		g.reach["p"] = false
		if fencing == "" {
			g.change(func(v *cluster.Volume) { v.Primary = "s"; delete(v.Members, "p") })
		}
		for range 40 {
			for _, n := range []string{"w", "s"} {
				g.request(n)
			}
			g.pass(lease / 4)
		}
		if moved := len(g.moves) > 0; moved != (fencing == "") {
			t.Errorf("fencing %q: leadership moves %t, %+v", fencing, moved, g.fences)
		}
	}
}

func TestForcedPromotionWaitsForTheFenceToo(t *testing.T) {
	g := newRig(t)
	g.state.Fencing = cluster.FencingRequired
	g.change(func(v *cluster.Volume) { delete(v.Members, "s") })
	g.reach["p"] = false
	g.run(g.l.Order(g.now, "v", Order{To: "s", Force: true}))
	g.pass(4 * lease)
	g.wantNoPromotion("p is not off")
	g.say(confirmed)
	g.pass(lease)
	g.wantPromotion("s", cluster.BasisForced)
}

func TestStaleRecordOfAnEarlierProcessIsNotEnough(t *testing.T) {
	g := newRig(t)
	g.state.Fencing = cluster.FencingRequired
	g.say(begun, off)
	g.restart("p", incA)
	g.change(func(v *cluster.Volume) { v.Process = 2; v.Members["p"] = cluster.Member{Incarnation: incA, Process: 2} })
	g.proposals = nil
	g.lose()
	g.pass(4 * lease)
	g.wantNoPromotion("process 2 was never fenced")
}

func TestWhereFencingIsNotRequiredTheNodeIsFencedBeside(t *testing.T) {
	g := newRig(t)
	g.lose()
	p := g.wantPromotion("s", cluster.BasisUnchanged)
	g.wantFences() // of a promotion that turns out to be void p serves on
	g.commit(cluster.Command{Promote: p})
	g.wantFences(Fence{Node: "p", Start: 1, Beside: true})

	g = newRig(t) // void, for the set changed meanwhile
	g.lose()
	g.wantPromotion("s", cluster.BasisUnchanged)
	g.proposals, g.reach["p"] = nil, true
	g.change(func(v *cluster.Volume) { v.Version++ })
	g.wantFences()

	g = newRig(t) // a hand-over
	g.named("p")
	g.giveUp(term)
	g.pass(lease / 4)
	g.wantPromotion("s", cluster.BasisHandOver)
	g.wantFences()
}

// A give-up of which an earlier leader may not have known is believed when the old primary's process answers after the end of any lease.
func TestGiveUpOfAnEarlierTermWantsAnAnswer(t *testing.T) {
	for _, answers := range []bool{true, false} {
		g := newRig(t)
		g.state.Fencing = cluster.FencingRequired
		g.applied()
		g.reach["p"] = answers
		g.giveUp(term - 1)
		g.pass(3 * lease)
		if p := g.promotion(); (p != nil) != answers || answers && !p.GaveUp {
			t.Errorf("it answers %t: %+v", answers, p)
		}
		if answers {
			g.wantFences()
		} else {
			g.wantFences(Fence{Node: "p", Start: 1})
		}
	}
}

// A new leader knows what the cluster knows.
func TestFenceCountsForTheNextLeader(t *testing.T) {
	g := required(t)
	g.say(begun, off)
	g.l = NewLeader(Config{Self: "w", Term: term, Lease: lease}, g.now)
	g.proposals, g.fences = nil, nil
	g.applied()
	g.pass(full - lease/10)
	g.wantNoPromotion("an earlier leader may have granted it")
	g.pass(lease)
	g.wantPromotion("s", cluster.BasisUnchanged)
}

// A lie that could not be refuted before the next try began is none any more when that try has the node off, or a person says so.
func TestALieIsForgottenWhenTheNodeIsTurnedOffAfterAll(t *testing.T) {
	for name, last := range map[string]cluster.FenceWord{"the next try": off, "a person": confirmed} {
		g := required(t)
		g.say(begun, off)
		g.reach["p"] = true
		g.pass(lease / 4)
		g.reach["p"] = false
		if g.l.liars["p"].process == 0 {
			t.Fatalf("%s: it answered, and that is not noted", name)
		}
		g.say(begun)
		g.say(last)
		g.pass(2 * lease)
		g.wantPromotion("s", cluster.BasisUnchanged)
	}
}

// R10: a process that counts as off is granted nothing before that is taken back: the next leader goes by what is committed, and would
// have it followed while its lease runs.
func TestAProcessThatCountsAsOffIsGrantedNothing(t *testing.T) {
	for name, words := range map[string][]cluster.FenceWord{"agents lied": {begun, off}, "a person erred": {confirmed}} {
		g := required(t)
		g.say(words...)
		g.reach["p"] = true
		if g.named("p") {
			t.Fatalf("%s: it is granted the volume", name)
		}
		g.say(refuted)
		if !g.named("p") {
			t.Fatalf("%s: it is not granted the volume, and what was said is taken back", name)
		}
	}
}

// followed is a rig without fencing required in which s has followed p, which is to be turned off beside that.
func followed(t *testing.T, self string) *rig {
	t.Helper()
	g := newRig(t)
	g.l.cfg.Self = self
	g.applied()
	g.lose()
	g.pass(2 * lease)
	p := g.promotion()
	if p == nil {
		t.Fatal("nobody follows")
	}
	if r := g.commit(cluster.Command{Promote: p}); r.Void != "" {
		t.Fatal(r.Void)
	}
	g.wantFences(Fence{Node: "p", Start: 1, Beside: true})
	return g
}

func TestWhoIsTurnedOffBesideAPromotionIsSparedWhenItAnswers(t *testing.T) {
	g := followed(t, "w")
	g.pass(lease)
	g.wantFences()
	g.reach["p"] = true
	g.request("p")
	g.wantFences(Spare{Node: "p"})
}

// The next leader would not know of it.
func TestLeadershipStaysWhileANodeIsTurnedOff(t *testing.T) {
	for _, over := range []bool{false, true} {
		g := followed(t, "s")
		if over {
			g.l.FenceOver("p")
		}
		for range 6 {
			g.request("s")
			g.l.reports["w"] = answer{asked: g.now}
			g.pass(lease / 4)
		}
		if moved := len(g.moves) > 0; moved != over {
			t.Errorf("fencing over %t: leadership moved %t", over, moved)
		}
	}
}

// What p says of itself comes a moment after what s says, in answer to the same question.
func TestNobodyIsTurnedOffBeforeItHadTheTimeToAnswer(t *testing.T) {
	g := newRig(t)
	g.state.Fencing = cluster.FencingRequired
	g.applied()
	g.named("p")
	g.reach["p"] = false
	g.giveUp(term - 1)
	g.wantFences()
	g.run(g.answer("p", g.l.round.number))
	g.wantFences()
	g.wantPromotion("s", cluster.BasisUnchanged)
}

func TestMaintenanceEndsTheWishToTurnANodeOff(t *testing.T) {
	g := required(t)
	g.wantFences(Fence{Node: "p", Start: 1})
	g.state = g.state.Clone()
	g.state.Maintenance = true
	g.applied()
	g.pass(lease)
	g.wantFences(Spare{Node: "p"})
}

// All were stopped cleanly, and the node that served last boots last.
func TestAfterAColdStartTheLastPrimaryIsGivenTimeToBoot(t *testing.T) {
	g := newRig(t)
	g.state.Fencing = cluster.FencingRequired
	n := g.state.Nodes["s"]
	n.Start, n.Boot = 2, "b"
	g.state.Nodes["s"] = n
	g.starts["s"] = 2
	g.reports["s"] = cluster.Report{Volume: "v", Incarnation: incB, Process: 2, Epoch: 3, Held: true, Clean: &cluster.Clean{Incarnation: incA, Process: 1}}
	g.reach["p"] = false
	g.l = NewLeader(Config{Self: "w", Term: term, Lease: lease}, g.now)
	g.applied()
	g.pass(g.l.cfg.ColdFor - lease)
	g.wantFences()
	g.pass(2 * lease)
	g.wantFences(Fence{Node: "p", Start: 1})
}
