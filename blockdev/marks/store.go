package marks

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// Store is what a file of marks lies on. Every blockdev.Device is one: wrapped in backend/timed its operations are
// watched for stalls (R26). WriteAt is called from one goroutine at a time.
type Store interface {
	io.ReaderAt
	io.WriterAt
	Size() int64
	// Flush makes durable what was written. After a failed one only what is written again becomes durable.
	Flush() error
	Close() error
}

// osFile is a Store in the file system.
type osFile struct {
	*os.File
	size int64
}

func (f *osFile) Size() int64 { return f.size }

// Flush leaves the times of the file to the file system: its size and place never change, and to commit a journal for each
// group would cost more than the group, all the more where the data lies in the same file system.
func (f *osFile) Flush() error { return unix.Fdatasync(int(f.Fd())) }

// OpenPath opens the file at path for Open. ErrNone: there is none.
func OpenPath(path string) (Store, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w: %w", ErrNone, err)
	}
	if err != nil {
		return nil, fmt.Errorf("open map of marks: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open map of marks: %w", err), f.Close())
	}
	return &osFile{f, info.Size()}, nil
}

// CreatePath makes the file at path, in place of any that is there: what it held is replaced by what c says, so the
// caller has made sure that this is right (a damaged one: Everything).
//
//	1 all of it goes to a file beside it, which is synced   a crash before 2 leaves what was there
//	2 it is renamed into place, the directory is synced     a crash leaves the one or the other, whole
func CreatePath(path string, c New) error {
	if err := createPath(path, c); err != nil {
		return fmt.Errorf("create map of marks %s: %w", path, err)
	}
	return nil
}

func createPath(path string, c New) error {
	if err := c.validate(); err != nil {
		return err
	}
	return replacePath(path, c.Size, func(s Store) error { return Create(s, c) })
}
