package filedev

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"hacluster/blockdev"
)

// Extents implements blockdev.Mapper. A block device is all data. Of a file it is what the filesystem says: a hole reads
// as zeroes, data may do so too. What is written or zeroed meanwhile may show in either form.
func (d *Dev) Extents(r blockdev.Range, fn func(e blockdev.Range, hole bool) bool) error {
	if err := d.enter(blockdev.OpRead, r); err != nil {
		return err
	}
	defer d.gate.leave()
	for at := r.Off; at < r.End(); {
		end, hole, err := d.extentAt(at, r.End())
		if err != nil {
			return fmt.Errorf("map %v of %s: %w", r, d.path, err)
		}
		if !fn(blockdev.Range{Off: at, Len: end - at}, hole) {
			return nil
		}
		at = end
	}
	return nil
}

// extentAt returns the end, at most limit, of the extent that begins at at.
func (d *Dev) extentAt(at, limit int64) (end int64, hole bool, err error) {
	if d.isBlock {
		return limit, false, nil
	}
	data, err := unix.Seek(d.fd, at, unix.SEEK_DATA)
	switch {
	case errors.Is(err, unix.ENXIO): // nothing but hole from here on
		return limit, true, nil
	case errors.Is(err, unix.EINVAL), unsupported(err): // a filesystem that does not tell
		return limit, false, nil
	case err != nil:
		return 0, false, err
	case data > at:
		return min(data, limit), true, nil
	}
	next, err := unix.Seek(d.fd, at, unix.SEEK_HOLE)
	if err != nil {
		return 0, false, err
	}
	if next <= at { // it changed between the two questions
		return min(roundDown(at)+align, limit), false, nil
	}
	return min(next, limit), false, nil
}

// Fresh reports whether the backing at path holds nothing yet: it is absent, or a regular file without any data. A block
// device always counts as holding something. Preallocated space that was never written is no data.
func Fresh(path string) (bool, error) {
	fi, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("look whether backing %s is fresh: %w", path, err)
	}
	if !fi.Mode().IsRegular() {
		return false, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return false, fmt.Errorf("look whether backing %s is fresh: %w", path, err)
	}
	defer f.Close()
	_, err = unix.Seek(int(f.Fd()), 0, unix.SEEK_DATA)
	switch {
	case errors.Is(err, unix.ENXIO):
		return true, nil
	case errors.Is(err, unix.EINVAL), unsupported(err):
		return false, nil // it cannot be known, so it is not claimed
	case err != nil:
		return false, fmt.Errorf("look for data in backing %s: %w", path, err)
	}
	return false, nil
}
