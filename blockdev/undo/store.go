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
	// Space is what it takes room of, together with the other areas of the node; nil: of all that is free.
	Space *Space
}

var _ Place = (*Dir)(nil)

type osFile struct {
	*os.File
	d      *Dir
	size   int64
	direct *os.File // the same file, past the page cache; nil: its filesystem or disk does not take that
}

// directBytes is from where on a write goes past the page cache: copying that much there would take longer than the disk does.
// Less is written back by the flush at once, and without one it is not waited for.
const directBytes = 1 << 20

// pastCache gives what is open a way past the page cache, where there is one.
func pastCache(f *os.File, d *Dir, size int64) *osFile {
	direct, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), os.O_WRONLY|unix.O_DIRECT, 0)
	if err != nil {
		direct = nil
	}
	return &osFile{f, d, size, direct}
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
	return pastCache(f, d, info.Size()), nil
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
	s := pastCache(f, d, 0)
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
		return nil, errors.Join(err, s.Close())
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
	if grow := off + int64(len(p)) - f.size; grow > 0 && f.d.Space != nil {
		done, err := f.d.Space.take(f.File, grow)
		if err != nil {
			return 0, err
		}
		defer done()
	}
	n, err := f.write(p, off)
	f.size = max(f.size, off+int64(n))
	return n, noRoom(err)
}

// write goes past the page cache with what is worth it. Records lie on sectors of 512 bytes: a disk with larger ones refuses them.
func (f *osFile) write(p []byte, off int64) (int, error) {
	if f.direct != nil && len(p) >= directBytes {
		n, err := f.direct.WriteAt(p, off)
		if !errors.Is(err, unix.EINVAL) {
			return n, err
		}
		err = f.direct.Close()
		f.direct = nil
		if err != nil {
			return n, err
		}
	}
	return f.File.WriteAt(p, off)
}

// Close implements Store.
func (f *osFile) Close() error {
	var err error
	if f.direct != nil {
		err = f.direct.Close()
	}
	return errors.Join(err, f.File.Close())
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
