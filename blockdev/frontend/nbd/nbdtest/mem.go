package nbdtest

import (
	"sync"

	"hacluster/blockdev"
)

// Mem is a device in memory that counts what is done to it and can be made to fail. It knows which of its blocks are
// holes.
type Mem struct {
	// Fail, when not nil, is asked before each operation; set it before use.
	Fail func(op blockdev.Op, r blockdev.Range) error

	mu    sync.RWMutex
	data  []byte
	hole  []bool // per block: never written, or unmapped since
	count Counts
}

// Counts is what was done to a Mem.
type Counts struct{ Writes, FUAs, Zeroes, Unmaps, Flushes int }

var (
	_ blockdev.Device = (*Mem)(nil)
	_ blockdev.Mapper = (*Mem)(nil)
)

// NewMem returns a device of n zeroes, all of it a hole.
func NewMem(n int64) *Mem {
	m := &Mem{data: make([]byte, n), hole: make([]bool, (n+blockdev.BlockSize-1)/blockdev.BlockSize)}
	for i := range m.hole {
		m.hole[i] = true
	}
	return m
}

// Counts returns what was done so far.
func (m *Mem) Counts() Counts {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.count
}

// Snapshot returns a copy of the content.
func (m *Mem) Snapshot() []byte {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return append([]byte(nil), m.data...)
}

// Size is the length given to NewMem.
func (m *Mem) Size() int64 { return int64(len(m.data)) }

func (m *Mem) check(op blockdev.Op, r blockdev.Range) error {
	if !r.Within(m.Size()) {
		return blockdev.ErrRange
	}
	if m.Fail != nil {
		return m.Fail(op, r)
	}
	return nil
}

// ReadAt copies out.
func (m *Mem) ReadAt(p []byte, off int64) (int, error) {
	if err := m.check(blockdev.OpRead, blockdev.Range{Off: off, Len: int64(len(p))}); err != nil {
		return 0, err
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	return copy(p, m.data[off:]), nil
}

// WriteAt copies in.
func (m *Mem) WriteAt(p []byte, off int64) (int, error) { return m.write(p, off, 0) }

// WriteFUA is WriteAt, counted apart.
func (m *Mem) WriteFUA(p []byte, off int64) (int, error) { return m.write(p, off, 1) }

func (m *Mem) write(p []byte, off int64, fua int) (int, error) {
	r := blockdev.Range{Off: off, Len: int64(len(p))}
	if err := m.check(blockdev.OpWrite, r); err != nil {
		return 0, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.count.Writes++
	m.count.FUAs += fua
	for i := off / blockdev.BlockSize; i*blockdev.BlockSize < r.End(); i++ {
		m.hole[i] = false
	}
	return copy(m.data[off:], p), nil
}

// Zero clears; blocks that lie wholly in an unmapped range become holes.
func (m *Mem) Zero(r blockdev.Range, unmap bool) error {
	if err := m.check(blockdev.OpZero, r); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.count.Zeroes++
	clear(m.data[r.Off:r.End()])
	if !unmap {
		for i := r.Off / blockdev.BlockSize; i*blockdev.BlockSize < r.End(); i++ {
			m.hole[i] = false
		}
		return nil
	}
	m.count.Unmaps++
	for i := (r.Off + blockdev.BlockSize - 1) / blockdev.BlockSize; (i+1)*blockdev.BlockSize <= r.End(); i++ {
		m.hole[i] = true
	}
	return nil
}

// Flush counts.
func (m *Mem) Flush() error {
	if err := m.check(blockdev.OpFlush, blockdev.Range{}); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.count.Flushes++
	return nil
}

// Extents reports holes by block.
func (m *Mem) Extents(r blockdev.Range, fn func(blockdev.Range, bool) bool) error {
	if err := m.check(blockdev.OpRead, r); err != nil {
		return err
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	for off := r.Off; off < r.End(); {
		i := off / blockdev.BlockSize
		end := min((i+1)*blockdev.BlockSize, r.End())
		if !fn(blockdev.Range{Off: off, Len: end - off}, m.hole[i]) {
			return nil
		}
		off = end
	}
	return nil
}

// Close does nothing.
func (m *Mem) Close() error { return nil }
