package scenario

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"hacluster/cmd/internal/lab/history"
	"hacluster/cmd/internal/lab/topology"
)

func TestTableIsSound(t *testing.T) {
	seen, ci := map[string]bool{}, 0
	for _, s := range Table() {
		if seen[s.Name] || s.Fault == nil || s.What == "" || !regexp.MustCompile(`^([XTKDM]\d+ ?)+$`).MatchString(s.Covers) {
			t.Errorf("%+v: a name of its own, a fault, a description and numbers of faults.md are wanted", s)
		}
		seen[s.Name] = true
		switch s.Expect.Service {
		case GoesOn, Unseen, Waits:
			if s.Expect.Changes != 0 {
				t.Errorf("%s: the service %s, and yet the role may move", s.Name, s.Expect.Service)
			}
		case Moves, Survives, Suspends:
		default:
			t.Errorf("%s: what is expected of the service?", s.Name)
		}
		if s.CI {
			ci++
		}
	}
	if ci < 12 {
		t.Errorf("%d scenarios are in matrix-ci, 12 at least are wanted", ci)
	}
	for _, number := range []string{"K109", "K110", "K111", "T83", "T84", "T85", "T87", "X98", "X99", "X100", "X101", "X102", "X103", "X104",
		"X105", "X106", "X107", "X108", "D88", "D89", "D90", "D91", "D92", "D93", "D94", "D96", "K113", "M57"} {
		found := false
		for _, s := range Table() {
			found = found || strings.Contains(s.Covers+" ", number+" ")
		}
		if !found {
			t.Errorf("%s has no scenario", number)
		}
	}
}

// A soak goes on when the standby had just been dropped; what costs data then would be taken for a fault of the cluster.
func TestSoakLeavesOutWhatMayCostDataByRight(t *testing.T) {
	var names []string
	for _, s := range soakChoice() {
		names = append(names, s.Name)
	}
	for _, out := range []string{"power-all-standby", "lying-primary", "flap-5min", "loss-30"} {
		if slices.Contains(names, out) {
			t.Errorf("%s is part of a soak", out)
		}
	}
	if len(names) < 30 || !slices.Contains(names, "power-all") {
		t.Errorf("a soak chooses from %v", names)
	}
}

func testRun() *Run {
	return &Run{cfg: Config{Log: slog.New(slog.DiscardHandler)}, res: Result{Verdict: Passed},
		state: topology.State{Config: topology.Config{RTO: "2s"}}}
}

// A fault without effect proves nothing, and a run with one never passes.
func TestFaultThatDoesNotBiteBreaksTheRun(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	for name, in := range map[string]Injected{
		"no proof":    {},
		"no effect":   {Bites: func() (string, bool, error) { return "0 packets", false, nil }},
		"proof fails": {Bites: func() (string, bool, error) { return "", false, errors.New("no nft") }},
	} {
		var b *brokenError
		if _, err := testRun().bites(ctx, in); !errors.As(err, &b) {
			t.Errorf("%s: %v", name, err)
		}
	}
	times := 0
	in := Injected{Bites: func() (string, bool, error) { times++; return "bitten", times == 3, nil }}
	if proof, err := testRun().bites(t.Context(), in); proof != "bitten" || err != nil {
		t.Errorf("%q %v", proof, err)
	}
}

func acked(sent, answered time.Duration) history.Op {
	return history.Op{Kind: history.Write, Server: "alpha", Sent: sent * time.Second, Answered: answered * time.Second}
}

func TestAvailabilityIsJudged(t *testing.T) {
	steady := []history.Op{acked(1, 2), acked(3, 4), acked(9, 10), acked(11, 12), acked(20, 21), acked(39, 40)}
	strike := func(s Service) Strike {
		return Strike{At: 10 * time.Second, Struck: 10 * time.Second, Mended: 40 * time.Second, expect: Expect{Service: s}}
	}
	for name, c := range map[string]struct {
		service Service
		ops     []history.Op
		verdict string
	}{
		"a gap too long":                  {GoesOn, steady, Failed},
		"the same, nobody is to be there": {Unseen, steady, Passed},
		"answers in between":              {GoesOn, append(steady, acked(30, 31)), Passed},
		"answered while suspended":        {Suspends, steady, Failed},
		"answered within the last lease":  {Suspends, []history.Op{acked(9, 10), acked(11, 12), acked(39, 41)}, Passed},
	} {
		t.Run(name, func(t *testing.T) {
			r := testRun()
			if r.service(strike(c.service), c.ops); r.res.Verdict != c.verdict {
				t.Errorf("%s %v, want %s", r.res.Verdict, r.res.Reasons, c.verdict)
			}
		})
	}
}

func TestReplicasAreComparedByteByByte(t *testing.T) {
	dir := os.Getenv("HACLUSTER_LABS") // a file system with O_DIRECT
	if dir == "" {
		dir = "."
	}
	dir, err := os.MkdirTemp(dir, "compare")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	content := make([]byte, 3<<20)
	write := func(path string, content []byte) {
		t.Helper()
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(a, content)
	write(b, content)
	if places, err := compare(a, b, 100); err != nil || len(places) > 0 {
		t.Fatalf("%v %v", places, err)
	}
	content[2<<20+4096+7] = 1
	write(b, content)
	if places, err := compare(a, b, 100); err != nil || len(places) != 1 || places[0] != 2<<20+4096 {
		t.Errorf("%v %v", places, err)
	}
	write(b, content[:2<<20])
	if _, err := compare(a, b, 100); err == nil {
		t.Error("a shorter one is taken for equal")
	}
}

func TestReportNamesWhatDidNotPass(t *testing.T) {
	text := Markdown([]Result{
		{Scenario: "fine", Verdict: Passed, OutageMs: -1, Proof: "a|b"},
		{Scenario: "bad", Verdict: Failed, OutageMs: 7, Reasons: []string{"3 acknowledged writes are lost"}},
	})
	for _, want := range []string{"| fine |", "| a/b |", "**failed**", "bad, failed:\n- 3 acknowledged writes are lost", "| 7 ms |"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing:\n%s", want, text)
		}
	}
}
