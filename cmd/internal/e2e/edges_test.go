package e2e

import (
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"hacluster/cmd/internal/api"
)

// faults.md N36: a standby listens, refuses the export, and names the primary; an export that is not in the file is
// unknown (N10).
func TestN36StandbyRefusesAndNamesThePrimary(t *testing.T) {
	r := healthy(t, Config{})
	primary := r.vol().Primary
	if got := r.refused(other(primary)); !strings.Contains(got, primary) {
		t.Errorf("the standby answers %q, which does not name %s", got, primary)
	}
	ctx, cancel := r.within()
	defer cancel()
	for _, uri := range []string{r.URI(primary), r.URI(other(primary))} {
		if c, err := dialDirect(ctx, strings.Replace(uri, ":///"+Volume, ":///nothing", 1)); err == nil {
			c.Abort()
			t.Error("an unknown export was opened")
		}
	}
}

// The health endpoints, and the keys of the status document.
func TestHealthEndpointsAndStatusDocument(t *testing.T) {
	r := healthy(t, Config{RTO: "10s"}) // a busy machine alone must not make a node unready here
	for _, n := range Nodes {
		if h, y := r.get(n, "/healthz"), r.get(n, "/readyz"); h != 200 || y != 200 {
			t.Errorf("%s: healthz %d, readyz %d", n, h, y)
		}
		ctx, cancel := r.within()
		out, errs, code := r.AdminAt(ctx, r.socket(n), "status", "-o", "json")
		cancel()
		if code != 0 {
			t.Fatalf("%s: exit code %d: %s", n, code, errs)
		}
		checkKeys(t, out)
	}
	r.admin(0, "failover", "vol")
	out, _ := r.admin(0, "status", "vol", "-o", "json")
	checkKeys(t, out)
	var s api.Status
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		t.Fatal(err)
	}
	if f := s.LastFailover; f == nil || f.RTOTargetMs != 10000 || f.At.IsZero() || f.Reason != "given up" {
		t.Errorf("last_failover is %+v", f)
	}
	_, errs := r.admin(1, "status", "nothing")
	r.says(errs, "nothing", "volume list")
	for _, args := range [][]string{{"volume", "list"}, {"node", "list"}, {"failovers"}, {"events"}, {"config", "show"}} {
		out, _ := r.admin(0, append(args, "-o", "json")...)
		if !json.Valid([]byte(out)) && args[0] != "events" { // events are one document a line
			t.Errorf("%v is not JSON: %s", args, out)
		}
	}
	r.Close()
	r.until4(t)
}

// until4 checks that nobody's answer is exit code 4, with one line on stderr.
func (r *rig) until4(t *testing.T) {
	t.Helper()
	ctx, cancel := r.within()
	defer cancel()
	_, errs, code := r.AdminAt(ctx, r.socket("alpha")+","+r.socket("beta"), "status")
	if code != 4 || strings.Count(errs, "\n") != 1 {
		t.Errorf("nobody answers: exit code %d: %q", code, errs)
	}
}

// checkKeys compares the keys of a status with those of the contract.
func checkKeys(t *testing.T, doc string) {
	t.Helper()
	contract, err := os.ReadFile("../api/testdata/status.json")
	if err != nil {
		t.Fatal(err)
	}
	var want, got map[string]any
	if err := json.Unmarshal(contract, &want); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(doc), &got); err != nil {
		t.Fatal(err)
	}
	compareKeys(t, "status", want, got)
}

// added are the keys that the status has beyond the contract, which permits that: what a forced promotion would give, the
// comparison of the replicas, why a volume is not healthy, as it may be for a moment on a busy machine, and the mode of each replica.
var added = []string{"point", "verify", "verify_next", "reason", "mode"}

func compareKeys(t *testing.T, at string, want, got any) {
	t.Helper()
	switch want := want.(type) {
	case map[string]any:
		g, ok := got.(map[string]any)
		if !ok {
			if got != nil {
				t.Errorf("%s is no object: %v", at, got)
			}
			return
		}
		for k, w := range want {
			v, ok := g[k]
			if !ok {
				t.Errorf("%s lacks %q", at, k)
				continue
			}
			compareKeys(t, at+"."+k, w, v)
		}
		for k := range g {
			if _, ok := want[k]; !ok && !slices.Contains(added, k) {
				t.Errorf("%s has %q, which the contract does not know", at, k)
			}
		}
	case []any:
		g, ok := got.([]any)
		if !ok {
			t.Errorf("%s is no list: %v", at, got)
		}
		for i, v := range g {
			if len(want) > 0 {
				compareKeys(t, at+"["+string(rune('0'+i))+"]", want[0], v)
			}
		}
	}
}

// A wrong configuration ends with exit code 2, the line and what would be right, and nothing is touched.
func TestConfigurationErrorsTouchNothing(t *testing.T) {
	r := newRig(t, Config{})
	text, err := os.ReadFile(r.File())
	if err != nil {
		t.Fatal(err)
	}
	good := string(text)
	before := names(t, r.cfg.Dir)
	for name, c := range map[string]struct {
		text string
		args []string
		says []string
	}{
		"unknown key":   {replaced(t, good, `mode = "sync"`, `mod = "sync"`), []string{"--insecure"}, []string{"cluster.hcl:", "mod"}},
		"wrong type":    {replaced(t, good, `size = "64MiB"`, `size = true`), []string{"--insecure"}, []string{"cluster.hcl:", "size"}},
		"two mistakes":  {replaced(t, replaced(t, good, `mode = "sync"`, `mode = "synk"`), `rto      = "2s"`, `rto      = "2ms"`), []string{"--insecure"}, []string{"synk", "2ms"}},
		"syntax":        {good + "}", []string{"--insecure"}, []string{"cluster.hcl:"}},
		"not insecure":  {good, nil, []string{"--insecure"}},
		"unknown node":  {good, []string{"--insecure", "--node", "delta"}, []string{"delta"}},
		"unknown flag":  {good, []string{"--insecure", "--frob"}, []string{"frob"}},
		"log level":     {good, []string{"--insecure", "--log-level", "loud"}, []string{"loud"}},
		"not supported": {replaced(t, good, `attach = "none"`, `attach = "ublk"`), []string{"--insecure"}, []string{"not supported yet"}},
		"not loopback":  {strings.ReplaceAll(good, "127.", "10."), []string{"--insecure"}, []string{"loopback"}},
	} {
		if err := os.WriteFile(r.File(), []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		errs, code := r.daemon(append([]string{"--config", r.File(), "--node", "alpha"}, c.args...)...)
		if code != 2 {
			t.Errorf("%s: exit code %d: %s", name, code, errs)
		}
		for _, w := range c.says {
			if !strings.Contains(errs, w) {
				t.Errorf("%s: %q does not say %q", name, errs, w)
			}
		}
		if after := names(t, r.cfg.Dir); !slices.Equal(before, after) {
			t.Errorf("%s: the folder held %v, and now %v", name, before, after)
		}
	}
	if _, code := r.daemon("--config", r.File()+".none", "--insecure", "--node", "alpha"); code != 2 {
		t.Errorf("a file that is not there: exit code %d", code)
	}
}

func names(t *testing.T, dir string) (all []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		all = append(all, path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// A stale socket of a killed daemon is replaced; the port of a live one is not.
func TestStaleSocketsAreReplaced(t *testing.T) {
	r := healthy(t, Config{RTO: "10s"}) // a busy machine alone must move no role here
	for _, n := range Nodes {
		r.Kill(n)
		if n != "gamma" {
			if _, err := os.Lstat(filepath.Join(r.cfg.Dir, n+".sock")); err != nil {
				t.Errorf("%s left no socket behind: this proves nothing (%v)", n, err)
			}
		}
		r.start(n)
		r.until("healthy", Healthy)
	}
	errs, code := r.daemon("--config", r.File(), "--node", "alpha", "--insecure")
	if code != 1 || !strings.Contains(errs, "another haclusterd") {
		t.Errorf("a second daemon of alpha: exit code %d: %s", code, errs)
	}
	if r.vol().State != "healthy" {
		t.Error("the second daemon disturbed the first")
	}
}

// faults.md C78: a file that differs is told, as it is on disk; the node runs with what is applied.
func TestC78ConfigurationThatDiffers(t *testing.T) {
	r := healthy(t, Config{RTO: "4s"})
	right, err := os.ReadFile(r.File())
	if err != nil {
		t.Fatal(err)
	}
	standby := other(r.vol().Primary)
	restart := func(text string) {
		r.stop(standby)
		if err := os.WriteFile(r.File(), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		r.start(standby)
	}
	restart(replaced(t, string(right), `    attach = "none"`+"\n  }", `    attach = "none"`+"\n  }\n  suspend_limit = \"50s\""))
	s := r.until("healthy", func(s *api.Status) bool { return Healthy(s) && node(s, standby).ConfigDiffers })
	if !node(s, "gamma").ConfigDiffers {
		t.Error("gamma's file, which is the same here, differs too")
	}
	restart(replaced(t, string(right), `rto      = "4s"`, `rto      = "3s"`))
	r.until("healthy", func(s *api.Status) bool { return Healthy(s) && node(s, standby).ConfigDiffers })
	if doc, _ := r.shown(standby); doc.RTOMs != 4000 {
		t.Errorf("%s runs with its file's rto, %d ms", standby, doc.RTOMs)
	}
	if err := os.WriteFile(r.File(), right, 0o600); err != nil {
		t.Fatal(err)
	}
	r.until("with the right file nothing differs", func(s *api.Status) bool {
		return Healthy(s) && !node(s, standby).ConfigDiffers && !node(s, "gamma").ConfigDiffers
	})
	r.same()
}

// Type=notify: a node that waits for the others keeps its start from timing out, and is ready, fed and stopping when it is.
func TestSystemdIsTold(t *testing.T) {
	r := newRig(t, Config{})
	path := filepath.Join(r.cfg.Dir, "notify")
	ln, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	until := func(what, want, never string) {
		t.Helper()
		ln.SetReadDeadline(time.Now().Add(patience))
		for b := make([]byte, 4096); ; {
			n, err := ln.Read(b)
			if err != nil {
				t.Fatalf("%s: %q does not come: %v", what, want, err)
			}
			if never != "" && strings.Contains(string(b[:n]), never) {
				t.Fatalf("%s: told %q", what, b[:n])
			}
			if strings.Contains(string(b[:n]), want) {
				return
			}
		}
	}
	r.SetEnv("gamma", "NOTIFY_SOCKET="+path, "WATCHDOG_USEC=1000000", "WATCHDOG_PID=")
	r.start("gamma")
	until("alone", "EXTEND_TIMEOUT_USEC=", "READY=1")
	until("alone", "WATCHDOG=1", "READY=1")
	r.start("alpha", "beta")
	until("with the others", "READY=1", "STOPPING=1")
	until("with the others", "WATCHDOG=1", "STOPPING=1")
	r.stop("gamma")
	until("stopped", "STOPPING=1", "")
}
