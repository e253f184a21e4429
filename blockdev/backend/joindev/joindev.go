// Package joindev joins devices to one, the first byte of each behind the last of the one before. An operation goes to the device,
// or devices, whose bytes it names; a flush goes to all of them at once, and has succeeded when it has on each. So an error of one is
// an error of the whole: there is no part of it that goes on alone.
//
//	joined   [0 ........ 8 GiB)[8 GiB .. 9 GiB)
//	devices   the first         the second
//
// The replica of a consistency group is one: its volumes' devices in the order of the group (replication/DESIGN.md). Errors are those
// of the devices, which name themselves. It keeps no state and refuses nothing but ranges outside.
package joindev

import (
	"errors"
	"sync"

	"hacluster/blockdev"
	"hacluster/blockdev/backend/internal/forward"
)

// Dev is the joined device. Make one with New.
type Dev struct {
	parts []blockdev.Device
	from  []int64 // where each begins
	size  int64
}

var (
	_ blockdev.Device       = (*Dev)(nil)
	_ blockdev.VectorWriter = (*Dev)(nil)
	_ blockdev.Mapper       = (*Dev)(nil)
	_ blockdev.Allocator    = (*Dev)(nil)
	_ blockdev.Reopener     = (*Dev)(nil)
	_ blockdev.DiskReader   = (*Dev)(nil)
)

// New joins the devices, which it closes with itself.
func New(parts ...blockdev.Device) *Dev {
	d := &Dev{parts: parts}
	for _, p := range parts {
		d.from = append(d.from, d.size)
		d.size += p.Size()
	}
	return d
}

// Size is that of all together.
func (d *Dev) Size() int64 { return d.size }

// each hands out the pieces of r in order, each with the device that it lies on and where it begins there, until one fails.
func (d *Dev) each(r blockdev.Range, fn func(dev blockdev.Device, at, from int64, n int64) error) error {
	if !r.Within(d.size) {
		return blockdev.ErrRange // as a whole, before anything is touched
	}
	for i, p := range d.parts {
		begin, end := max(r.Off, d.from[i]), min(r.End(), d.from[i]+p.Size())
		if begin >= end {
			continue
		}
		if err := fn(p, begin-d.from[i], begin-r.Off, end-begin); err != nil {
			return err
		}
	}
	return nil
}

// one is the device that has all of [off, off+n), and where it lies there; nil: there is none, and each has to be asked.
func (d *Dev) one(off int64, n int) (dev blockdev.Device, at int64) {
	for i, p := range d.parts {
		if at := off - d.from[i]; at >= 0 && (blockdev.Range{Off: at, Len: int64(n)}).Within(p.Size()) {
			return p, at
		}
	}
	return nil, 0
}

// piecewise carries out an operation on p that reaches over the end of a device.
func (d *Dev) piecewise(p []byte, off int64, do func(blockdev.Device, []byte, int64) (int, error)) (done int, err error) {
	err = d.each(blockdev.Range{Off: off, Len: int64(len(p))}, func(dev blockdev.Device, at, from, n int64) error {
		did, err := do(dev, p[from:from+n], at)
		done += did
		return err
	})
	return done, err
}

// ReadAt implements blockdev.Device.
func (d *Dev) ReadAt(p []byte, off int64) (int, error) {
	if dev, at := d.one(off, len(p)); dev != nil {
		return dev.ReadAt(p, at)
	}
	return d.piecewise(p, off, blockdev.Device.ReadAt)
}

// ReadDiskAt implements blockdev.DiskReader.
func (d *Dev) ReadDiskAt(p []byte, off int64) (int, error) {
	return d.piecewise(p, off, forward.ReadDisk)
}

// WriteAt implements blockdev.Device.
func (d *Dev) WriteAt(p []byte, off int64) (int, error) {
	if dev, at := d.one(off, len(p)); dev != nil {
		return dev.WriteAt(p, at)
	}
	return d.piecewise(p, off, blockdev.Device.WriteAt)
}

// WriteFUA implements blockdev.Device.
func (d *Dev) WriteFUA(p []byte, off int64) (int, error) {
	if dev, at := d.one(off, len(p)); dev != nil {
		return dev.WriteFUA(p, at)
	}
	return d.piecewise(p, off, blockdev.Device.WriteFUA)
}

// WriteVAt implements blockdev.VectorWriter.
func (d *Dev) WriteVAt(segments [][]byte, off int64) (done int, err error) {
	total := forward.Len(segments)
	if dev, at := d.one(off, int(total)); dev != nil {
		return forward.WriteV(dev, segments, at)
	}
	err = d.each(blockdev.Range{Off: off, Len: total}, func(dev blockdev.Device, at, from, n int64) error {
		did, err := forward.WriteV(dev, cut(segments, from, n), at)
		done += did
		return err
	})
	return done, err
}

// cut is n bytes of the segments from byte from on.
func cut(segments [][]byte, from, n int64) (out [][]byte) {
	for _, s := range segments {
		begin, end := min(from, int64(len(s))), min(from+n, int64(len(s)))
		if begin < end {
			out = append(out, s[begin:end])
		}
		from, n = from-begin, n-(end-begin)
	}
	return out
}

// Zero implements blockdev.Device.
func (d *Dev) Zero(r blockdev.Range, unmap bool) error {
	return d.each(r, func(dev blockdev.Device, at, _, n int64) error {
		return dev.Zero(blockdev.Range{Off: at, Len: n}, unmap)
	})
}

// Flush implements blockdev.Device. The devices are flushed beside each other; what failed on any has failed.
func (d *Dev) Flush() error { return d.all(blockdev.Device.Flush) }

// Reopen implements blockdev.Reopener.
func (d *Dev) Reopen() error { return d.all(forward.Reopen) }

// Close implements blockdev.Device.
func (d *Dev) Close() error { return d.all(blockdev.Device.Close) }

// all does the same with every device at once, and waits for each.
func (d *Dev) all(do func(blockdev.Device) error) error {
	errs := make([]error, len(d.parts))
	var goes sync.WaitGroup
	for i, p := range d.parts[1:] {
		goes.Go(func() { errs[i+1] = do(p) })
	}
	errs[0] = do(d.parts[0])
	goes.Wait()
	return errors.Join(errs...)
}

// Allocate implements blockdev.Allocator.
func (d *Dev) Allocate(r blockdev.Range) error {
	return d.each(r, func(dev blockdev.Device, at, _, n int64) error {
		return forward.Allocate(dev, blockdev.Range{Off: at, Len: n})
	})
}

// Extents implements blockdev.Mapper.
func (d *Dev) Extents(r blockdev.Range, fn func(e blockdev.Range, hole bool) bool) error {
	more := true
	return d.each(r, func(dev blockdev.Device, at, from, n int64) error {
		if !more {
			return nil
		}
		shift := r.Off + from - at // from the device's bytes to ours
		return forward.Extents(dev, blockdev.Range{Off: at, Len: n}, func(e blockdev.Range, hole bool) bool {
			e.Off += shift
			more = fn(e, hole)
			return more
		})
	})
}
