package failover

import (
	"testing"

	"hacluster/heartbeat/cluster"
)

// mixedRig is threeRig with p and s in sync, and x, which answers, in async.
func mixedRig(t *testing.T) *rig {
	t.Helper()
	g := threeRig(t)
	g.change(func(v *cluster.Volume) {
		v.Mode, v.Served = cluster.ModeSync, "p"
		v.Replicas[2].Mode = cluster.ModeAsync
	})
	g.request("p")
	g.reach["x"] = true
	g.report("x", func(r *cluster.Report) { r.Place = 9 })
	return g
}

// R6: who is in sync with the last primary has all that was acknowledged, and follows, however long the prefix of the other looks.
func TestMixedMemberInSyncFollows(t *testing.T) {
	g := mixedRig(t)
	g.reach["p"] = false
	g.pass(full + wait)
	g.wantPromotion("s", cluster.BasisUnchanged)
	g.promote()
	if v := g.vol(); v.IsMember("x") || v.Previous != "p" || len(v.Held) != 0 {
		t.Errorf("set %v, previous %q, held %v", v.MemberNames(), v.Previous, v.Held)
	}
}

// One in async follows when nobody who has everything was heard for a lease, or all of them lost something, and only then.
func TestMixedMemberInAsyncFollowsWhenNoOtherCan(t *testing.T) {
	g := mixedRig(t)
	g.reach["p"], g.reach["s"] = false, false
	g.reach["w"] = true
	g.voters = []string{"x", "w"} // else two of three are gone, and nothing is decided at all
	g.applied()
	g.pass(full + lease/2)
	g.wantNoPromotion("s may have everything, and had no time to be heard")
	g.pass(full)
	g.wantPromotion("x", cluster.BasisUnchanged, "s")
	g.promote()
	if v := g.vol(); v.IsMember("s") || v.Previous != "p" || !v.IsHeld("p") || !v.IsHeld("s") {
		t.Errorf("set %v, previous %q, held %v", v.MemberNames(), v.Previous, v.Held)
	}

	g = mixedRig(t) // both are heard, and lost their memory: x did not
	g.restart("p", incB)
	g.restart("s", incB)
	g.pass(full + wait)
	g.wantPromotion("x", cluster.BasisUnchanged, "p", "s")
	if g.promote(); !g.held("p") || !g.held("s") {
		t.Error("p and s are not held: they may have what x lacks")
	}

	g = mixedRig(t) // heard, and it has everything, but for a while it cannot be promoted
	g.reach["p"] = false
	g.report("s", func(r *cluster.Report) { r.Stalled = true })
	g.pass(full + lease/2)
	g.wantNoPromotion("p may come back")
	g.report("s", func(r *cluster.Report) { r.Stalled = false })
	g.pass(full)
	g.wantPromotion("s", cluster.BasisUnchanged)
}

// Of two sites the one with everything is waited for, and a person's word, and not the one that lacks something.
func TestMixedMemberInSyncAtAnotherSiteIsWaitedFor(t *testing.T) {
	g := mixedRig(t)
	g.far("s")
	g.reach["p"] = false
	g.pass(8 * full)
	g.wantNoPromotion("s has everything, and nobody asked for it")
	g.run(g.l.Order(g.now, "v", Order{To: "s"}))
	g.pass(2 * full)
	g.wantPromotion("s", cluster.BasisUnchanged)

	g = mixedRig(t) // the usual way: the far one is in async, and both of the near site are gone
	g.far("x")
	g.voters = []string{"x", "w"}
	g.applied()
	g.reach["p"], g.reach["s"], g.reach["w"] = false, false, true
	g.pass(8 * full)
	g.wantNoPromotion("nobody asked for x")
	g.run(g.l.Order(g.now, "v", Order{To: "x"}))
	g.pass(2 * full)
	g.wantPromotion("x", cluster.BasisUnchanged, "s")
}

// All lost their memory alike: those that were in sync go on, and the other, which may have what they lost, is held (R19, R25).
func TestMixedWhenAllLostTheirMemory(t *testing.T) {
	g := mixedRig(t)
	g.restart("p", incB)
	g.restart("s", incB)
	g.restart("x", incB)
	g.pass(2 * full)
	g.wantPromotion("p", cluster.BasisLastPrimary)
	g.promote()
	if v := g.vol(); !v.IsMember("s") || v.IsMember("x") || !v.IsHeld("x") || v.IsHeld("s") {
		t.Errorf("set %v, held %v", v.MemberNames(), v.Held)
	}
}

// In order it goes to the one that was named, also in async: every member has everything then (R30).
func TestMixedHandOverToTheOneInAsync(t *testing.T) {
	g := mixedRig(t)
	g.reach["x"] = false
	g.giveUp(term, func(u *GiveUp) { u.To = "x" })
	g.pass(full / 2)
	g.wantNoPromotion("x was named, and s was heard")
	g.reach["x"] = true
	g.pass(full / 2)
	g.wantPromotion("x", cluster.BasisHandOver)
	g.promote()
	if v := g.vol(); !v.IsMember("s") || !v.IsMember("p") || len(v.Held) != 0 || v.Served != "x" {
		t.Errorf("%+v", v)
	}
	if v := g.vol(); !v.Lags("p") || !v.Lags("s") {
		t.Error("beside one in async all are")
	}

	g = mixedRig(t) // and without a name to one in sync
	g.giveUp(term)
	g.pass(full / 2)
	g.wantPromotion("s", cluster.BasisHandOver)
}
