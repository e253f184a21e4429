package filedev

import (
	"errors"
	"io"

	"golang.org/x/sys/unix"

	"hacluster/blockdev"
)

// maxSegments is what the kernel takes in one vector (IOV_MAX).
const maxSegments = 1024

// ReadAt implements blockdev.Device.
func (d *Dev) ReadAt(p []byte, off int64) (int, error) {
	r := blockdev.Range{Off: off, Len: int64(len(p))}
	if err := d.enter(blockdev.OpRead, r); err != nil {
		return 0, err
	}
	defer d.gate.leave()
	n, err := d.read(p, off)
	return n, d.wrap(blockdev.OpRead, r, err)
}

// WriteAt implements blockdev.Device.
func (d *Dev) WriteAt(p []byte, off int64) (int, error) {
	r := blockdev.Range{Off: off, Len: int64(len(p))}
	if err := d.enter(blockdev.OpWrite, r); err != nil {
		return 0, err
	}
	defer d.gate.leave()
	n, err := d.write(p, off, d.pwrite)
	return n, d.wrap(blockdev.OpWrite, r, err)
}

// WriteFUA implements blockdev.Device.
func (d *Dev) WriteFUA(p []byte, off int64) (int, error) {
	r := blockdev.Range{Off: off, Len: int64(len(p))}
	if err := d.enter(blockdev.OpWrite, r); err != nil {
		return 0, err
	}
	defer d.gate.leave()
	n, err := d.writeDurable(p, off)
	return n, d.wrap(blockdev.OpWrite, r, err)
}

// WriteVAt implements blockdev.VectorWriter.
func (d *Dev) WriteVAt(segments [][]byte, off int64) (int, error) {
	total := 0
	for _, s := range segments {
		total += len(s)
	}
	r := blockdev.Range{Off: off, Len: int64(total)}
	if err := d.enter(blockdev.OpWrite, r); err != nil {
		return 0, err
	}
	defer d.gate.leave()
	n, err := 0, error(nil)
	if d.direct && !allAligned(segments, off) {
		n, err = d.writeGathered(segments, total, off)
	} else {
		n, err = d.pwritev(segments, off)
	}
	return n, d.wrap(blockdev.OpWrite, r, err)
}

// writeDurable writes p by writes that are durable when they return, or writes and then syncs where the kernel has
// none.
func (d *Dev) writeDurable(p []byte, off int64) (int, error) {
	if !d.missing.dsync.Load() {
		n, err := 0, error(nil)
		err = d.syncs.durably(func() error {
			n, err = d.write(p, off, d.pwriteDsync)
			return err
		})
		if !unsupported(err) {
			return n, err
		}
		d.missing.dsync.Store(true)
	}
	n, err := d.write(p, off, d.pwrite)
	if err != nil {
		return n, err
	}
	return n, d.sync()
}

func (d *Dev) read(p []byte, off int64) (int, error) {
	if d.direct && !aligned(p, off) {
		return d.readBounced(p, off)
	}
	return d.pread(p, off)
}

// write hands p to do in the form that the mode of I/O needs.
func (d *Dev) write(p []byte, off int64, do writeFunc) (int, error) {
	if d.direct && !aligned(p, off) {
		return d.writeBounced(p, off, do)
	}
	return do(p, off)
}

// writeFunc writes all of p or says why not.
type writeFunc func(p []byte, off int64) (int, error)

func (d *Dev) pread(p []byte, off int64) (int, error) {
	return whole(p, off, io.ErrUnexpectedEOF, func(p []byte, off int64) (int, error) { return unix.Pread(d.fd, p, off) })
}

func (d *Dev) pwrite(p []byte, off int64) (int, error) {
	return whole(p, off, io.ErrShortWrite, func(p []byte, off int64) (int, error) { return unix.Pwrite(d.fd, p, off) })
}

func (d *Dev) pwriteDsync(p []byte, off int64) (int, error) {
	return whole(p, off, io.ErrShortWrite, func(p []byte, off int64) (int, error) {
		return unix.Pwritev2(d.fd, [][]byte{p}, off, unix.RWF_DSYNC)
	})
}

// whole calls do until all of p is through. A call that moves nothing and reports nothing is the error nothing: a
// backing that became shorter under us, for instance.
func whole(p []byte, off int64, nothing error, do func([]byte, int64) (int, error)) (int, error) {
	done := 0
	for done < len(p) {
		n, err := do(p[done:], off+int64(done))
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return done, err
		case n == 0:
			return done, nothing
		}
		done += n
	}
	return done, nil
}

func (d *Dev) pwritev(segments [][]byte, off int64) (int, error) {
	done := 0
	for skip := 0; ; { // skip bytes of the first segment are written already
		for len(segments) > 0 && skip >= len(segments[0]) {
			skip -= len(segments[0])
			segments = segments[1:]
		}
		if len(segments) == 0 {
			return done, nil
		}
		n, err := d.pwritevOnce(segments, skip, off+int64(done))
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return done, err
		case n == 0:
			return done, io.ErrShortWrite
		}
		done, skip = done+n, skip+n
	}
}

func (d *Dev) pwritevOnce(segments [][]byte, skip int, off int64) (int, error) {
	if skip > 0 {
		return unix.Pwrite(d.fd, segments[0][skip:], off)
	}
	return unix.Pwritev(d.fd, segments[:min(len(segments), maxSegments)], off)
}

// unsupported reports whether the kernel or the filesystem does not know the call, as opposed to having tried.
func unsupported(err error) bool {
	return errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS)
}
