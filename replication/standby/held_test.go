package standby

import (
	"testing"

	"hacluster/heartbeat/cluster"
)

// A failed over to B in async (epoch 6): A is held, is back, and its resync has begun, with an image. Then the power of both machines
// is cut. B, the only member, is promoted again as the last primary. No member was added to those who are held, so A's resync goes on
// with the image that it has.
func TestResyncOfWhoIsHeldOutlastsAPowerCut(t *testing.T) { // R18, R19
	s := cluster.NewState()
	s.ID = "c"
	old, again := cluster.Incarnation{Boot: "1", Attachment: "1"}, cluster.Incarnation{Boot: "2", Attachment: "1"}
	for _, n := range []string{"a", "b"} {
		s.Nodes[n] = cluster.Node{Name: n, Start: 2}
	}
	s.Volumes["v"] = cluster.Volume{Name: "v", Size: 1 << 20, Mode: cluster.ModeAsync, Replicas: []cluster.Replica{{Node: "a"}, {Node: "b"}}, Epoch: 6, Version: 20,
		Primary: "b", Process: 1, Served: "b", Members: map[string]cluster.Member{"b": {Incarnation: old, Process: 1}}, Held: []string{"a"}, HeldSince: 6}
	way := Way{InPieces: true, Live: true, Image: true, Since: 6, Room: true}
	v := s.Volumes["v"]
	if k := Keep(&v, "a", way); k != GoOn {
		t.Fatalf("before: %d", k)
	}
	r := s.Apply(1, 4, cluster.Command{By: "w", Promote: &cluster.Promote{On: cluster.On{Volume: "v", Epoch: 6, Version: 20}, Term: 4, Candidate: "b",
		Member: cluster.Member{Incarnation: again, Process: 2}, Basis: cluster.BasisLastPrimary}})
	if r.Void != "" {
		t.Fatal(r.Void)
	}
	v = s.Volumes["v"]
	if k := Keep(&v, "a", way); k != GoOn {
		t.Errorf("held %v since %d: the resync of a waits for a person (%d)", v.Held, v.HeldSince, k)
	}
}
