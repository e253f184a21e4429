// Package fuse shows a block device to the kernel as the one file of a file system, so that a loop device can be made of it.
//
// Requests are answered by the device in the goroutine in which they come, and wait as long as it does: a device that holds them
// holds the kernel's. What is in flight is bounded in number and bytes, and no more is taken from the kernel at the bound. The
// kernel caches nothing of the content.
package fuse

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"os"
	"strings"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"hacluster/blockdev"
)

// The bounds: of one request, of those that the kernel has under way by itself, and of all bytes that came from it.
const (
	MaxRequest  = 1 << 20
	maxRequests = 32
	MaxInFlight = 32 << 20
)

// Config of a mount.
type Config struct {
	Dir    string // where it is mounted: an empty folder
	Name   string // of the file
	Device blockdev.Device
	Log    *slog.Logger
}

// Mount is a mounted file system.
type Mount struct {
	cfg    Config
	server *fuse.Server
	done   chan struct{} // closed when it serves no more
}

// Supported says why nothing can be mounted; nil: it can.
func Supported() error {
	if os.Geteuid() != 0 {
		return errors.New("only root may mount a FUSE file system")
	}
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("FUSE is not available: %w: `modprobe fuse`", err)
	}
	return f.Close()
}

// Open mounts and serves, until Close or somebody else unmounts.
func Open(cfg Config) (*Mount, error) {
	m := &Mount{cfg: cfg, done: make(chan struct{})}
	server, err := fuse.NewServer(newFile(cfg), cfg.Dir, &fuse.MountOptions{
		DirectMountStrict: true, FsName: "hacluster", Name: "hacluster", MaxWrite: MaxRequest, MaxBackground: maxRequests,
		MaxInflightRequestBytes: MaxInFlight, DisableXAttrs: true, DisableSplice: true, DisableReadDirPlus: true, IgnoreSecurityLabels: true,
		Logger: log.New(logWriter{cfg.Log}, "", 0),
	})
	if err != nil {
		return nil, fmt.Errorf("mount FUSE at %s: %w", cfg.Dir, err)
	}
	m.server = server
	go func() {
		defer close(m.done)
		server.Serve()
	}()
	if err := server.WaitMount(); err != nil {
		return nil, errors.Join(fmt.Errorf("mount FUSE at %s: %w", cfg.Dir, err), m.Close(context.Background()))
	}
	return m, nil
}

// File is the path of the file.
func (m *Mount) File() string { return m.cfg.Dir + "/" + m.cfg.Name }

// Done is closed when nothing is served any more: somebody unmounted it.
func (m *Mount) Done() <-chan struct{} { return m.done }

// Close takes the mount out of the tree, and waits until nobody has the file open any more, at the longest until ctx ends.
func (m *Mount) Close(ctx context.Context) error {
	if err := Unmount(m.cfg.Dir); err != nil {
		return err
	}
	select {
	case <-m.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("the FUSE file system at %s is still in use: %w", m.cfg.Dir, ctx.Err())
	}
}

// Unmount takes whatever is mounted at dir out of the tree; that nothing is, is no error. Who still uses it goes on to.
func Unmount(dir string) error {
	err := unix.Unmount(dir, unix.MNT_DETACH)
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("unmount %s: %w", dir, err)
	}
	return nil
}

// logWriter takes go-fuse's lines.
type logWriter struct{ log *slog.Logger }

func (w logWriter) Write(p []byte) (int, error) {
	w.log.Warn("the FUSE library says", "line", strings.TrimSpace(string(p)))
	return len(p), nil
}
