// Package faultdev wraps a device and injects faults into it by rule: errors, stalls, short transfers, corrupted reads,
// slowness, and operations that are said to be done and are not. Every injection is counted, so that a test can tell a
// fault that was survived from one that never bit.
//
// Rules may be added and removed at any time, also under traffic. Without rules the device is the wrapped one.
// Tests use it, and the daemon's own fault points in test builds; it refuses nothing by itself.
package faultdev

import (
	"errors"
	"fmt"
	"sync"

	"hacluster/blockdev"
	"hacluster/blockdev/backend/internal/forward"
)

// ErrInjected is wrapped by every error that a Rule without an error of its own makes.
var ErrInjected = errors.New("injected fault")

// Dev is the wrapped device. Make one with New.
type Dev struct {
	inner blockdev.Device

	mu     sync.Mutex
	rules  []*Handle // in the order in which they were added
	counts Counts
}

var (
	_ blockdev.Device       = (*Dev)(nil)
	_ blockdev.VectorWriter = (*Dev)(nil)
	_ blockdev.Mapper       = (*Dev)(nil)
	_ blockdev.Reopener     = (*Dev)(nil)
	_ blockdev.Allocator    = (*Dev)(nil)
)

// New wraps dev, which it closes with itself.
func New(dev blockdev.Device) *Dev { return &Dev{inner: dev} }

// Size implements blockdev.Device.
func (d *Dev) Size() int64 { return d.inner.Size() }

// ReadAt implements blockdev.Device.
func (d *Dev) ReadAt(p []byte, off int64) (int, error) { return d.read(p, off, d.inner.ReadAt) }

// ReadDiskAt implements blockdev.DiskReader. Rules for reads meet it too.
func (d *Dev) ReadDiskAt(p []byte, off int64) (int, error) {
	return d.read(p, off, func(p []byte, off int64) (int, error) { return forward.ReadDisk(d.inner, p, off) })
}

func (d *Dev) read(p []byte, off int64, do func([]byte, int64) (int, error)) (int, error) {
	f := d.meet(blockdev.OpRead, blockdev.Range{Off: off, Len: int64(len(p))})
	if f.err != nil && !f.applied {
		return 0, f.err
	}
	n, err := do(f.cut(p), off)
	if f.rot && n > 0 {
		p[n/2] ^= 0x10
	}
	return n, f.outcome(err)
}

// WriteAt implements blockdev.Device.
func (d *Dev) WriteAt(p []byte, off int64) (int, error) { return d.write(p, off, d.inner.WriteAt) }

// WriteFUA implements blockdev.Device. Rules for writes meet it too.
func (d *Dev) WriteFUA(p []byte, off int64) (int, error) { return d.write(p, off, d.inner.WriteFUA) }

func (d *Dev) write(p []byte, off int64, do func([]byte, int64) (int, error)) (int, error) {
	f := d.meet(blockdev.OpWrite, blockdev.Range{Off: off, Len: int64(len(p))})
	switch {
	case f.err != nil && !f.applied:
		return 0, f.err
	case f.lost:
		return len(p), nil
	}
	n, err := do(f.cut(p), off)
	return n, f.outcome(err)
}

// WriteVAt implements blockdev.VectorWriter. A short one is cut at a segment.
func (d *Dev) WriteVAt(segments [][]byte, off int64) (int, error) {
	all := forward.Len(segments)
	f := d.meet(blockdev.OpWrite, blockdev.Range{Off: off, Len: all})
	switch {
	case f.err != nil && !f.applied:
		return 0, f.err
	case f.lost:
		return int(all), nil
	case f.short:
		segments = segments[:len(segments)/2]
	}
	n, err := forward.WriteV(d.inner, segments, off)
	return n, f.outcome(err)
}

// Zero implements blockdev.Device.
func (d *Dev) Zero(r blockdev.Range, unmap bool) error {
	f := d.meet(blockdev.OpZero, r)
	switch {
	case f.err != nil && !f.applied:
		return f.err
	case f.lost:
		return nil
	case f.short:
		r.Len /= 2
	}
	return f.outcome(d.inner.Zero(r, unmap))
}

// forgetful is a device that loses at a power cut what a failed flush was to write, as what lies behind a page cache does.
type forgetful interface{ FailFlush() }

// Flush implements blockdev.Device. One that fails has the wrapped device forget, if it can, what it was to write.
func (d *Dev) Flush() error {
	f := d.meet(blockdev.OpFlush, blockdev.Range{})
	switch {
	case f.err != nil && !f.applied:
		if k, ok := d.inner.(forgetful); ok {
			k.FailFlush()
		}
		return f.err
	case f.lost:
		return nil
	}
	return f.outcome(d.inner.Flush())
}

// Extents implements blockdev.Mapper. No rule meets it.
func (d *Dev) Extents(r blockdev.Range, fn func(e blockdev.Range, hole bool) bool) error {
	return forward.Extents(d.inner, r, fn)
}

// Allocate implements blockdev.Allocator. No rule meets it.
func (d *Dev) Allocate(r blockdev.Range) error { return forward.Allocate(d.inner, r) }

// Reopen implements blockdev.Reopener. No rule meets it.
func (d *Dev) Reopen() error { return forward.Reopen(d.inner) }

// Close implements blockdev.Device. Like that of a hung disk it waits for stalled operations: release them first.
func (d *Dev) Close() error { return d.inner.Close() }

// fault is what the rules together do to one operation.
type fault struct {
	err     error
	applied bool // the operation takes effect although err is reported
	lost    bool // the operation takes no effect although success is reported
	short   bool
	rot     bool
}

// cut is the part of p that is carried out.
func (f *fault) cut(p []byte) []byte {
	if f.short {
		return p[:len(p)/2]
	}
	return p
}

// outcome is what the caller gets when the operation was carried out with result err.
func (f *fault) outcome(err error) error {
	switch {
	case err != nil:
		return err
	case f.err != nil:
		return f.err
	case f.short:
		return fmt.Errorf("%w: short transfer", ErrInjected)
	}
	return nil
}
