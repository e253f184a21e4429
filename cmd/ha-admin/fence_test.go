package main

import (
	"strings"
	"testing"
	"time"

	"hacluster/cmd/internal/api"
	"hacluster/cmd/internal/api/apitest"
)

func fenceNode() *apitest.Node {
	at := time.Date(2026, 12, 1, 10, 0, 0, 0, time.UTC)
	rec := api.FenceRecord{Word: "off", Attempt: 2, At: at, By: "gamma", Process: 4, Off: true, Level: 2, Unverified: true, Text: "level 1: fence_x: it hung"}
	failed := api.FenceRecord{Word: "failed", Attempt: 7, At: at, By: "gamma", Process: 4, Failed: 3, Text: "no such plug"}
	return &apitest.Node{Fenced: rec,
		Tested: api.FenceTested{Node: "alpha", From: "gamma", Agents: []api.FenceTestedWith{{Level: 1, Agent: "fence_x", OK: true, State: "on", Ms: 4}}},
		Doc: api.Status{Cluster: "shop", Quorum: true, Leader: "gamma", Fencing: "required", Nodes: []api.NodeStatus{
			{Name: "alpha", Role: "data", State: "dead", Fence: &api.FenceStatus{Devices: []api.FenceDevice{{Level: 1, Agent: "fence_x"}}, Last: &failed, Waits: []string{"pgdata"}}},
			{Name: "gamma", Role: "witness", State: "alive"}}}}
}

func TestFenceCommandsAskAndTell(t *testing.T) {
	node := fenceNode()
	server := apitest.Serve(t, node)
	admin(t, "fence", "alpha", "--server", server).wantSuccess(t, "alpha was turned off by the agents of level 2, run by gamma; one of them has no status", "it hung")
	admin(t, "fence", "alpha", "-o", "json", "--server", server).wantSuccess(t, `"word": "off"`, `"unverified": true`)
	admin(t, "fence", "confirm", "alpha", "--server", server).wantSuccess(t, "alpha counts as off, by your word")
	admin(t, "fence", "test", "alpha", "--server", server).wantSuccess(t, "fence_x", "gamma", "yes", "on", "4ms")
	if got, want := strings.Join(node.Calls(), ", "), "Fence alpha , Fence alpha , FenceConfirm alpha, FenceTest alpha"; got != want {
		t.Errorf("asked %s, want %s", got, want)
	}
	admin(t, "status", "--server", server).wantSuccess(t, "fencing is required", "fence_x", "alpha could not be turned off by gamma, 3 tries failed", "  alpha is neither fenced nor confirmed to be off: nobody serves pgdata until then")
	for _, line := range [][]string{{"fence"}, {"fence", "confirm"}, {"fence", "test"}, {"fence", "alpha", "beta"}} {
		admin(t, append(line, "--server", server)...).wantFailure(t, 2)
	}
	bad := fenceNode()
	bad.Tested.Agents[0].OK, bad.Tested.Agents[0].Text = false, "status: no such plug"
	o := admin(t, "fence", "test", "alpha", "--server", apitest.Serve(t, bad))
	if o.code != 1 || !strings.Contains(o.err, "could not be turned off by all") || !strings.Contains(o.out, "no such plug") { // the table tells which
		t.Errorf("%+v", o)
	}
	admin(t, "fence", "confirm", "alpha", "--server", apitest.Serve(t, &apitest.Node{Err: api.Refused("it answers")})).wantFailure(t, 3, "it answers")
}
