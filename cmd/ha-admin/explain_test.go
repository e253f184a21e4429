package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"hacluster/cmd/internal/api"
	"hacluster/heartbeat/cluster"
)

func TestPromotionIsExplained(t *testing.T) {
	past := []api.Failover{{Volume: "db", Epoch: 6, RTOMs: 1}, {Volume: "db", Epoch: 7, RTOMs: 640, RTOTargetMs: 3000, Stages: []api.Stage{{Name: "detect", Ms: 420}}}, {Volume: "x", Epoch: 7}}
	e := api.Event{Number: 9, Kind: "promoted", Volume: "db", Node: "beta", Text: `beta is primary of epoch 7 (unchanged incarnation; lease expired); before: "alpha"; in-sync set [beta]`}
	x := explain(e, past)
	if x.Failover == nil || x.Failover.RTOMs != 640 || !strings.Contains(x.Because, "R25") || !strings.Contains(x.Rule, "R10") {
		t.Errorf("%+v", x)
	}
	for _, want := range []string{"640 ms", "detect 420 ms", "R7", "never away"} {
		if !strings.Contains(x.String(), want) {
			t.Errorf("%q is missing: %s", want, x)
		}
	}
	if x := explain(api.Event{Kind: "node started", Text: "process 3 of beta"}, past); x.Rule != "" || x.Failover != nil || !strings.Contains(x.String(), "process 3") {
		t.Errorf("%+v", x)
	}
}

// What is explained is what the program knows.
func TestEveryBasisAndNoOtherIsExplained(t *testing.T) {
	for _, b := range cluster.Bases() {
		if bases[string(b)] == "" {
			t.Errorf("a promotion for the reason %q is not explained", b)
		}
	}
	if len(bases) != len(cluster.Bases()) {
		t.Errorf("%d reasons are explained, there are %d", len(bases), len(cluster.Bases()))
	}
}

func TestKindsThatAreExplainedExist(t *testing.T) {
	var source strings.Builder
	for _, dir := range []string{"../../heartbeat/cluster", "../../replication", "../internal/node"} {
		files, _ := filepath.Glob(filepath.Join(dir, "*.go"))
		for _, f := range files {
			if b, err := os.ReadFile(f); err == nil && !strings.HasSuffix(f, "_test.go") {
				source.Write(b)
			}
		}
	}
	for kind := range rules {
		if !strings.Contains(source.String(), `"`+kind+`"`) {
			t.Errorf("no event is of the kind %q", kind)
		}
	}
}
