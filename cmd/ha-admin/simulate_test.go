package main

import (
	"slices"
	"strings"
	"testing"

	"hacluster/cmd/internal/api"
)

// shop is three nodes, of which beta leads db, a volume of all data nodes.
func shop() *api.Status {
	loss := int64(4096)
	return &api.Status{Quorum: true,
		Nodes: []api.NodeStatus{{Name: "alpha", Voter: true, State: "alive"}, {Name: "beta", Voter: true, State: "alive"}, {Name: "gamma", Voter: true, State: "alive"}},
		Volumes: []api.VolumeStatus{{Name: "db", Primary: "beta", State: api.VolumeHealthy, InSync: []string{"alpha", "beta"}, Promotable: []string{"alpha"},
			Async: &api.AsyncStatus{LossBytes: &loss}, Replicas: []api.ReplicaStatus{{Node: "alpha"}, {Node: "beta"}}}},
		Services: []api.ServiceStatus{{Name: "pg", Node: "beta"}}}
}

func TestSimulatedLossSaysWhoFollows(t *testing.T) {
	past := []api.Failover{{Volume: "db", Reason: "lease expired", RTOMs: 700, RTOTargetMs: 3000}, {Volume: "db", Reason: "given up", RTOMs: 9, RTOTargetMs: 3000},
		{Volume: "db", Reason: "lease expired", RTOMs: 500, RTOTargetMs: 3000}, {Volume: "db", Reason: "lease expired", RTOMs: 900, RTOTargetMs: 3000}}
	for name, c := range map[string]struct {
		node    string
		change  func(*api.Status)
		outcome string
		to      []string
		quorum  bool
		why     string
	}{
		"the primary":               {"beta", func(*api.Status) {}, lossMoves, []string{"alpha"}, true, ""},
		"the standby":               {"alpha", func(*api.Status) {}, lossGoesOn, nil, true, "in sync would be beta"},
		"the witness":               {"gamma", func(*api.Status) {}, lossUntouched, nil, true, ""},
		"no standby":                {"beta", func(s *api.Status) { s.Volumes[0].Promotable = nil }, lossUnavailable, nil, true, "no other replica"},
		"a standby for people only": {"beta", func(s *api.Status) { s.Volumes[0].Replicas[0].ByHand = "is drained" }, lossUnavailable, nil, true, "alpha is drained"},
		"the witness is away":       {"beta", func(s *api.Status) { s.Nodes[2].State = "dead" }, lossSuspended, nil, false, "majority"},
		"away without a vote":       {"beta", func(s *api.Status) { s.Nodes[2].Voter = false }, lossSuspended, nil, false, "majority"},
		"nobody serves it now":      {"alpha", func(s *api.Status) { s.Volumes[0].State = api.VolumeUnavailable }, lossUnavailable, nil, true, "it is so now"},
	} {
		st := shop()
		c.change(st)
		got := simulateLoss(st, past, c.node)
		v := got.Volumes[0]
		if v.Outcome != c.outcome || !slices.Equal(v.To, c.to) && len(c.to) > 0 || got.Quorum != c.quorum || !strings.Contains(v.Why, c.why) {
			t.Errorf("%s: %+v", name, got)
		}
		if v.Past != 3 || v.RTOMsP50 != 700 || v.RTOMsMax != 900 || v.RTOTargetMs != 3000 {
			t.Errorf("%s: past %+v", name, v)
		}
	}
}

func TestSimulatedLossSaysWhatIsLost(t *testing.T) {
	st := shop()
	if text := lossTable(simulateLoss(st, nil, "beta")); !strings.Contains(text, "4KiB") && !strings.Contains(text, "4 KiB") || !strings.Contains(text, "never measured") || !strings.Contains(text, "follows its volumes") {
		t.Error(text)
	}
	st.Volumes[0].Async.LossBytes = nil
	if text := lossTable(simulateLoss(st, nil, "beta")); !strings.Contains(text, "unknown") {
		t.Error(text)
	}
	st.Volumes[0].Async = nil
	if l := simulateLoss(st, nil, "beta").Volumes[0]; l.LossBytes == nil || *l.LossBytes != 0 {
		t.Errorf("in sync: %+v", l)
	}
}
