package main

import (
	"bytes"
	"context"
	"os"
	"strings"
	"testing"

	"hacluster/cmd/internal/api"
	"hacluster/cmd/internal/api/apitest"
	"hacluster/cmd/internal/config"
)

// running is a node whose applied configuration is the loopback file in version 7.
func running(t *testing.T, plan api.Applied) *apitest.Node {
	t.Helper()
	src, err := os.ReadFile(loopback)
	if err != nil {
		t.Fatal(err)
	}
	return &apitest.Node{Text: api.ConfigText{Version: 7, Text: src}, Plan: plan}
}

// answered runs a command line with an answer on standard input.
func answered(t *testing.T, node *apitest.Node, answer string, args ...string) outcome {
	t.Helper()
	var out, errOut bytes.Buffer
	a := &app{out: &out, err: &errOut, in: strings.NewReader(answer)}
	code := a.run(context.Background(), append(args, "--server", apitest.Serve(t, node)))
	return outcome{code, out.String(), errOut.String()}
}

func TestVolumeIsDeletedFromTheTextThatIsAppliedAndOnItsVersion(t *testing.T) {
	node := running(t, planned(config.StepRemove))
	answered(t, node, "yes\n", "volume", "delete", "pgdata", "--delete-data").wantSuccess(t, "remove volume", "apply this?", "version 8", "ha-admin config export")
	calls := node.Calls()
	if len(calls) != 3 || calls[0] != "ConfigExport" || !strings.Contains(calls[1], "plan:true on:7") ||
		!strings.Contains(calls[2], "plan:false on:7 disconnect:false delete:true") {
		t.Errorf("asked %q", calls)
	}
	node = running(t, planned(config.StepRemove))
	answered(t, node, "", "volume", "delete", "pgdata", "--yes", "--disconnect-clients").wantSuccess(t, "remove volume", "ha-admin config export")
	if calls := node.Calls(); len(calls) != 3 || !strings.Contains(calls[2], "on:7 disconnect:true delete:false") {
		t.Errorf("asked %q", calls)
	}
}

func TestVolumeIsNotDeletedWithoutConsentNorUnderAnotherName(t *testing.T) {
	node := running(t, planned(config.StepRemove))
	if o := answered(t, node, "no\n", "volume", "delete", "pgdata"); o.code != 3 || !strings.Contains(o.err, "nothing is done") || len(node.Calls()) != 2 {
		t.Errorf("%+v, asked %q", o, node.Calls())
	}
	node = running(t, planned(config.StepRemove))
	answered(t, node, "", "volume", "delete", "pgdat", "--yes").wantFailure(t, 1, `no volume "pgdat"`, "pgdata")
	if len(node.Calls()) != 1 {
		t.Errorf("asked %q", node.Calls())
	}
}

// A script that forgot to consent must not take the plan for the deed.
func TestVolumeIsNotChangedInJSONWithoutConsent(t *testing.T) {
	for _, args := range [][]string{{"volume", "delete", "pgdata"}, {"volume", "resize", "pgdata", "1GiB"}} {
		node := running(t, planned(config.StepRemove))
		answered(t, node, "yes\n", append(args, "-o", "json")...).wantFailure(t, 3, "nothing is done", "--yes")
		for _, c := range node.Calls() {
			if strings.Contains(c, "plan:false") {
				t.Errorf("%q: asked %q", args, c)
			}
		}
	}
}

func TestExportPrintsTheTextAsItIs(t *testing.T) {
	node := running(t, api.Applied{})
	if o := answered(t, node, "", "config", "export"); o.code != 0 || o.out != string(node.Text.Text) {
		t.Errorf("%+v", o)
	}
	answered(t, node, "", "config", "export", "-o", "json").wantSuccess(t, `"version": 7`, `"text": "cluster`)
}

func TestConsentToASmallerVolumeIsPassedOn(t *testing.T) {
	node := running(t, planned(config.StepShrink))
	answered(t, node, "yes\n", "volume", "resize", "pgdata", "32MiB", "--accept-data-loss").wantSuccess(t, "shrink volume", "apply this?")
	if calls := node.Calls(); len(calls) != 3 || !strings.Contains(calls[2], "with volume pgdata of 32MiB") || !strings.Contains(calls[2], "plan:false on:7 disconnect:false delete:false lose:true") {
		t.Errorf("asked %q", calls)
	}
	node = running(t, planned(config.StepShrink))
	answered(t, node, "", "volume", "resize", "pgdata", "32MiB", "--yes", "--disconnect-clients").wantSuccess(t, "shrink volume")
	if calls := node.Calls(); len(calls) != 3 || !strings.Contains(calls[2], "disconnect:true delete:false lose:false") {
		t.Errorf("asked %q", calls)
	}
}

func TestVolumeIsMadeLargerInTheTextThatIsApplied(t *testing.T) {
	node := running(t, planned(config.StepChange))
	answered(t, node, "yes\n", "volume", "resize", "pgdata", "1GiB").wantSuccess(t, "apply this?", "version 8", "ha-admin config export")
	calls := node.Calls()
	if len(calls) != 3 || calls[0] != "ConfigExport" || !strings.Contains(calls[2], "with volume pgdata of 1GiB") || !strings.Contains(calls[2], "plan:false on:7") {
		t.Errorf("asked %q", calls)
	}
	for _, args := range [][]string{{"pgdata", "1 gig"}, {"pgdata", "-1GiB"}, {"pgdata"}, {"pgdata", "1GiB", "2GiB"}} {
		node := running(t, planned(config.StepChange))
		if o := answered(t, node, "yes\n", append([]string{"volume", "resize"}, args...)...); o.code != 2 || len(node.Calls()) > 0 {
			t.Errorf("%q: %+v, asked %q", args, o, node.Calls())
		}
	}
}
