package filedev

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// refused opens path, which must fail with want and say all of says; nothing may be left open.
func refused(t *testing.T, path string, want error, says ...string) {
	t.Helper()
	before := openDescriptors(t)
	d, err := Open(path, Config{Size: mib})
	if err == nil {
		d.Close()
		t.Fatalf("%s was opened", path)
	}
	if !errors.Is(err, want) {
		t.Errorf("%v; want %v", err, want)
	}
	for _, s := range append(says, path) {
		if !strings.Contains(err.Error(), s) {
			t.Errorf("%q does not say %q", err, s)
		}
	}
	if now := openDescriptors(t); now != before {
		t.Errorf("%d descriptors open after a refusal, %d before", now, before)
	}
	t.Log(err)
}

func TestC73NeitherFileNorBlockDevice(t *testing.T) {
	dir := t.TempDir()
	refused(t, dir, ErrUnsuitable, "directory")
	refused(t, "/dev/null", ErrUnsuitable, "character device")
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	refused(t, fifo, ErrUnsuitable, "fifo")
	refused(t, filepath.Join(dir, "absent"), os.ErrNotExist, "check the path")
}

func TestC73MissingDirectory(t *testing.T) {
	_, err := Open(filepath.Join(t.TempDir(), "no", "f"), Config{Size: mib, Create: true})
	if !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "directory") {
		t.Errorf("%v; want not exist, and the directory named", err)
	}
}

func TestC73TooSmallIsRefusedWithBothNumbers(t *testing.T) {
	refused(t, image(t, mib-1), ErrUnsuitable, fmt.Sprint(mib-1), fmt.Sprint(mib), "at most 1044480")
	refused(t, image(t, 0), ErrUnsuitable, " 0 bytes", "enlarge")
}

func TestC73TooSmallDevice(t *testing.T) {
	refused(t, loopDevice(t, image(t, mib/2)), ErrUnsuitable, fmt.Sprint(mib/2), fmt.Sprint(mib))
}

func TestOddSizesAreRefused(t *testing.T) {
	path := image(t, mib)
	for _, size := range []int64{0, -4096, 512, mib + 1} {
		if _, err := Open(path, Config{Size: size}); !errors.Is(err, ErrUnsuitable) {
			t.Errorf("size %d: %v", size, err)
		}
	}
}

func TestC73SameBackingTwice(t *testing.T) {
	path := image(t, mib)
	d := open(t, path, Config{Size: mib})
	symlink, hard := filepath.Join(t.TempDir(), "symlink"), path+"-hard"
	if err := errors.Join(os.Symlink(path, symlink), os.Link(path, hard)); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{path, symlink, hard} {
		refused(t, p, ErrInUse, "this process itself", fmt.Sprint(os.Getpid()))
	}
	d.Close()
	open(t, symlink, Config{Size: mib})
}

// A process that is being started has a copy of every descriptor until it is another program.
func TestClosedBackingIsFreeWhileAProcessIsBeingStarted(t *testing.T) {
	path := image(t, mib)
	d := open(t, path, Config{Size: mib})
	fd, err := unix.Dup(d.held)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	d.Close()
	open(t, path, Config{Size: mib})
}

func TestC73SameDeviceTwice(t *testing.T) {
	dev := loopDevice(t, image(t, mib))
	d := open(t, dev, Config{Size: mib})
	symlink := filepath.Join(t.TempDir(), "symlink")
	if err := os.Symlink(dev, symlink); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{dev, symlink} {
		refused(t, p, ErrInUse, "this process itself")
	}
	d.Close()
	open(t, symlink, Config{Size: mib})
}

func TestC73HeldByAnotherProcess(t *testing.T) {
	path := image(t, mib)
	pid := heldByAnother(t, path)
	refused(t, path, ErrInUse, fmt.Sprintf("process %d (", pid))
}

func TestC73DeviceHeldByAnotherProcess(t *testing.T) {
	dev := loopDevice(t, image(t, mib))
	pid := heldByAnother(t, dev)
	refused(t, dev, ErrInUse, fmt.Sprintf("process %d (", pid))
}

// Whoever locks by the other kind of lock is kept out, and keeps us out.
func TestC73BothKindsOfLock(t *testing.T) {
	for _, c := range []struct {
		name, by string
		lock     func(fd int) error
	}{
		{"flock", "this process itself", func(fd int) error { return unix.Flock(fd, unix.LOCK_SH|unix.LOCK_NB) }},
		{"open file description", "does not name", func(fd int) error {
			return unix.FcntlFlock(uintptr(fd), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK, Start: 5, Len: 1})
		}},
		{"process", "this process itself", func(fd int) error {
			return unix.FcntlFlock(uintptr(fd), unix.F_SETLK, &unix.Flock_t{Type: unix.F_RDLCK})
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := image(t, mib)
			fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			if err := c.lock(fd); err != nil {
				t.Fatal(err)
			}
			refused(t, path, ErrInUse, "locked by", c.by)
			unix.Close(fd)

			d := open(t, path, Config{Size: mib})
			fd, err = unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(fd)
			if err := c.lock(fd); err == nil {
				t.Error("the lock was given while the backing is held")
			}
			d.Close()
		})
	}
}

func TestC73MountedDevice(t *testing.T) {
	dev := loopDevice(t, image(t, 16*mib))
	makeExt4(t, dev)
	dir := mount(t, dev)
	refused(t, dev, ErrInUse, "mounted on "+dir, "unmount")
}

// What is held cannot be mounted, nor made a filesystem on by a program that asks.
func TestR24HeldDeviceCannotBeMounted(t *testing.T) {
	dev := loopDevice(t, image(t, 16*mib))
	makeExt4(t, dev)
	open(t, dev, Config{Size: mib})
	dir := t.TempDir()
	if err := unix.Mount(dev, dir, "ext4", 0, ""); !errors.Is(err, unix.EBUSY) {
		t.Errorf("mount of a held device: %v, want EBUSY", err)
		if err == nil {
			run(t, "umount", dir)
		}
	}
	if out, err := exec.Command("mkfs.ext4", "-q", dev).CombinedOutput(); err == nil {
		t.Errorf("mkfs on a held device succeeded: %s", out)
	}
}

func TestC73FileShownByALoopDevice(t *testing.T) {
	path := image(t, mib)
	dev := loopDevice(t, path)
	hard := path + "-hard"
	if err := os.Link(path, hard); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{path, hard} {
		refused(t, p, ErrInUse, dev, "losetup -d")
	}
}

func TestC73ReadOnlyDevice(t *testing.T) {
	refused(t, loopDevice(t, image(t, mib), "--read-only"), ErrUnsuitable, "setrw")
}

func TestC73ReadOnlyFilesystem(t *testing.T) {
	dir := mount(t, "-t", "tmpfs", "tmpfs")
	path := filepath.Join(dir, "f")
	if err := os.WriteFile(path, make([]byte, mib), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, "mount", "-o", "remount,ro", dir)
	refused(t, path, ErrUnsuitable, "opened for writing")
}

func TestC73Swap(t *testing.T) {
	for name, target := range map[string]func(t *testing.T) string{
		"file":   func(t *testing.T) string { return image(t, mib) },
		"device": func(t *testing.T) string { return loopDevice(t, image(t, mib)) },
	} {
		t.Run(name, func(t *testing.T) {
			s, path := fakeSystem(t), target(t)
			put(t, filepath.Join(s.proc, "swaps"), "Filename Type Size Used Priority\n"+path+"\tpartition\t99\t0\t-2\n")
			_, err := s.open(path, Config{Size: mib})
			want(t, err, ErrInUse, "swap", "swapoff")
		})
	}
}

// fakeSystem tells of no users at all.
func fakeSystem(t *testing.T) system {
	dir := t.TempDir()
	return system{proc: filepath.Join(dir, "proc"), sys: filepath.Join(dir, "sys")}
}

func put(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func want(t *testing.T, err, target error, says ...string) {
	t.Helper()
	if !errors.Is(err, target) {
		t.Errorf("%v; want %v", err, target)
		return
	}
	for _, s := range says {
		if !strings.Contains(err.Error(), s) {
			t.Errorf("%q does not say %q", err, s)
		}
	}
}

// disks makes a system with the disk sda (8:0), its partitions sda1 (8:1) and sda2 (8:2), and the disk sdb (8:16).
func disks(t *testing.T) system {
	s := fakeSystem(t)
	for dir, number := range map[string]string{"sda": "8:0", "sda/sda1": "8:1", "sda/sda2": "8:2", "sdb": "8:16"} {
		full := filepath.Join(s.sys, "devices", dir)
		put(t, filepath.Join(full, "dev"), number+"\n")
		if strings.Contains(dir, "/") {
			put(t, filepath.Join(full, "partition"), "1\n")
		} else {
			put(t, filepath.Join(full, "diskseq"), "1"+number[2:]+"\n")
		}
		if err := os.MkdirAll(filepath.Join(full, "holders"), 0o700); err != nil {
			t.Fatal(err)
		}
		link := filepath.Join(s.sys, "dev/block", number)
		if err := errors.Join(os.MkdirAll(filepath.Dir(link), 0o700), os.Symlink(full, link)); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func device(minor uint32) target {
	return target{isBlock: true, st: unix.Stat_t{Mode: unix.S_IFBLK, Rdev: unix.Mkdev(8, minor)}}
}

// faults.md C73: what a disk is used for counts for its partitions and the reverse; neighbours are free.
func TestC73UseOfADiskAndItsPartitions(t *testing.T) {
	const line = "36 35 8:1 / /mnt/a\\040b rw,noatime shared:1 - ext4 /dev/no-such-device rw\n"
	for name, use := range map[string]struct {
		make func(t *testing.T, s system)
		says string
	}{
		"mounted": {func(t *testing.T, s system) { put(t, filepath.Join(s.proc, "self/mountinfo"), line) }, "mounted on /mnt/a b"},
		"LVM": {func(t *testing.T, s system) {
			put(t, filepath.Join(s.sys, "devices/sda/sda1/holders/dm-3"), "")
			put(t, filepath.Join(s.sys, "block/dm-3/dm/name"), "vg0-data\n")
		}, "dm-3 (device mapper or LVM: vg0-data)"},
		"RAID": {func(t *testing.T, s system) {
			put(t, filepath.Join(s.sys, "devices/sda/sda1/holders/md0"), "")
			put(t, filepath.Join(s.sys, "block/md0/md/level"), "raid1\n")
		}, "md0 (RAID, md: raid1)"},
		"bcache": {func(t *testing.T, s system) {
			put(t, filepath.Join(s.sys, "devices/sda/sda1/holders/bcache0"), "")
		}, "part of bcache0"},
	} {
		t.Run(name, func(t *testing.T) {
			s := disks(t)
			use.make(t, s)
			want(t, s.inUse(device(1)), ErrInUse, "it is", use.says)
			want(t, s.inUse(device(0)), ErrInUse, "its partition sda1", use.says)
			for _, free := range []uint32{2, 16} {
				if err := s.inUse(device(free)); err != nil {
					t.Errorf("8:%d: %v", free, err)
				}
			}
		})
	}
}

func TestC73PartitionOfAUsedDisk(t *testing.T) {
	s := disks(t)
	put(t, filepath.Join(s.sys, "devices/sda/holders/dm-0"), "")
	want(t, s.inUse(device(2)), ErrInUse, "its disk sda", "dm-0")
	if err := s.inUse(device(16)); err != nil {
		t.Error(err)
	}
}

// btrfs and the like have device numbers of their own; their source names the disk.
func TestC73MountedUnderANumberOfItsOwn(t *testing.T) {
	dev := loopDevice(t, image(t, mib))
	s := fakeSystem(t)
	put(t, filepath.Join(s.proc, "self/mountinfo"), "36 35 0:44 /sub /srv rw - btrfs "+dev+" rw\n")
	_, err := s.open(dev, Config{Size: mib})
	want(t, err, ErrInUse, "mounted on /srv")
}

func TestOddLinesOfTheKernelAreNoUse(t *testing.T) {
	s := disks(t)
	put(t, filepath.Join(s.proc, "self/mountinfo"), "\n36\n36 35 8:1 / /mnt\n36 35 8:1 / /mnt rw -\n36 35 8:1 / /mnt rw - ext4\na b c d e - f g\n")
	put(t, filepath.Join(s.proc, "swaps"), "Filename\n\n/no/such/file\n")
	if err := s.inUse(device(1)); err != nil {
		t.Error(err)
	}
}

func TestDiskseqOfAPartitionIsThatOfItsDisk(t *testing.T) {
	s := disks(t)
	if disk, part, other := s.diskseq(unix.Mkdev(8, 0)), s.diskseq(unix.Mkdev(8, 1)), s.diskseq(unix.Mkdev(8, 16)); disk != "10" || part != "10" || other != "116" {
		t.Errorf("diskseq %q, of its partition %q, of another %q", disk, part, other)
	}
	if err := os.Remove(filepath.Join(s.sys, "devices/sda/diskseq")); err != nil {
		t.Fatal(err)
	}
	if old := s.diskseq(unix.Mkdev(8, 1)); !strings.HasPrefix(old, "s") || len(old) < 2 {
		t.Errorf("without diskseq: %q", old)
	}
	if none := s.diskseq(unix.Mkdev(9, 9)); none != "" {
		t.Errorf("no such disk: %q", none)
	}
}

func TestR24FileIsMadePrivate(t *testing.T) {
	path := image(t, mib)
	if err := os.Chmod(path, 0o664); err != nil {
		t.Fatal(err)
	}
	open(t, path, Config{Size: mib})
	if fi, err := os.Stat(path); err != nil || fi.Mode() != 0o600 {
		t.Errorf("mode %v, %v; want 0600", fi.Mode(), err)
	}
}
