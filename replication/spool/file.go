// Package spool keeps in a file what a process has no memory for: the data that standbys in async lack. It is an extension of that
// process's memory and nothing more: the file has no name, so it ends with the process, nothing in it is made durable, and nothing is
// read by another process. What follows from an error is its caller's to decide (replication/primary).
//
// It does not know what the bytes mean. Whoever reads them back has their checksum, and compares: a page that a failing disk lost
// after it had taken it is found by that alone.
package spool

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
)

// Place is where in a File data lies. The zero Place is none.
type Place struct{ off, n int64 }

// IsNone reports whether it is no place.
func (p Place) IsNone() bool { return p.n == 0 }

// Limits bound a File.
type Limits struct {
	// Bytes that it may hold.
	Bytes int64
	// Reserve is how much of a file system of that size stays free for others; nil: nothing.
	Reserve func(total int64) int64
}

// ErrFull: there is no room, in the file system or by the limit.
var ErrFull = errors.New("the spool is full")

// MaxWrite is how much Put takes at a time.
const MaxWrite = 4 << 20

// maxPieces is what the kernel takes in one call.
const maxPieces = 1024

// File is one spool. Put is called by one goroutine at a time, Read by one, Free by any.
type File struct {
	dir    string
	limits Limits
	f      *os.File

	mu     sync.Mutex
	slots  slots
	length int64 // of the file, as Put left it
}

// Create makes an empty one in the folder dir, which is there. It takes no room yet.
func Create(dir string, limits Limits) (*File, error) {
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err == nil {
		return &File{dir: dir, limits: limits, f: os.NewFile(uintptr(fd), filepath.Join(dir, "spool"))}, nil
	}
	// A file system without that: it has a name for a moment. One that a crash left in that moment is empty.
	f, err := os.CreateTemp(dir, "spool-*.tmp")
	if err != nil {
		return nil, fmt.Errorf("make a spool in %s: %w", dir, err)
	}
	if err := os.Remove(f.Name()); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("make a spool in %s: %w", dir, err)
	}
	return &File{dir: dir, limits: limits, f: f}, nil
}

// Put writes as many of the first pieces as lie behind each other, at least one, and appends their places to places. It blocks as the
// disk does. On an error nothing was put.
func (f *File) Put(pieces [][]byte, places []Place) ([]Place, error) {
	off, slot, n, err := f.begin(pieces)
	if err != nil {
		return places, err
	}
	if err := f.write(pieces[:n], off); err != nil {
		return places, fmt.Errorf("write to the spool in %s: %w", f.dir, err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, p := range pieces[:n] {
		f.slots.take(slot, off, int64(len(p)))
		places = append(places, Place{off, int64(len(p))})
		off += int64(len(p))
	}
	f.length = max(f.length, off)
	return places, nil
}

// begin decides where, and how many.
func (f *File) begin(pieces [][]byte) (off int64, slot, n int, err error) {
	f.mu.Lock()
	off, slot, grows := f.slots.next(int64(len(pieces[0])))
	used := f.slots.used
	f.mu.Unlock()
	left := slotSize - off%slotSize
	bytes := int64(0)
	for n < min(len(pieces), maxPieces) {
		size := int64(len(pieces[n]))
		if n > 0 && (bytes+size > left || bytes+size > MaxWrite) {
			break
		}
		bytes += size
		n++
	}
	if used+bytes > f.limits.Bytes {
		return 0, 0, 0, fmt.Errorf("%w: it holds %d bytes, of at most %d", ErrFull, used, f.limits.Bytes)
	}
	if grows {
		err = f.mayGrow()
	}
	return off, slot, n, err
}

// mayGrow refuses a slot that the file system needs for others.
func (f *File) mayGrow() error {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.f.Fd()), &st); err != nil {
		return fmt.Errorf("ask for the free space beside the spool in %s: %w", f.dir, err)
	}
	free, keep := int64(st.Bavail)*st.Bsize, int64(0)
	if f.limits.Reserve != nil {
		keep = f.limits.Reserve(int64(st.Blocks) * st.Bsize)
	}
	if free-slotSize < keep {
		return fmt.Errorf("%w: %d bytes are free in the file system of %s, of which %d are kept for others", ErrFull, free, f.dir, keep)
	}
	return nil
}

func (f *File) write(pieces [][]byte, off int64) error {
	return transfer(pieces, off, func(p [][]byte, off int64) (int, error) { return unix.Pwritev(int(f.f.Fd()), p, off) })
}

// Read fills pieces with what lies behind each other from the place of the first on. Their lengths are those of the places.
func (f *File) Read(pieces [][]byte, at Place) error {
	err := transfer(pieces, at.off, func(p [][]byte, off int64) (int, error) { return unix.Preadv(int(f.f.Fd()), p, off) })
	if err != nil {
		return fmt.Errorf("read from the spool in %s: %w", f.dir, err)
	}
	return nil
}

// Follows reports whether next lies directly behind p, so that both can be read together.
func (p Place) Follows(before Place) bool { return before.off+before.n == p.off }

// transfer repeats a call until all is through.
func transfer(pieces [][]byte, off int64, call func([][]byte, int64) (int, error)) error {
	for len(pieces) > 0 {
		n, err := call(pieces[:min(len(pieces), maxPieces)], off)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return err
		case n == 0:
			return errors.New("the file ends too early")
		}
		off += int64(n)
		for n > 0 && n >= len(pieces[0]) {
			n -= len(pieces[0])
			pieces = pieces[1:]
		}
		if n > 0 {
			pieces = append([][]byte{pieces[0][n:]}, pieces[1:]...)
		}
	}
	return nil
}

// Free gives the place back, to be used again, and reports whether that was the last: Trim has the whole file to give back.
func (f *File) Free(at Place) (last bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.slots.free(at.off, at.n)
	return f.slots.used == 0
}

// Trim gives the room of free slots at the end back to the file system. It is called by who calls Put.
func (f *File) Trim() error {
	f.mu.Lock()
	end := f.slots.trim()
	shorter := end < f.length
	f.length = end
	f.mu.Unlock()
	if !shorter {
		return nil
	}
	return os.NewSyscallError("ftruncate", unix.Ftruncate(int(f.f.Fd()), end))
}

// Used is how many bytes it holds.
func (f *File) Used() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.slots.used
}

// Close ends it, and with it all that is in it.
func (f *File) Close() error { return f.f.Close() }

// Fd is the file's descriptor, for tests that spoil it.
func (f *File) Fd() int { return int(f.f.Fd()) }
