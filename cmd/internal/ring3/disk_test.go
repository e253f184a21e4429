package ring3

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"syscall"
	"time"

	"hacluster/blockdev"
	"hacluster/blockdev/backend/faultdev"
	"hacluster/blockdev/backend/filedev"
	"hacluster/blockdev/backend/memdev"
	"hacluster/cmd/internal/node"
)

// disk is what a backing lies on. It outlives processes; its content may lose what was not flushed.
type disk struct {
	mu   sync.Mutex
	mem  *memdev.Dev // nil before the first Open
	held *handle
	lies bool  // it says "durable" and keeps nothing
	gone error // why it cannot be opened; nil: it can
}

var _ node.Disks = (*disk)(nil)

// handle is an open disk: what one process has of it.
type handle struct {
	*faultdev.Dev
	disk *disk
	mem  *memdev.Dev
}

func (h *handle) Attachment() string { return "ring3:disk:1" }

// Fast: no. Every operation takes a moment, so that a crash finds some under way.
func (h *handle) Fast() bool { return false }

func (h *handle) Close() error {
	h.disk.mu.Lock()
	if h.disk.held == h {
		h.disk.held = nil
	}
	h.disk.mu.Unlock()
	return h.Dev.Close()
}

// Reopen opens the device anew, which is how a replica finds out whether a disk works again.
func (h *handle) Reopen() error {
	h.disk.mu.Lock()
	defer h.disk.mu.Unlock()
	if h.disk.gone != nil {
		return h.disk.gone
	}
	return h.Dev.Reopen()
}

func (d *disk) Fresh(path string) (bool, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.gone != nil {
		return false, fmt.Errorf("open %s: %w", path, d.gone)
	}
	return d.mem == nil, nil
}

// Enlarge: a disk is as large as it is.
func (d *disk) Enlarge(path string, size int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.mem == nil || d.mem.Size() < size {
		return fmt.Errorf("enlarge %s to %d bytes: %w", path, size, syscall.ENOSPC)
	}
	return nil
}

// Clear writes the zeroes, and has them durable.
func (d *disk) Clear(path string, r blockdev.Range) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.mem == nil || d.gone != nil {
		return fmt.Errorf("clear %v of %s: %w", r, path, syscall.EIO)
	}
	return errors.Join(d.mem.Zero(r, true), d.mem.Flush())
}

// diskTime is how long an operation takes on a healthy disk.
const diskTime = 300 * time.Microsecond

func (d *disk) Open(path string, c filedev.Config) (node.Disk, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.held != nil {
		return nil, fmt.Errorf("open %s: %w", path, syscall.EBUSY)
	}
	if d.gone != nil {
		return nil, fmt.Errorf("open %s: %w", path, d.gone)
	}
	if d.mem == nil {
		if !c.Create {
			return nil, fmt.Errorf("open %s: %w", path, syscall.ENOENT)
		}
		d.mem = memdev.New(memdev.Config{Size: c.Size, Intermediate: 2, LyingFlush: d.lies})
	}
	mem := d.mem.Reopen()
	h := &handle{Dev: faultdev.New(mem), disk: d, mem: mem}
	h.Add(faultdev.Rule{Delay: diskTime})
	d.held = h
	return h, nil
}

// crash leaves what the next process finds. Whoever has it open reaches it no more.
func (d *disk) crash(power bool, rnd *rand.Rand) {
	d.mu.Lock()
	defer d.mu.Unlock()
	h := d.held
	d.held = nil
	if d.mem == nil {
		return
	}
	if power {
		d.mem = d.mem.Clone(memdev.CrashOptions{Rand: rnd, Mode: memdev.Torn})
	} else if h != nil {
		_ = h.mem.Close()
	}
}

// harm puts a rule in force on the open disk, nil when nobody has it open.
func (d *disk) harm(r faultdev.Rule) *faultdev.Handle {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.held == nil {
		return nil
	}
	return d.held.Add(r)
}

// vanish has opens fail from now on, or succeed again when err is nil.
func (d *disk) vanish(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.gone = err
}

// content is all that it holds.
func (d *disk) content() []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	p := make([]byte, d.mem.Size())
	if _, err := d.mem.ReadAt(p, 0); err != nil {
		panic(err) // memory does not fail
	}
	return p
}
