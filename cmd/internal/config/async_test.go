package config

import (
	"strings"
	"testing"
	"time"

	"hacluster/replication"
)

const asyncBlock = `  async {
    max_lag_bytes = "64MiB"
    max_lag       = "5s"
    patience      = "10s"
  }
`

// inAsync is the file with the volume in async and another bound; empty: the defaults.
func inAsync(t *testing.T, bound string) string {
	t.Helper()
	src := changed(t, loopback(t), `mode = "sync"`, `mode = "async"`)
	if bound != "" {
		bound = "  async {\n" + bound + "\n  }\n"
	}
	return changed(t, src, asyncBlock, bound)
}

func TestBoundsOfAsyncAreTakenAtTheirEdges(t *testing.T) {
	for bound, want := range map[string]Async{
		"": {64 << 20, 5 * time.Second, 10 * time.Second, ""},
		"max_lag_bytes = \"1MiB\"\nmax_lag = \"100ms\"\npatience = \"750ms\"":               {1 << 20, 100 * time.Millisecond, 750 * time.Millisecond, ""},
		"max_lag_bytes = \"64GiB\"\nmax_lag = \"1h\"\npatience = \"10m\"\nspool = \"/x/y\"": {64 << 30, time.Hour, 10 * time.Minute, "/x/y"},
	} {
		if got := running(t, inAsync(t, bound)).Volumes[0].Async; got != want {
			t.Errorf("%s: %v, want %v", bound, got, want)
		}
	}
}

func TestLargestBoundIsThatOfASpool(t *testing.T) {
	if maxMaxLagBytes != replication.MaxSpooledBound {
		t.Errorf("%d is taken, %d makes sense", maxMaxLagBytes, replication.MaxSpooledBound)
	}
}

// The patience of a file that was right must not make it wrong in silence when the target grows: the line says so.
func TestPatienceFollowsTheTarget(t *testing.T) {
	src := inAsync(t, "patience = \"2s\"")
	running(t, changed(t, src, `"3s"`, `"8s"`))
	_, err := check("cluster.hcl", []byte(changed(t, src, `"3s"`, `"9s"`)), Options{})
	if err == nil || !strings.Contains(err.Error(), "cluster.hcl:34: patience too short, patience = \"2s\", 2.25s or more is wanted") {
		t.Errorf("%v", err)
	}
}

// What was applied before there was the mode is read ever after, whatever stands in the block that did not count.
func TestBoundIsNotJudgedInAnotherMode(t *testing.T) {
	src := loopback(t)
	for _, mode := range []string{"sync", "semisync"} {
		running(t, changed(t, changed(t, changed(t, changed(t, src, `"sync"`, `"`+mode+`"`), `max_lag_bytes = "64MiB"`, `max_lag_bytes = "4KiB"`), `"5s"
    patience `, `"1ms"
    patience `), `"10s"`, `"1ms"`))
	}
}

func TestBoundIsShownAndChangesOnline(t *testing.T) {
	a, b := running(t, inAsync(t, "")), running(t, inAsync(t, "max_lag_bytes = \"8MiB\"\nmax_lag = \"2s\""))
	steps := a.Plan(b)
	want := "change online|volume pgdata: async|max_lag_bytes 64MiB, max_lag 5s, patience 10s -> max_lag_bytes 8MiB, max_lag 2s, patience 10s: for the next write"
	if !matches(steps, []string{want}) || steps[0].Line != 34 {
		t.Errorf("%+v", steps)
	}
	if d := b.Document().Volumes[0].Async; d != (DocumentAsync{8 << 20, 2000, 10000, ""}) {
		t.Errorf("%+v", d)
	}
	const line = "  async: max_lag_bytes 8MiB, max_lag 2s, patience 10s\n"
	if got := b.Document().Table(); !strings.Contains(got, line) || !strings.Contains(got, "in async, where the last primary is waited for: ") {
		t.Errorf("%s", got)
	}
	if got := running(t, loopback(t)).Document().Table(); strings.Contains(got, "async") {
		t.Errorf("a volume in sync shows a bound that does not count:\n%s", got)
	}
}
