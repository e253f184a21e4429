package filedev

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// hold opens the backing and keeps others from it for as long as the descriptor is open (R24). There is one descriptor
// for each backing: a second lock or O_EXCL, even of our own, conflicts, and that is how the same backing for two
// volumes is found out, by whatever path.
func (s system) hold(t target) (int, error) {
	flags := unix.O_RDWR | unix.O_CLOEXEC
	switch {
	case t.isBlock:
		flags |= unix.O_EXCL
	case t.absent:
		flags |= unix.O_CREAT | unix.O_EXCL
	}
	fd, err := openRetry(t.path, flags)
	if err != nil {
		return -1, s.explainOpen(t, err)
	}
	if err := s.holdFd(fd, &t); err != nil {
		_ = release(fd) // the error that is returned says more
		return -1, err
	}
	return fd, nil
}

func openRetry(path string, flags int) (int, error) {
	for {
		fd, err := unix.Open(path, flags, 0o600)
		if !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}

func (s system) explainOpen(t target, err error) error {
	switch {
	case errors.Is(err, unix.EBUSY):
		return fmt.Errorf("%w: the kernel lets nobody else hold it%s: stop its user or name another device", ErrInUse, s.openers(t))
	case errors.Is(err, unix.ENOENT):
		return fmt.Errorf("create the file: %w: make its directory first", err)
	case errors.Is(err, unix.EROFS), errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return fmt.Errorf("%w: it cannot be opened for writing (%w): make it writable to this user (blockdev --setrw, chown, remount rw)", ErrUnsuitable, err)
	case errors.Is(err, unix.ENXIO), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENOMEDIUM):
		return fmt.Errorf("%w (%w): attach the disk", ErrGone, err)
	}
	return err
}

// holdFd checks that the opened one is the one that was looked at, and locks it if it is a file.
func (s system) holdFd(fd int, t *target) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("look at what was opened: %w", err)
	}
	if !t.absent && (st.Dev != t.st.Dev || st.Ino != t.st.Ino || st.Rdev != t.st.Rdev) {
		return fmt.Errorf("%w: another file took its place while it was opened: try again when nobody moves it", ErrInUse)
	}
	t.st = st
	if t.isBlock {
		return writable(fd)
	}
	if err := s.lockFile(fd, t); err != nil {
		return err
	}
	return private(fd, st)
}

func writable(fd int) error {
	readOnly, err := unix.IoctlGetUint32(fd, unix.BLKROGET)
	if err != nil {
		return fmt.Errorf("ask whether it is read-only: %w", err)
	}
	if readOnly != 0 {
		return fmt.Errorf("%w: it is read-only: make it writable (blockdev --setrw)", ErrUnsuitable)
	}
	return nil
}

// lockFile takes both kinds of lock, since other programs try one or the other: flock(1) and most daemons the first,
// qemu the second.
func (s system) lockFile(fd int, t *target) error {
	err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return s.locked(t, flocks)
	}
	if err != nil {
		return fmt.Errorf("lock it by flock: %w", err)
	}
	err = unix.FcntlFlock(uintptr(fd), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK})
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
		return s.locked(t, rangeLocks)
	}
	if err != nil {
		return fmt.Errorf("lock it by an open-file-description lock: %w", err)
	}
	return nil
}

// release gives free what is held by fd. The locks of a file are taken back, not left to the closing: a process that is
// being started has a copy of the descriptor until it is another program.
func release(fd int) error {
	_ = unix.Flock(fd, unix.LOCK_UN) // of a block device there is none
	_ = unix.FcntlFlock(uintptr(fd), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_UNLCK})
	return unix.Close(fd)
}

func (s system) locked(t *target, kinds []string) error {
	return fmt.Errorf("%w: it is locked by %s: stop that, or name another file (one backing cannot serve two volumes)", ErrInUse, s.lockHolder(t, kinds))
}

// private takes the file from other users: their writes would not be seen before a verify.
func private(fd int, st unix.Stat_t) error {
	if st.Mode&0o077 == 0 {
		return nil
	}
	if err := unix.Fchmod(fd, 0o600); err != nil {
		return fmt.Errorf("%w: other users may open it, mode %#o, and that cannot be changed (%w): chmod 600 it", ErrUnsuitable, st.Mode&0o777, err)
	}
	return nil
}
