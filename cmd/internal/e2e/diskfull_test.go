package e2e

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"hacluster/cmd/internal/api"
)

// small puts a node's data directory on a file system of its own.
func (r *rig) small(node, size string) {
	r.t.Helper()
	if os.Geteuid() != 0 {
		r.t.Skip("a small file system takes root, who may mount it")
	}
	dir := r.DataDir(node)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		r.t.Fatal(err)
	}
	if err := unix.Mount("hacluster-e2e", dir, "tmpfs", 0, "size="+size); err != nil {
		r.t.Skipf("a small file system takes CAP_SYS_ADMIN and tmpfs: mount: %v", err)
	}
	r.t.Cleanup(func() {
		r.Close()
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			r.t.Errorf("unmount %s: %v", dir, err)
		}
	})
}

// fill writes until there is no room left, and returns how to make room again.
func (r *rig) fill(node string) (free func()) {
	r.t.Helper()
	path := filepath.Join(r.DataDir(node), "filler")
	f, err := os.Create(path)
	if err != nil {
		r.t.Fatal(err)
	}
	defer f.Close()
	for size := 1 << 20; size > 0; {
		if _, err := f.Write(make([]byte, size)); errors.Is(err, unix.ENOSPC) {
			size /= 2
		} else if err != nil {
			r.t.Fatal(err)
		}
	}
	return func() {
		if err := os.Remove(path); err != nil {
			r.t.Error(err)
		}
	}
}

// faults.md D92: no room under the primary's data directory. What runs goes on or steps down; a new process refuses to
// start and says why; nothing is half written; the volume stays available from the other.
func TestD92DataDirectoryOfThePrimaryFull(t *testing.T) {
	r := newRig(t, Config{RTO: "4s"})
	r.small("alpha", "24m")
	r.start()
	r.until("healthy", Healthy)
	l := r.load()
	if p := r.vol().Primary; p != "alpha" {
		r.admin(0, "failover", "vol", "--to", "alpha")
	}
	free := r.fill("alpha")
	l.more(100)
	r.admin(0, "failover", "vol", "--to", "beta") // commits, an epoch in the superblock, whatever the room
	r.until("beta serves", PrimaryIs("beta"))
	l.more(100)
	r.Kill("alpha")
	identity, err := os.ReadFile(filepath.Join(r.DataDir("alpha"), "identity.json"))
	if err != nil {
		t.Fatal(err)
	}
	r.start("alpha")
	r.ends("alpha", 1)
	r.untilLog("alpha", "no space left on device")
	after, err := os.ReadFile(filepath.Join(r.DataDir("alpha"), "identity.json"))
	if err != nil || string(after) != string(identity) {
		t.Errorf("a start without room changed the identity from %q to %q, %v", identity, after, err)
	}
	l.more(100)
	free()
	r.start("alpha")
	r.until("with room it is taken again", Healthy)
	l.stop()
	r.same()
}

// faults.md D92: the Raft log of a standby's node needs a new file and there is no room: the node ends, saying so.
func TestD92RaftLogOfAStandbyFull(t *testing.T) {
	r := newRig(t, Config{RTO: "4s"})
	r.small("beta", "9m")
	r.start()
	r.until("healthy", Healthy)
	l := r.load()
	if p := r.vol().Primary; p != "alpha" {
		r.admin(0, "failover", "vol", "--to", "alpha")
	}
	// Removed and added again, so that a log has to be made where there is no room.
	r.Kill("beta")
	for _, name := range []string{"raft", "volumes", "identity.json", "known.json"} {
		if err := os.RemoveAll(filepath.Join(r.DataDir("beta"), name)); err != nil {
			t.Fatal(err)
		}
	}
	r.fillBut("beta", 64<<10)
	r.until("it was dropped", func(s *api.Status) bool { return s.Quorum && !isMember("beta")(s) })
	r.admin(0, "node", "remove", "beta")
	r.start("beta")
	r.untilLog("beta", "ha-admin node add beta")
	ctx, cancel := r.within()
	defer cancel()
	_, errs, code := r.Admin(ctx, "node", "add", "beta")
	if code != 1 {
		t.Errorf("a node without room for its log was added: exit code %d: %s", code, errs)
	}
	r.says(errs, "no space left on device")
	l.more(200)
	if err := os.Remove(filepath.Join(r.DataDir("beta"), "filler")); err != nil {
		t.Fatal(err)
	}
	r.admin(0, "node", "add", "beta") // nobody has to be restarted
	r.until("with room it is taken", Healthy)
	l.stop()
	r.same()
}

// fillBut fills all but a little.
func (r *rig) fillBut(node string, leave int64) {
	r.t.Helper()
	r.fill(node)
	path := filepath.Join(r.DataDir(node), "filler")
	st, err := os.Stat(path)
	if err == nil {
		err = os.Truncate(path, st.Size()-leave)
	}
	if err != nil {
		r.t.Fatal(err)
	}
}
