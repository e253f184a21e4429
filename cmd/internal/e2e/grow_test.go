package e2e

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"

	"hacluster/blockdev/failpoint"
)

const (
	grown     = 192 << 20
	grownText = "192MiB"
)

// resize has the volume grow, and comes back when the size is in force. On a busy machine the standby may be dropped just
// then: the refusal is right, and so is a size that waits for the role to move.
func (r *rig) resize() {
	r.t.Helper()
	for try := 0; r.vol().Size != grown; try++ {
		r.until("the volume is healthy", Healthy)
		ctx, cancel := r.within()
		out, errs, code := r.Admin(ctx, "volume", "resize", Volume, grownText, "--yes", "--timeout", "20s")
		cancel()
		switch {
		case code == 0 && r.vol().Size == grown:
			r.says(out, "change online", "volume vol: size", "64MiB -> 192MiB", "ha-admin config export")
		case try == 20:
			r.t.Fatalf("ha-admin volume resize: exit code %d\n%s%s", code, out, errs)
		case code == 0 || code == 1 && !strings.Contains(errs, "nothing is applied"):
			r.admin(0, "failover", Volume)
		}
	}
}

// installApplied gives all nodes the file that is applied.
func (r *rig) installApplied() {
	r.t.Helper()
	text, _ := r.admin(0, "config", "export")
	if err := os.WriteFile(r.File(), []byte(text), 0o644); err != nil {
		r.t.Fatal(err)
	}
}

// zeroes checks what is new of a volume.
func (r *rig) zeroes(dev interface {
	ReadAt([]byte, int64) (int, error)
}, from, to int64) {
	r.t.Helper()
	p := make([]byte, piece)
	for off := from; off < to; off += piece {
		if _, err := dev.ReadAt(p, off); err != nil {
			r.t.Fatal(err)
		}
		if len(bytes.Trim(p, "\x00")) > 0 {
			r.t.Fatalf("there is content at %d", off)
		}
	}
}

func TestVolumeGrowsWhileItIsWrittenAndItsPrimaryIsKilled(t *testing.T) {
	r := healthy(t, Config{})
	load := r.load()
	r.resize()
	load.more(100)
	dev := r.dial(r.URIs()...)
	if dev.Size() != grown {
		t.Fatalf("a new client sees %d bytes", dev.Size())
	}
	r.zeroes(dev, 64<<20, grown)
	data := bytes.Repeat([]byte("end."), 4096)
	at := int64(grown - len(data))
	if _, err := dev.WriteAt(data, at); err != nil {
		t.Fatal(err)
	}
	if err := dev.Flush(); err != nil {
		t.Fatal(err)
	}
	primary, _, _ := r.killed("after the growth", false)
	load.more(100)
	got := make([]byte, len(data))
	if _, err := dev.ReadAt(got, at); err != nil || !bytes.Equal(got, data) {
		t.Errorf("the end of the volume after the failover: %q..., %v", got[:8], err)
	}
	r.installApplied()
	r.start(primary)
	r.until("all is well again", Healthy)
	load.stop()
	r.same()
	for _, n := range []string{"alpha", "beta"} {
		if info, err := os.Stat(r.Disk(n)); err != nil || info.Size() != grown {
			t.Errorf("the backing of %s: %v, %v", n, info, err)
		}
	}
}

func TestVolumeIsNotResizedWithoutConsentOrReplicas(t *testing.T) {
	r := healthy(t, Config{})
	dev := r.dial(r.URIs()...)
	_, errs := r.admin(3, "volume", "resize", Volume, "32MiB", "--yes")
	r.says(errs, "its last 33554432 bytes are lost", "--accept-data-loss")
	_, errs = r.admin(3, "volume", "resize", Volume, "32MiB", "--yes", "--accept-data-loss")
	r.says(errs, "1 clients are connected", "--disconnect-clients")
	if err := dev.Close(); err != nil {
		t.Fatal(err)
	}
	_, errs = r.admin(1, "volume", "resize", "other", "1GiB", "--yes")
	r.says(errs, `no volume "other"`)
	standby := other(r.vol().Primary)
	r.Kill(standby)
	r.until("the standby is dropped", func(s *apiStatus) bool { return s.Quorum && len(s.Volumes[0].InSync) == 1 })
	_, errs = r.admin(3, "volume", "resize", Volume, grownText, "--yes")
	r.says(errs, standby, "is not in sync")
	if v := r.vol(); v.Size != 64<<20 {
		t.Errorf("it has %d bytes", v.Size)
	}
}

// A process that dies at any step of a growth leaves a volume that starts, with either size, and goes on to the new one.
func TestGrowthThatIsCutShortGoesOn(t *testing.T) {
	t.Parallel()
	bin, err := tagged()
	if err != nil {
		t.Fatal(err)
	}
	points, roles := []failpoint.Point{failpoint.ResizeEnlarged, failpoint.Resize, failpoint.ResizeMarked, failpoint.Resized}, []string{"primary", "standby"}
	if !inLong() {
		points, roles = some(t, 1, points...), roles[:1] // TestK110PowerCutsInAGrowth crashes standbys
	}
	for _, p := range points {
		for _, role := range roles {
			t.Run(fmt.Sprint(p, " on the ", role), func(t *testing.T) {
				r := newRig(t, Config{Bin: bin})
				node := "alpha"
				if role == "standby" {
					node = "beta"
				}
				r.SetEnv(node, "HACLUSTER_FAILPOINT="+p.String()+":1")
				r.start()
				r.until("the volume is healthy", Healthy)
				if r.vol().Primary != "alpha" {
					r.admin(0, "failover", Volume, "--to", "alpha")
					r.until("the volume is healthy", Healthy)
				}
				load := r.load()
				ctx, cancel := r.within()
				for r.Pid(node) != 0 && ctx.Err() == nil { // leadership may move, or a busy machine drop the standby, just then
					_, _, _ = r.Admin(ctx, "volume", "resize", Volume, grownText, "--yes", "--timeout", "10s")
				}
				cancel()
				r.ends(node, -1)
				r.SetEnv(node)
				r.start(node)
				r.until("the volume is healthy with either size", func(s *apiStatus) bool {
					return Healthy(s) && (s.Volumes[0].Size == 64<<20 || s.Volumes[0].Size == grown)
				})
				r.resize()
				load.more(100)
				r.until("the volume is healthy with the new size", Healthy)
				dev := r.dial(r.URIs()...)
				r.zeroes(dev, 64<<20, grown)
				if _, err := dev.WriteAt(bytes.Repeat([]byte("x"), 4096), grown-4096); err != nil {
					t.Error(err)
				}
				load.stop()
				r.same()
			})
		}
	}
}

// Block devices, and files that were larger all along, hold something behind the old end, and not the same on each node.
func TestWhatLiesBehindTheOldEndIsMadeEqual(t *testing.T) { // R14, R29
	r := healthy(t, Config{})
	load := r.load()
	for i, n := range []string{"alpha", "beta"} {
		f, err := os.OpenFile(r.Disk(n), os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, off := range []int64{64 << 20, 100<<20 + 8192, grown - 4096} {
			if _, err := f.WriteAt(bytes.Repeat([]byte{byte('A' + i)}, 4096), off); err != nil {
				t.Fatal(err)
			}
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	r.resize()
	load.more(100)
	dev := r.dial(r.URIs()...)
	first, again := make([]byte, 4096), make([]byte, 4096)
	if _, err := dev.ReadAt(first, 100<<20+8192); err != nil {
		t.Fatal(err)
	}
	primary, _, _ := r.killed("after the growth", false)
	if _, err := dev.ReadAt(again, 100<<20+8192); err != nil || !bytes.Equal(first, again) {
		t.Errorf("it read %q, and %q after the failover, %v", first[:4], again[:4], err)
	}
	r.start(primary)
	r.until("all is well again", Healthy)
	load.stop()
	r.same()
}
