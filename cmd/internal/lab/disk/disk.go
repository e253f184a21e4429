// Package disk gives tests disks that lose power, fail, hang and lie: it starts program hadisk, which mounts a file system
// of its own, and speaks to its control socket. Package mount tells what the file system can do, package unflushed what a
// power cut does.
//
//	d, err := disk.Start(ctx, disk.Config{Bin: bin, Dir: dir})      dir/mnt is the file system
//	d.Fault(disk.Fault{Kind: disk.EIO, Op: disk.Flush, Glob: "*.img"})
//	d.PowerCut(disk.Torn, 7)                                        after whoever used it was killed
//	d.Stop()                                                        nothing stays mounted
//
// The end-to-end tests and the laboratory of servers use it. Nothing of the product does.
package disk

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Config of a disk.
type Config struct {
	Bin     string // path of program hadisk
	Dir     string // folder of its own: mnt is the file system, store holds the bytes, control is the socket
	Mount   string // where else than Dir/mnt it is mounted
	Lenient bool   // names become durable as on ext4: any flush carries them
	Cache   int64  // bytes of memory for what is not flushed; default 256 MiB
}

// Disk is a running one.
type Disk struct {
	*Control
	Mount string // the folder to use

	cmd    *exec.Cmd
	done   chan struct{} // closed when the process has ended
	ended  atomic.Bool   // by Stop or Kill
	stderr bytes.Buffer  // to be read after done
}

// Start mounts a disk. It holds what an earlier one in the same folder held.
func Start(ctx context.Context, cfg Config) (*Disk, error) {
	if cfg.Mount == "" {
		cfg.Mount = filepath.Join(cfg.Dir, "mnt")
	}
	for _, dir := range []string{cfg.Mount, filepath.Join(cfg.Dir, "store")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
	}
	socket := filepath.Join(cfg.Dir, "control")
	args := []string{"mount", cfg.Mount, "--store", filepath.Join(cfg.Dir, "store"), "--control", socket, "--cache", fmt.Sprint(cfg.Cache)}
	if cfg.Lenient {
		args = append(args, "--lenient")
	}
	d := &Disk{Mount: cfg.Mount, cmd: exec.Command(cfg.Bin, args...), done: make(chan struct{}), Control: &Control{path: socket}}
	out, err := d.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	d.cmd.Stderr = &d.stderr
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM} // nothing outlives us
	if err := d.launch(); err != nil {
		return nil, fmt.Errorf("start hadisk: %w", err)
	}
	return d, d.ready(ctx, out)
}

// launch starts the process on a thread that lives as long as it does: Pdeathsig follows the thread.
func (d *Disk) launch() error {
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		started <- d.cmd.Start()
		if d.cmd.Process != nil {
			_, _ = d.cmd.Process.Wait() // what it has to say is in stderr
		}
		close(d.done)
	}()
	return <-started
}

func (d *Disk) ready(ctx context.Context, out io.Reader) error {
	line := make(chan string, 1)
	go func() {
		s, _ := bufio.NewReader(out).ReadString('\n')
		line <- s
	}()
	select {
	case s := <-line:
		if s == "ready\n" {
			return nil
		}
		<-d.done
		return fmt.Errorf("hadisk did not mount %s: %s", d.Mount, d.stderr.String())
	case <-ctx.Done():
		return errors.Join(fmt.Errorf("hadisk does not get ready: %w", ctx.Err()), d.Stop())
	}
}

// stopping is how long a disk has to unmount by itself.
const stopping = 10 * time.Second

// Stop unmounts. Whoever still uses the disk gets errors; what hangs fails.
func (d *Disk) Stop() error {
	if d.ended.Swap(true) {
		return nil
	}
	select {
	case <-d.done:
		return errors.Join(fmt.Errorf("hadisk ended by itself: %s", d.stderr.String()), d.gone())
	default:
	}
	_ = d.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-d.done:
	case <-time.After(stopping):
		_ = d.cmd.Process.Kill()
		<-d.done
	}
	return d.gone()
}

// Kill ends the process: everything that waits for the disk fails, also what nothing else can end.
func (d *Disk) Kill() error {
	d.ended.Store(true)
	_ = d.cmd.Process.Kill()
	<-d.done
	return d.gone()
}

// gone unmounts what a killed process left.
func (d *Disk) gone() error {
	var st unix.Statfs_t
	for errors.Is(unix.Statfs(d.Mount, &st), unix.ENOTCONN) {
		if err := unix.Unmount(d.Mount, unix.MNT_DETACH); err != nil {
			return fmt.Errorf("unmount %s: %w", d.Mount, err)
		}
	}
	return nil
}
