package failover

import (
	"testing"
	"time"

	"hacluster/heartbeat/cluster"
)

// far puts nodes at another site than the rest.
func (g *rig) far(nodes ...string) {
	s := Sites{Of: map[string]string{}, Auto: map[string]bool{}}
	for _, n := range nodes {
		s.Of[n] = "far"
	}
	g.l.SetSites(s)
}

// lose lets the primary go away, with its lease.
func (g *rig) lose() {
	g.request("p")
	g.reach["p"] = false
	g.pass(2 * full)
}

func TestReplicaAtAnotherSiteIsNotPromotedByItself(t *testing.T) {
	for _, mode := range allModes {
		g := newRig(t)
		g.mode(mode)
		g.far("s")
		g.wantByName(mode + ", far away")
	}
}

func TestReplicaAtAnotherSiteIsPromotedByItselfWhereThatIsWanted(t *testing.T) {
	g := newRig(t)
	g.l.SetSites(Sites{Of: map[string]string{"s": "far"}, Auto: map[string]bool{"v": true}})
	g.lose()
	g.wantPromotion("s", cluster.BasisUnchanged)
}

// What a person did not wait for does not happen hours later.
func TestOrderToAnotherSiteThatWasCancelledCountsNoMore(t *testing.T) {
	g := newRig(t)
	g.far("s")
	g.request("p")
	g.reach["p"], g.reach["s"] = false, false
	g.pass(2 * full)
	g.run(g.l.Order(g.now, "v", Order{To: "s"}))
	g.pass(full)
	g.l.Cancel("v")
	g.reach["s"] = true
	g.pass(10 * lease)
	g.wantNoPromotion("the order was cancelled before s was heard")
}

func TestReplicaOfTheSameSiteFollowsThoughAnotherSiteIsHeardFirst(t *testing.T) {
	for _, far := range []string{"s", "x"} { // whichever comes first by its name
		near := map[string]string{"s": "x", "x": "s"}[far]
		g := threeRig(t)
		g.far(far)
		g.request("p")
		g.reach["p"], g.reach[near], g.reach[far] = false, false, true
		g.pass(10 * lease)
		g.wantNoPromotion(far + " is far away, and " + near + " was not heard")
		g.reach[near] = true
		g.pass(lease)
		if p := g.promotion(); p == nil || p.Candidate != near {
			t.Errorf("%s is far: %+v", far, p)
		}
	}
}

func TestHandOverGoesToAnotherSiteOnlyIfItIsNamed(t *testing.T) { // R30
	g := newRig(t)
	g.far("s")
	g.request("p")
	g.giveUp(term)
	g.pass(2 * full)
	g.wantNoPromotion("nobody named s")
	if !g.named("p") {
		t.Error("the hand-over is void, and p does not get the volume back")
	}
	g.giveUp(term, func(u *GiveUp) { u.To = "s" })
	g.pass(full)
	g.wantPromotion("s", cluster.BasisHandOver)
}

func TestFailedDiskIsNoReasonToLeaveTheSite(t *testing.T) { // R23
	g := newRig(t)
	g.far("s")
	g.request("p")
	g.report("p", func(r *cluster.Report) { r.Failed = true })
	g.giveUp(term, func(u *GiveUp) { u.Failed = true })
	g.pass(10 * lease)
	g.wantNoPromotion("p's disk failed, and s is far away")
}

// R6: as long as the new primary has not acted, the old one stays promotable, wherever it is.
func TestOldPrimaryFollowsOneThatNeverActedWhereverItIs(t *testing.T) {
	g := newRig(t)
	g.far("s")
	g.lose()
	g.run(g.l.Order(g.now, "v", Order{To: "s"}))
	g.pass(full)
	p := g.promotion()
	if p == nil || p.Candidate != "s" {
		t.Fatalf("%+v", p)
	}
	g.commit(cluster.Command{Promote: p})
	if v := g.vol(); v.Primary != "s" || v.Previous != "p" {
		t.Fatalf("%+v", v)
	}
	g.proposals = nil
	g.reach["s"], g.reach["p"] = false, true
	g.pass(4 * full)
	if p := g.promotion(); p == nil || p.Candidate != "p" {
		t.Errorf("s is gone before it acted: %+v", p)
	}
}

func TestAsyncLongestPrefixAtAnotherSiteWaitsForAPerson(t *testing.T) { // R6
	g := asyncThree(t, 8, 9)
	g.far("x")
	g.pass(10 * full)
	g.wantNoPromotion("x has more than s, and is far away")
	g.run(g.l.Order(g.now, "v", Order{To: "x"}))
	g.pass(time.Second)
	g.wantPromotion("x", cluster.BasisUnchanged, "s")

	g = asyncThree(t, 9, 8)
	g.far("x")
	g.pass(2 * full)
	g.wantPromotion("s", cluster.BasisUnchanged, "x")
}

func TestFirstPrimaryMayBeAtAnySite(t *testing.T) {
	g := newRig(t)
	g.far("s")
	g.change(func(v *cluster.Volume) {
		v.Primary, v.Process, v.Epoch = "", 0, 0
		delete(v.Members, "p")
	})
	g.reach["p"] = false
	g.pass(2 * full)
	if p := g.promotion(); p == nil || p.Candidate != "s" {
		t.Errorf("%+v", p)
	}
}
