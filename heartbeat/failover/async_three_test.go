package failover

import (
	"testing"

	"hacluster/heartbeat/cluster"
)

// asyncThree is threeRig in async, of which p is gone. s and x answer, with prefixes of these places.
func asyncThree(t *testing.T, s, x uint64) *rig {
	t.Helper()
	g := threeRig(t)
	g.change(func(v *cluster.Volume) { v.Mode, v.Served = cluster.ModeAsync, "p" })
	g.request("p")
	g.reach["p"], g.reach["x"] = false, true
	g.report("s", func(r *cluster.Report) { r.Place = s })
	g.report("x", func(r *cluster.Report) { r.Place = x })
	return g
}

func TestAsyncMemberWithTheLongestPrefixFollows(t *testing.T) { // R6
	for _, c := range []struct {
		s, x uint64
		want string
	}{{8, 9, "x"}, {9, 8, "s"}, {9, 9, "s"}} {
		g := asyncThree(t, c.s, c.x)
		g.pass(2 * full)
		other := map[string]string{"s": "x", "x": "s"}[c.want]
		g.wantPromotion(c.want, cluster.BasisUnchanged, other)
		g.promote()
		if v := g.vol(); v.IsMember(other) || v.Previous != "p" || !v.IsHeld("p") || !v.IsHeld(other) {
			t.Errorf("set %v, previous %q, held %v", v.MemberNames(), v.Previous, v.Held)
		}
	}
	g := asyncThree(t, 2, 900) // of the epoch before: at its end every member had all
	g.report("x", func(r *cluster.Report) { r.Epoch = 2 })
	g.pass(2 * full)
	g.wantPromotion("s", cluster.BasisUnchanged, "x")
}

// One that is heard late, or has yet to write what it took, has a quarter of a lease: the sum of the timers has no more.
func TestAsyncLongestPrefixIsWaitedForALittle(t *testing.T) { // R6
	g := asyncThree(t, 8, 9)
	g.change(func(v *cluster.Volume) { delete(v.Members, "p"); v.Primary = "p" }) // nobody waits for p
	g.reach["x"] = false
	g.pass(full + wait/2)
	g.wantNoPromotion("x was not heard yet")
	g.run(g.answer("x", g.l.round.number))
	g.pass(wait)
	g.wantPromotion("x", cluster.BasisUnchanged, "s")

	g = asyncThree(t, 8, 7)
	g.report("x", func(r *cluster.Report) { r.Taken, r.LastSeq = 9, 7 })
	g.pass(full + wait/2)
	g.wantNoPromotion("x has more in memory than s has written")
	g.report("x", func(r *cluster.Report) { r.LastSeq, r.Place = 9, 9 })
	g.pass(wait)
	g.wantPromotion("x", cluster.BasisUnchanged, "s")

	g = asyncThree(t, 8, 9)
	g.reach["x"] = false
	g.pass(2 * full)
	g.wantPromotion("s", cluster.BasisUnchanged, "x")
}

// A primary whose disk failed is not waited for, its other members are.
func TestAsyncLongestPrefixAfterAFailedDisk(t *testing.T) { // R6, R23
	g := asyncThree(t, 8, 9)
	g.reach["p"], g.reach["x"] = true, false
	g.report("p", func(r *cluster.Report) { r.Failed = true })
	g.giveUp(term, func(u *GiveUp) { u.Failed = true })
	g.pass(wait / 2)
	g.wantNoPromotion("x was not heard yet")
	g.run(g.answer("x", g.l.round.number))
	g.pass(wait)
	g.wantPromotion("x", cluster.BasisUnchanged, "p", "s")
}

// What a standby does not know any more is not compared: it comes behind those that know.
func TestAsyncAfterACleanStopAnUnchangedMemberFollows(t *testing.T) { // R6, R25
	g := asyncThree(t, 8, 9)
	g.restart("x", incA)
	g.report("x", func(r *cluster.Report) { r.Place, r.Clean = 0, &cluster.Clean{Incarnation: incA, Process: 1} })
	g.pass(2 * full)
	g.wantPromotion("s", cluster.BasisUnchanged, "x")
}

// In order: the one that was named, though another is heard first and has as much.
func TestAsyncHandOverWaitsForTheMemberThatWasNamed(t *testing.T) { // R30
	g := asyncThree(t, 9, 9)
	g.reach["x"] = false
	g.giveUp(term, func(u *GiveUp) { u.To = "x" })
	g.pass(full / 2)
	g.wantNoPromotion("x was named, and s was heard")
	g.reach["x"] = true
	g.pass(full / 2)
	g.wantPromotion("x", cluster.BasisHandOver)
	if g.promote(); g.held("s") || !g.member("s") || !g.member("p") {
		t.Errorf("%+v", g.vol())
	}

	g = asyncThree(t, 9, 9) // but for a lease at most
	g.reach["x"] = false
	g.giveUp(term, func(u *GiveUp) { u.To = "x" })
	g.pass(full + lease/2)
	g.wantPromotion("s", cluster.BasisHandOver)
}

func (g *rig) member(n string) bool { v := g.vol(); return v.IsMember(n) }
