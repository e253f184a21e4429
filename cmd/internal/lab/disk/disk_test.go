package disk

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var program string // hadisk, built by TestMain; empty: not possible here

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "hadisk")
	if err == nil && Supported() == nil {
		cmd := exec.Command("go", "build", "-o", dir+"/", "hacluster/cmd/internal/lab/disk/hadisk")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0") // what the race detector takes is of no use there
		var out []byte
		if out, err = cmd.CombinedOutput(); err != nil {
			err = fmt.Errorf("build hadisk: %w: %s", err, out)
		}
		program = filepath.Join(dir, "hadisk")
	}
	code := 1
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	} else {
		code = m.Run()
	}
	os.RemoveAll(dir)
	os.Exit(code)
}

func start(t *testing.T, cfg Config) *Disk {
	t.Helper()
	if err := Supported(); err != nil {
		t.Skipf("a disk takes root and FUSE: %v", err)
	}
	cfg.Bin, cfg.Dir = program, t.TempDir()
	d, err := Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Stop(); err != nil {
			t.Error(err)
		}
		if mounted(t, d.Mount) {
			t.Errorf("%s is still mounted", d.Mount)
		}
	})
	return d
}

func mounted(t *testing.T, dir string) bool {
	t.Helper()
	b, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Contains(string(b), " "+dir+" ")
}

func (d *Disk) create(t *testing.T, name string) *os.File {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(d.Mount, name), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func (d *Disk) syncDir(t *testing.T) {
	t.Helper()
	dir, err := os.Open(d.Mount)
	if err == nil {
		err = errors.Join(dir.Sync(), dir.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

func block(b byte) []byte { return bytes.Repeat([]byte{b}, 4096) }

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (d *Disk) cut(t *testing.T, mode Mode, seed uint64) Cut {
	t.Helper()
	c, err := d.PowerCut(mode, seed)
	check(t, err)
	return c
}

// A writer that notes what it flushed: after the cut that is there, however it was made durable; the rest is sometimes
// lost and sometimes not.
func TestPowerCutOfAMount(t *testing.T) {
	d := start(t, Config{})
	lost, kept := 0, 0
	for seed := range uint64(20) {
		name := fmt.Sprint("f", seed)
		f := d.create(t, name)
		d.syncDir(t)
		_, err := f.WriteAt(append(block('a'), append(block('a'), block('a')...)...), 0)
		check(t, err)
		check(t, f.Sync())
		_, err = f.WriteAt(block('b'), 0)
		check(t, err)
		n, err := unix.Pwritev2(int(f.Fd()), [][]byte{block('c')}, 4096, unix.RWF_DSYNC)
		if err != nil || n != 4096 {
			t.Fatalf("a durable write: %d, %v", n, err)
		}
		_, err = f.WriteAt(block('d'), 3*4096)
		check(t, err)
		f.Close()
		d.cut(t, []Mode{Drop, Random, Torn}[seed%3], seed)
		got, err := os.ReadFile(filepath.Join(d.Mount, name))
		check(t, err)
		if len(got) < 3*4096 || !bytes.Equal(got[4096:3*4096], append(block('c'), block('a')...)) {
			t.Fatalf("seed %d: what was durable is gone: %d bytes", seed, len(got))
		}
		for _, b := range got[:4096] {
			switch b {
			case 'a':
				lost++
			case 'b':
				kept++
			default:
				t.Fatalf("seed %d: %q was never written there", seed, b)
			}
		}
	}
	if lost == 0 || kept == 0 {
		t.Errorf("%d bytes at risk were lost, %d kept", lost, kept)
	}
}

// O_DSYNC and O_SYNC count like RWF_DSYNC, with O_DIRECT too.
func TestDurableWritesNeedNoFlush(t *testing.T) {
	d := start(t, Config{})
	for i, flag := range []int{unix.O_DSYNC, unix.O_SYNC, unix.O_DSYNC | unix.O_DIRECT} {
		path := filepath.Join(d.Mount, fmt.Sprint(i))
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|flag, 0o600)
		check(t, err)
		d.syncDir(t)
		page, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
		check(t, err)
		copy(page, block('x'))
		_, err = f.WriteAt(page, 0)
		check(t, err)
		check(t, unix.Munmap(page))
		f.Close()
		d.cut(t, Drop, 1)
		if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, block('x')) {
			t.Errorf("flag %#x: %d bytes are left, %v", flag, len(got), err)
		}
	}
}

// Each fault bites, and says so.
func TestEachFaultBites(t *testing.T) {
	d := start(t, Config{})
	f := d.create(t, "f.img")
	_, err := f.WriteAt(block('a'), 0)
	check(t, err)
	check(t, f.Sync())
	other := d.create(t, "g")
	read := func() error { _, err := f.ReadAt(make([]byte, 10), 0); return err }
	write := func() error { _, err := f.WriteAt([]byte("b"), 0); return err }
	for _, c := range []struct {
		fault Fault
		do    func() error
		want  error
	}{
		{Fault{Kind: EIO, Op: Read, Glob: "*.img"}, read, unix.EIO},
		{Fault{Kind: EIO, Op: Write, Glob: "/f.img"}, write, unix.EIO},
		{Fault{Kind: EIO, Op: Flush, Glob: "*.img"}, f.Sync, unix.EIO},
		{Fault{Kind: ENOSPC, Glob: "*.img"}, write, unix.ENOSPC},
		{Fault{Kind: Slow, Delay: time.Millisecond, Glob: "*.img"}, write, nil},
		{Fault{Kind: Busy, Delay: time.Millisecond, Glob: "*.img"}, write, nil},
		{Fault{Kind: Lie, Glob: "*.img"}, f.Sync, nil},
	} {
		before, err := d.Bites(c.fault.Kind)
		check(t, err)
		check(t, d.Fault(c.fault))
		if err := c.do(); !errors.Is(err, c.want) {
			t.Errorf("%v: %v", c.fault, err)
		}
		if _, err := other.WriteAt([]byte("x"), 0); err != nil {
			t.Errorf("%v strikes another file: %v", c.fault, err)
		}
		check(t, d.Go())
		if after, err := d.Bites(c.fault.Kind); err != nil || after != before+1 {
			t.Errorf("%v bit %d times, %v", c.fault, after-before, err)
		}
		if err := write(); err != nil {
			t.Errorf("after %v: %v", c.fault, err)
		}
	}
}

// A busy disk carries out one operation after the other, so that many take as long as they all.
func TestBusyDiskTakesOneAtATime(t *testing.T) {
	d := start(t, Config{})
	const turn, files = 50 * time.Millisecond, 4
	var all []*os.File
	for i := range files { // the kernel itself has writes to one file wait for each other
		all = append(all, d.create(t, fmt.Sprint(i, ".img")))
	}
	for kind, least := range map[Kind]time.Duration{Slow: turn, Busy: files * turn} {
		check(t, d.Fault(Fault{Kind: kind, Op: Write, Glob: "*.img", Delay: turn}))
		began := time.Now()
		var group sync.WaitGroup
		for _, f := range all {
			group.Go(func() {
				if _, err := f.WriteAt(block('b'), 0); err != nil {
					t.Error(err)
				}
			})
		}
		group.Wait()
		if took := time.Since(began); took < least {
			t.Errorf("%d writes to a %s disk took %v, %v at least are right", files, kind, took, least)
		}
		check(t, d.Go())
	}
}

// A flush that lies answers success, and the next cut shows it.
func TestLyingFlush(t *testing.T) {
	d := start(t, Config{})
	f := d.create(t, "f")
	d.syncDir(t)
	_, err := f.WriteAt(block('a'), 0)
	check(t, err)
	check(t, f.Sync())
	check(t, d.Fault(Fault{Kind: Lie}))
	_, err = f.WriteAt(block('b'), 0)
	check(t, err)
	check(t, f.Sync())
	if n, err := unix.Pwritev2(int(f.Fd()), [][]byte{block('b')}, 4096, unix.RWF_DSYNC); err != nil || n != 4096 {
		t.Fatal(n, err)
	}
	f.Close()
	d.cut(t, Drop, 1)
	if got, err := os.ReadFile(filepath.Join(d.Mount, "f")); err != nil || !bytes.Equal(got, block('a')) {
		t.Errorf("%d bytes are left, %v", len(got), err)
	}
}

func TestRotIsSilentUntilOverwritten(t *testing.T) {
	d := start(t, Config{})
	f := d.create(t, "f")
	_, err := f.WriteAt(block('a'), 0)
	check(t, err)
	check(t, d.RotAt(100, 8, "f"))
	p := make([]byte, 4096)
	_, err = f.ReadAt(p, 0)
	if err != nil || p[99] != 'a' || p[100] == 'a' || p[107] == 'a' || p[108] != 'a' {
		t.Errorf("%q, %v", p[98:110], err)
	}
	_, err = f.WriteAt(block('b'), 0)
	check(t, err)
	_, err = f.ReadAt(p, 0)
	if n, berr := d.Bites(Rot); err != nil || berr != nil || n != 1 || p[100] != 'b' {
		t.Errorf("it bit %d times, %v, %v; %q", n, err, berr, p[100])
	}
	if err := d.RotAt(0, 1, "nobody"); err == nil {
		t.Error("a file that is not there rotted")
	}
}

// untilHanging waits until operations hang.
func (d *Disk) untilHanging(t *testing.T, n int) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		s, err := d.Stats()
		check(t, err)
		if s.Hanging >= n {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d operations hang, %d should", s.Hanging, n)
		}
	}
}

// What hangs goes on when it is let go, and fails when the disk is killed: nothing waits for ever.
func TestHangIsLetGoOrFails(t *testing.T) {
	d := start(t, Config{})
	f := d.create(t, "f")
	wrote := make(chan error, 1)
	write := func() { _, err := f.WriteAt([]byte("x"), 0); wrote <- err }
	for _, c := range []struct {
		end  func() error
		want error
	}{{d.Go, nil}, {d.Kill, unix.ECONNABORTED}} {
		check(t, d.Fault(Fault{Kind: Hang, Op: Write}))
		go write()
		d.untilHanging(t, 1)
		check(t, c.end())
		if err := <-wrote; !errors.Is(err, c.want) {
			t.Errorf("it ended with %v, want %v", err, c.want)
		}
	}
}

// A process that hangs on the disk cannot be killed, as with a real one, until the power goes.
func TestPowerCutEndsWhatHangs(t *testing.T) {
	d := start(t, Config{})
	d.create(t, "f").Close()
	check(t, d.Fault(Fault{Kind: Hang, Op: Write}))
	cmd := exec.Command("dd", "if=/dev/zero", "of="+filepath.Join(d.Mount, "f"), "bs=4k", "count=1", "conv=notrunc")
	check(t, cmd.Start())
	d.untilHanging(t, 1)
	check(t, cmd.Process.Kill())
	d.cut(t, Drop, 1)
	if err := cmd.Wait(); err == nil {
		t.Error("a write that hung when the power went succeeded")
	}
	if s, err := d.Stats(); err != nil || s.Hanging != 0 || len(s.InUse) != 0 {
		t.Errorf("%+v, %v", s, err)
	}
}

// What a store needs of its file system: holes, punching, both kinds of locks, shared mappings that see later writes,
// O_DIRECT switched on later, sockets, a file that lives on without its name.
func TestWorksLikeAnOrdinaryFileSystem(t *testing.T) {
	d := start(t, Config{})
	f := d.create(t, "f")
	fd := int(f.Fd())
	check(t, f.Truncate(1<<20))
	if _, err := unix.Seek(fd, 0, unix.SEEK_DATA); !errors.Is(err, unix.ENXIO) {
		t.Errorf("a sparse file has data: %v", err)
	}
	_, err := f.WriteAt(append(block('a'), block('b')...), 8192)
	check(t, err)
	check(t, unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 8192, 4096))
	check(t, unix.Fallocate(fd, unix.FALLOC_FL_ZERO_RANGE|unix.FALLOC_FL_KEEP_SIZE, 65536, 4096))
	if at, err := unix.Seek(fd, 0, unix.SEEK_DATA); err != nil || at != 12288 {
		t.Errorf("data begins at %d, %v", at, err)
	}
	check(t, unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB))
	check(t, unix.FcntlFlock(uintptr(fd), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK}))
	g := d.create(t, "f")
	if unix.Flock(int(g.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil ||
		unix.FcntlFlock(g.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK}) == nil {
		t.Error("two hold one lock")
	}
	seen, err := unix.Mmap(fd, 0, 1<<20, unix.PROT_READ, unix.MAP_SHARED)
	check(t, err)
	if seen[12288] != 'b' {
		t.Errorf("the mapping sees %q", seen[12288])
	}
	_, err = f.WriteAt(block('c'), 12288)
	check(t, err)
	if seen[12288] != 'c' {
		t.Errorf("the mapping sees %q after a write of c", seen[12288])
	}
	check(t, unix.Munmap(seen))
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	check(t, err)
	_, err = unix.FcntlInt(uintptr(fd), unix.F_SETFL, flags|unix.O_DIRECT)
	check(t, err)
	check(t, unix.Mknod(filepath.Join(d.Mount, "s"), unix.S_IFSOCK|0o600, 0))
	check(t, os.Remove(filepath.Join(d.Mount, "f")))
	if fi, err := f.Stat(); err != nil || fi.Size() != 1<<20 {
		t.Errorf("without its name: %v, %v", fi, err)
	}
}

// A file on it can be a block device, whose flushes and discards reach it.
func TestLoopDevice(t *testing.T) {
	d := start(t, Config{})
	if _, err := os.Stat("/dev/loop-control"); err != nil {
		t.Skipf("the kernel has no loop driver (modprobe loop): %v", err)
	}
	f := d.create(t, "f")
	check(t, f.Truncate(1<<20))
	check(t, f.Sync())
	d.syncDir(t)
	f.Close()
	l, err := Loop(program, filepath.Join(d.Mount, "f"))
	if err != nil {
		t.Skipf("a loop device takes root and the kernel's loop driver with a free device: %v", err)
	}
	dev, err := os.OpenFile(l.Path, os.O_RDWR, 0)
	check(t, err)
	_, err = dev.WriteAt(block('a'), 0)
	check(t, err)
	check(t, dev.Sync())
	_, err = dev.WriteAt(block('b'), 4096)
	check(t, err)
	check(t, dev.Close())
	check(t, l.Close())
	d.cut(t, Drop, 1)
	got, err := os.ReadFile(filepath.Join(d.Mount, "f"))
	check(t, err)
	if len(got) != 1<<20 || !bytes.Equal(got[:4096], block('a')) {
		t.Errorf("%d bytes, the first is %q", len(got), got[0])
	}
}

// What it held before it holds when it is started again.
func TestStartedAgain(t *testing.T) {
	d := start(t, Config{Lenient: true})
	check(t, os.WriteFile(filepath.Join(d.Mount, "f"), []byte("x"), 0o600))
	check(t, d.Stop())
	again, err := Start(t.Context(), Config{Bin: program, Dir: filepath.Dir(d.Mount)})
	check(t, err)
	got, err := os.ReadFile(filepath.Join(d.Mount, "f"))
	if err != nil || string(got) != "x" {
		t.Errorf("%q, %v", got, err)
	}
	check(t, again.Stop())
}

func TestCommandsThatMakeNoSense(t *testing.T) {
	d := start(t, Config{})
	for _, line := range []string{"", "eoi", "eio sideways", "slow", "slow x", "slow -1", "rot 1", "rot 0 99999999 f", "enospc read", "eio read [", "powercut",
		"powercut drop x", "powercut drop 1 2", "hang write f g"} {
		if err := d.Command(nil, "%s", line); err == nil {
			t.Errorf("%q was taken", line)
		}
	}
}
