package scenario

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hacluster/cmd/internal/api"
	"hacluster/cmd/internal/lab/topology"
)

// fencedLab is a lab whose two servers are turned off by a program of the test at level 1, and by one of ours at level 2, if one is named.
type fencedLab struct {
	*topology.Lab
	t        *testing.T
	bin, dir string
}

func newFencedLab(t *testing.T, first, second, options string) *fencedLab {
	t.Helper()
	if testing.Short() {
		t.Skip("a lab takes its time: not with -short")
	}
	if err := topology.Permitted(); err != nil {
		t.Skip(err)
	}
	dir := t.TempDir()
	bin := filepath.Join(dir, "bin")
	if out, err := exec.Command("go", "build", "-o", bin+"/", "hacluster/cmd/haclusterd", "hacluster/cmd/ha-admin", "hacluster/cmd/internal/lab", "hacluster/cmd/internal/lab/disk/hadisk").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	ours, err := filepath.Abs("../../../../scripts/fence/" + second)
	if err != nil {
		t.Fatal(err)
	}
	agent := filepath.Join(dir, "fence_first")
	if err := os.WriteFile(agent, []byte("#!/bin/sh\n"+first+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	var blocks strings.Builder
	for _, n := range []string{"alpha", "beta"} {
		fmt.Fprintf(&blocks, "fence %q {\n  agent   = %q\n  timeout = \"2s\"\n  tries   = 1\n}\n", n, agent)
		if second != "" {
			fmt.Fprintf(&blocks, "fence %q {\n  level   = 2\n  agent   = %q\n  options = { %s }\n}\n", n, ours, strings.NewReplacer("{dir}", dir, "{node}", n).Replace(options))
		}
	}
	t.Setenv("HACLUSTER_LABS", filepath.Join(dir, "labs"))
	l, err := topology.Up(fmt.Sprintf("f%d", os.Getpid()), topology.Config{Bin: bin, Tools: bin, Fences: blocks.String()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Down(); err != nil {
			t.Error(err)
		}
		l.Wait()
	})
	if err := l.Start(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := WaitHealthy(ctx, l); err != nil {
		t.Fatal(err)
	}
	return &fencedLab{l, t, bin, dir}
}

// status is what a node says.
func (l *fencedLab) status(node string) (s api.Status) {
	out, err := exec.Command(filepath.Join(l.bin, "ha-admin"), "--server", filepath.Join(l.DataDir(node), "admin.sock"), "status", "-o", "json").Output()
	if err == nil {
		err = json.Unmarshal(out, &s)
	}
	if err != nil || len(s.Volumes) != 1 {
		return api.Status{Volumes: []api.VolumeStatus{{}}}
	}
	return s
}

// cutOff loses every packet between the primary and the others, its standby last: before, it could go on without that one.
func (l *fencedLab) cutOff() (old, heir string) {
	l.t.Helper()
	old = l.status("alpha").Volumes[0].Primary
	if heir = "alpha"; old == "alpha" {
		heir = "beta"
	}
	if err := l.Add(append(topology.Cut(old, "gamma", ""), topology.Cut(old, heir, "")...)...); err != nil {
		l.t.Fatal(err)
	}
	return old, heir
}

func (l *fencedLab) until(node, what string, want func(api.Status) bool) api.Status {
	l.t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		s := l.status(node)
		if want(s) {
			return s
		}
		if time.Now().After(end) {
			l.t.Fatalf("not within a minute: %s: %+v", what, s.Volumes[0])
		}
	}
}

func last(s api.Status, node string) api.FenceRecord {
	for _, n := range s.Nodes {
		if n.Name == node && n.Fence != nil && n.Fence.Last != nil {
			return *n.Fence.Last
		}
	}
	return api.FenceRecord{}
}

// faults.md F116: the first agent hangs with a child, is killed, and fence_lab turns off who was cut off.
func TestPrimaryThatIsCutOffIsTurnedOffAndFollowed(t *testing.T) {
	l := newFencedLab(t, "sleep 1000 & echo $! >>$0.left; wait", "fence_lab", `lab = "{lab}"`)
	old, heir := l.cutOff()
	s := l.until(heir, "the other follows", func(s api.Status) bool { return s.Volumes[0].Primary == heir && s.Quorum })
	if r := last(s, old); r.Word != "off" || r.Level != 2 || r.Unverified || !strings.Contains(r.Text, "took longer than 2s") {
		t.Errorf("%+v", r)
	}
	if ids, err := l.Pids(old); err != nil || len(ids) != 0 {
		t.Errorf("%s runs: %v, %v", old, ids, err)
	}
	b, err := os.ReadFile(filepath.Join(l.dir, "fence_first.left"))
	if err != nil {
		t.Fatal(err)
	}
	for _, pid := range strings.Fields(string(b)) {
		if b, err := os.ReadFile("/proc/" + pid + "/cmdline"); err == nil && len(b) > 0 {
			t.Errorf("process %s of the hung agent lives", pid)
		}
	}
	if err := l.Heal(); err != nil {
		t.Fatal(err)
	}
	if err := l.Start(old); err != nil {
		t.Fatal(err)
	}
	l.until(heir, "healthy", func(s api.Status) bool { return s.Volumes[0].State == api.VolumeHealthy })
}

func (l *fencedLab) admin(node string, args ...string) (out string, code int) {
	cmd := exec.Command(filepath.Join(l.bin, "ha-admin"), append([]string{"--server", filepath.Join(l.DataDir(node), "admin.sock")}, args...)...)
	b, _ := cmd.CombinedOutput()
	return string(b), cmd.ProcessState.ExitCode()
}

// faults.md F115: no agent can turn it off, so nobody follows before a person has done that and says so.
func TestNobodyFollowsWhoCannotBeTurnedOff(t *testing.T) {
	l := newFencedLab(t, "echo no such plug >&2; exit 1", "", "")
	old, heir := l.cutOff()
	s := l.until(heir, "its fencing failed twice", func(s api.Status) bool { return last(s, old).Failed >= 2 })
	if v := s.Volumes[0]; v.Primary != old || v.State != api.VolumeUnavailable || !strings.Contains(v.Reason, "fence confirm "+old) {
		t.Errorf("%+v", v)
	}
	if err := l.Kill(old); err != nil {
		t.Fatal(err)
	}
	var out string
	for code, end := 4, time.Now().Add(30*time.Second); code != 0; {
		if out, code = l.admin(heir, "fence", "confirm", old); code != 0 && code != 4 || time.Now().After(end) {
			t.Fatalf("exit code %d: %s", code, out)
		}
	}
	s = l.until(heir, "the other follows", func(s api.Status) bool { return s.Volumes[0].Primary == heir && s.Quorum })
	if r := last(s, old); r.Word != "confirmed" || !r.Off || r.Person == "" {
		t.Errorf("%+v", r)
	}
}
