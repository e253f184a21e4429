package e2e

import (
	"os"
	"testing"

	"hacluster/cmd/internal/api"
)

// prepare makes a backing with a stamp in one of its blocks.
func (r *rig) prepare(node string, block int64, seq uint64) {
	r.t.Helper()
	f, err := os.OpenFile(r.Disk(node), os.O_CREATE|os.O_RDWR, 0o600)
	if err == nil {
		err = f.Truncate(64 << 20)
	}
	if err == nil {
		_, err = f.WriteAt(stamped(block, seq), block*StampSize)
	}
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) holds(dev interface {
	ReadAt([]byte, int64) (int, error)
}, block int64, want uint64) {
	r.t.Helper()
	p := make([]byte, StampSize)
	if _, err := dev.ReadAt(p, block*StampSize); err != nil {
		r.t.Fatal(err)
	}
	if seq, err := readStamp(p, block); err != nil || seq != want {
		r.t.Errorf("block %d holds write %d (%v), want %d", block, seq, err, want)
	}
}

// A device with content is neither formatted nor trusted in silence; a person says whose content is kept.
func TestFirstStartWithContentOnBothKeepsTheOneThatIsNamed(t *testing.T) {
	r := newRig(t, Config{})
	r.prepare("alpha", 7, 100)
	r.prepare("beta", 7, 200)
	r.prepare("beta", 9, 201)
	r.start()
	r.waits("alpha", "beta")
	_, errs := r.admin(3, "volume", "create", "vol")
	r.says(errs, "--initial-from", "--discard-data")
	_, errs = r.admin(3, "failover", "vol", "--to", "alpha", "--force", "--accept-data-loss")
	r.says(errs, "never in use", "--initial-from")
	r.admin(1, "volume", "create", "vol", "--initial-from", "gamma")
	r.admin(2, "volume", "create", "vol", "--initial-from", "beta", "--discard-data")
	r.admin(0, "volume", "create", "vol", "--initial-from", "beta")
	s := r.until("the other is synced", Healthy)
	if s.Volumes[0].Primary != "beta" {
		t.Errorf("%s is primary, the data is beta's", s.Volumes[0].Primary)
	}
	r.admin(1, "volume", "create", "vol", "--discard-data")
	dev := r.dial(r.URIs()...)
	r.holds(dev, 7, 200)
	r.holds(dev, 9, 201)
	r.admin(0, "failover", "vol", "--to", "alpha")
	r.holds(dev, 7, 200)
	r.holds(dev, 9, 201)
	dev.Close()
	r.same()
}

// One replica with content, one without: not healthy by itself either.
func TestFirstStartWithContentOnOneDiscarded(t *testing.T) {
	r := newRig(t, Config{})
	r.prepare("beta", 7, 200)
	r.start()
	r.waits("beta")
	r.admin(0, "volume", "create", "vol", "--discard-data")
	r.until("healthy", Healthy)
	l := r.load()
	l.stop()
	r.same()
}

// waits checks that the volume stays unavailable because these nodes' replicas hold data.
func (r *rig) waits(nodes ...string) {
	r.t.Helper()
	s := r.until("it waits for a person's word", func(s *api.Status) bool {
		return s.Quorum && len(s.Volumes) == 1 && s.Volumes[0].State == "unavailable" && s.Volumes[0].Primary == "" &&
			replica(s, "alpha").State != "offline" && replica(s, "beta").State != "offline"
	})
	for _, n := range nodes {
		r.says(s.Volumes[0].Reason, "the replica on "+n+" holds data", "ha-admin volume create vol --initial-from")
	}
	out, _ := r.admin(0, "status")
	r.says(out, "holds data")
	r.refused("alpha")
	r.refused("beta")
}

// A founding that one node refuses, because its file differs, is done when that is mended: nobody has to be restarted.
func TestFirstStartWithADifferingFileIsMended(t *testing.T) {
	r := newRig(t, Config{})
	right, err := os.ReadFile(r.File())
	if err != nil {
		t.Fatal(err)
	}
	swap := func(b []byte) {
		if err := os.WriteFile(r.File(), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	swap([]byte(replaced(t, string(right), `size = "64MiB"`, `size = "63MiB"`)))
	r.start("gamma") // the last that is asked
	r.untilLog("gamma", "not part of a cluster")
	swap(right)
	r.start("alpha", "beta")
	r.untilLog("alpha", "cluster.hcl differs")
	r.Kill("gamma")
	r.start("gamma")
	r.until("founded after all", Healthy)
	r.same()
}
