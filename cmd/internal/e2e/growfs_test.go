package e2e

import (
	"os"
	"path/filepath"
	"testing"
)

// A file system on a volume that grows while all of it is written again and again, and whose primary is killed meanwhile.
func TestFileSystemOnAGrownVolumeIsWholeAndGrowsToItsEnd(t *testing.T) {
	long(t, "TestVolumeGrowsWhileItIsWrittenAndItsPrimaryIsKilled, which compares blocks instead of files")
	r := healthy(t, Config{})
	dir, content := r.image("files", 7)
	dev := r.dial(r.URIs()...)
	r.overwrite(dev, content)
	end, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		for off := 0; ; off = (off + piece) % len(content) {
			select {
			case <-end:
				ended <- nil
				return
			default:
			}
			if _, err := dev.WriteAt(content[off:off+piece], int64(off)); err != nil {
				ended <- err
				return
			}
		}
	}()
	r.resize()
	primary, _, _ := r.killed("after the growth", false)
	close(end)
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	r.start(primary)
	r.until("all is well again", Healthy)
	whole := r.read(r.dial(r.URIs()...))
	if len(whole) != grown {
		t.Fatalf("a new client sees %d bytes", len(whole))
	}
	img := filepath.Join(r.cfg.Dir, "grown.img")
	if err := os.WriteFile(img, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	r.tool("e2fsck", "-f", "-n", img)
	r.tool("resize2fs", img)
	larger, err := os.ReadFile(img)
	if err != nil {
		t.Fatal(err)
	}
	r.holdsFiles(larger, dir)
	r.same()
}
