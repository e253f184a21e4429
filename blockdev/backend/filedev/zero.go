package filedev

import (
	"errors"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"hacluster/blockdev"
)

// zeroes is what is written where the backing cannot zero by itself. It is never written to.
var zeroes = sync.OnceValue(func() []byte {
	return blockdev.Aligned(bounceLen)
})

// Zero implements blockdev.Device. Parts of blocks are written, so that they exclude other writers of their block; whole
// blocks are left to the backing.
func (d *Dev) Zero(r blockdev.Range, unmap bool) error {
	if err := d.enter(blockdev.OpZero, r); err != nil {
		return err
	}
	defer d.gate.leave()
	return d.wrap(blockdev.OpZero, r, d.zero(r, unmap))
}

func (d *Dev) zero(r blockdev.Range, unmap bool) error {
	inner := blockdev.Range{Off: roundUp(r.Off), Len: roundDown(r.End()) - roundUp(r.Off)}
	if inner.Len <= 0 {
		return d.writeZeroes(r)
	}
	if err := d.writeZeroes(blockdev.Range{Off: r.Off, Len: inner.Off - r.Off}); err != nil {
		return err
	}
	if err := d.zeroBlocks(inner, unmap); err != nil {
		return err
	}
	return d.writeZeroes(blockdev.Range{Off: inner.End(), Len: r.End() - inner.End()})
}

// zeroBlocks tries the ways in order of cost. For block devices fallocate is the call that guarantees zeroes
// (BLKDISCARD does not): punching a hole unmaps if the disk then reads zeroes for certain, zeroing a range keeps the
// space.
func (d *Dev) zeroBlocks(r blockdev.Range, unmap bool) error {
	if unmap {
		err := d.fallocate(unix.FALLOC_FL_PUNCH_HOLE, &d.missing.punch, r)
		if !unsupported(err) {
			return err
		}
	}
	err := d.fallocate(unix.FALLOC_FL_ZERO_RANGE, &d.missing.zeroRange, r)
	if !unsupported(err) {
		return err
	}
	return d.writeZeroes(r)
}

// Allocate implements blockdev.Allocator. Direct writes into a hole of a file wait for each other, each for an allocation of its
// own; into space that was taken for all of them in one step they go side by side. The page cache takes space in large steps
// by itself.
func (d *Dev) Allocate(r blockdev.Range) error {
	if err := d.enter(blockdev.OpZero, r); err != nil {
		return err
	}
	defer d.gate.leave()
	if d.isBlock || !d.direct || r.Len == 0 {
		return nil
	}
	if err := d.fallocate(0, &d.missing.allocate, r); !unsupported(err) {
		return d.wrap(blockdev.OpZero, r, err)
	}
	return nil
}

// fallocate changes r in the given way, unless the backing is known not to support that.
func (d *Dev) fallocate(mode uint32, missing *atomic.Bool, r blockdev.Range) error {
	if missing.Load() {
		return unix.EOPNOTSUPP
	}
	for {
		err := unix.Fallocate(d.fd, mode|unix.FALLOC_FL_KEEP_SIZE, r.Off, r.Len)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case unsupported(err):
			missing.Store(true)
		}
		return err
	}
}

func (d *Dev) writeZeroes(r blockdev.Range) error {
	for r.Len > 0 {
		n, err := d.write(zeroes()[:min(r.Len, bounceLen)], r.Off, d.pwrite)
		if err != nil {
			return err
		}
		r.Off, r.Len = r.Off+int64(n), r.Len-int64(n)
	}
	return nil
}
