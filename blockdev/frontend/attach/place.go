package attach

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"hacluster/blockdev/frontend/fuse"
	"hacluster/blockdev/frontend/loop"
)

// Place is where the device of one volume and what belongs to it lie on this machine.
type Place struct {
	Dir    string // of all volumes of this node; a folder of each lies in it
	Devs   string // folder of the links to devices, such as /dev/hacluster
	Volume string
}

// Link is the path of the device for users.
func (p Place) Link() string { return filepath.Join(p.Devs, p.Volume) }

func (p Place) dir() string     { return filepath.Join(p.Dir, p.Volume) }
func (p Place) mount() string   { return filepath.Join(p.dir(), "mnt") }
func (p Place) control() string { return filepath.Join(p.dir(), "control") }
func (p Place) lock() string    { return filepath.Join(p.dir(), "lock") }

// file is the one that the loop device is of.
func (p Place) file() string { return filepath.Join(p.mount(), p.Volume) }

// maxSocket is the longest path of a unix socket.
const maxSocket = 107

// check refuses a place that cannot be.
func (p Place) check() error {
	if len(p.control()) > maxSocket {
		return fmt.Errorf("%s is longer than the %d bytes that the path of a unix socket may have: a shorter data_dir is wanted", p.control(), maxSocket)
	}
	return nil
}

// Supported says why this machine can attach nothing; nil: it can.
func Supported() error {
	if err := fuse.Supported(); err != nil {
		return err
	}
	return loop.Supported()
}

// Places lists the volumes that have had a device below dir.
func Places(dir, devs string) (all []Place, err error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("look for devices: %w", err)
	}
	for _, e := range entries {
		if e.IsDir() {
			all = append(all, Place{Dir: dir, Devs: devs, Volume: e.Name()})
		}
	}
	return all, nil
}

// Runs reports whether a Server of the volume runs: it holds the lock as long as it lives.
func (p Place) Runs() bool {
	fd, err := unix.Open(p.lock(), unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	return errors.Is(unix.Flock(fd, unix.LOCK_SH|unix.LOCK_NB), unix.EWOULDBLOCK)
}

// Ended waits until no Server of the volume runs.
func (p Place) Ended(ctx context.Context) error {
	for p.Runs() {
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("the server process of %s does not end: %w", p.Link(), ctx.Err())
		}
	}
	return nil
}

// Left reports whether a Server that runs no more left a device or a mount.
func (p Place) Left() bool {
	if mounted(p.mount()) {
		return true
	}
	if target, err := os.Readlink(p.Link()); err == nil && strings.HasPrefix(target, "/dev/loop") {
		return true
	}
	return len(loop.Find(p.file())) > 0
}

// mounted asks the kernel's list: a dead file system answers nothing itself.
func mounted(dir string) bool {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return false
	}
	defer f.Close()
	for in := bufio.NewScanner(f); in.Scan(); {
		if words := strings.Fields(in.Text()); len(words) > 4 && words[4] == dir {
			return true
		}
	}
	return false
}

// Clean clears away what a killed Server left. What somebody still uses gives errors, and goes when nobody does; who that is, is
// logged. Where a Server runs by now, all is its.
func (p Place) Clean(log *slog.Logger) error {
	fd, err := unix.Open(p.lock(), unix.O_RDWR|unix.O_CLOEXEC, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // there never was one
	} else if err != nil {
		return fmt.Errorf("open %s: %w", p.lock(), err)
	}
	defer unix.Close(fd)
	if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); errors.Is(err, unix.EWOULDBLOCK) {
		return nil
	} else if err != nil {
		return fmt.Errorf("lock %s: %w", p.lock(), err)
	}
	return p.clean(log)
}

func (p Place) clean(log *slog.Logger) error {
	var errs []error
	for _, d := range loop.Find(p.file()) { // before the mount goes, by whose path they are found
		if err := d.Abandon(); err != nil {
			errs = append(errs, err)
		} else if d.Bound() {
			log.Warn("a dead device is still in use, and gives errors: unmount it, or stop who uses it", "device", d.Path, "users", users(d))
		} else {
			log.Info("dead device cleared away", "device", d.Path)
		}
	}
	for mounted(p.mount()) { // one over the other, if a mount failed half-way
		if err := fuse.Unmount(p.mount()); err != nil {
			errs = append(errs, err)
			break
		}
	}
	return errors.Join(append(errs, p.unlink())...)
}

func users(d loop.Device) (all []string) {
	for _, u := range d.Users() {
		all = append(all, u.String())
	}
	return all
}

// unlink removes the link for users. Anything else in its place stays.
func (p Place) unlink() error {
	target, err := os.Readlink(p.Link())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil || !strings.HasPrefix(target, "/dev/loop") {
		return fmt.Errorf("%s is in the way, and not ours: remove it", p.Link())
	}
	return os.Remove(p.Link())
}

// link makes the link for users.
func (p Place) link(to string) error {
	if err := os.MkdirAll(p.Devs, 0o755); err != nil {
		return fmt.Errorf("folder of devices: %w", err)
	}
	if err := p.unlink(); err != nil {
		return err
	}
	return os.Symlink(to, p.Link())
}

// startLimit is how long a Server may take until the device is there: it connects, mounts and configures.
const startLimit = 30 * time.Second

// Subcommand is the first argument of the program when it is a Server.
const Subcommand = "serve-device"

// Launch starts a Server, which outlives this process, and returns when the device is there. nbd is the path of the socket on which
// the volume is served. ended is called when the process has ended, whenever that is.
func (p Place) Launch(ctx context.Context, program, nbd string, ended func(error)) error {
	if err := p.check(); err != nil {
		return err
	}
	if err := os.MkdirAll(p.mount(), 0o700); err != nil {
		return fmt.Errorf("attach: %w", err)
	}
	told, tell, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("attach: %w", err)
	}
	defer told.Close()
	cmd := exec.Command(program, Subcommand, p.Dir, p.Devs, p.Volume, nbd)
	cmd.Stderr, cmd.ExtraFiles = os.Stderr, []*os.File{tell}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // signals to the daemon's group are not for it
	err = cmd.Start()
	tell.Close()
	if err != nil {
		return fmt.Errorf("start the server process of %s: %w", p.Link(), err)
	}
	go func() { ended(cmd.Wait()) }()
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	defer context.AfterFunc(ctx, func() { told.SetReadDeadline(time.Now()) })()
	line, err := bufio.NewReader(told).ReadString('\n')
	switch line = strings.TrimSpace(line); {
	case line == "ready":
		return nil
	case line != "":
		return errors.New(line)
	case ctx.Err() != nil:
		_ = cmd.Process.Kill()
		return fmt.Errorf("the server process of %s was not ready within %v: it was killed", p.Link(), startLimit)
	}
	return fmt.Errorf("the server process of %s ended at its start: %w", p.Link(), err)
}
