package identity

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// maxUnixPath is what fits into a Linux sockaddr_un, with its closing zero.
	maxUnixPath = 107
	// unixPatience bounds the wait for an answer on a socket that exists, and for other processes that are
	// creating sockets in the same folder.
	unixPatience = 2 * time.Second
)

// ListenUnix listens on a local socket that only this user may connect to. A socket that a dead process left is
// replaced; one on which somebody answers, and anything that is not a socket, is refused. Closing removes the socket.
func ListenUnix(path string) (net.Listener, error) {
	if len(path) > maxUnixPath {
		return nil, fmt.Errorf("listen on %s: the path has %d bytes, a socket's may have %d: choose a shorter folder", path, len(path), maxUnixPath)
	}
	unlock, err := lockFolder(filepath.Dir(path))
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	defer unlock()
	if err := removeStale(path); err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	lc := net.ListenConfig{Control: private}
	return lc.Listen(context.Background(), "unix", path)
}

// lockFolder keeps two processes that start at once from removing each other's fresh socket.
func lockFolder(dir string) (unlock func(), err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	deadline := time.Now().Add(unixPatience)
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() {
				_ = unix.Flock(int(f.Fd()), unix.LOCK_UN) // a process that is being started has a copy of f
				f.Close()
			}, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) || time.Now().After(deadline) {
			f.Close()
			return nil, fmt.Errorf("lock folder %s: %w", dir, err)
		}
		time.Sleep(5 * time.Millisecond) // flock has no form with a deadline
	}
}

func removeStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("something that is not a socket lies there (%s): move it away or choose another path", info.Mode())
	}
	c, err := net.DialTimeout("unix", path, unixPatience)
	if err == nil {
		c.Close()
		return errors.New("another process answers on it: stop that one or choose another path")
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("cannot tell whether another process uses the socket that lies there: %w", err)
	}
	return os.Remove(path)
}

// private sets the mode before the socket gets its name: Linux gives the file the mode of the socket's inode, so that
// at no time somebody else may connect.
func private(_, _ string, raw syscall.RawConn) error {
	var mode error
	err := raw.Control(func(fd uintptr) { mode = unix.Fchmod(int(fd), 0o600) })
	return errors.Join(err, mode)
}
