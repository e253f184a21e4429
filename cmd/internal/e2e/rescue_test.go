package e2e

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"hacluster/cmd/internal/api"
)

// rescued are the rescue images as a script sees them.
func (r *rig) rescued() (all []api.RescueImage) {
	r.t.Helper()
	out, _ := r.admin(0, "volume", "rescue", "list", "-o", "json")
	if err := json.Unmarshal([]byte(out), &all); err != nil {
		r.t.Fatal(err)
	}
	return all
}

// export has an image written to a file and reads that.
func (r *rig) export(id, name string, more ...string) []byte {
	r.t.Helper()
	path := filepath.Join(r.cfg.Dir, name)
	r.admin(0, append([]string{"volume", "rescue", "export", "vol", id, "--out", path}, more...)...)
	content, err := os.ReadFile(path)
	if err != nil {
		r.t.Fatal(err)
	}
	return content
}

// A primary that is alone acknowledges writes and is lost. A person has the stale replica promoted. When the old primary
// returns it is resynced, and every acknowledged write that it had is in its rescue image: a file system without a fault, with
// every file, to the byte, also while clients write, after a move of the primary, and after a restart (R19).
func TestRescueImageIsTheVolumeThatAForcedPromotionLeftBehind(t *testing.T) {
	needs(t, "e2fsprogs", "mke2fs", "e2fsck", "debugfs")
	r := healthy(t, Config{Size: imageSize})
	_, before := r.image("before", 1)
	dir, after := r.image("after", 2)
	primary, standby := r.behind(before, after)
	r.Kill(primary)
	r.start(standby)
	r.until("nobody serves", func(s *api.Status) bool {
		return s.Quorum && len(s.Volumes) == 1 && s.Volumes[0].State == "unavailable" && replica(s, standby).State == "out_of_sync"
	})
	r.admin(0, "failover", "vol", "--to", standby, "--force", "--accept-data-loss")
	r.until("it serves", PrimaryIs(standby))
	dev := r.dial(r.URIs()...)
	defer dev.Close()
	g := rand.NewChaCha8([32]byte{7})
	scribble := func(from int64) { // everywhere, as clients do
		t.Helper()
		p := make([]byte, 64<<10)
		for off := from; off < int64(len(after)); off += piece {
			_, _ = g.Read(p) // never fails
			if _, err := dev.WriteAt(p, off); err != nil {
				t.Fatal(err)
			}
		}
	}
	scribble(0)
	r.start(primary)
	r.until("the old primary is resynced", Healthy)
	scribble(128 << 10)
	all := r.rescued()
	if len(all) != 1 || !all[0].Whole || all[0].Node != primary || all[0].Bytes == 0 || all[0].Closed == nil {
		t.Fatalf("rescue images %+v, want one of %s", all, primary)
	}
	id := all[0].ID
	if s := r.until("status tells of it", Healthy); replica(s, primary).Rescue == nil || replica(s, primary).Rescue.Images != 1 || replica(s, standby).Rescue != nil {
		t.Errorf("of the replicas: %+v and %+v", replica(s, primary).Rescue, replica(s, standby).Rescue)
	}
	out, _ := r.admin(0, "volume", "rescue", "show", "vol", id)
	r.says(out, id, primary, "whole volume")
	got := r.export(id, "first.img")
	r.holdsFiles(got, dir)
	if !bytes.Equal(got, after) {
		t.Fatal("the export is not, to the byte, what the old primary had")
	}
	r.admin(1, "volume", "rescue", "export", "vol", id, "--out", filepath.Join(r.cfg.Dir, "first.img")) // never over a file
	r.admin(0, "failover", "vol", "--to", primary)
	r.until("moved back", PrimaryIs(primary))
	scribble(256 << 10)
	r.stop(primary)
	r.start(primary)
	r.until("healthy after its restart", Healthy)
	scribble(512 << 10)
	if got := r.export(id, "second.img"); !bytes.Equal(got, after) {
		t.Fatal("after a move and a restart the export is not what the old primary had")
	}
	r.Kill(primary)
	r.start(primary)
	r.until("healthy after a crash", Healthy)
	_, errs := r.admin(3, "volume", "rescue", "export", "vol", id, "--out", filepath.Join(r.cfg.Dir, "third.img"))
	r.says(errs, "--partial")
	r.export(id, "third.img", "--partial")
	out, _ = r.admin(3, "volume", "delete", "vol", "--delete-data", "--disconnect-clients") // nobody says yes
	r.says(out, "volume vol: rescue image "+id, "on "+primary, "rescue export vol "+id)
	r.admin(3, "volume", "rescue", "delete", "vol", id)
	r.admin(0, "volume", "rescue", "delete", "vol", id, "--yes")
	if all := r.rescued(); len(all) != 0 {
		t.Errorf("left: %+v", all)
	}
	if _, err := os.Stat(filepath.Join(r.DataDir(primary), "volumes", "vol", "rescue", id)); !os.IsNotExist(err) {
		t.Errorf("the image is still there: %v", err)
	}
	_, errs = r.admin(1, "volume", "rescue", "show", "vol", id)
	r.says(errs, id, "volume rescue list")
	r.same()
}

// Without room for the image nothing is overwritten that it lacks; what to do is said, and a person may do without (R19).
func TestResyncWithoutRoomForItsRescueImageWaitsForAPerson(t *testing.T) {
	r := healthy(t, Config{Extra: `  undo_limit = "8MiB"`})
	before, after := make([]byte, 24<<20), make([]byte, 24<<20)
	g := rand.NewChaCha8([32]byte{3})
	_, _ = g.Read(before) // never fails
	_, _ = g.Read(after)
	primary, standby := r.behind(before, after)
	r.Kill(primary)
	r.start(standby)
	r.until("nobody serves", func(s *api.Status) bool {
		return s.Quorum && len(s.Volumes) == 1 && s.Volumes[0].State == "unavailable" && replica(s, standby).State == "out_of_sync"
	})
	r.admin(0, "failover", "vol", "--to", standby, "--force", "--accept-data-loss")
	r.until("it serves", PrimaryIs(standby))
	r.start(primary)
	s := r.until("it waits", func(s *api.Status) bool {
		return s.Quorum && len(s.Volumes) == 1 && replica(s, primary).State == "out_of_sync" && strings.Contains(replica(s, primary).Reason, "undo_limit")
	})
	if told := r.happened(primary, "resync waits"); len(told) == 0 {
		t.Error("no event says that it waits")
	}
	r.says(replica(s, primary).Reason, "--discard-target-data", "volume resync vol --replica "+primary)
	if p := replica(s, primary).Point; p == nil || !p.Rollback {
		t.Errorf("the way back of the one that waits is %+v", p)
	}
	r.admin(0, "volume", "resync", "vol", "--replica", primary, "--discard-target-data")
	r.until("healthy", Healthy)
	all := r.rescued()
	if len(all) != 1 || all[0].Whole || all[0].Complete || all[0].Bytes == 0 {
		t.Fatalf("images %+v, want what there was room for", all)
	}
	out, _ := r.admin(0, "volume", "rescue", "show", "vol", all[0].ID)
	r.says(out, "all that was overwritten  no", "a person had the resync go on")
	got, had := r.export(all[0].ID, "part.img", "--partial"), int64(0)
	for at := 0; at < len(after); at += 4096 {
		if bytes.Equal(got[at:at+4096], after[at:at+4096]) {
			had += 4096
		}
	}
	if had < all[0].Bytes {
		t.Errorf("%d bytes of what it had are in the export, the image has %d", had, all[0].Bytes)
	}
	r.same()
}
