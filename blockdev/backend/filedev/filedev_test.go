package filedev

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"hacluster/blockdev"
	"hacluster/blockdev/blocktest"
)

const mib = 1 << 20

func TestConformanceFileBuffered(t *testing.T) {
	blocktest.Run(t, func(t testing.TB, size int64) blockdev.Device {
		return open(t, filepath.Join(t.TempDir(), "new"), Config{Size: size, Mode: Buffered, Create: true})
	})
}

func TestConformanceFileDirect(t *testing.T) {
	blocktest.Run(t, func(t testing.TB, size int64) blockdev.Device {
		return openDirect(t, image(t, size), size)
	})
}

// A kernel or filesystem that knows none of the shortcuts.
func TestConformanceFileDirectWithoutShortcuts(t *testing.T) {
	blocktest.Run(t, func(t testing.TB, size int64) blockdev.Device {
		d := openDirect(t, memoryImage(t, size), size)
		d.missing.dsync.Store(true)
		d.missing.punch.Store(true)
		d.missing.zeroRange.Store(true)
		return d
	})
}

func TestConformanceFileInMemory(t *testing.T) {
	blocktest.Run(t, func(t testing.TB, size int64) blockdev.Device {
		dir, err := os.MkdirTemp("/dev/shm", "filedev-test-")
		if err != nil {
			t.Skipf("a tmpfs at /dev/shm that may be written to is missing: %v", err)
		}
		t.Cleanup(func() { _ = os.RemoveAll(dir) })
		d := open(t, filepath.Join(dir, "new"), Config{Size: size, Create: true})
		if !d.Fast() {
			t.Error("O_DIRECT was chosen on a filesystem in memory")
		}
		return d
	})
}

func TestConformanceBlockDevice(t *testing.T) {
	for name, mode := range map[string]Mode{"auto": Auto, "buffered": Buffered} {
		t.Run(name, func(t *testing.T) {
			blocktest.Run(t, func(t testing.TB, size int64) blockdev.Device {
				d := open(t, loopDevice(t, memoryImage(t, size)), Config{Size: size, Mode: mode})
				if d.Fast() != (mode == Buffered) {
					t.Errorf("Fast() = %v in mode %s", d.Fast(), name)
				}
				return d
			})
		})
	}
}

// A volume may end before its backing does; what lies behind stays as it was.
func TestConformanceWithinALargerBacking(t *testing.T) {
	blocktest.Run(t, func(t testing.TB, size int64) blockdev.Device {
		path := memoryImage(t, size+mib)
		behind := fill(mib, 0xEE)
		writeFile(t, path, behind, size)
		d := openDirect(t, path, size)
		t.Cleanup(func() {
			if got := readFile(t, path)[size:]; !bytes.Equal(got, behind) {
				t.Error("bytes behind the end of the volume were changed")
			}
		})
		return d
	})
}

func openDirect(t testing.TB, path string, size int64) *Dev {
	t.Helper()
	return openMode(t, path, size, Direct)
}

// openMode skips where there is no O_DIRECT: memory before Linux 6.6, some filesystems.
func openMode(t testing.TB, path string, size int64, mode Mode) *Dev {
	t.Helper()
	d, err := Open(path, Config{Size: size, Mode: mode})
	if mode == Direct && errors.Is(err, ErrUnsuitable) && strings.Contains(err.Error(), "O_DIRECT") {
		t.Skipf("the filesystem lacks O_DIRECT (ext4, XFS and, since Linux 6.6, tmpfs have it: set TMPDIR): %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func writeFile(t testing.TB, path string, p []byte, off int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(p, off); err != nil {
		t.Fatal(err)
	}
}

func readFile(t testing.TB, path string) []byte {
	t.Helper()
	p, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestByteZeroOfTheVolumeIsByteZeroOfTheBacking(t *testing.T) {
	path := image(t, mib)
	writeFile(t, path, []byte("hello"), 0)
	d := open(t, path, Config{Size: mib})
	got := make([]byte, 5)
	if _, err := d.ReadAt(got, 0); err != nil || string(got) != "hello" {
		t.Errorf("read %q, %v", got, err)
	}
	if _, err := d.WriteFUA([]byte("world"), mib-5); err != nil {
		t.Fatal(err)
	}
	if got := readFile(t, path)[mib-5:]; string(got) != "world" {
		t.Errorf("the file ends in %q", got)
	}
}

func TestCreateMakesASparsePrivateFileOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new")
	if _, err := Open(path, Config{Size: mib}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without Create: %v, want not exist", err)
	}
	if err := open(t, path, Config{Size: mib, Create: true}).Close(); err != nil {
		t.Fatal(err)
	}
	fi, err := os.Stat(path)
	if err != nil || fi.Size() != mib || fi.Mode() != 0o600 {
		t.Errorf("made %v, %v; want %d bytes, mode 0600", fi, err, mib)
	}
	if fresh, err := Fresh(path); !fresh || err != nil {
		t.Errorf("the created file: Fresh = %v, %v", fresh, err)
	}
	writeFile(t, path, []byte("x"), 0)
	if _, err := Open(path, Config{Size: 2 * mib, Create: true}); err == nil {
		t.Error("Create enlarged an existing file")
	}
	if got := readFile(t, path); len(got) != mib || got[0] != 'x' {
		t.Error("Create changed an existing file")
	}
}

// A crash between making the file and giving it its length leaves an empty one.
func TestCreateCompletesAnInterruptedCreate(t *testing.T) {
	path := image(t, 0)
	d := open(t, path, Config{Size: mib, Create: true})
	if d.Size() != mib || d.BackingSize() != mib {
		t.Errorf("size %d of %d", d.Size(), d.BackingSize())
	}
}

func TestModeIsChosenByTrying(t *testing.T) {
	path := image(t, mib)
	for _, c := range []struct {
		mode Mode
		fast bool
	}{{Buffered, true}, {Direct, false}} {
		d := openMode(t, path, mib, c.mode)
		if d.Fast() != c.fast || isDirect(t, d) == c.fast {
			t.Errorf("mode %d: Fast() = %v, O_DIRECT %v", c.mode, d.Fast(), isDirect(t, d))
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestFresh(t *testing.T) {
	dir := t.TempDir()
	data := image(t, mib)
	writeFile(t, data, []byte{1}, mib/2)
	for path, want := range map[string]bool{
		filepath.Join(dir, "absent"): true,
		image(t, 0):                  true,
		image(t, 64*mib):             true,
		data:                         false,
		dir:                          false,
		"/dev/null":                  false,
	} {
		if got, err := Fresh(path); got != want || err != nil {
			t.Errorf("Fresh(%s) = %v, %v; want %v", path, got, err, want)
		}
	}
	d := open(t, data, Config{Size: mib})
	if err := d.Zero(blockdev.Range{Len: mib}, true); err != nil {
		t.Fatal(err)
	}
	if got, err := Fresh(data); !got || err != nil {
		t.Errorf("a file that was trimmed wholly: Fresh = %v, %v", got, err)
	}
}

func TestTrimGivesSpaceBackAndZeroKeepsIt(t *testing.T) {
	const part = 256 << 10
	for _, c := range []struct {
		name               string
		unmap              bool
		noPunch, noZeroing bool // what the filesystem does not know
		freed              int64
	}{
		{"trim", true, false, false, part},
		{"trim where nothing can be punched", true, true, false, 0},
		{"trim where nothing can be zeroed", true, false, true, part},
		{"zero", false, false, false, 0},
		{"zero by writing", false, false, true, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := open(t, image(t, mib), Config{Size: mib})
			d.missing.punch.Store(c.noPunch)
			d.missing.zeroRange.Store(c.noZeroing)
			if _, err := d.WriteAt(fill(mib, 1), 0); err != nil {
				t.Fatal(err)
			}
			before := allocated(t, d)
			if err := d.Zero(blockdev.Range{Off: part, Len: part}, c.unmap); err != nil {
				t.Fatal(err)
			}
			if c.freed > 0 && d.missing.punch.Load() {
				t.Skipf("the filesystem of %s lacks FALLOC_FL_PUNCH_HOLE (ext4, XFS, Btrfs and tmpfs have it: set TMPDIR)", d.path)
			}
			if freed := before - allocated(t, d); freed != c.freed {
				t.Errorf("%d bytes were given back, want %d", freed, c.freed)
			}
			got := make([]byte, mib)
			if _, err := d.ReadAt(got, 0); err != nil || bytes.Count(got, []byte{0}) != part {
				t.Errorf("%d bytes are zero, want %d; %v", bytes.Count(got, []byte{0}), part, err)
			}
		})
	}
}

// Space that is taken ahead reads as a hole still, and keeps what is there.
func TestAllocateTakesSpaceAndChangesNothing(t *testing.T) {
	d := openDirect(t, image(t, mib), mib)
	if _, err := d.WriteAt(fill(4096, 1), 64<<10); err != nil {
		t.Fatal(err)
	}
	if err := d.Allocate(blockdev.Range{Len: mib / 2}); err != nil {
		t.Fatal(err)
	}
	if d.missing.allocate.Load() {
		t.Skipf("the filesystem of %s cannot take space ahead (ext4, XFS and Btrfs can: set TMPDIR)", d.path)
	}
	if got := allocated(t, d); got != mib/2 {
		t.Errorf("%d bytes are allocated, want %d", got, mib/2)
	}
	got := make([]byte, mib)
	if _, err := d.ReadAt(got, 0); err != nil || bytes.Count(got, []byte{0}) != mib-4096 {
		t.Errorf("%d bytes are zero; %v", bytes.Count(got, []byte{0}), err)
	}
	var holes int64
	if err := d.Extents(blockdev.Range{Len: mib}, func(e blockdev.Range, hole bool) bool {
		if hole {
			holes += e.Len
		}
		return true
	}); err != nil || holes != mib-4096 {
		t.Errorf("%d bytes are holes; %v", holes, err)
	}
	if err := d.Allocate(blockdev.Range{Off: mib, Len: 4096}); !errors.Is(err, blockdev.ErrRange) {
		t.Errorf("behind the end: %v", err)
	}
}

// allocated is the space that the file takes on the disk.
func allocated(t *testing.T, d *Dev) int64 {
	t.Helper()
	if err := d.Flush(); err != nil { // space is given at the latest then
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(d.fd, &st); err != nil {
		t.Fatal(err)
	}
	return st.Blocks * 512
}

func TestAttachmentNamesFileAndBirth(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	attach := func() string {
		d := open(t, path, Config{Size: mib, Create: true})
		defer d.Close()
		return d.Attachment()
	}
	first, again := attach(), attach()
	if first != again || !strings.HasPrefix(first, "file:") {
		t.Errorf("the same file is %q and then %q", first, again)
	}
	if err := os.Remove(path); err != nil { // its inode number is given to the next file by some filesystems
		t.Fatal(err)
	}
	if other := attach(); other == first {
		t.Errorf("a new file at the same path has the attachment of the old one: %q", other)
	}
}

func TestAttachmentOfABlockDeviceChangesWithEachAttaching(t *testing.T) {
	file := image(t, mib)
	attach := func(name string) (out string) {
		t.Run(name, func(t *testing.T) {
			dev := loopDevice(t, file)
			for range 2 {
				d := open(t, dev, Config{Size: mib})
				if out != "" && out != d.Attachment() {
					t.Errorf("opened again without detaching: %q, then %q", out, d.Attachment())
				}
				out = d.Attachment()
				d.Close()
			}
		})
		return out
	}
	first, second := attach("first"), attach("second")
	if first == "" {
		t.Skip(needsLoop + "; both attachings above say what losetup said")
	}
	if first == second || !strings.HasPrefix(first, "blk:7:") {
		t.Errorf("attached twice: %q and %q", first, second)
	}
}

// A backing that is cut short under us is an error, never data.
func TestBackingThatShrinksIsAnError(t *testing.T) {
	for name, mode := range map[string]Mode{"auto": Auto, "buffered": Buffered} {
		t.Run(name, func(t *testing.T) {
			path := image(t, mib)
			d := open(t, path, Config{Size: mib, Mode: mode})
			if err := os.Truncate(path, mib/2); err != nil {
				t.Fatal(err)
			}
			if _, err := d.ReadAt(make([]byte, 8192), mib/2-4096); !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("read across the new end: %v", err)
			}
			if n, err := d.ReadAt(make([]byte, 100), mib-100); n != 0 || !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("read behind the new end: %d, %v", n, err)
			}
		})
	}
}

// faults.md D91: no room under the file.
func TestD91NoSpaceIsTold(t *testing.T) {
	dir := mount(t, "-t", "tmpfs", "-o", "size=1m", "tmpfs")
	d := open(t, filepath.Join(dir, "f"), Config{Size: 4 * mib, Create: true})
	n, err := d.WriteAt(fill(4*mib, 1), 0)
	if !errors.Is(err, blockdev.ErrNoSpace) || n >= 4*mib {
		t.Errorf("WriteAt = %d, %v; want fewer bytes, ErrNoSpace", n, err)
	}
	if _, err := d.WriteVAt([][]byte{fill(2*mib, 1), fill(2*mib, 1)}, 0); !errors.Is(err, blockdev.ErrNoSpace) {
		t.Errorf("WriteVAt: %v", err)
	}
	if err := d.Zero(blockdev.Range{Len: 4 * mib}, false); !errors.Is(err, blockdev.ErrNoSpace) {
		t.Errorf("Zero that keeps space: %v", err)
	}
	if err := d.Flush(); err != nil {
		t.Errorf("Flush after a write without room: %v", err)
	}
	if !strings.Contains(err.Error(), d.path) {
		t.Errorf("the message does not name the backing: %v", err)
	}
}

func TestCloseWaitsForTheLastOperation(t *testing.T) {
	g := newGate()
	for range 2 {
		if !g.enter() {
			t.Fatal("an open gate refuses")
		}
	}
	closed := make(chan bool)
	go func() { closed <- g.close() }()
	for g.state.Load() >= 0 { // until close has shut it
		if g.enter() {
			g.leave()
		}
	}
	if g.enter() || g.close() {
		t.Error("a closed gate admits, or closes again")
	}
	g.leave()
	select {
	case <-closed:
		t.Error("close returned with an operation inside")
	default:
	}
	g.leave()
	if !<-closed {
		t.Error("close says that it was closed before")
	}
}

func TestGateUnderStress(t *testing.T) {
	for range 200 {
		g := newGate()
		var inside, wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for g.enter() {
					inside.Add(1)
					inside.Done()
					g.leave()
				}
			})
		}
		if !g.close() {
			t.Fatal("close of an open gate refused")
		}
		wg.Wait()
	}
}

// Buffered 4 KiB writes cost a copy into the page cache and a system call, about a microsecond or two. Direct ones cost
// the disk's time.
func BenchmarkWrite4K(b *testing.B) {
	for name, mode := range map[string]Mode{"buffered": Buffered, "direct": Direct} {
		b.Run(name, func(b *testing.B) {
			d := openMode(b, image(b, 64*mib), 64*mib, mode)
			defer d.Close()
			buf := blockdev.NewBuf(4096)
			defer buf.Free()
			b.SetBytes(4096)
			b.ReportAllocs()
			for i := int64(0); b.Loop(); i++ {
				if _, err := d.WriteAt(buf.Bytes(), i%(64*mib/4096)*4096); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// A frame of 1 MiB arrives in segments of 16 KiB that are not aligned: direct I/O pays one copy, buffered none of ours.
func BenchmarkWriteVector1M(b *testing.B) {
	for name, mode := range map[string]Mode{"buffered": Buffered, "direct": Direct} {
		b.Run(name, func(b *testing.B) {
			d := openMode(b, image(b, 64*mib), 64*mib, mode)
			defer d.Close()
			var segments [][]byte
			for range 64 {
				segments = append(segments, make([]byte, 16384+9)[9:])
			}
			b.SetBytes(mib)
			b.ReportAllocs()
			for i := int64(0); b.Loop(); i++ {
				if _, err := d.WriteVAt(segments, i%64*mib); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
