package filedev

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Enlarge makes sure that the backing at path holds size bytes. A regular file that is shorter gets that length, durably,
// and reads as zeroes there; a block device that is shorter is refused, for it cannot be made larger here. Nothing else of
// it changes, so it may be held and in use meanwhile: what a backing has behind its device is never touched.
//
//	1 the file gets its length   a crash leaves either length
//	2 it is synced
func Enlarge(path string, size int64) error {
	if err := enlarge(path, size); err != nil {
		return fmt.Errorf("enlarge backing %s: %w", path, err)
	}
	return nil
}

func enlarge(path string, size int64) error {
	t, err := lookAt(path, false)
	if err != nil {
		return err
	}
	flags := os.O_RDWR
	if t.isBlock {
		flags = os.O_RDONLY
	}
	f, err := os.OpenFile(path, flags, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	has, err := unix.Seek(int(f.Fd()), 0, unix.SEEK_END) // of block devices too
	switch {
	case err != nil:
		return fmt.Errorf("find its size: %w", err)
	case has >= size && !t.isBlock:
		return f.Sync() // an earlier try may have got this far
	case has >= size:
		return nil
	case t.isBlock:
		return fmt.Errorf("%w: the device has %d bytes, the volume is to have %d: enlarge the device first", ErrUnsuitable, has, size)
	}
	if err := f.Truncate(size); err != nil {
		return fmt.Errorf("make it a sparse file of %d bytes: %w", size, err)
	}
	return f.Sync()
}
