package e2e

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"hacluster/blockdev/frontend/attach"
	"hacluster/blockdev/frontend/nbd/nbdclient"
	"hacluster/cmd/internal/api"
)

// wal is the second volume of a group in tests.
const wal = "wal"

// allAre is a condition for until: every volume is in that state.
func allAre(state string) func(*api.Status) bool {
	return func(s *api.Status) bool {
		for _, v := range s.Volumes {
			if v.State != state {
				return false
			}
		}
		return s.Quorum && len(s.Volumes) > 0
	}
}

// primaryOfAll is a condition for until: the node serves every volume.
func primaryOfAll(node string) func(*api.Status) bool {
	return func(s *api.Status) bool {
		for _, v := range s.Volumes {
			if v.Primary != node || v.State == api.VolumeUnavailable || v.State == api.VolumeSuspended {
				return false
			}
		}
		return s.Quorum && len(s.Volumes) > 0
	}
}

// group is a healthy cluster with the volumes vol and wal.
func group(t *testing.T, cfg Config) *rig {
	t.Helper()
	cfg.More = []string{wal}
	r := newRig(t, cfg)
	r.start()
	r.until("both volumes are healthy", allAre(api.VolumeHealthy))
	return r
}

// dialOf connects to one volume on a node.
func (r *rig) dialOf(node, volume string) *nbdclient.Client {
	r.t.Helper()
	ctx, cancel := r.within()
	defer cancel()
	c, err := nbdclient.Dial(ctx, r.URIOf(node, volume))
	if err != nil {
		r.t.Fatalf("connect to %s of %s: %v", volume, node, err)
	}
	r.t.Cleanup(c.Abort)
	return c
}

// sameFiles stops everything and compares the replicas of every volume.
func (r *rig) sameFiles() {
	r.t.Helper()
	s := r.until("healthy at the end", allAre(api.VolumeHealthy))
	r.stop(other(s.Volumes[0].Primary), s.Volumes[0].Primary, "gamma")
	for _, v := range []string{Volume, wal} {
		a, err := os.ReadFile(r.DiskOf("alpha", v))
		if err != nil {
			r.t.Fatal(err)
		}
		b, err := os.ReadFile(r.DiskOf("beta", v))
		if err != nil || !bytes.Equal(a, b) {
			r.t.Errorf("the replicas of %s are not equal (%v)", v, err)
		}
	}
}

func filled(with byte) []byte { return bytes.Repeat([]byte{with}, 64<<10) }

// holds checks what a volume has at an offset.
func (r *rig) hasAt(node, volume string, off int64, want []byte) {
	r.t.Helper()
	got := make([]byte, len(want))
	if _, err := r.dialOf(node, volume).ReadAt(got, off); err != nil || !bytes.Equal(got, want) {
		r.t.Errorf("%s on %s at %d holds %x..., want %x... (%v)", volume, node, off, got[:4], want[:4], err)
	}
}

// One entry moves all volumes of a group to one node, and each is a volume of its own to its clients.
func TestGroupMovesAsOneAndEachVolumeIsItsOwn(t *testing.T) {
	r := group(t, Config{})
	s := r.until("healthy", allAre(api.VolumeHealthy))
	primary, epoch := s.Volumes[0].Primary, s.Volumes[0].Epoch
	one := func(s *api.Status) {
		t.Helper()
		if len(s.Volumes) != 2 {
			t.Fatalf("status lists %+v", s.Volumes)
		}
		a, b := s.Volumes[0], s.Volumes[1]
		if a.Name != Volume || b.Name != wal || a.Group != Group || b.Group != Group || a.Epoch != b.Epoch || a.Primary != b.Primary || a.Size != 64<<20 || b.Size != 64<<20 {
			t.Errorf("the volumes of the group: %+v and %+v", a, b)
		}
	}
	one(s)
	end := int64(64<<20 - len(filled(0)))
	for i, v := range []string{Volume, wal} {
		c := r.dialOf(primary, v)
		if c.Size() != 64<<20 {
			t.Errorf("%s has %d bytes", v, c.Size())
		}
		for _, off := range []int64{0, end} {
			if _, err := c.WriteAt(filled(byte('a'+i)), off); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := c.WriteAt(filled('x'), end+4096); err == nil {
			t.Errorf("%s takes a write behind its end", v)
		}
		if err := c.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	is := func(node string) {
		t.Helper()
		for i, v := range []string{Volume, wal} {
			r.hasAt(node, v, 0, filled(byte('a'+i)))
			r.hasAt(node, v, end, filled(byte('a'+i)))
			r.hasAt(node, v, 1<<20, make([]byte, 4096))
		}
	}
	is(primary)

	out, _ := r.admin(0, "failover", wal, "--to", other(primary))
	r.says(out, "wal is part of group grp, which moved as a whole", "grp from "+primary+" to "+other(primary))
	s = r.until("moved", primaryOfAll(other(primary)))
	one(s)
	if s.Volumes[0].Epoch != epoch+1 {
		t.Errorf("one hand-over led from epoch %d to %d", epoch, s.Volumes[0].Epoch)
	}
	is(other(primary))
	r.until("healthy again", allAre(api.VolumeHealthy))
	r.Kill(other(primary))
	one(r.until("taken over", primaryOfAll(primary)))
	is(primary)
	r.start(other(primary))
	r.until("healed", allAre(api.VolumeHealthy))
	out, _ = r.admin(0, "volume", "verify", wal)
	r.says(out, "128 MiB of 128 MiB", "no difference") // of the whole group
	r.sameFiles()
}

// What a group has stays as it is, and an apply that would change it says so, with the line, and what to do.
func TestGroupIsAppliedAndRemovedAsAWhole(t *testing.T) {
	r := group(t, Config{})
	text, err := os.ReadFile(r.File())
	if err != nil {
		t.Fatal(err)
	}
	change := func(name, to string) string {
		path := filepath.Join(r.cfg.Dir, name)
		if err := os.WriteFile(path, []byte(to), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	i := strings.Index(string(text), `volume "wal"`)
	_, errs := r.admin(3, "volume", "resize", wal, "96MiB", "--yes")
	r.says(errs, "volume wal: size", "64MiB -> 96MiB: the volumes of a group keep their sizes")
	_, errs = r.admin(3, "apply", change("less.hcl", string(text[:i])), "--yes")
	r.says(errs, "volume wal: it is part of group grp, of which others stay")
	_, errs = r.admin(3, "volume", "delete", wal, "--yes", "--disconnect-clients")
	r.says(errs, "it is part of group grp")
	out := replaced(t, string(text[i:]), "  group = \"grp\"\n", "")
	_, errs = r.admin(3, "apply", change("out.hcl", string(text[:i])+out), "--yes")
	r.says(errs, "volume wal: group", "grp -> none")

	first := strings.Index(string(text), `volume "vol"`)
	r.admin(0, "apply", change("none.hcl", string(text[:first])), "--yes", "--delete-data")
	r.until("both are gone", func(s *api.Status) bool { return s.Quorum && len(s.Volumes) == 0 })
	for _, n := range []string{"alpha", "beta"} {
		for _, v := range []string{Volume, wal} {
			r.untilGone(r.DiskOf(n, v))
		}
	}
	r.admin(0, "apply", r.File(), "--yes")
	s := r.until("made anew", allAre(api.VolumeHealthy))
	if len(s.Volumes) != 2 {
		t.Fatalf("%+v", s.Volumes)
	}
	r.hasAt(s.Volumes[0].Primary, wal, 0, make([]byte, 4096))
}

// untilGone waits until a file is not there any more.
func (r *rig) untilGone(path string) {
	r.t.Helper()
	ctx, cancel := r.within()
	defer cancel()
	for {
		if _, err := os.Stat(path); os.IsNotExist(err) {
			return
		}
		if ctx.Err() != nil {
			r.t.Fatal(fmt.Errorf("%s is there still", path))
		}
	}
}

// A service of several volumes of a group is where the group is, after a hand-over, a kill and a stop of its node.
func TestServiceFollowsAGroup(t *testing.T) {
	s := newServed(t, Config{RTO: "6s", More: []string{wal}}, true)
	healthy := allAre(api.VolumeHealthy)
	was := s.until("healthy", healthy).Volumes[0].Primary
	s.running(was, 0)
	n := len(s.runs())
	s.admin(0, "failover", wal, "--to", other(was))
	s.moved(other(was), n)
	s.until("healthy again", healthy)
	was, n = other(was), len(s.runs())
	s.Kill(was)
	s.moved(other(was), n)
	s.start(was)
	s.until("healthy again", healthy)
	was, n = other(was), len(s.runs())
	s.stop(was)
	s.moved(other(was), n)
}

// A hand-over lets the devices of all volumes go, or none: with one of them in use it is refused, names who uses which, and leaves both.
func TestDevicesOfAGroupGoTogetherOrNotAtAll(t *testing.T) {
	if err := attach.Supported(); err != nil {
		t.Skipf("no device can be attached here: %v", err)
	}
	r := group(t, Config{Attach: "fuse", RTO: "6s"})
	node := r.until("healthy", allAre(api.VolumeHealthy)).Volumes[0].Primary
	s := r.until("the devices are there", devicesOn(node))
	for i, v := range []string{Volume, wal} {
		if s.Volumes[i].Device != r.DeviceOf(node, v) {
			t.Errorf("the device of %s is said to be %s", v, s.Volumes[i].Device)
		}
		if err := save(r.DeviceOf(node, v), filled(byte('a'+i))); err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.Open(r.DeviceOf(node, wal))
	if err != nil {
		t.Fatal(err)
	}
	_, errs := r.admin(3, "failover", Volume)
	r.says(errs, r.DeviceOf(node, wal), "of volume \"wal\" is in use on "+node)
	r.until("both devices are there again", devicesOn(node))
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	r.admin(0, "failover", Volume, "--to", other(node))
	r.until("both devices have moved", devicesOn(other(node)))
	for i, v := range []string{Volume, wal} {
		got, want := make([]byte, 64<<10), filled(byte('a'+i))
		f, err := os.Open(r.DeviceOf(other(node), v))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(f, got); err != nil || !bytes.Equal(got, want) {
			t.Errorf("the device of %s has %x... (%v)", v, got[:4], err)
		}
		f.Close()
	}
}
