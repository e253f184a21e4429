package filedev

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"hacluster/blockdev"
)

func TestFileIsEnlargedWhileItIsHeldAndReadsAsZeroes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new")
	d := open(t, path, Config{Size: mib, Create: true})
	if _, err := d.WriteAt([]byte("content"), 4096); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := Enlarge(path, 3*mib); err != nil {
			t.Fatal(err)
		}
	}
	if err := Enlarge(path, 2*mib); err != nil { // it holds that
		t.Fatal(err)
	}
	if d.Size() != mib {
		t.Errorf("what is open has %d bytes", d.Size())
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	d = open(t, path, Config{Size: 3 * mib})
	holes := true
	err := d.Extents(blockdev.Range{Off: mib, Len: 2 * mib}, func(_ blockdev.Range, hole bool) bool { holes = holes && hole; return true })
	if err != nil || !holes {
		t.Errorf("behind the old end: holes %t, %v", holes, err)
	}
	p := make([]byte, 7)
	if _, err := d.ReadAt(p, 4096); err != nil || string(p) != "content" {
		t.Errorf("%q, %v", p, err)
	}
	if err := Enlarge(filepath.Join(t.TempDir(), "absent"), mib); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("an absent file: %v", err)
	}
	if err := Enlarge(t.TempDir(), mib); !errors.Is(err, ErrUnsuitable) {
		t.Errorf("a directory: %v", err)
	}
}

func TestBlockDeviceIsNotEnlargedButAskedForItsSize(t *testing.T) {
	dev := loopDevice(t, memoryImage(t, 2*mib))
	d := open(t, dev, Config{Size: mib})
	if err := Enlarge(dev, 2*mib); err != nil { // held as it is
		t.Error(err)
	}
	err := Enlarge(dev, 3*mib)
	if !errors.Is(err, ErrUnsuitable) || !strings.Contains(err.Error(), "2097152") || !strings.Contains(err.Error(), "3145728") {
		t.Errorf("a device that is too small: %v", err)
	}
	holes := false
	err = d.Extents(blockdev.Range{Len: mib}, func(_ blockdev.Range, hole bool) bool { holes = holes || hole; return true })
	if err != nil || holes {
		t.Errorf("holes %t, %v: what a device holds behind the old end would not be marked", holes, err)
	}
}
