package failover

import (
	"testing"
	"time"

	"hacluster/heartbeat/cluster"
)

// faults.md F121
func TestForcedPromotionWaitsForTheLeaseAndTakesWhatThePersonNamed(t *testing.T) { // R6
	g := newRig(t)
	g.change(func(v *cluster.Volume) { v.Version++; delete(v.Members, "s") })
	g.request("p")
	g.reach["p"] = false
	g.run(g.l.Order(g.now, "v", Order{To: "s", Force: true}))
	g.pass(full - 100*time.Millisecond)
	g.wantNoPromotion("p's lease is in force")
	g.pass(time.Second)
	g.wantPromotion("s", cluster.BasisForced)
	if len(g.orders) != 0 {
		t.Fatal("a forced promotion was asked of the primary as a hand-over")
	}
}

func TestForceOnTheLastCopyWhoseDiskFailed(t *testing.T) { // R6, R23
	for name, c := range map[string]struct {
		change func(r *cluster.Report)
		forced bool
	}{
		"failed":       {func(r *cluster.Report) { r.Failed = true }, true},
		"inconsistent": {func(r *cluster.Report) { r.Inconsistent = true }, false},
		"stalled":      {func(r *cluster.Report) { r.Stalled = true }, false},
		"not held":     {func(r *cluster.Report) { r.Held = false }, false},
	} {
		g := newRig(t)
		g.reach["p"] = false
		g.report("s", c.change)
		g.run(g.l.Order(g.now, "v", Order{To: "s", Force: true}))
		g.pass(2 * full)
		if got := g.promotion() != nil; got != c.forced {
			t.Errorf("%s: forced %t, want %t", name, got, c.forced)
		}
	}
}

func TestForceOnThePrimaryThatGaveUpForItsDisk(t *testing.T) { // R6, R23
	g := newRig(t)
	g.request("p")
	g.reach["s"] = false
	g.giveUp(term, func(u *GiveUp) { u.Failed = true })
	g.pass(2 * full)
	g.wantNoPromotion("a person decides")
	g.run(g.l.Order(g.now, "v", Order{To: "p", Force: true}))
	g.pass(time.Second)
	g.wantPromotion("p", cluster.BasisForced)
}

func TestForceOnAHealthyMemberIsNoForce(t *testing.T) { // R6
	g := newRig(t)
	g.reach["p"] = false
	g.run(g.l.Order(g.now, "v", Order{To: "s", Force: true}))
	g.pass(2 * full)
	g.wantPromotion("s", cluster.BasisUnchanged)
}

func TestOrderIsForgottenWhenTheEpochMovesOrItIsTakenBack(t *testing.T) {
	g := newRig(t)
	g.run(g.l.Order(g.now, "v", Order{To: "x", Force: true}))
	g.change(func(v *cluster.Volume) { v.Epoch, v.Version = 4, 11 })
	if len(g.l.orders) != 0 {
		t.Fatal("an order on an older epoch is kept")
	}
	g.run(g.l.Order(g.now, "v", Order{To: "x", Force: true}))
	g.l.Cancel("v")
	g.run(g.l.Order(g.now, "u", Order{To: "x", Force: true}))
	if len(g.l.orders) != 0 {
		t.Fatal("an order that was taken back, or on no volume, is kept")
	}
}
