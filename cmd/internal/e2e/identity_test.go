package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"hacluster/blockdev/meta"
	"hacluster/cmd/internal/api"
)

// faults.md M67: a node whose directory was emptied must not vote under its old name. It stays out, saying why, until
// it is removed and added; then it is resynced and votes.
func TestM67WipedNodeStaysOutUntilItIsAddedAgain(t *testing.T) {
	r := healthy(t, Config{RTO: "10s"}) // a busy machine alone must move no role here
	l := r.load()
	wiped := other(r.vol().Primary)
	r.Kill(wiped)
	empty(t, r.DataDir(wiped))
	r.start(wiped)
	r.untilLog(wiped, "ha-admin node remove "+wiped)
	l.more(100)
	s := r.until("it is out of the set", func(s *api.Status) bool { return s.Quorum && !isMember(wiped)(s) })
	if s.Volumes[0].Epoch != 1 {
		t.Errorf("a wiped node moved the volume to epoch %d", s.Volumes[0].Epoch)
	}
	_, errs := r.admin(1, "node", "add", wiped)
	r.says(errs, "remove it first")
	r.admin(0, "node", "remove", wiped)
	r.until("it is removed", func(s *api.Status) bool {
		return s.Quorum && node(s, wiped).State == "removed" && !node(s, wiped).Voter
	})
	r.admin(0, "node", "add", wiped)
	r.until("it is resynced and votes", func(s *api.Status) bool { return Healthy(s) && node(s, wiped).Voter })
	l.more(50)
	r.Kill("gamma") // now its vote is needed
	l.more(100)
	r.start("gamma")
	r.until("healthy", Healthy)
	l.stop()
	r.same()
}

// faults.md M67: the same for the witness.
func TestM67WipedWitness(t *testing.T) {
	r := healthy(t, Config{RTO: "4s"})
	l := r.load()
	r.Kill("gamma")
	empty(t, r.DataDir("gamma"))
	r.start("gamma")
	r.untilLog("gamma", "ha-admin node remove gamma")
	r.admin(0, "node", "remove", "gamma")
	r.admin(0, "node", "add", "gamma")
	r.until("it votes", func(s *api.Status) bool { return Healthy(s) && node(s, "gamma").Voter })
	r.killed("its vote is needed", true)
	l.more(100)
	l.stop()
}

// faults.md M67, M69, M60, M59: Raft state that is damaged, of another node, or gone beside an identity; a directory of
// another node.
func TestM67M69DamagedOrForeignDirectoryIsRefused(t *testing.T) {
	r := healthy(t, Config{RTO: "4s"})
	l := r.load()
	standby := other(r.vol().Primary)
	spoil := map[string]func(dir string){
		"damaged": func(dir string) { overwrite(t, filepath.Join(dir, "raft", "state", "log", "wal-meta.db"), 16384) },
		"another node's": func(dir string) {
			empty(t, dir)
			copyDir(t, r.DataDir("gamma"), dir)
		},
		"identity is missing": func(dir string) {
			if err := os.Remove(filepath.Join(dir, "identity.json")); err != nil {
				t.Fatal(err)
			}
		},
		"identity is damaged": func(dir string) { overwrite(t, filepath.Join(dir, "identity.json"), 8) },
		"Raft of another": func(dir string) {
			empty(t, filepath.Join(dir, "raft"))
			copyDir(t, filepath.Join(r.DataDir("gamma"), "raft"), filepath.Join(dir, "raft"))
		},
	}
	words := map[string]string{"damaged": "remove the node", "another node's": "data_dir", "identity is missing": "identity.json is missing",
		"identity is damaged": "is damaged", "Raft of another": "belongs to"}
	r.stop(standby)
	keep := r.DataDir(standby) + ".kept"
	copyDir(t, r.DataDir(standby), keep)
	for name, do := range spoil {
		r.Kill("gamma") // so that what is copied is not written meanwhile
		do(r.DataDir(standby))
		r.start("gamma")
		if err := os.WriteFile(r.Log(standby), nil, 0o644); err != nil {
			t.Fatal(err)
		}
		r.start(standby)
		r.ends(standby, 1)
		r.untilLog(standby, words[name])
		empty(t, r.DataDir(standby))
		copyDir(t, keep, r.DataDir(standby))
	}
	l.more(50)
	r.start(standby)
	r.until("with its own directory it is taken", Healthy)
	l.stop()
	r.same()
}

// faults.md M70, M113: a directory that was copied: a second daemon on it while the first runs is refused, and so is an
// older copy that comes back.
func TestM70ClonedDirectory(t *testing.T) {
	r := healthy(t, Config{RTO: "10s"}) // a busy machine alone must move no role here
	l := r.load()
	standby := other(r.vol().Primary)
	clone := r.DataDir(standby) + ".clone"
	r.stop(standby)
	copyDir(t, r.DataDir(standby), clone)
	r.start(standby)
	r.until("healthy", Healthy)
	for _, dir := range []string{r.DataDir(standby), clone} { // the same directory, and the copy
		out, code := r.daemon("--config", r.File(), "--node", standby, "--insecure", "--data-dir", dir)
		if code != 1 {
			t.Errorf("a second daemon of %s on %s: exit code %d: %s", standby, dir, code, out)
		}
	}
	if v := r.vol(); v.State != "healthy" {
		t.Errorf("a clone that was refused made the volume %s", v.State)
	}
	// The old copy comes back in the place of the directory: its log and its promises went back.
	for range 2 { // until it had come further than the copy
		r.admin(0, "failover", "vol")
		r.until("healthy", Healthy)
	}
	r.stop(standby)
	empty(t, r.DataDir(standby))
	copyDir(t, clone, r.DataDir(standby))
	r.start(standby)
	r.ends(standby, 1)
	r.untilLog(standby, "was restored or copied")
	l.more(100)
	r.admin(0, "node", "remove", standby)
	empty(t, r.DataDir(standby))
	if err := os.WriteFile(r.Log(standby), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	r.start(standby)
	r.untilLog(standby, "ha-admin node add "+standby)
	r.admin(0, "node", "add", standby)
	r.until("healthy", Healthy)
	l.stop()
	r.same()
}

// R32, faults.md M70: a voter comes back with an old copy of its directory after all who could remember how far it had
// come were restarted as well. Its number as a process fits by then: only what they kept tells.
func TestM70OldCopyOfAVoterAfterTheOthersWereRestarted(t *testing.T) {
	r := healthy(t, Config{RTO: "4s"})
	clone := r.DataDir("gamma") + ".clone"
	r.stop("gamma")
	copyDir(t, r.DataDir("gamma"), clone)
	r.start("gamma")
	r.untilLog("gamma", "process=2") // it has come further than the copy
	r.admin(0, "failover", "vol")
	r.until("healthy", Healthy)
	r.stop("alpha") // the others have a new term, which gamma voted for or hears of
	r.start("alpha")
	r.until("healthy", Healthy)
	r.stop("gamma", "alpha", "beta")
	empty(t, r.DataDir("gamma"))
	copyDir(t, clone, r.DataDir("gamma"))
	r.start("alpha", "gamma") // alpha was away while the other two went on: it knows of that what they told it when it came back
	r.ends("gamma", 1)
	r.untilLog("gamma", "others remember")
	r.start("beta")
	r.until("the others serve without it", func(s *api.Status) bool { return s.Quorum && len(s.Volumes[0].InSync) == 2 })
}

// faults.md M59, M60, M66, M57: the superblock of a member is missing, of another volume, or damaged.
func TestM66SuperblockMissingForeignOrDamaged(t *testing.T) {
	r := healthy(t, Config{RTO: "30s"}) // a member is dropped after 7.5 s: it comes back as one
	l := r.load()
	primary := r.vol().Primary
	standby := other(primary)
	super := filepath.Join(r.DataDir(standby), "volumes", Volume, "superblock")
	right, err := os.ReadFile(super)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		bad  func()
		says string
	}{
		{"missing", func() {}, "is missing, yet this replica is a member"},
		{"another node's", func() {
			b, err := os.ReadFile(filepath.Join(r.DataDir(primary), "volumes", Volume, "superblock"))
			if err == nil {
				err = os.WriteFile(super, b, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
		}, "node: found"},
		{"of another size", func() {
			if err := meta.Create(super, meta.Superblock{Node: standby, Size: 4096, BlockSize: 4096, DevicePath: r.Disk(standby)}); err != nil {
				t.Fatal(err)
			}
		}, "size: found 4096"},
		{"damaged", func() {
			if err := os.WriteFile(super, make([]byte, len(right)), 0o600); err != nil {
				t.Fatal(err)
			}
		}, "superblock"},
	} {
		r.until("healthy", Healthy)
		r.Kill(standby) // one that stops in order under load is no member a moment later
		right, err := os.ReadFile(super)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(super); err != nil {
			t.Fatal(err)
		}
		c.bad()
		bad, _ := os.ReadFile(super) // nil: there is none
		r.start(standby)
		refused := false
		var between []byte // of two looks at which it was refused
		s := r.until(c.name+": it is refused", func(s *api.Status) bool {
			again := refused
			refused = s.Quorum && len(s.Volumes) == 1 && replica(s, standby).State == "failed" && replica(s, standby).Reason != ""
			if again && refused {
				return true
			}
			between, _ = os.ReadFile(super)
			return false
		})
		if string(between) != string(bad) {
			t.Errorf("superblock %s: it was written while it was refused", c.name)
		}
		if got := replica(s, standby).Reason; !strings.Contains(got, c.says) {
			t.Errorf("superblock %s: the reason is %q, want %q in it", c.name, got, c.says)
		}
		l.more(50) // after its drop: from there on a missing one may be made, for a replica that is compared from end to end
		if now, _ := os.ReadFile(super); string(now) != string(bad) && bad != nil {
			t.Errorf("superblock %s: it was written", c.name)
		}
		r.Kill(standby)
		if err := os.WriteFile(super, right, 0o600); err != nil {
			t.Fatal(err)
		}
		r.start(standby)
	}
	r.until("with its own superblock it is a member again", Healthy)
	l.stop()
	r.same()
}

// daemon runs haclusterd by itself until it ends.
func (r *rig) daemon(args ...string) (stderr string, code int) {
	r.t.Helper()
	ctx, cancel := r.within()
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(r.cfg.Bin, "haclusterd"), args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGKILL) }
	out, _ := cmd.CombinedOutput()
	return string(out), cmd.ProcessState.ExitCode()
}

func node(s *api.Status, name string) api.NodeStatus {
	for _, n := range s.Nodes {
		if n.Name == name {
			return n
		}
	}
	return api.NodeStatus{}
}

func empty(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			t.Fatal(err)
		}
	}
}

func copyDir(t *testing.T, from, to string) {
	t.Helper()
	if err := os.MkdirAll(to, 0o700); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("cp", "-a", from+"/.", to).CombinedOutput(); err != nil {
		t.Fatalf("copy %s: %v: %s", from, err, out)
	}
}

// overwrite spoils the first bytes of a file.
func overwrite(t *testing.T, path string, n int) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte(strings.Repeat("x", n)), 0); err != nil {
		t.Fatal(err)
	}
}

// faults.md G39: a node that still has the data of an earlier cluster, which had the same name and addresses, takes no
// part in the new one and disturbs nobody.
func TestG39NodeOfAnEarlierClusterOfTheSameNameIsRefused(t *testing.T) {
	r := healthy(t, Config{RTO: "10s"}) // a busy machine alone must move no role here
	r.load().stop()
	r.stop(Nodes...)
	old := r.DataDir("gamma") + ".old"
	copyDir(t, r.DataDir("gamma"), old)
	for _, n := range Nodes {
		empty(t, r.DataDir(n))
	}
	for _, n := range Nodes[:2] {
		if err := os.Remove(r.Disk(n)); err != nil {
			t.Fatal(err)
		}
	}
	r.start()
	r.until("the new cluster is healthy", Healthy)
	l := r.load()
	r.stop("gamma")
	keep := r.DataDir("gamma") + ".new"
	copyDir(t, r.DataDir("gamma"), keep)
	empty(t, r.DataDir("gamma"))
	copyDir(t, old, r.DataDir("gamma"))
	before := r.vol()
	r.start("gamma")
	r.untilLog("gamma", "refused: control call of another cluster")
	l.more(100)
	if v := r.vol(); v.Primary != before.Primary || v.Epoch != before.Epoch || v.State != api.VolumeHealthy {
		t.Errorf("primary %s, epoch %d, became %s, %d, %s", before.Primary, before.Epoch, v.Primary, v.Epoch, v.State)
	}
	r.Kill("gamma")
	empty(t, r.DataDir("gamma"))
	copyDir(t, keep, r.DataDir("gamma"))
	r.start("gamma")
	r.until("with its own data it votes", func(s *api.Status) bool {
		return Healthy(s) && node(s, "gamma").Voter && node(s, "gamma").State == "alive"
	})
	l.stop()
}
