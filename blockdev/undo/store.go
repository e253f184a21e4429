package undo

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Store is the file of an area. WriteAt, Truncate and Flush are called by one goroutine at a time.
type Store interface {
	io.ReaderAt
	io.WriterAt
	// Size is up to where it may hold anything.
	Size() (int64, error)
	Truncate(size int64) error
	// Flush makes durable what was written.
	Flush() error
	Close() error
}

// Place is where the file of a replica's area is, or will be.
type Place interface {
	// Open opens the file that is there. ErrNone: there is none.
	Open() (Store, error)
	// Create makes a file that holds p alone, in the place of any that is there. It is there durably when it returns; a
	// crash before leaves the one or the other, whole.
	Create(p []byte) (Store, error)
	// Remove has it gone durably.
	Remove() error
}

// Dir is the Place in a directory of a file system.
type Dir struct {
	// Path of the file.
	Path string
	// Reserve is how many bytes of the file system are left free for others: an area that filled it up would stop Raft,
	// the superblocks and the maps with it.
	Reserve func(total int64) int64
}

var _ Place = (*Dir)(nil)

type osFile struct {
	*os.File
	d    *Dir
	size int64
}

// Open implements Place.
func (d *Dir) Open() (Store, error) {
	f, err := os.OpenFile(d.Path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %w", ErrNone, err)
	}
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &osFile{f, d, info.Size()}, nil
}

// Create implements Place.
//
//	1 the content goes to a file beside it, which is synced   a crash before 2 leaves what was there
//	2 it is renamed into place, the directory is synced       a crash leaves the one or the other, whole
func (d *Dir) Create(p []byte) (Store, error) {
	beside := d.Path + ".new"
	f, err := os.OpenFile(beside, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, noRoom(err)
	}
	s := &osFile{File: f, d: d}
	_, err = s.WriteAt(p, 0)
	if err == nil {
		err = noRoom(f.Sync())
	}
	if err == nil {
		err = os.Rename(beside, d.Path)
	}
	if err == nil {
		err = syncDir(filepath.Dir(d.Path))
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return s, nil
}

// Remove implements Place.
func (d *Dir) Remove() error {
	for _, path := range []string{d.Path, d.Path + ".new"} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return syncDir(filepath.Dir(d.Path))
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

func (f *osFile) Size() (int64, error) { return f.size, nil }

// WriteAt refuses what would take of the reserve.
func (f *osFile) WriteAt(p []byte, off int64) (int, error) {
	if grow := off + int64(len(p)) - f.size; grow > 0 {
		if err := f.d.room(f.File, grow); err != nil {
			return 0, err
		}
	}
	n, err := f.File.WriteAt(p, off)
	f.size = max(f.size, off+int64(n))
	return n, noRoom(err)
}

func (d *Dir) room(f *os.File, grow int64) error {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err != nil {
		return fmt.Errorf("ask for the free space beside the undo area: %w", err)
	}
	free, total := int64(st.Bavail)*st.Bsize, int64(st.Blocks)*st.Bsize
	keep := int64(0)
	if d.Reserve != nil {
		keep = d.Reserve(total)
	}
	if free-grow < keep {
		return fmt.Errorf("%w: %d bytes are free in its file system, of which %d are kept for others: give data_dir more space", ErrNoRoom, free, keep)
	}
	return nil
}

// Truncate shortens it.
func (f *osFile) Truncate(size int64) error {
	err := f.File.Truncate(size)
	if err == nil {
		f.size = size
	}
	return err
}

func (f *osFile) Flush() error { return noRoom(unix.Fdatasync(int(f.Fd()))) }

func noRoom(err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return fmt.Errorf("%w: %w", ErrNoRoom, err)
	}
	return err
}
