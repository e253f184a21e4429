package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"hacluster/cmd/internal/api"
	"hacluster/cmd/internal/api/apitest"
	"hacluster/cmd/internal/config"
)

func planned(kinds ...config.StepKind) api.Applied {
	p := api.Applied{Version: 7, Applied: true, NewVersion: 8, WaitingFor: []string{"beta"}}
	for _, k := range kinds {
		p.Steps = append(p.Steps, config.Step{Kind: k, What: "rto", Text: "3s -> 4s", Line: 2})
	}
	return p
}

// applied runs apply with a file that is right and an answer on standard input.
func applied(t *testing.T, node *apitest.Node, answer string, args ...string) outcome {
	t.Helper()
	var out, errOut bytes.Buffer
	a := &app{out: &out, err: &errOut, in: strings.NewReader(answer)}
	code := a.run(context.Background(), append([]string{"apply", sampleFile(t), "--server", apitest.Serve(t, node)}, args...))
	return outcome{code, out.String(), errOut.String()}
}

func sampleFile(t *testing.T) string {
	t.Helper()
	src, err := os.ReadFile("../internal/config/testdata/loopback.hcl")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "new.hcl")
	if err := os.WriteFile(path, src, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestApplyShowsThePlanAsksAndDoesWhatWasPlanned(t *testing.T) {
	node := &apitest.Node{Plan: planned(config.StepChange)}
	applied(t, node, "yes\n").wantSuccess(t, "plan on version 7", "change online", "line 2", "3s -> 4s", "apply this?", "version 8", "not running with it yet: beta")
	calls := node.Calls()
	if len(calls) != 2 || !strings.Contains(calls[0], "plan:true on:0") || !strings.Contains(calls[1], "plan:false on:7") {
		t.Errorf("asked %q", calls)
	}
	for _, answer := range []string{"no\n", "", "yesterday\n"} {
		node = &apitest.Node{Plan: planned(config.StepChange)}
		if o := applied(t, node, answer); o.code != 3 || !strings.Contains(o.err, "nothing is done") || !strings.Contains(o.err, "--yes") || len(node.Calls()) != 1 {
			t.Errorf("answer %q: %+v, asked %q", answer, o, node.Calls())
		}
	}
}

func TestApplyWithConsentAsksNobody(t *testing.T) {
	node := &apitest.Node{Plan: planned(config.StepRemove)}
	applied(t, node, "", "--yes", "--disconnect-clients", "--delete-data", "--on-version", "5").wantSuccess(t, "remove volume", "version 8")
	if calls := node.Calls(); len(calls) != 2 || !strings.Contains(calls[0], "on:5") || !strings.Contains(calls[1], "on:7 disconnect:true delete:true") {
		t.Errorf("asked %q", calls)
	}
}

func TestRefusedPlanEndsWithThreeAndIsShown(t *testing.T) {
	for _, args := range [][]string{{"--yes"}, {"--plan"}, {"-o", "json", "--yes"}} {
		node := &apitest.Node{Plan: planned(config.StepChange, config.StepRefused)}
		o := applied(t, node, "yes\n", args...)
		if o.code != 3 || !strings.Contains(o.out, "refused") || !strings.Contains(o.err, "1 of 2 steps") || len(node.Calls()) != 1 {
			t.Errorf("%q: %+v, asked %q", args, o, node.Calls())
		}
	}
}

func TestPlanForScriptsIsJSONAndDoesNothing(t *testing.T) {
	for _, args := range [][]string{{"-o", "json"}, {"-o", "json", "--plan"}} {
		node := &apitest.Node{Plan: planned(config.StepChange)}
		o := applied(t, node, "", args...)
		var p api.Applied
		if err := json.Unmarshal([]byte(o.out), &p); err != nil || o.code != 0 || p.Version != 7 || len(p.Steps) != 1 || len(node.Calls()) != 1 {
			t.Errorf("%q: %+v %v", args, o, err)
		}
	}
}

func TestApplyOfWhatRunsDoesNothing(t *testing.T) {
	node := &apitest.Node{Plan: api.Applied{Version: 7}}
	applied(t, node, "", "--yes").wantSuccess(t, "nothing to do", "version 7")
	if len(node.Calls()) != 1 {
		t.Errorf("asked %q", node.Calls())
	}
}

func TestWrongFileIsToldLineByLineAndNobodyIsAsked(t *testing.T) {
	path := filepath.Join(t.TempDir(), "bad.hcl")
	if err := os.WriteFile(path, []byte("cluster \"x\" {\n  rto = 3\n  what = 1\n}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	node := &apitest.Node{}
	o := admin(t, "apply", path, "--yes", "--server", apitest.Serve(t, node))
	lines := slices.Collect(strings.Lines(o.err))
	if o.code != 1 || len(lines) < 3 || !strings.HasPrefix(lines[0], "bad.hcl") || len(node.Calls()) != 0 {
		t.Errorf("%+v, asked %q", o, node.Calls())
	}
	admin(t, "apply", filepath.Join(t.TempDir(), "absent.hcl")).wantFailure(t, 1, "absent.hcl")
	admin(t, "apply", path, "--yes", "--plan").wantFailure(t, 2, "contradict")
}
