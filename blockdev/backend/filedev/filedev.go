// Package filedev is a block device over a regular file or a block device of this machine: the backing of a replica.
// Byte 0 of the device is byte 0 of the backing, and nothing but the caller's data is ever written to it.
//
// While a Dev is open the backing is held (R24), so that mount, mkfs, LVM, md and a second haclusterd are kept out:
// block devices by O_EXCL, files by flock and an open-file-description lock, all on the one descriptor. A plain open of
// a block device by another program cannot be stopped from user space, nor root's of a file.
//
// Open refuses, saying why and what to do: what is neither file nor block device; what is mounted, used as swap, part of
// md, LVM or another holder, the file of a loop device, read-only, already held, or too small. A dormant RAID or LVM
// signature in the data is no reason to refuse: it may be the content of the volume.
//
// Two ways of doing I/O, chosen at Open:
//
//	buffered  through the page cache. Writes return at once, Flush carries them to the disk.
//	direct    O_DIRECT. Memory, offset and length in multiples of 4096 go straight to the disk, which is what
//	          blockdev.Buf gives; anything else goes through an aligned buffer, and blocks that are written in part
//	          are read, changed and written back while no other such write touches them.
//
// A failed flush or durable write is final (R23): what it lost is unknown, and the kernel reports it only once, so every
// later flush of the Dev fails as well, until Reopen, whose caller writes all of the content again.
//
// The composition root opens one for each replica; replication reads and writes it.
package filedev

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"hacluster/blockdev"
)

// Mode chooses between page cache and O_DIRECT.
type Mode int

const (
	// Auto takes O_DIRECT where the backing takes it, except on filesystems in memory.
	Auto Mode = iota
	// Buffered goes through the page cache.
	Buffered
	// Direct insists on O_DIRECT; Open fails where the backing does not take it.
	Direct
)

// Config of a device.
type Config struct {
	// Size in bytes is what the device serves: a multiple of 4096. A smaller backing is refused; what a larger one has
	// behind it is never touched.
	Size int64
	// Mode of I/O. Default Auto.
	Mode Mode
	// Create makes an absent backing: a sparse file of Size, mode 0600. An empty file counts as absent: that is what a
	// crash in the middle of creating one leaves.
	Create bool
}

var (
	// ErrInUse: somebody else uses the backing; the message says who.
	ErrInUse = errors.New("the backing is in use")
	// ErrUnsuitable: the backing cannot be one: wrong kind, read-only, too small.
	ErrUnsuitable = errors.New("unsuitable as a backing")
	// ErrGone: the backing device has vanished.
	ErrGone = errors.New("the backing device is gone")
)

// Dev is an open, held backing. Make one with Open.
type Dev struct {
	path        string
	fd          int // for I/O
	held        int // has the locks of the hold; the same as fd until Reopen
	size        int64
	backingSize int64
	isBlock     bool
	direct      bool
	attachment  string

	life    sync.Mutex // one Close or Reopen at a time
	gate    gate
	edges   blockLocks
	syncs   syncs
	missing missing
	disk    diskReader
}

var (
	_ blockdev.Device       = (*Dev)(nil)
	_ blockdev.VectorWriter = (*Dev)(nil)
	_ blockdev.Mapper       = (*Dev)(nil)
	_ blockdev.DiskReader   = (*Dev)(nil)
	_ blockdev.Allocator    = (*Dev)(nil)
)

// missing remembers what the backing was found not to support, so that it is asked once.
type missing struct {
	dsync, punch, zeroRange, allocate atomic.Bool
}

// Open holds the backing at path and returns the device on it. Nothing is written to an existing backing.
func Open(path string, cfg Config) (*Dev, error) {
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("open backing %s: %w", path, err)
	}
	d, err := host.open(path, cfg)
	if err != nil {
		return nil, fmt.Errorf("open backing %s: %w", path, err)
	}
	return d, nil
}

func (c Config) validate() error {
	if c.Size <= 0 || c.Size%blockdev.BlockSize != 0 {
		return fmt.Errorf("%w: size %d is not a positive multiple of %d: set the volume's size to %d",
			ErrUnsuitable, c.Size, blockdev.BlockSize, max(c.Size/blockdev.BlockSize, 1)*blockdev.BlockSize)
	}
	if c.Mode < Auto || c.Mode > Direct {
		return fmt.Errorf("mode %d is unknown", c.Mode)
	}
	return nil
}

// Size is the length that is served, which may be less than the backing has.
func (d *Dev) Size() int64 { return d.size }

// BackingSize is the length of the backing at Open.
func (d *Dev) BackingSize() int64 { return d.backingSize }

// Fast reports whether writes end in the page cache, so that a caller may do them inline.
func (d *Dev) Fast() bool { return !d.direct }

// Close gives the backing free. It does not flush.
func (d *Dev) Close() error {
	d.life.Lock()
	defer d.life.Unlock()
	if !d.gate.close() {
		return fmt.Errorf("close %s: %w", d.path, blockdev.ErrClosed)
	}
	err := d.disk.close()
	if d.fd != d.held {
		err = errors.Join(err, unix.Close(d.fd))
	}
	if err = errors.Join(err, release(d.held)); err != nil {
		return fmt.Errorf("close %s: %w", d.path, err)
	}
	return nil
}

// enter admits an operation on r; after a nil error the caller must leave the gate.
func (d *Dev) enter(op blockdev.Op, r blockdev.Range) error {
	if !d.gate.enter() {
		return fmt.Errorf("%v of %s: %w", op, d.path, blockdev.ErrClosed)
	}
	if !r.Within(d.size) {
		d.gate.leave()
		return fmt.Errorf("%v %v of %s, which has %d bytes: %w", op, r, d.path, d.size, blockdev.ErrRange)
	}
	return nil
}

// wrap names the operation and translates the errno that callers decide on.
func (d *Dev) wrap(op blockdev.Op, r blockdev.Range, err error) error {
	if err == nil {
		return nil
	}
	switch {
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		err = fmt.Errorf("%w (%w)", blockdev.ErrNoSpace, err)
	case errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO), errors.Is(err, unix.ENOMEDIUM):
		err = fmt.Errorf("%w (%w)", ErrGone, err)
	}
	return fmt.Errorf("%v %v of %s: %w", op, r, d.path, err)
}
