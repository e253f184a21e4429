package failover

import (
	"testing"

	"hacluster/heartbeat/cluster"
)

func (g *rig) drain(node string, drained bool) {
	g.commit(cluster.Command{SetDrained: &cluster.SetDrained{Node: node, Drained: drained}})
}

func (g *rig) maintain(on bool) {
	g.commit(cluster.Command{SetMaintenance: &cluster.SetMaintenance{On: on}})
}

var allModes = []string{cluster.ModeSync, cluster.ModeSemisync, cluster.ModeAsync}

func (g *rig) mode(mode string) {
	g.change(func(v *cluster.Volume) {
		v.Mode = mode
		if mode != cluster.ModeSync {
			v.Served = "p"
		}
	})
}

// wantByName: the primary is lost, and s follows when a person names it, and not before.
func (g *rig) wantByName(what string) {
	g.t.Helper()
	g.lose()
	g.pass(20 * lease)
	g.wantNoPromotion(what + ": nobody asked")
	g.run(g.l.Order(g.now, "v", Order{}))
	g.pass(2 * full)
	g.wantNoPromotion(what + ": a person named nobody")
	g.run(g.l.Order(g.now, "v", Order{To: "s"}))
	g.pass(2 * full)
	if p := g.promotion(); p == nil || p.Candidate != "s" {
		g.t.Errorf("%s: a person named s, and it is not promoted: %+v", what, p)
	}
}

func TestDrainedNodeIsPromotedOnlyByName(t *testing.T) {
	for _, mode := range allModes {
		g := newRig(t)
		g.mode(mode)
		g.drain("s", true)
		g.wantByName(mode + ", drained")
	}
}

func TestUndrainedNodeIsPromoted(t *testing.T) {
	g := newRig(t)
	g.drain("s", true)
	g.lose()
	g.pass(4 * lease)
	g.drain("s", false)
	g.pass(full)
	g.wantPromotion("s", cluster.BasisUnchanged)
}

func TestNothingMovesByItselfWhileThereIsMaintenance(t *testing.T) {
	for _, mode := range allModes {
		g := newRig(t)
		g.mode(mode)
		g.maintain(true)
		g.lose()
		g.pass(20 * lease)
		g.wantNoPromotion(mode + ": there is maintenance")
		g.maintain(false)
		g.pass(2 * full)
		if p := g.promotion(); p == nil || p.Candidate != "s" {
			t.Errorf("%s: there is no maintenance any more, and s is not promoted: %+v", mode, p)
		}
	}
}

func TestPersonMovesTheRoleWhileThereIsMaintenance(t *testing.T) {
	for _, to := range []string{"", "s"} {
		g := newRig(t)
		g.maintain(true)
		g.lose()
		g.run(g.l.Order(g.now, "v", Order{To: to}))
		g.pass(2 * full)
		g.wantPromotion("s", cluster.BasisUnchanged)
	}
}

// The last primary comes back by itself: no other node gets the role by that.
func TestPrimaryThatIsBackServesAgainWhileThereIsMaintenance(t *testing.T) {
	g := newRig(t)
	g.maintain(true)
	g.lose()
	g.pass(4 * lease)
	g.reach["p"] = true
	g.pass(2 * full)
	g.wantPromotion("p", cluster.BasisUnchanged)
}

func TestDrainedNodeIsFirstPrimaryOnlyWhereThereIsNoOther(t *testing.T) {
	for _, n := range []string{"p", "s"} {
		g := newRig(t)
		g.drain(n, true)
		g.change(func(v *cluster.Volume) { v.Primary, v.Process = "", 0 })
		g.pass(4 * full)
		if p := g.promotion(); p == nil || p.Candidate == n {
			t.Errorf("%s is drained: %+v", n, p)
		}
	}
}

// What the leader had decided before an operator's word, and is applied behind it, does not happen.
func TestOperatorsWordCountsForWhatWasDecidedBefore(t *testing.T) {
	words := map[string]cluster.Command{"drained": {SetDrained: &cluster.SetDrained{Node: "s", Drained: true}}, "maintenance": {SetMaintenance: &cluster.SetMaintenance{On: true}}}
	for what, word := range words {
		for _, ordered := range []bool{false, true} {
			g := newRig(t)
			if ordered {
				g.run(g.l.Order(g.now, "v", Order{To: "s"}))
			}
			g.lose()
			p := g.promotion()
			if p == nil || p.Candidate != "s" || p.Ordered != ordered {
				t.Fatalf("%s: %+v", what, p)
			}
			g.commit(word)
			if r := g.commit(cluster.Command{Promote: p}); (r.Void == "") != ordered {
				t.Errorf("%s, ordered %t: void %q", what, ordered, r.Void)
			}
		}
	}
}

// What is left is given to a person who accepts the loss, whatever was said before.
func TestForcedPromotionIsNotHeldUpByAnOperatorsWord(t *testing.T) {
	words := map[string]cluster.Command{"drained": {SetDrained: &cluster.SetDrained{Node: "s", Drained: true}}, "maintenance": {SetMaintenance: &cluster.SetMaintenance{On: true}}}
	for what, word := range words {
		g := newRig(t)
		g.change(func(v *cluster.Volume) { v.Version++; delete(v.Members, "s") })
		g.commit(word)
		g.lose()
		g.run(g.l.Order(g.now, "v", Order{To: "s", Force: true}))
		g.pass(2 * full)
		p := g.promotion()
		if p == nil || p.Basis != cluster.BasisForced {
			t.Fatalf("%s: %+v", what, p)
		}
		if r := g.commit(cluster.Command{Promote: p}); r.Void != "" || g.vol().Primary != "s" {
			t.Errorf("%s: void %q", what, r.Void)
		}
	}
}
