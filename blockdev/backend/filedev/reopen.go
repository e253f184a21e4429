package filedev

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"hacluster/blockdev"
)

// ErrBusy: an operation is in flight, so the backing cannot be opened anew.
var ErrBusy = errors.New("an operation is in flight")

// Reopen opens the backing anew beside the hold and does all further I/O there. A failed flush is final for the opening
// in which it failed; afterwards flushes count again, for what is written from then on. What was lost stays lost: the
// caller writes everything again before it relies on any of it (R23).
//
// The hold is never let go (R24): the descriptor that has the locks stays open, and the new one takes none. What lies at
// the path has to be the very thing that is held, as it was attached at Open; anything else is refused. So is a call
// while an operation is in flight. After an error the device is as it was before.
func (d *Dev) Reopen() error {
	d.life.Lock()
	defer d.life.Unlock()
	if err := d.gate.pause(); err != nil {
		return fmt.Errorf("reopen %s: %w", d.path, err)
	}
	defer d.gate.resume()
	fd, err := host.again(d)
	if err != nil {
		return fmt.Errorf("reopen %s: %w", d.path, err)
	}
	old := d.fd
	d.fd = fd
	d.syncs.forget()
	err = d.disk.close()
	if old != d.held {
		err = errors.Join(err, unix.Close(old))
	}
	if err != nil {
		return fmt.Errorf("reopen %s: close the old descriptors: %w", d.path, err)
	}
	return nil
}

// again opens what d holds once more, in the same mode of I/O.
func (s system) again(d *Dev) (fd int, err error) {
	flags := unix.O_RDWR | unix.O_CLOEXEC
	if d.direct {
		flags |= unix.O_DIRECT
	}
	if fd, err = openRetry(d.path, flags); err != nil {
		return -1, err
	}
	if err := s.same(d, fd); err != nil {
		_ = unix.Close(fd) // the error that is returned says more
		return -1, err
	}
	return fd, nil
}

// same checks that fd is of what d holds.
func (s system) same(d *Dev, fd int) error {
	var held, st unix.Stat_t
	if err := errors.Join(unix.Fstat(d.held, &held), unix.Fstat(fd, &st)); err != nil {
		return fmt.Errorf("look at what was opened: %w", err)
	}
	attachment, err := s.attachmentOf(fd)
	if err != nil {
		return err
	}
	if st.Dev != held.Dev || st.Ino != held.Ino || st.Rdev != held.Rdev || attachment != d.attachment {
		return fmt.Errorf("%w: another file or device is there now (%s, %s is held): put the old one back, or restart haclusterd", ErrInUse, attachment, d.attachment)
	}
	size, err := unix.Seek(fd, 0, unix.SEEK_END)
	if err != nil {
		return fmt.Errorf("find its size: %w", err)
	}
	if size < d.size {
		return fmt.Errorf("%w: it has %d bytes now, the volume needs %d: enlarge the backing", ErrUnsuitable, size, d.size)
	}
	return nil
}

var _ blockdev.Reopener = (*Dev)(nil)
