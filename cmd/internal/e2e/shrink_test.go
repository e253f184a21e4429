package e2e

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"
)

// resizeTo gives the volume a size, with the consents that a smaller one takes, and comes back when it is in force. On a busy
// machine the standby may be dropped just then: see resize.
func (r *rig) resizeTo(size int64) {
	r.t.Helper()
	for try := 0; r.vol().Size != size; try++ {
		r.until("the volume is healthy", Healthy)
		ctx, cancel := r.within()
		out, errs, code := r.Admin(ctx, "volume", "resize", Volume, fmt.Sprintf("%dMiB", size>>20), "--yes", "--accept-data-loss", "--disconnect-clients", "--timeout", "20s")
		cancel()
		switch {
		case try == 20:
			r.t.Fatalf("ha-admin volume resize: exit code %d\n%s%s", code, out, errs)
		case code == 0 || code == 1 && !strings.Contains(errs, "nothing is applied"):
			ctx, cancel := r.within()
			_, _, _ = r.Admin(ctx, "failover", Volume, "--timeout", "10s") // unless it is in force
			cancel()
		}
	}
}

// lies checks what the backings hold behind an offset, while they are held.
func (r *rig) lies(from int64, want string, is func([]byte) bool) {
	r.t.Helper()
	for _, n := range []string{"alpha", "beta"} {
		p, err := os.ReadFile(r.Disk(n))
		if err != nil || !is(p[from:]) {
			r.t.Errorf("behind %d the backing of %s does not hold %s, %v", from, n, want, err)
		}
	}
}

func onlyZeroes(p []byte) bool { return len(bytes.Trim(p, "\x00")) == 0 }

// A file system is made smaller, then its volume; the primary is killed; what is on the other is whole. Grown again, the volume
// shows nothing of what it had there before.
func TestShrunkVolumeHoldsItsFileSystemAndGrowsWithZeroes(t *testing.T) {
	const shrunk, whole = 60 << 20, 64 << 20
	r := healthy(t, Config{})
	dir, content := r.image("files", 11)
	dev := r.dial(r.URIs()...)
	r.overwrite(dev, content)
	r.tool("e2fsck", "-f", "-y", dir+".img")
	r.tool("resize2fs", dir+".img", "60M")
	smaller, err := os.ReadFile(dir + ".img")
	if err != nil {
		t.Fatal(err)
	}
	old := bytes.Repeat([]byte("old content behind the end to be"), (whole-shrunk)/32)
	r.overwrite(dev, append(bytes.Clone(smaller[:shrunk]), old...))
	r.resizeTo(shrunk)
	if len(r.happened("gamma", "volume shrinks")) == 0 {
		t.Error("no event tells of it")
	}
	r.lies(shrunk, "what was there", func(p []byte) bool { return bytes.Equal(p, old) })
	dev = r.dial(r.URIs()...)
	if dev.Size() != shrunk {
		t.Fatalf("a new client sees %d bytes", dev.Size())
	}
	primary, _, _ := r.killed("after the shrink", false)
	r.holdsFiles(r.read(r.dial(r.URIs()...)), dir)
	r.installApplied()
	r.start(primary)
	r.resizeTo(whole)
	r.lies(shrunk, "zeroes", onlyZeroes)
	dev = r.dial(r.URIs()...)
	r.zeroes(dev, shrunk, whole)
	if _, err := dev.WriteAt([]byte("new"), whole-4096); err != nil {
		t.Fatal(err)
	}
	if err := dev.Flush(); err != nil {
		t.Fatal(err)
	}
	r.same()
}

// A replica that was away when its volume shrank, also if it was primary then, takes the size when it returns, and what both have
// behind the end is the same when it grows.
func TestReplicaThatWasAwayWhenItsVolumeShrank(t *testing.T) {
	long(t, "TestReplicaTakesTheSizeOfTheRecord of cmd/internal/node, and the model")
	const shrunk, whole = 32 << 20, 64 << 20
	for _, point := range []string{"resize.begin:1", "resize.marked:1", "resize.done:1"} {
		for _, node := range []string{"alpha", "beta"} {
			t.Run(point+" on "+node, func(t *testing.T) {
				bin, err := tagged()
				if err != nil {
					t.Fatal(err)
				}
				r := newRig(t, Config{Bin: bin})
				r.SetEnv(node, "HACLUSTER_FAILPOINT="+point)
				r.start()
				r.until("the volume is healthy", Healthy)
				dev := r.dial(r.URIs()...)
				r.overwrite(dev, bytes.Repeat([]byte("old."), whole/4))
				ctx, cancel := r.within()
				for r.Pid(node) != 0 && ctx.Err() == nil {
					_, _, _ = r.Admin(ctx, "volume", "resize", Volume, "32MiB", "--yes", "--accept-data-loss", "--disconnect-clients", "--timeout", "10s")
				}
				cancel()
				r.ends(node, -1)
				r.SetEnv(node)
				r.start(node)
				r.resizeTo(shrunk)
				r.resizeTo(whole)
				r.lies(shrunk, "zeroes", onlyZeroes)
				dev = r.dial(r.URIs()...)
				r.zeroes(dev, shrunk, whole)
				if got := r.read(dev); !bytes.Equal(got[:shrunk], bytes.Repeat([]byte("old."), shrunk/4)) {
					t.Error("what lay before the end was changed")
				}
				r.same()
			})
		}
	}
}
