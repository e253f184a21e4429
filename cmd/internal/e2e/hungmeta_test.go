package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"hacluster/cmd/internal/api"
)

// freezable puts the superblocks of a node on a file system of their own, and returns how to make its disk hang and how
// to let it go on.
func (r *rig) freezable(node string) (freeze, thaw func()) {
	r.t.Helper()
	if os.Geteuid() != 0 {
		r.t.Skip("a file system that can be frozen takes root, who may mount and freeze it")
	}
	needs(r.t, "e2fsprogs", "mkfs.ext4")
	needs(r.t, "mount", "mount", "umount")
	needs(r.t, "util-linux", "fsfreeze")
	dir := filepath.Join(r.DataDir(node), "volumes")
	image := r.DataDir(node) + ".fs"
	if err := os.MkdirAll(dir, 0o700); err != nil {
		r.t.Fatal(err)
	}
	run := func(name string, args ...string) error {
		out, err := exec.Command(name, args...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, out)
		}
		return nil
	}
	if err := errors.Join(run("truncate", "-s", "16M", image), run("mkfs.ext4", "-q", image)); err != nil {
		r.t.Fatal(err)
	}
	if err := run("mount", "-o", "loop", image, dir); err != nil {
		r.t.Skipf("a file system that can be frozen takes CAP_SYS_ADMIN, ext4 and the loop driver with a free device: %v", err)
	}
	var once sync.Once
	thaw = func() {
		once.Do(func() {
			if err := run("fsfreeze", "-u", dir); err != nil {
				r.t.Log(err)
			}
		})
	}
	r.t.Cleanup(func() {
		r.Close()
		if err := run("umount", dir); err != nil {
			r.t.Errorf("unmount %s: %v", dir, err)
		}
	})
	return func() {
		if err := run("fsfreeze", "-f", dir); err != nil {
			r.t.Skipf("the kernel does not freeze the file system (FIFREEZE takes CAP_SYS_ADMIN where it was mounted): %v", err)
		}
		r.t.Cleanup(thaw)
	}, thaw
}

// R26, faults.md D94: the disk of a superblock hangs just when a new epoch has to be stored. The node ends and says why,
// so that the volume can go on elsewhere; afterwards it comes back.
func TestD94HungDiskOfASuperblockEndsTheNode(t *testing.T) {
	r := newRig(t, Config{RTO: "8s", Cluster: `  disk_deadline = "2s"`})
	freeze, thaw := r.freezable("beta")
	r.start()
	r.until("healthy", Healthy)
	l := r.load()
	l.more(50)
	for r.until("healthy, for beta to be promoted", Healthy).Volumes[0].Primary != "alpha" {
		r.admin(0, "failover", "vol", "--to", "alpha")
	}
	freeze()
	r.Kill("alpha") // beta is promoted and cannot store the epoch
	r.untilLog("beta", "the disk hangs")
	r.untilLog("beta", "write the superblock of volume vol")
	thaw() // its process could not end before
	r.ends("beta", 1)
	r.start("alpha", "beta")
	r.until("it serves again", func(s *api.Status) bool { return Healthy(s) })
	l.more(50)
	l.stop()
	r.same()
}
