package e2e

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"hacluster/blockdev/frontend/nbd/nbdclient"
	"hacluster/cmd/internal/api"
)

// An ext4 image as large as a volume of imageSize, with files whose content is random.
const (
	imageSize  = "32MiB"
	imageFiles = 72
	imageFile  = 256 << 10
	piece      = 1 << 20
)

func fileName(i int) string { return fmt.Sprintf("file%03d", i) }

// image makes a file system, and the folder that it was made of.
func (r *rig) image(name string, seed byte) (dir string, content []byte) {
	r.t.Helper()
	g := rand.NewChaCha8([32]byte{seed})
	dir = filepath.Join(r.cfg.Dir, name)
	err := os.Mkdir(dir, 0o755)
	for i := range imageFiles {
		p := make([]byte, imageFile)
		_, _ = g.Read(p) // never fails
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, fileName(i)), p, 0o644)
		}
	}
	if err != nil {
		r.t.Fatal(err)
	}
	r.tool("mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-d", dir, dir+".img", "32M")
	if content, err = os.ReadFile(dir + ".img"); err != nil {
		r.t.Fatal(err)
	}
	return dir, content
}

// overwrite writes the whole volume and flushes it.
func (r *rig) overwrite(dev *nbdclient.Reconnecting, content []byte) {
	r.t.Helper()
	for off := 0; off < len(content); off += piece {
		if _, err := dev.WriteAt(content[off:min(off+piece, len(content))], int64(off)); err != nil {
			r.t.Fatal(err)
		}
	}
	if err := dev.Flush(); err != nil {
		r.t.Fatal(err)
	}
}

// read is the whole volume as its client sees it.
func (r *rig) read(dev *nbdclient.Reconnecting) []byte {
	r.t.Helper()
	content := make([]byte, dev.Size())
	for off := 0; off < len(content); off += piece {
		if _, err := dev.ReadAt(content[off:min(off+piece, len(content))], int64(off)); err != nil {
			r.t.Fatal(err)
		}
	}
	return content
}

// holdsFiles checks a file system and compares its files with those of the folder that it was made of.
func (r *rig) holdsFiles(content []byte, dir string) {
	r.t.Helper()
	out := dir + ".out"
	err := os.WriteFile(out+".img", content, 0o600)
	if err == nil {
		err = os.Mkdir(out, 0o755)
	}
	if err != nil {
		r.t.Fatal(err)
	}
	r.tool("e2fsck", "-f", "-n", out+".img")
	r.tool("debugfs", "-R", fmt.Sprintf("rdump / %q", out), out+".img")
	for i := range imageFiles {
		want, err := os.ReadFile(filepath.Join(dir, fileName(i)))
		if err != nil {
			r.t.Fatal(err)
		}
		if got, err := os.ReadFile(filepath.Join(out, fileName(i))); err != nil || !bytes.Equal(got, want) {
			r.t.Fatalf("%s has %d bytes, %v: not what it was at the last consistent point", fileName(i), len(got), err)
		}
	}
}

// behind fills the volume once with both replicas and once without the standby, which is left stopped.
func (r *rig) behind(before, after []byte) (primary, standby string) {
	r.t.Helper()
	dev := r.dial(r.URIs()...)
	defer dev.Close()
	r.overwrite(dev, before)
	r.until("healthy before it is left behind", Healthy)
	primary = r.vol().Primary
	standby = other(primary)
	r.Kill(standby)
	r.until("it was dropped", func(s *api.Status) bool { return PrimaryIs(primary)(s) && !isMember(standby)(s) })
	r.overwrite(dev, after)
	return primary, standby
}

// The primary is killed in the middle of a resync. A person has its target promoted, which returns to what it was before
// the resync touched it (R18): a file system without a fault, with every file.
func TestForcedStandbyReturnsFromAResyncWithItsFiles(t *testing.T) {
	needs(t, "e2fsprogs", "mke2fs", "e2fsck", "debugfs")
	if testing.Short() {
		t.Skip("real processes take their time: not with -short")
	}
	bin, err := tagged()
	if err != nil {
		t.Fatal(err)
	}
	r := healthy(t, Config{Bin: bin, Size: imageSize})
	dir, before := r.image("before", 1)
	_, after := r.image("after", 2)
	primary, standby := r.behind(before, after)
	r.Kill(primary)
	r.SetEnv(primary, "HACLUSTER_FAILPOINT=resync.copy:12") // SIGKILL to itself; there are more than 18 MiB to copy
	r.start(primary)
	r.until("it serves again", PrimaryIs(primary))
	r.start(standby)
	r.until("the primary is dead, and its target in pieces with a way back", func(s *api.Status) bool {
		if r.Pid(primary) != 0 || !s.Quorum || len(s.Volumes) != 1 || s.Volumes[0].State != "unavailable" {
			return false
		}
		p := replica(s, standby).Point
		return p != nil && p.Rollback
	})
	if now, err := os.ReadFile(r.Disk(standby)); err != nil || bytes.Equal(now, before) || bytes.Equal(now, after) {
		t.Fatalf("the resync did not end in its middle: %d bytes, %v", len(now), err)
	}
	_, errs := r.admin(3, "failover", "vol", "--to", standby, "--force")
	r.says(errs, "--accept-data-loss")
	r.admin(0, "failover", "vol", "--to", standby, "--force", "--accept-data-loss")
	r.until("it serves", PrimaryIs(standby))
	dev := r.dial(r.URIs()...)
	got := r.read(dev)
	dev.Close()
	r.holdsFiles(got, dir)
	if !bytes.Equal(got, before) {
		t.Error("the volume is not, to the byte, what it was before the resync")
	}
	if n := len(r.happened(standby, "rollback ended")); n != 1 {
		t.Errorf("%d rollbacks ended, want 1", n)
	}
	r.SetEnv(primary)
	r.start(primary)
	r.until("the old primary is resynced, and what it had is kept", Healthy)
	r.same()
}

// A resync that needs more than undo_limit goes on without a way back, and says which setting to raise.
func TestResyncBeyondItsUndoLimitSaysWhichSettingToRaise(t *testing.T) {
	r := healthy(t, Config{Extra: `  undo_limit = "8MiB"`})
	before, after := make([]byte, 24<<20), make([]byte, 24<<20)
	g := rand.NewChaCha8([32]byte{3})
	_, _ = g.Read(before) // never fails
	_, _ = g.Read(after)
	_, standby := r.behind(before, after)
	r.start(standby)
	r.until("healthy", Healthy)
	if told := r.happened(standby, "no way back"); len(told) != 1 {
		t.Errorf("told %q, want one", told)
	} else {
		r.says(told[0], "its limit is 8388608 bytes", "raise undo_limit")
	}
	r.same()
}
