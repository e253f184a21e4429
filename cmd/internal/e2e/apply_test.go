package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"hacluster/cmd/internal/api"
	"hacluster/cmd/internal/config"
)

// edited writes a file that differs from the cluster's own.
func (r *rig) edited(name string, replace ...string) string {
	r.t.Helper()
	src, err := os.ReadFile(r.File())
	if err != nil {
		r.t.Fatal(err)
	}
	text := string(src)
	for i := 0; i < len(replace); i += 2 {
		text = replaced(r.t, text, replace[i], replace[i+1])
	}
	path := filepath.Join(filepath.Dir(r.File()), name)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		r.t.Fatal(err)
	}
	return path
}

// shown is what a node runs with, as it prints it.
func (r *rig) shown(node string) (doc config.Document, text string) {
	r.t.Helper()
	ctx, cancel := r.within()
	defer cancel()
	text, errs, code := r.AdminAt(ctx, r.socket(node), "config", "show", "-o", "json")
	if code != 0 {
		r.t.Fatalf("config show on %s: %d %s", node, code, errs)
	}
	if err := json.Unmarshal([]byte(text), &doc); err != nil {
		r.t.Fatal(err)
	}
	return doc, text
}

// plan is what apply says of a file without doing it.
func (r *rig) plan(code int, file string) (p api.Applied) {
	r.t.Helper()
	out, _ := r.admin(code, "apply", file, "--plan", "-o", "json")
	if err := json.Unmarshal([]byte(out), &p); err != nil {
		r.t.Fatalf("%v: %s", err, out)
	}
	return p
}

func (r *rig) extra() string {
	d := filepath.Dir(r.File())
	return fmt.Sprintf(`volume "more" {
  size = "16MiB"
  replica "alpha" { device = "%[1]s/more-alpha.img" }
  replica "beta" { device = "%[1]s/more-beta.img" }
  export {
    nbd    = ["unix://%[1]s/${node.name}-more.sock"]
    attach = "none"
  }
}
volume "vol"`, d)
}

func volumeNamed(s *api.Status, name string) *api.VolumeStatus {
	for i := range s.Volumes {
		if s.Volumes[i].Name == name {
			return &s.Volumes[i]
		}
	}
	return nil
}

func TestSecondVolumeIsAddedWrittenAndRemoved(t *testing.T) {
	r := healthy(t, Config{})
	load := r.load()
	with := r.edited("with.hcl", `volume "vol"`, r.extra())
	out, _ := r.admin(0, "apply", with, "--yes")
	r.says(out, "add volume", "volume more", "applied: the configuration has version 2")
	s := r.until("the new volume is healthy", func(s *api.Status) bool {
		v := volumeNamed(s, "more")
		return v != nil && v.State == api.VolumeHealthy && s.ConfigVersion == 2
	})
	for _, n := range s.Nodes {
		if !n.ConfigDiffers {
			t.Errorf("the file of %s is the old one, and config_differs is false", n.Name)
		}
	}
	dir := filepath.Dir(r.File())
	uri := func(n string) string { return fmt.Sprintf("nbd+unix:///more?socket=%s/%s-more.sock", dir, n) }
	dev := r.dial(uri("alpha"), uri("beta"))
	data := []byte(strings.Repeat("x", 4096))
	if _, err := dev.WriteAt(data, 8192); err != nil {
		t.Fatal(err)
	}
	if err := dev.Flush(); err != nil {
		t.Fatal(err)
	}
	load.more(100) // the other volume goes on

	// A node that restarts with its old file runs with what is applied.
	r.stop("gamma")
	r.start("gamma")
	r.until("gamma is back", func(s *api.Status) bool { return s.Quorum && nodeNamed(s, "gamma").State == "alive" })
	if doc, _ := r.shown("gamma"); doc.Version != 2 || len(doc.Volumes) != 2 {
		t.Errorf("gamma runs with version %d and %d volumes", doc.Version, len(doc.Volumes))
	}
	install(t, with, r.File())
	r.until("no file differs", func(s *api.Status) bool {
		for _, n := range s.Nodes {
			if n.ConfigDiffers {
				return false
			}
		}
		return s.Quorum
	})

	without := r.edited("without.hcl", r.extra(), `volume "vol"`)
	_, errs := r.admin(3, "apply", without, "--yes")
	r.says(errs, "1 clients are connected", "--disconnect-clients")
	if _, err := dev.ReadAt(data, 8192); err != nil {
		t.Errorf("a refused removal cut the client off: %v", err)
	}
	r.admin(0, "apply", without, "--yes", "--disconnect-clients")
	r.until("it is gone", func(s *api.Status) bool { return s.Quorum && len(s.Volumes) == 1 && s.ConfigVersion == 3 })
	load.more(100)
	for _, n := range []string{"alpha", "beta"} {
		left, err := os.ReadFile(filepath.Join(dir, "more-"+n+".img"))
		if err != nil || string(left[8192:8192+4096]) != strings.Repeat("x", 4096) {
			t.Errorf("the data of the removed volume on %s: %v", n, err)
		}
		if aside, err := filepath.Glob(filepath.Join(r.DataDir(n), "removed", "more-*", "superblock")); err != nil || len(aside) != 1 {
			t.Errorf("its metadata on %s: %v, %v", n, aside, err)
		}
		if _, err := os.Stat(filepath.Join(r.DataDir(n), "volumes", "more")); !os.IsNotExist(err) {
			t.Errorf("its folder on %s: %v", n, err)
		}
		r.untilGone(filepath.Join(dir, n+"-more.sock")) // a node that runs with a configuration acts by it a moment later
	}
	load.stop()
	install(t, without, r.File())
	r.same()
}

func nodeNamed(s *api.Status, name string) (n api.NodeStatus) {
	for _, o := range s.Nodes {
		if o.Name == name {
			n = o
		}
	}
	return n
}

func install(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, b, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// A node that was away when a volume was removed with its data does the same when it is back, and a new volume of the
// same name is none of the old one's.
func TestRemovalReachesANodeThatWasAway(t *testing.T) {
	r := healthy(t, Config{})
	plain := r.edited("plain.hcl")
	with := r.edited("with.hcl", `volume "vol"`, r.extra())
	r.admin(0, "apply", with, "--yes")
	r.killedOfTwo("beta")
	out, _ := r.admin(0, "apply", plain, "--yes", "--delete-data")
	r.says(out, "remove volume", "not running with it yet: beta")
	dir := filepath.Dir(r.File())
	if _, err := os.Stat(filepath.Join(dir, "more-alpha.img")); !os.IsNotExist(err) {
		t.Errorf("the data on alpha is there: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "more-beta.img")); err != nil {
		t.Fatalf("the data on beta, which is away: %v", err)
	}
	r.admin(0, "apply", with, "--yes") // the same name again
	r.start("beta")
	r.until("both volumes are healthy", func(s *api.Status) bool {
		return s.Quorum && len(s.Volumes) == 2 && s.Volumes[0].State == api.VolumeHealthy && s.Volumes[1].State == api.VolumeHealthy
	})
}

// killedOfTwo kills a node when both volumes are healthy, once more if it was the only member of one by then.
func (r *rig) killedOfTwo(node string) {
	r.t.Helper()
	each := func(want func(api.VolumeStatus) bool) func(*api.Status) bool {
		return func(s *api.Status) bool {
			return s.Quorum && len(s.Volumes) == 2 && want(s.Volumes[0]) && want(s.Volumes[1])
		}
	}
	served := each(func(v api.VolumeStatus) bool { return v.Primary == other(node) && v.State == api.VolumeDegraded })
	for range blowsAtMost {
		r.until("both volumes are healthy", each(func(v api.VolumeStatus) bool { return v.State == api.VolumeHealthy }))
		r.Kill(node)
		if served(r.until("the other serves both", func(s *api.Status) bool {
			return served(s) || slices.ContainsFunc(s.Volumes, func(v api.VolumeStatus) bool { return slices.Equal(v.InSync, []string{node}) })
		})) {
			return
		}
		r.start(node)
	}
	r.t.Fatalf("each of %d times %s was no member of both volumes any more", blowsAtMost, other(node))
}

func TestChangedTargetReachesAllTimersOfAllNodes(t *testing.T) {
	r := healthy(t, Config{})
	load := r.load()
	longer := r.edited("longer.hcl", `rto      = "2s"`, `rto = "6s"`)
	if p := r.plan(0, longer); len(p.Steps) == 0 || p.Steps[0].Kind != config.StepChange || p.Steps[0].What != "rto" || len(config.Refused(p.Steps)) != 0 || p.Version != 1 || p.Applied {
		t.Errorf("planned %+v", p)
	}
	r.admin(0, "apply", longer, "--yes")
	for _, n := range Nodes {
		doc, _ := r.shown(n)
		want, err := config.TimersFor(6e9)
		if err != nil || doc.RTOMs != 6000 || doc.Timers.LeaseMs != float64(want.Lease.Milliseconds()) || doc.Timers.DropAfterMs != 1500 {
			t.Errorf("%s runs with %+v", n, doc.Timers)
		}
	}
	r.until("the primary holds a longer lease", func(s *api.Status) bool { return s.Quorum && nodeNamed(s, r.vol().Primary).LeaseMs > 840 })
	load.more(100)

	// Back again. A leader elected now waits for the longer leases; the failover needs more than the new target, once.
	r.admin(0, "apply", r.edited("shorter.hcl"), "--yes")
	for _, n := range Nodes {
		if doc, _ := r.shown(n); doc.RTOMs != 2000 || doc.Version < 3 {
			t.Errorf("%s runs with %+v", n, doc.Timers)
		}
	}
	load.more(100)
	primary, _, _ := r.killed("after the changes", false)
	load.more(100)
	r.start(primary)
	r.until("all is well again", Healthy)
	load.stop()
	r.same()
}

// faults.md C81
func TestC81RefusedPlanLeavesEverythingAsItWas(t *testing.T) {
	r := healthy(t, Config{})
	before := map[string]string{}
	for _, n := range Nodes {
		_, before[n] = r.shown(n)
	}
	bad := r.edited("bad.hcl", `/alpha.img"`, `/moved.img"`, `rto      = "2s"`, `rto = "3s"`)
	if p := r.plan(3, bad); len(config.Refused(p.Steps)) != 1 {
		t.Errorf("planned %+v", p)
	}
	out, errs := r.admin(3, "apply", bad, "--yes")
	r.says(out, "refused", "volume vol: replica alpha: device", "data does not move by itself", "change online")
	r.says(errs, "nothing is applied")
	_, errs = r.admin(1, "apply", r.edited("wrong.hcl", `mode = "sync"`, `mode = "fast"`), "--yes")
	r.says(errs, "wrong.hcl:", "unknown mode")
	for _, n := range Nodes {
		if _, now := r.shown(n); now != before[n] {
			t.Errorf("%s runs with another configuration:\n%s\nbefore:\n%s", n, now, before[n])
		}
	}
	if s := r.until("all is well", Healthy); s.ConfigVersion != 1 {
		t.Errorf("version %d", s.ConfigVersion)
	}
}

func TestOfTwoConcurrentAppliesOneWins(t *testing.T) {
	r := healthy(t, Config{})
	files := []string{r.edited("a.hcl", `rto      = "2s"`, `rto = "3s"`), r.edited("b.hcl", `rto      = "2s"`, `rto = "4s"`)}
	version := r.plan(0, files[0]).Version
	codes, errs := make([]int, 2), make([]string, 2)
	var goes sync.WaitGroup
	for i, f := range files {
		goes.Go(func() {
			ctx, cancel := r.within()
			defer cancel()
			for {
				_, errs[i], codes[i] = r.Admin(ctx, "apply", f, "--yes", "--on-version", fmt.Sprint(version), "--timeout", "20s")
				if codes[i] != 4 || ctx.Err() != nil { // leadership moves: nothing was done
					return
				}
			}
		})
	}
	goes.Wait()
	if codes[0]+codes[1] != 1 {
		t.Fatalf("exit codes %v, want 0 and 1: %q", codes, errs)
	}
	r.says(errs[0]+errs[1], "version")
	won := int64(3000)
	if codes[1] == 0 {
		won = 4000
	}
	for _, n := range Nodes {
		if doc, _ := r.shown(n); doc.RTOMs != won || doc.Version != version+1 {
			t.Errorf("%s runs with rto %d, version %d", n, doc.RTOMs, doc.Version)
		}
	}
}

func TestApplyWithoutQuorumEndsWithFour(t *testing.T) {
	r := healthy(t, Config{})
	file := r.edited("a.hcl", `rto      = "2s"`, `rto = "3s"`)
	standby := other(r.vol().Primary)
	r.Kill(standby, "gamma")
	ctx, cancel := r.within()
	defer cancel()
	_, errs, code := r.Admin(ctx, "apply", file, "--yes", "--timeout", "4s")
	if code != 4 {
		t.Fatalf("exit code %d: %s", code, errs)
	}
	r.start(standby, "gamma")
	r.until("all is well again", Healthy)
	r.admin(0, "apply", file, "--yes")
	if doc, _ := r.shown("gamma"); doc.RTOMs != 3000 {
		t.Errorf("gamma runs with %d", doc.RTOMs)
	}
}

func TestListenersAndLimitsChangeWhileClientsAreServed(t *testing.T) {
	r := healthy(t, Config{})
	load := r.load()
	dir := filepath.Dir(r.File())
	primary := r.vol().Primary
	file := r.edited("new.hcl", `rto      = "2s"`, "rto = \"2s\"\n  disk_deadline = \"7s\"\n  limits {\n    nbd_connections = 3\n    events = 500\n  }",
		`"unix://`+dir+`/${node.name}.sock", `, `"unix://`+dir+`/${node.name}.sock", "unix://`+dir+`/${node.name}-second.sock", `, `attach = "none"`, "attach = \"none\"", `  io   = "auto"`, "  io = \"auto\"\n  suspend_limit = \"30s\"")
	p := r.plan(0, file)
	kinds := map[config.StepKind]int{}
	for _, s := range p.Steps {
		kinds[s.Kind]++
	}
	if kinds[config.StepChange] != 5 || kinds[config.StepRestart] != 1 || len(p.Steps) != 6 { // a listener on each node, two times, one limit; the other limit
		t.Errorf("planned %+v", p.Steps)
	}
	r.admin(0, "apply", file, "--yes")
	second := r.dial(fmt.Sprintf("nbd+unix:///vol?socket=%s/%s-second.sock", dir, primary))
	if _, err := second.ReadAt(make([]byte, 4096), 0); err != nil {
		t.Errorf("the new listener: %v", err)
	}
	load.more(100)
	r.awaitFigures(primary, figures{`hacluster_queue_limit{queue="nbd connections",volume=""}`: 3, "hacluster_config_version": 2})
	doc, _ := r.shown("gamma")
	if doc.DiskDeadlineMs != 7000 || doc.Limits["nbd_connections"] != 3 || doc.Limits["events"] != 500 || doc.Volumes[0].SuspendLimitMs != 30000 {
		t.Errorf("gamma runs with %+v", doc)
	}
	r.admin(0, "apply", r.edited("old.hcl"), "--yes")
	for _, n := range []string{"alpha", "beta"} {
		if _, err := os.Stat(filepath.Join(dir, n+"-second.sock")); !os.IsNotExist(err) {
			t.Errorf("the listener that was taken away on %s: %v", n, err)
		}
	}
	load.stop()
}

func TestVolumeIsDeletedByName(t *testing.T) {
	r := healthy(t, Config{})
	load := r.load()
	install(t, r.edited("with.hcl", `volume "vol"`, r.extra()), r.File())
	r.admin(0, "apply", r.File(), "--yes")
	r.until("both volumes are healthy", func(s *api.Status) bool {
		v := volumeNamed(s, "more")
		return s.Quorum && v != nil && v.State == api.VolumeHealthy
	})
	dir := filepath.Dir(r.File())
	dev := r.dial(fmt.Sprintf("nbd+unix:///more?socket=%s/alpha-more.sock", dir), fmt.Sprintf("nbd+unix:///more?socket=%s/beta-more.sock", dir))
	if _, err := dev.WriteAt(make([]byte, 4096), 0); err != nil {
		t.Fatal(err)
	}
	_, errs := r.admin(3, "volume", "delete", "more", "--yes")
	r.says(errs, "1 clients are connected", "--disconnect-clients")
	out, _ := r.admin(0, "volume", "delete", "more", "--yes", "--disconnect-clients", "--delete-data")
	r.says(out, "remove volume", "volume more", "the configuration has version 3", "ha-admin config export")
	r.until("it is gone, and the files differ", func(s *api.Status) bool { return s.Quorum && len(s.Volumes) == 1 && nodeNamed(s, "beta").ConfigDiffers })
	for _, n := range []string{"alpha", "beta"} {
		if _, err := os.Stat(filepath.Join(dir, "more-"+n+".img")); !os.IsNotExist(err) {
			t.Errorf("its data on %s: %v", n, err)
		}
	}
	text, _ := r.admin(0, "config", "export")
	if err := os.WriteFile(r.File(), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	r.until("no file differs", func(s *api.Status) bool {
		return Healthy(s) && !nodeNamed(s, "alpha").ConfigDiffers && !nodeNamed(s, "beta").ConfigDiffers
	})
	_, errs = r.admin(1, "volume", "delete", "more", "--yes")
	r.says(errs, `no volume "more"`)
	load.more(100)
	load.stop()
	r.same()
}
