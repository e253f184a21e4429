// Package blockdev names what a block device is to this project: something of a fixed size that is read, written,
// zeroed and flushed by byte range. Local backings, fault injectors and replicated volumes all are devices; behaviour
// is added by wrapping one. The package holds the words only (Device, Range, Request, Buf, errors) and imports nothing
// but the standard library.
package blockdev

import (
	"errors"
	"fmt"
)

// BlockSize is the unit, in bytes, in which replicas are compared and marked.
const BlockSize = 4096

// Device is a block device. All methods may be called concurrently. The caller keeps p; a Device never holds on to it
// after returning. Overlapping operations in flight at once take effect in an undefined order: the caller orders them.
//
// An error of ReadAt changes nothing. An error of WriteAt, WriteFUA or Zero leaves the range undefined (old, new or a
// mixture). An error of Flush means that writes since the last good Flush may be lost: it must not be retried.
// Ranges outside [0, Size) are refused with ErrRange before anything is touched.
type Device interface {
	// Size is the device's length in bytes. It does not change while the Device is open.
	Size() int64
	// ReadAt fills p from offset off. n < len(p) only with an error.
	ReadAt(p []byte, off int64) (n int, err error)
	// WriteAt hands p to the operating system ("written"); a later Flush makes it durable.
	WriteAt(p []byte, off int64) (n int, err error)
	// WriteFUA is WriteAt that returns only when p itself is durable.
	WriteFUA(p []byte, off int64) (n int, err error)
	// Zero makes the range read as zeroes. With unmap the device may give its space back; without, the space stays
	// allocated.
	Zero(r Range, unmap bool) error
	// Flush makes durable what was written before it was called.
	Flush() error
	// Close releases the device. Operations in flight are waited for.
	Close() error
}

// VectorWriter is implemented by devices that write several segments, contiguous on the device, in one call.
type VectorWriter interface {
	WriteVAt(segments [][]byte, off int64) (n int, err error)
}

// Mapper is implemented by devices that know which ranges hold data. Extents reports the ranges of r in order and
// without gaps; hole is true where the range is known to read as zeroes. fn returning false ends the walk.
type Mapper interface {
	Extents(r Range, fn func(e Range, hole bool) bool) error
}

// Allocator is implemented by devices of which a hole takes space when it is written. Allocate takes it ahead, in one step for
// all of r; what r reads as does not change. It may do nothing.
type Allocator interface {
	Allocate(r Range) error
}

// Reopener is implemented by devices in which a failed Flush is final for as long as they are open. Reopen opens the
// same thing anew without giving it free meanwhile, so that a Flush counts again for what is written from then on; what
// was written before and may be lost is the caller's to write again. It is refused while an operation is in flight.
type Reopener interface {
	Reopen() error
}

// DiskReader is implemented by devices that may answer a read from memory. ReadDiskAt is ReadAt from the disk itself, as far
// as that can be had, so that what has rotted there is seen; what is written and not yet on the disk is taken there first.
type DiskReader interface {
	ReadDiskAt(p []byte, off int64) (n int, err error)
}

// Range is a contiguous range of bytes.
type Range struct{ Off, Len int64 }

// End is the offset of the first byte behind the range.
func (r Range) End() int64 { return r.Off + r.Len }

// Overlaps reports whether the ranges share a byte.
func (r Range) Overlaps(o Range) bool { return r.Off < o.End() && o.Off < r.End() }

func (r Range) String() string { return fmt.Sprintf("[%d,+%d)", r.Off, r.Len) }

// Within reports whether the range lies wholly in a device of the given size; it does not overflow.
func (r Range) Within(size int64) bool {
	return r.Off >= 0 && r.Len >= 0 && r.Off <= size && r.Len <= size-r.Off
}

// What callers decide on.
var (
	// ErrRange: the operation reaches outside the device.
	ErrRange = errors.New("range outside the device")
	// ErrClosed: the device was closed.
	ErrClosed = errors.New("device is closed")
	// ErrStalled: an operation exceeded its deadline; its outcome is unknown and it may still be outstanding.
	ErrStalled = errors.New("disk operation exceeded its deadline")
	// ErrNoSpace: the backing has no room for the data.
	ErrNoSpace = errors.New("no space left on the backing device")
	// ErrNotPrimary: this replica may not serve the volume.
	ErrNotPrimary = errors.New("not primary")
	// ErrAbandoned: the client's connection was closed before its request was admitted. The request took no effect.
	ErrAbandoned = errors.New("the client's connection was closed before its request was admitted")
)
