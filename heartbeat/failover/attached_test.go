package failover

import (
	"testing"
	"time"

	"hacluster/heartbeat/cluster"
)

// A node whose daemon was replaced while a device of it is in use follows itself, so that the users of the device see a pause and
// no error; never at the price of what a promotion needs.
func TestReplacedPrimaryWithADeviceInUseFollowsItself(t *testing.T) { // R6, R10, R25
	attached := func(g *rig) {
		g.restart("p", incA)
		g.report("p", func(r *cluster.Report) { r.Attached = true })
	}
	for name, c := range map[string]struct {
		prepare func(g *rig)
		who     string
	}{
		"in use":               {attached, "p"},
		"not in use":           {func(g *rig) { g.restart("p", incA) }, "s"},
		"in use, s is gone":    {func(g *rig) { attached(g); g.reach["s"] = false }, "p"},
		"in use, memory lost":  {func(g *rig) { attached(g); g.report("p", func(r *cluster.Report) { r.Incarnation.Attachment = "2" }) }, "s"},
		"in use, disk failed":  {func(g *rig) { attached(g); g.report("p", func(r *cluster.Report) { r.Failed = true }) }, "s"},
		"in use, then gone":    {func(g *rig) { attached(g); g.reach["p"] = false }, "s"},
		"another node's claim": {func(g *rig) { g.report("s", func(r *cluster.Report) { r.Attached = true }); g.restart("p", incA) }, "s"},
	} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t)
			g.request("p")
			c.prepare(g)
			g.request("p")
			g.pass(full / 2)
			p := g.wantPromotion(c.who, cluster.BasisUnchanged, leaves(g)...)
			if r := g.commit(cluster.Command{By: "w", Promote: p}); r.Void != "" {
				t.Fatalf("the promotion is void: %s", r.Void)
			}
		})
	}
}

// leaves is who says itself that it lost its memory.
func leaves(g *rig) []string {
	if g.reports["p"].Incarnation != incA {
		return []string{"p"}
	}
	return nil
}

func TestDeviceInUseKeepsNoVolumeWhoseLeaseIsInForce(t *testing.T) { // R10
	g := newRig(t)
	g.request("p")
	g.report("p", func(r *cluster.Report) { r.Attached = true })
	g.reach["p"] = false
	g.pass(full - time.Millisecond)
	g.wantNoPromotion("the lease is in force, and its process was not replaced")
	g.pass(2 * time.Second)
	g.wantPromotion("s", cluster.BasisUnchanged)
}
