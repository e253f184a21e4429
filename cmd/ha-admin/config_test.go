package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"hacluster/cmd/internal/api/apitest"
	"hacluster/cmd/internal/config"
)

const (
	sample   = "../internal/config/testdata/sample.hcl"
	loopback = "../internal/config/testdata/loopback.hcl"
)

// broken writes the loopback file with two mistakes in it.
func broken(t *testing.T) string {
	t.Helper()
	src, err := os.ReadFile(loopback)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.NewReplacer(`size = "64MiB"`, `size = 64`, `mode = "sync"`, `mood = "sync"`).Replace(string(src))
	path := filepath.Join(t.TempDir(), "cluster.hcl")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestSampleOfTheContractPassesTheCheck(t *testing.T) {
	o := admin(t, "config", "check", sample)
	const warnings = "sample.hcl:42: not supported yet, mount \"/srv/pg\", a service cannot mount the local device: leave the block out: the daemon refuses to start with it\n"
	if o.code != 0 || o.out != sample+": in order\n" || o.err != warnings {
		t.Errorf("%+v", o)
	}
}

func TestCheckOfAStartSaysWhatTheDaemonWould(t *testing.T) {
	o := admin(t, "config", "check", "--start", "--node", "alpha", sample)
	if o.code != 2 || o.out != "" || strings.Count(o.err, "not supported yet") != 1 {
		t.Errorf("%+v", o)
	}
	admin(t, "config", "check", "--start", "--insecure", "--node", "alpha", loopback).wantSuccess(t, "in order")
	o = admin(t, "config", "check", "--start", "--insecure", "--node", "delta", loopback)
	if o.code != 2 || !strings.Contains(o.err, "this node is not in the file, delta") {
		t.Errorf("%+v", o)
	}
	admin(t, "config", "check", "--start", "/nowhere/cluster.hcl").wantFailure(t, 2, "no such file")
}

func TestCheckTellsAllMistakesAtOnce(t *testing.T) {
	path := broken(t)
	const want = "cluster.hcl:22: wrong type, size = 64, a string is wanted, such as size = \"20GiB\"\n" +
		"cluster.hcl:23: unknown key, mood = \"sync\", known here: size, mode, io, suspend_limit, read, undo_limit, site_failover, group\n"
	for _, line := range []string{"config check", "config show"} {
		if o := admin(t, append(strings.Fields(line), path)...); o.code != 1 || o.out != "" || o.err != want {
			t.Errorf("%s: %+v", line, o)
		}
	}
	if o := admin(t, "config", "check", "--start", "--insecure", "--node", "alpha", path); o.code != 2 || o.err != want {
		t.Errorf("--start: %+v", o)
	}
	admin(t, "config", "check", "/nowhere/cluster.hcl").wantFailure(t, 1, "no such file")
}

func TestCheckForScripts(t *testing.T) {
	var verdict struct {
		OK       bool
		Problems []finding
		Warnings []finding
	}
	o := admin(t, "config", "check", "-o", "json", broken(t))
	if err := json.Unmarshal([]byte(o.out), &verdict); err != nil || o.code != 1 || o.err != "" {
		t.Fatalf("%v: %+v", err, o)
	}
	want := finding{22, "wrong type", "size = 64", `a string is wanted, such as size = "20GiB"`}
	if verdict.OK || len(verdict.Problems) != 2 || verdict.Problems[0] != want || len(verdict.Warnings) != 0 {
		t.Errorf("%+v", verdict)
	}
	o = admin(t, "config", "check", "-o", "json", sample)
	if err := json.Unmarshal([]byte(o.out), &verdict); err != nil || o.code != 0 || o.err != "" {
		t.Fatalf("%v: %+v", err, o)
	}
	if !verdict.OK || len(verdict.Problems) != 0 || len(verdict.Warnings) != 1 || verdict.Warnings[0].Line != 42 {
		t.Errorf("%+v", verdict)
	}
}

func TestShowPrintsTheSumOfTheTimers(t *testing.T) {
	rep, err := config.Check(loopback, config.Options{Node: "alpha"})
	if err != nil {
		t.Fatal(err)
	}
	server := apitest.Serve(t, &apitest.Node{Settings: rep.Config.Document()})
	for _, args := range [][]string{{"config", "show", loopback, "--node", "alpha"}, {"config", "show", "--server", server}} {
		admin(t, args...).wantSuccess(t,
			"lease 1260ms x 1.01 + tick 31.5ms + 2 commits x 50ms + promotion 100ms = 1504.1ms <= RTO target 3000ms\n",
			"when the leader is lost with the primary: 1504.1ms + election 735.6ms = 2239.7ms\n",
			"/srv/beta/pgdata.img", "as read by alpha")
		o := admin(t, append(args, "-o", "json")...)
		var doc config.Document
		if err := json.Unmarshal([]byte(o.out), &doc); err != nil || doc.Timers.FailoverMs != 1504.1 || doc.Timers.FailoverWithElectionMs != 2239.7 {
			t.Errorf("%v: %s", err, o.out)
		}
	}
}
