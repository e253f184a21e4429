package filedev

import (
	"fmt"
	"io"
	"sync"

	"golang.org/x/sys/unix"

	"hacluster/blockdev"
)

// diskReader is a second opening of a buffered backing, for reads past the page cache. It takes no lock and is not
// exclusive, so the hold is as it was (R24): what is held belongs to the other opening, and closing this one gives nothing
// free. It has its own memory of failed writebacks, so it never takes one from a flush (R23).
type diskReader struct {
	mu     sync.Mutex
	opened bool
	fd     int
	direct bool // O_DIRECT; else pages are written out and dropped before the reading
}

// ReadDiskAt implements blockdev.DiskReader. With O_DIRECT the kernel writes out first what the page cache has newer, and
// reads from the disk. Where a filesystem takes no O_DIRECT the pages are written out and dropped; on one in memory there
// is no disk to read from.
func (d *Dev) ReadDiskAt(p []byte, off int64) (int, error) {
	r := blockdev.Range{Off: off, Len: int64(len(p))}
	if err := d.enter(blockdev.OpRead, r); err != nil {
		return 0, err
	}
	defer d.gate.leave()
	if d.direct {
		n, err := d.read(p, off)
		return n, d.wrap(blockdev.OpRead, r, err)
	}
	n, err := d.readDisk(p, off)
	return n, d.wrap(blockdev.OpRead, r, err)
}

func (d *Dev) readDisk(p []byte, off int64) (int, error) {
	fd, direct, err := d.disk.get(d.fd)
	if err != nil || len(p) == 0 {
		return 0, err
	}
	read := func(p []byte, off int64) (int, error) {
		return whole(p, off, io.ErrUnexpectedEOF, func(p []byte, off int64) (int, error) { return unix.Pread(fd, p, off) })
	}
	if !direct {
		if err := dropCached(fd, off, int64(len(p))); err != nil {
			return 0, err
		}
		return read(p, off)
	}
	if aligned(p, off) {
		return read(p, off)
	}
	first := roundDown(off)
	buf := blockdev.NewBuf(int(roundUp(off+int64(len(p))) - first))
	defer buf.Free()
	if _, err := read(buf.Bytes(), first); err != nil {
		return 0, err
	}
	return copy(p, buf.Bytes()[off-first:]), nil
}

// dropCached writes the pages of a range out and drops them. A filesystem that does not know one of the calls reads from
// the page cache.
func dropCached(fd int, off, n int64) error {
	flags := unix.SYNC_FILE_RANGE_WAIT_BEFORE | unix.SYNC_FILE_RANGE_WRITE | unix.SYNC_FILE_RANGE_WAIT_AFTER
	if err := unix.SyncFileRange(fd, off, n, flags); err != nil && !unsupported(err) {
		return fmt.Errorf("write out what is cached: %w", err)
	}
	if err := unix.Fadvise(fd, off, n, unix.FADV_DONTNEED); err != nil && !unsupported(err) {
		return fmt.Errorf("drop what is cached: %w", err)
	}
	return nil
}

// get opens what of is open on, by the descriptor and not by its name: another file may have that by now.
func (r *diskReader) get(of int) (fd int, direct bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.opened {
		return r.fd, r.direct, nil
	}
	path := fmt.Sprintf("/proc/self/fd/%d", of)
	if fd, err := openRetry(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_DIRECT); err == nil {
		if takesDirect(fd) {
			r.opened, r.fd, r.direct = true, fd, true
			return fd, true, nil
		}
		_ = unix.Close(fd) // what follows says more
	}
	if fd, err = openRetry(path, unix.O_RDONLY|unix.O_CLOEXEC); err != nil {
		return -1, false, fmt.Errorf("open it once more, to read past the page cache: %w", err)
	}
	r.opened, r.fd, r.direct = true, fd, false
	return fd, false, nil
}

// takesDirect: some filesystems accept the flag and refuse the reading. A disk that fails is not one of them.
func takesDirect(fd int) bool {
	buf := blockdev.NewBuf(align)
	defer buf.Free()
	_, err := unix.Pread(fd, buf.Bytes(), 0)
	return err != unix.EINVAL && !unsupported(err)
}

func (r *diskReader) close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.opened {
		return nil
	}
	r.opened = false
	return unix.Close(r.fd)
}
