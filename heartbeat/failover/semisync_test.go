package failover

import (
	"testing"

	"hacluster/heartbeat/cluster"
)

// In semisync a new process of a standby does not have what the last one had in memory only.
func TestSemisyncNewProcessOfAStandbyIsNoSuccessor(t *testing.T) { // R25
	semisync := func(t *testing.T) *rig {
		g := newRig(t)
		g.change(func(v *cluster.Volume) { v.Mode, v.Served = cluster.ModeSemisync, "p" })
		g.request("p")
		g.reach["p"] = false
		return g
	}
	g := semisync(t)
	g.restart("s", incA)
	g.pass(4 * full)
	g.wantNoPromotion("the primary alone has what the last process of s had in memory")
	g.restart("p", incA)
	g.reach["p"] = true
	g.pass(4 * full)
	g.wantPromotion("p", cluster.BasisUnchanged, "s")

	g = semisync(t)
	g.restart("s", incA)
	g.report("s", func(r *cluster.Report) { r.Unmarked = &cluster.Keeper{Boot: incA.Boot, Process: 1} })
	g.pass(4 * full)
	g.wantNoPromotion("empty maps tell nothing of what was in memory")

	g = semisync(t)
	g.restart("s", incA)
	g.report("s", func(r *cluster.Report) { r.Clean = &cluster.Clean{Incarnation: incA, Process: 1} })
	g.pass(4 * full)
	if r := g.commit(cluster.Command{By: "w", Promote: g.wantPromotion("s", cluster.BasisClean)}); r.Void != "" {
		t.Errorf("void: %s", r.Void)
	}

	g = semisync(t)
	g.pass(4 * full)
	g.wantPromotion("s", cluster.BasisUnchanged)
}

// In semisync a standby is promoted when it has written what it had in memory: from then on a new process of it is the member.
func TestSemisyncSuccessorHasWrittenWhatItTook(t *testing.T) { // R6, R25
	g := newRig(t)
	g.change(func(v *cluster.Volume) { v.Mode, v.Served = cluster.ModeSemisync, "p" })
	g.report("s", func(r *cluster.Report) { r.Taken, r.LastSeq = 9, 7 })
	g.request("p")
	g.reach["p"] = false
	g.pass(4 * full)
	g.wantNoPromotion("what s has in memory ends with its process")
	g.report("s", func(r *cluster.Report) { r.Taken, r.LastSeq = 12, 9 }) // what it took since then was acknowledged to nobody
	g.pass(full)
	if r := g.commit(cluster.Command{By: "w", Promote: g.wantPromotion("s", cluster.BasisUnchanged)}); r.Void != "" {
		t.Fatal(r.Void)
	}
	// R12: a primary whose clock stood still may have had a write acknowledged that s took after it had reported. Until s has had it
	// removed, for which nothing may be unwritten, another process of s is not who was promoted.
	g.proposals = nil
	g.restart("s", incA)
	g.pass(8 * full)
	g.wantNoPromotion("s may have had in memory what p acknowledged after s had reported")
	g.restart("p", incA)
	g.reach["p"] = true
	g.pass(8 * full)
	g.wantPromotion("p", cluster.BasisUnchanged, "s")

	g = newRig(t) // in sync it was not acknowledged before it was written
	g.report("s", func(r *cluster.Report) { r.Taken, r.LastSeq = 9, 7 })
	g.request("p")
	g.reach["p"] = false
	g.pass(4 * full)
	g.wantPromotion("s", cluster.BasisUnchanged)
}

// Where the last primary leaves in the entry that promotes, because its disk failed or its machine lost its memory, the new one is one
// process all the same until it acts.
func TestSemisyncSuccessorIsOneProcessUntilItActs(t *testing.T) { // R6, R12, R25
	for name, gone := range map[string]func(g *rig){
		"its disk failed": func(g *rig) {
			g.report("p", func(r *cluster.Report) { r.Failed = true })
			g.giveUp(term, func(u *GiveUp) { u.Failed = true })
		},
		"its machine restarted": func(g *rig) {
			g.reach["s"] = false
			g.restart("p", incB)
			g.pass(full / 2)
			g.reach["s"] = true
		},
	} {
		for _, acts := range []bool{false, true} {
			g := newRig(t)
			g.change(func(v *cluster.Volume) { v.Mode, v.Served = cluster.ModeSemisync, "p" })
			g.request("p")
			gone(g)
			g.pass(2 * full)
			if r := g.commit(cluster.Command{By: "w", Promote: g.wantPromotion("s", cluster.BasisUnchanged, "p")}); r.Void != "" {
				t.Fatal(r.Void)
			}
			if acts {
				g.commit(cluster.Command{By: "s", Drop: &cluster.Drop{On: cluster.On{Volume: "v", Epoch: 4, Version: g.vol().Version}, Node: "p"}})
			}
			g.proposals = nil
			g.restart("s", incA)
			g.pass(8 * full)
			if p := g.promotion(); acts != (p != nil) {
				t.Errorf("%s, it acts: %t: a new process of s is promoted: %t", name, acts, p != nil)
			}
			if acts {
				continue
			}
			g.run(g.l.Order(g.now, "v", Order{To: "s", Force: true}))
			g.pass(full)
			if r := g.commit(cluster.Command{By: "w", Promote: g.wantPromotion("s", cluster.BasisForced)}); r.Void != "" {
				t.Fatal(r.Void)
			}
			if v := g.vol(); !v.Acts() {
				t.Errorf("%s: promoted on a person's word, it waits for an entry that nobody makes", name)
			}
		}
	}
}

// A hand-over while something is on its way to the standby's disk, as a copy that settles is: the standby follows a moment later, and
// the hand-over is not void. R30.
func TestSemisyncHandOverBearsAnUnwrittenCopy(t *testing.T) {
	for _, mode := range []string{cluster.ModeSync, cluster.ModeSemisync} {
		g := newRig(t)
		g.change(func(v *cluster.Volume) { v.Mode, v.Served = mode, "p" })
		g.request("p")
		g.run(g.l.Order(g.now, "v", Order{To: "s"}))
		g.report("s", func(r *cluster.Report) { r.Taken, r.LastSeq = 9, 8 })
		if !g.giveUp(term, func(u *GiveUp) { u.To = "s" }) {
			t.Fatal("the give-up does not count")
		}
		g.pass(full / 4)
		g.report("s", func(r *cluster.Report) { r.Taken, r.LastSeq = 9, 9 })
		g.pass(full)
		if p := g.promotion(); p == nil || p.Candidate != "s" {
			t.Errorf("%s: the hand-over was void: released %q, orders %v, %+v", mode, g.l.account("v").released, g.l.orders, p)
		}
	}
}

// A primary whose machine lost its memory and a standby that lost its process only did not lose alike: the one may have what
// the other lacks.
func TestSemisyncPowerOfOneAndProcessOfTheOtherWaitForAPerson(t *testing.T) { // R25
	g := newRig(t)
	g.change(func(v *cluster.Volume) { v.Mode, v.Served = cluster.ModeSemisync, "p" })
	g.request("p")
	g.restart("s", incA)
	g.restart("p", incB)
	g.pass(8 * full)
	g.wantNoPromotion("s may have writes that p has not, and p some that s has not")
	g.restart("s", incB)
	g.pass(8 * full)
	g.wantPromotion("p", cluster.BasisLastPrimary)
}
