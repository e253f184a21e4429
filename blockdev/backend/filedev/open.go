package filedev

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"hacluster/blockdev"
)

// open looks first and holds then. Whatever slips in between is caught by the hold: the kernel lets nobody mount or
// claim a block device that is held, nor us hold one that is.
func (s system) open(path string, cfg Config) (_ *Dev, err error) {
	t, err := lookAt(path, cfg.Create)
	if err != nil {
		return nil, err
	}
	if !t.absent {
		if err := s.inUse(t); err != nil {
			return nil, err
		}
	}
	fd, err := s.hold(t)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = unix.Close(fd) // the error that is returned says more
		}
	}()
	d := &Dev{path: path, fd: fd, held: fd, size: cfg.Size, isBlock: t.isBlock, gate: newGate(), syncs: newSyncs()}
	if d.backingSize, err = sizeOf(fd, t, cfg); err != nil {
		if short := new(ShortError); errors.As(err, &short) {
			short.Attachment, _ = s.attachmentOf(fd) // unknown is said by its being empty
		}
		return nil, err
	}
	if d.attachment, err = s.attachmentOf(fd); err != nil {
		return nil, err
	}
	return d, d.chooseMode(cfg.Mode)
}

// target is what lies at the path of a backing.
type target struct {
	path    string
	absent  bool
	isBlock bool
	st      unix.Stat_t
}

// lookAt finds out what kind of thing a path names, without opening it: opening a fifo or a device can have effects.
func lookAt(path string, create bool) (target, error) {
	t := target{path: path}
	err := unix.Stat(path, &t.st)
	switch {
	case errors.Is(err, fs.ErrNotExist) && create:
		t.absent = true
		return t, nil
	case errors.Is(err, fs.ErrNotExist):
		return t, fmt.Errorf("%w: nothing is there: check the path, or have the file created", err)
	case err != nil:
		return t, err
	}
	return t, t.setKind()
}

func (t *target) setKind() error {
	switch t.st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return nil
	case unix.S_IFBLK:
		t.isBlock = true
		return nil
	}
	return fmt.Errorf("%w: it is a %s: name a block device or a regular file", ErrUnsuitable, kindName(t.st.Mode))
}

func kindName(mode uint32) string {
	switch mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return "directory"
	case unix.S_IFCHR:
		return "character device"
	case unix.S_IFIFO:
		return "fifo"
	case unix.S_IFSOCK:
		return "socket"
	}
	return fmt.Sprintf("thing of mode %#o", mode)
}

// sizeOf returns the length of the backing after giving a file that is being created its own.
func sizeOf(fd int, t target, cfg Config) (int64, error) {
	size, err := unix.Seek(fd, 0, unix.SEEK_END) // of block devices too
	if err != nil {
		return 0, fmt.Errorf("find its size: %w", err)
	}
	if size == 0 && !t.isBlock && cfg.Create {
		return cfg.Size, create(fd, t.path, cfg.Size)
	}
	if size >= cfg.Size {
		return size, nil
	}
	return 0, &ShortError{Has: size, Wants: cfg.Size}
}

// ShortError: the backing is smaller than the volume. It is ErrUnsuitable.
type ShortError struct {
	Has, Wants int64  // bytes
	Attachment string // as that of a Dev; empty: not known
}

func (e *ShortError) Error() string {
	do := "enlarge the backing"
	if e.Has >= blockdev.BlockSize {
		do += fmt.Sprintf(", or set the volume's size to at most %d", e.Has/blockdev.BlockSize*blockdev.BlockSize)
	}
	return fmt.Sprintf("%v: it has %d bytes, the volume needs %d: %s", ErrUnsuitable, e.Has, e.Wants, do)
}

// Unwrap makes it ErrUnsuitable.
func (e *ShortError) Unwrap() error { return ErrUnsuitable }

// create makes the empty file at fd a sparse one of size.
//
//	1 the file exists, empty      a crash here leaves an empty file, which the next Open with Create takes as absent
//	2 it gets its length          the same, or a sparse file of the right size
//	3 file, then directory synced the name is durable before anything is written to it
func create(fd int, path string, size int64) error {
	if err := unix.Ftruncate(fd, size); err != nil {
		return fmt.Errorf("make it a sparse file of %d bytes: %w", size, err)
	}
	if err := unix.Fsync(fd); err != nil {
		return fmt.Errorf("sync the new file: %w", err)
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return fmt.Errorf("sync the directory of the new file: %w", err)
	}
	defer dir.Close()
	if err := dir.Sync(); err != nil {
		return fmt.Errorf("sync the directory of the new file: %w", err)
	}
	return nil
}

// chooseMode turns O_DIRECT on where it is wanted and works.
func (d *Dev) chooseMode(m Mode) error {
	if m == Buffered || m == Auto && !d.isBlock && inMemory(d.fd) {
		return nil
	}
	err := d.tryDirect()
	if err != nil && m == Direct {
		return fmt.Errorf("%w: it does not take O_DIRECT in units of %d bytes (%w): use buffered I/O", ErrUnsuitable, align, err)
	}
	return nil
}

// tryDirect reads the first block with O_DIRECT: some filesystems accept the flag and refuse the reading.
func (d *Dev) tryDirect() error {
	flags, err := unix.FcntlInt(uintptr(d.fd), unix.F_GETFL, 0)
	if err != nil {
		return err
	}
	if _, err := unix.FcntlInt(uintptr(d.fd), unix.F_SETFL, flags|unix.O_DIRECT); err != nil {
		return err
	}
	buf := blockdev.NewBuf(align)
	defer buf.Free()
	if _, err = d.pread(buf.Bytes(), 0); err == nil {
		d.direct = true
		return nil
	}
	if _, back := unix.FcntlInt(uintptr(d.fd), unix.F_SETFL, flags); back != nil {
		return errors.Join(err, back)
	}
	return err
}

// inMemory reports whether the file lies on a filesystem without a disk, where O_DIRECT gains nothing. Not to be asked of
// a block device: its name lies on one.
func inMemory(fd int) bool {
	var st unix.Statfs_t
	if unix.Fstatfs(fd, &st) != nil {
		return false
	}
	return st.Type == unix.TMPFS_MAGIC || st.Type == unix.RAMFS_MAGIC
}
