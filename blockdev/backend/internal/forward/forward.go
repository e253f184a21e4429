// Package forward hands the optional calls of a device through a wrapper: to the wrapped device when it has them, else
// by the plain calls that every device has. The wrappers beside it call it; it keeps no state and refuses nothing.
package forward

import "hacluster/blockdev"

// WriteV writes segments, contiguous on the device from off on.
func WriteV(d blockdev.Device, segments [][]byte, off int64) (int, error) {
	if v, ok := d.(blockdev.VectorWriter); ok {
		return v.WriteVAt(segments, off)
	}
	if r := (blockdev.Range{Off: off, Len: Len(segments)}); !r.Within(d.Size()) {
		return 0, blockdev.ErrRange // checked as a whole, so that nothing is touched
	}
	done := 0
	for _, s := range segments {
		n, err := d.WriteAt(s, off+int64(done))
		if done += n; err != nil {
			return done, err
		}
	}
	return done, nil
}

// Extents reports what d knows of r; a device that knows nothing holds data everywhere.
func Extents(d blockdev.Device, r blockdev.Range, fn func(blockdev.Range, bool) bool) error {
	if m, ok := d.(blockdev.Mapper); ok {
		return m.Extents(r, fn)
	}
	if !r.Within(d.Size()) {
		return blockdev.ErrRange
	}
	if r.Len > 0 {
		fn(r, false)
	}
	return nil
}

// Allocate takes space for r ahead, where d has a use for that.
func Allocate(d blockdev.Device, r blockdev.Range) error {
	if a, ok := d.(blockdev.Allocator); ok {
		return a.Allocate(r)
	}
	if !r.Within(d.Size()) {
		return blockdev.ErrRange
	}
	return nil
}

// Len is the length of all segments together.
func Len(segments [][]byte) int64 {
	n := int64(0)
	for _, s := range segments {
		n += int64(len(s))
	}
	return n
}

// Reopen opens d anew; a device that knows no difference stays as it is.
func Reopen(d blockdev.Device) error {
	if r, ok := d.(blockdev.Reopener); ok {
		return r.Reopen()
	}
	return nil
}

// ReadDisk reads past what d keeps in memory; a device that keeps nothing knows no difference.
func ReadDisk(d blockdev.Device, p []byte, off int64) (int, error) {
	if r, ok := d.(blockdev.DiskReader); ok {
		return r.ReadDiskAt(p, off)
	}
	return d.ReadAt(p, off)
}
