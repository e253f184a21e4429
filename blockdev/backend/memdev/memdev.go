// Package memdev is a block device in memory that can lose power.
//
// It is sparse: pages of 4 KiB exist where something was written, so a device of terabytes costs what its content
// costs. Beside the content it remembers what the last Flush made durable; Clone gives the device as a power cut would
// leave it, Reopen the device as a crash of the process alone would. A device with a lying flush says "durable" and
// keeps nothing; FailFlush has a power cut take what the kernel forgets when a flush fails. Tests and the simulator use it; nothing in it survives the process.
//
// Locks guard memory only and are never held across a wait, so it is fit for virtual time.
package memdev

import (
	"fmt"
	"maps"
	"math"
	"sync"
	"sync/atomic"

	"hacluster/blockdev"
)

const pageSize = blockdev.BlockSize

// Config of a device; the zero value but for Size is an honest disk.
type Config struct {
	// Size in bytes.
	Size int64
	// LyingFlush makes Flush and WriteFUA succeed without making anything durable.
	LyingFlush bool
	// Intermediate is how many overwritten contents of a page, written since the last Flush, a power cut may bring
	// back beside the durable and the newest one. 0: none. Each costs a page of memory and a copy for each write.
	Intermediate int
}

// Dev is a handle on a device in memory. Make one with New, Clone or Reopen.
type Dev struct {
	store  *store
	closed atomic.Bool
}

var (
	_ blockdev.Device       = (*Dev)(nil)
	_ blockdev.VectorWriter = (*Dev)(nil)
	_ blockdev.Mapper       = (*Dev)(nil)
)

type page [pageSize]byte

// store is the memory behind handles. A page that is absent reads as zeroes.
type store struct {
	cfg Config
	mu  sync.RWMutex
	// pages is the content as reads see it.
	pages map[int64]*page
	// unflushed holds, for each page changed since the last Flush, its earlier contents: first the durable one, then
	// up to cfg.Intermediate overwritten ones. nil stands for a page of zeroes.
	unflushed map[int64][]*page
	// lost holds the same of pages that a failed flush left behind: reads see what was written, a power cut does not, and no
	// later flush makes it durable unless the page is written again.
	lost map[int64][]*page
}

// New returns a device that reads as zeroes.
func New(cfg Config) *Dev {
	if cfg.Size < 0 || cfg.Size > math.MaxInt64-pageSize || cfg.Intermediate < 0 {
		panic(fmt.Sprintf("memdev: size %d, intermediate %d: negative, or too close to the end of int64", cfg.Size, cfg.Intermediate))
	}
	return &Dev{store: newStore(cfg)}
}

func newStore(cfg Config) *store {
	return &store{cfg: cfg, pages: map[int64]*page{}, unflushed: map[int64][]*page{}, lost: map[int64][]*page{}}
}

// Size is the length given to New.
func (d *Dev) Size() int64 { return d.store.cfg.Size }

// ReadAt implements blockdev.Device.
func (d *Dev) ReadAt(p []byte, off int64) (int, error) {
	d.store.mu.RLock()
	defer d.store.mu.RUnlock()
	if err := d.check("read", blockdev.Range{Off: off, Len: int64(len(p))}); err != nil {
		return 0, err
	}
	for n := 0; n < len(p); {
		i, in := split(off + int64(n))
		part := p[n:min(len(p), n+pageSize-in)]
		if pg := d.store.pages[i]; pg != nil {
			copy(part, pg[in:])
		} else {
			clear(part)
		}
		n += len(part)
	}
	return len(p), nil
}

// WriteAt implements blockdev.Device.
func (d *Dev) WriteAt(p []byte, off int64) (int, error) { return d.write(p, off, false) }

// WriteFUA implements blockdev.Device.
func (d *Dev) WriteFUA(p []byte, off int64) (int, error) {
	return d.write(p, off, !d.store.cfg.LyingFlush)
}

func (d *Dev) write(p []byte, off int64, durable bool) (int, error) {
	d.store.mu.Lock()
	defer d.store.mu.Unlock()
	if err := d.check("write", blockdev.Range{Off: off, Len: int64(len(p))}); err != nil {
		return 0, err
	}
	d.store.writeLocked(p, off, durable)
	return len(p), nil
}

// WriteVAt implements blockdev.VectorWriter.
func (d *Dev) WriteVAt(segments [][]byte, off int64) (int, error) {
	n := 0
	for _, s := range segments {
		n += len(s)
	}
	d.store.mu.Lock()
	defer d.store.mu.Unlock()
	if err := d.check("write", blockdev.Range{Off: off, Len: int64(n)}); err != nil {
		return 0, err
	}
	for _, s := range segments {
		d.store.writeLocked(s, off, false)
		off += int64(len(s))
	}
	return n, nil
}

// Zero implements blockdev.Device. Memory is given back for whole pages with unmap.
func (d *Dev) Zero(r blockdev.Range, unmap bool) error {
	d.store.mu.Lock()
	defer d.store.mu.Unlock()
	if err := d.check("zero", r); err != nil {
		return err
	}
	d.store.zeroLocked(r, unmap)
	return nil
}

// Flush implements blockdev.Device.
func (d *Dev) Flush() error {
	d.store.mu.Lock()
	defer d.store.mu.Unlock()
	if err := d.check("flush", blockdev.Range{}); err != nil {
		return err
	}
	if !d.store.cfg.LyingFlush {
		clear(d.store.unflushed)
	}
	return nil
}

// FailFlush is what a flush that fails does to a device behind the page cache of Linux: everything that it was to write counts
// as clean from then on, and the disk never gets it. Whoever injects the failure of a flush calls it.
func (d *Dev) FailFlush() {
	d.store.mu.Lock()
	defer d.store.mu.Unlock()
	maps.Copy(d.store.lost, d.store.unflushed)
	clear(d.store.unflushed)
}

// Extents implements blockdev.Mapper: pages that exist are data.
func (d *Dev) Extents(r blockdev.Range, fn func(e blockdev.Range, hole bool) bool) error {
	d.store.mu.RLock()
	err := d.check("map", r)
	extents := d.store.extentsLocked(r)
	d.store.mu.RUnlock()
	if err != nil {
		return err
	}
	for _, e := range extents {
		if !fn(e.Range, e.hole) {
			return nil
		}
	}
	return nil
}

// Close implements blockdev.Device. The memory stays for Clone and Reopen.
func (d *Dev) Close() error {
	d.store.mu.Lock() // whoever is inside has finished when this is taken
	defer d.store.mu.Unlock()
	if d.closed.Swap(true) {
		return fmt.Errorf("close memory device: %w", blockdev.ErrClosed)
	}
	return nil
}

func (d *Dev) check(op string, r blockdev.Range) error {
	if d.closed.Load() {
		return fmt.Errorf("%s of memory device: %w", op, blockdev.ErrClosed)
	}
	if !r.Within(d.store.cfg.Size) {
		return fmt.Errorf("%s %v of memory device of %d bytes: %w", op, r, d.store.cfg.Size, blockdev.ErrRange)
	}
	return nil
}

func split(off int64) (pageNo int64, in int) { return off / pageSize, int(off % pageSize) }
