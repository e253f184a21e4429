// Package loop makes block devices of files by the kernel's loop driver, with direct I/O, and tells who uses one. It finds
// the devices of a file again, also when who served the file was killed.
//
// It refuses a device without direct I/O: with it off the page cache would keep a second copy of what the file has, which is
// stale as soon as the content changes elsewhere.
//
// A device in use is never taken away: the kernel lets it go when the last who has it open closes it.
package loop

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// BlockSize is what the devices have as logical block size, so that no request is smaller than the volume's unit.
const BlockSize = 4096

// Device is one loop device.
type Device struct {
	Path   string // such as /dev/loop3
	Number int
}

// ErrBusy: somebody has the device open.
var ErrBusy = errors.New("the device is in use")

// tries bounds how often a free device is looked for: others may take the one that was found.
const tries = 64

// Supported says why loop devices cannot be had; nil: they can.
func Supported() error {
	f, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("loop devices are not available: %w: `modprobe loop`, as root", err)
	}
	return f.Close()
}

// Attach makes a device of the file at path.
func Attach(path string) (Device, error) {
	// Not os.OpenFile: it asks whether the file can be polled, which who serves the file would have to answer while it waits here.
	file, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return Device{}, fmt.Errorf("open %s for a loop device: %w", path, err)
	}
	defer unix.Close(file)
	ctl, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return Device{}, fmt.Errorf("loop device for %s: %w: `modprobe loop`", path, err)
	}
	defer ctl.Close()
	for range tries {
		n, err := unix.IoctlRetInt(int(ctl.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return Device{}, fmt.Errorf("find a free loop device: %w", err)
		}
		d := Device{Path: "/dev/loop" + strconv.Itoa(n), Number: n}
		err = d.configure(file)
		if errors.Is(err, unix.EBUSY) {
			continue // somebody else was faster
		}
		if err != nil {
			return Device{}, fmt.Errorf("loop device for %s: %w", path, err)
		}
		return d, nil
	}
	return Device{}, fmt.Errorf("loop device for %s: %d free ones were taken by others meanwhile: try again", path, tries)
}

func (d Device) configure(file int) error {
	fd, err := d.open()
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	cfg := unix.LoopConfig{Fd: uint32(file), Size: BlockSize, Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_DIRECT_IO}}
	if err := unix.IoctlLoopConfigure(fd, &cfg); err != nil {
		return fmt.Errorf("configure %s: %w (Linux 5.8 or newer is wanted)", d.Path, err)
	}
	info, err := unix.IoctlLoopGetStatus64(fd)
	if err == nil && info.Flags&unix.LO_FLAGS_DIRECT_IO == 0 {
		err = errors.New("it has no direct I/O, so its content would be kept twice and go stale")
	}
	if err != nil {
		return errors.Join(fmt.Errorf("%s: %w", d.Path, err), unix.IoctlSetInt(fd, unix.LOOP_CLR_FD, 0))
	}
	return nil
}

// open opens the device's node, which is made where nobody else does.
func (d Device) open() (fd int, err error) {
	fd, err = unix.Open(d.Path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		if err := unix.Mknod(d.Path, unix.S_IFBLK|0o600, int(d.rdev())); err != nil && !errors.Is(err, unix.EEXIST) {
			return -1, fmt.Errorf("make the node %s: %w", d.Path, err)
		}
		fd, err = unix.Open(d.Path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		return -1, fmt.Errorf("open %s: %w", d.Path, err)
	}
	return fd, nil
}

const major = 7 // of loop devices

func (d Device) rdev() uint64 { return unix.Mkdev(major, uint32(d.Number)) }

// Detach lets the device go if nobody else has it open; else nothing is changed, and it is ErrBusy. From its success on nobody
// can open it.
func (d Device) Detach() error { return d.detach(false) }

// Abandon lets the device go at once, or, if it is in use, as soon as nobody has it open any more. Bound tells which.
func (d Device) Abandon() error { return d.detach(true) }

func (d Device) detach(later bool) error {
	fd, err := d.open()
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.IoctlSetInt(fd, unix.LOOP_CLR_FD, 0); err != nil && !errors.Is(err, unix.ENXIO) {
		return fmt.Errorf("let %s go: %w", d.Path, err)
	}
	if later {
		return nil // who asks a dead file system about its file gets no answer worth having
	}
	// Somebody else had it open: the kernel only noted that it is to go with the last of them, which can be taken back as long as
	// we have it open too.
	info, err := unix.IoctlLoopGetStatus64(fd)
	switch {
	case errors.Is(err, unix.ENXIO):
		return nil
	case err != nil:
		return fmt.Errorf("look at %s: %w", d.Path, err)
	}
	info.Flags &^= unix.LO_FLAGS_AUTOCLEAR
	if err := unix.IoctlLoopSetStatus64(fd, info); err != nil {
		return fmt.Errorf("keep %s, which is in use: %w", d.Path, err)
	}
	return fmt.Errorf("%s: %w", d.Path, ErrBusy)
}

// Resize has the device take the size that its file has now.
func (d Device) Resize() error {
	fd, err := d.open()
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.IoctlSetInt(fd, unix.LOOP_SET_CAPACITY, 0); err != nil {
		return fmt.Errorf("give %s its new size: %w", d.Path, err)
	}
	return nil
}

// Bound reports whether the device has a file.
func (d Device) Bound() bool { return d.sysfs("backing_file") != "" }

func (d Device) sysfs(name string) string {
	b, _ := os.ReadFile(fmt.Sprintf("/sys/block/loop%d/loop/%s", d.Number, name))
	return strings.TrimSuffix(string(b), "\n")
}

// Find lists the devices of the file at path, but for those that go with their last user already. It opens none of them.
func Find(path string) (all []Device) {
	dirs, _ := filepath.Glob("/sys/block/loop*/loop") // there while a file is attached
	for _, dir := range dirs {
		base := filepath.Base(filepath.Dir(dir))
		n, err := strconv.Atoi(strings.TrimPrefix(base, "loop"))
		if err != nil {
			continue
		}
		d := Device{Path: "/dev/" + base, Number: n}
		if isOf(d.sysfs("backing_file"), path) && d.sysfs("autoclear") != "1" {
			all = append(all, d)
		}
	}
	return all
}

// isOf compares what the kernel says of the file with a path. A file whose name it had to ask a dead file system for counts as deleted.
func isOf(backing, path string) bool {
	return strings.TrimSuffix(backing, " (deleted)") == path
}
