package filedev

import (
	"bytes"
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"hacluster/blockdev"
)

// diskByte is the first byte of a block as d reads it past the page cache.
func diskByte(t *testing.T, d *Dev, off int64) byte {
	t.Helper()
	p := make([]byte, blockdev.BlockSize)
	if _, err := d.ReadDiskAt(p, off); err != nil {
		t.Fatal(err)
	}
	return p[0]
}

// What is in the page cache hides what the disk has become: only a read past it sees that. A loop device has pages of its
// own, so its file can change under it as a disk does that rots.
func TestReadDiskSeesRotThatThePageCacheHides(t *testing.T) {
	file := image(t, mib)
	d := open(t, loopDevice(t, file), Config{Size: mib, Mode: Buffered})
	if _, err := d.WriteAt(fill(blockdev.BlockSize, 7), 8192); err != nil {
		t.Fatal(err)
	}
	if err := d.Flush(); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte{9}, 8192); err != nil {
		t.Fatal(err)
	}
	cached := make([]byte, 1)
	if _, err := d.ReadAt(cached, 8192); err != nil || cached[0] != 7 {
		t.Fatalf("the page cache has %v, %v: nothing is hidden", cached, err)
	}
	if got := diskByte(t, d, 8192); got != 9 {
		t.Errorf("read %d past the page cache, the disk has 9", got)
	}
}

// What was written and not flushed is part of the content: it is read too, at any offset and length, in every mode, and by
// the fall-back for filesystems without O_DIRECT.
func TestReadDiskSeesWhatIsNotFlushed(t *testing.T) {
	for name, d := range map[string]*Dev{
		"buffered": open(t, image(t, mib), Config{Size: mib, Mode: Buffered}),
		"direct":   openDirect(t, image(t, mib), mib),
		"memory":   open(t, memoryImage(t, mib), Config{Size: mib}),
		"fallback": indirect(t, open(t, image(t, mib), Config{Size: mib, Mode: Buffered})),
	} {
		data := fill(12345, 5)
		if _, err := d.WriteAt(data, 4000); err != nil {
			t.Fatal(name, err)
		}
		got := make([]byte, len(data))
		if n, err := d.ReadDiskAt(got, 4000); err != nil || n != len(got) || !bytes.Equal(got, data) {
			t.Errorf("%s: read %d bytes, %v, equal %t", name, n, err, bytes.Equal(got, data))
		}
		if _, err := d.ReadDiskAt(got, mib-1); !errors.Is(err, blockdev.ErrRange) {
			t.Errorf("%s: a read beyond the end: %v", name, err)
		}
	}
}

// indirect makes d read as on a filesystem that does not know O_DIRECT.
func indirect(t *testing.T, d *Dev) *Dev {
	fd, err := unix.Open(d.path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	d.disk.opened, d.disk.fd = true, fd
	return d
}

// R24: the second opening takes nothing from the hold, neither while it is open nor when it is closed; Reopen and Close
// leave none behind.
func TestReadDiskKeepsTheHold(t *testing.T) {
	t.Run("file", func(t *testing.T) { readDiskKeepsTheHold(t, image(t, mib)) })
	t.Run("device", func(t *testing.T) { readDiskKeepsTheHold(t, loopDevice(t, image(t, mib))) })
}

func readDiskKeepsTheHold(t *testing.T, path string) {
	before := openDescriptors(t)
	d, err := Open(path, Config{Size: mib, Mode: Buffered})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		diskByte(t, d, 0)
		if _, err := Open(path, Config{Size: mib}); !errors.Is(err, ErrInUse) {
			t.Errorf("another opening while it is read past the cache: %v", err)
		}
		if err := d.Reopen(); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(path, Config{Size: mib}); !errors.Is(err, ErrInUse) {
			t.Errorf("another opening after the reader was closed: %v", err)
		}
	}
	diskByte(t, d, 0)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if now := openDescriptors(t); now != before {
		t.Errorf("%d descriptors open after Close, %d before Open", now, before)
	}
}
