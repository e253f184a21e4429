package consensus

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"sync"
)

// mark remembers how far this node's log and term had come: a small file beside the log, written after it.
//
// raft-wal takes a log whose end is damaged or missing for one that ends earlier, as it must after a crash in an
// append. It cannot tell the one from the other; the mark can, because it is only written when the append is durable.
// The mark itself is not synced (it would double the cost of an append): after a power loss it may claim less than
// the log holds, never more.
//
//	0   8  magic "hacmark\x01"
//	8   8  index of the last entry that was durable
//	16  8  term that was stored
//	24  4  zero
//	28  4  CRC-32C of the bytes before
type mark struct {
	mu   sync.Mutex // held while writing the 32 bytes; both fields and the file
	file *os.File
	at   point
}

type point struct{ index, term uint64 }

const (
	markMagic = "hacmark\x01"
	markLen   = 32
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func encodeMark(p point) []byte {
	b := make([]byte, markLen)
	copy(b, markMagic)
	binary.LittleEndian.PutUint64(b[8:], p.index)
	binary.LittleEndian.PutUint64(b[16:], p.term)
	binary.LittleEndian.PutUint32(b[28:], crc32.Checksum(b[:28], castagnoli))
	return b
}

func decodeMark(b []byte) (point, error) {
	switch {
	case len(b) != markLen:
		return point{}, fmt.Errorf("it has %d bytes, not %d", len(b), markLen)
	case string(b[:7]) != markMagic[:7]:
		return point{}, errors.New("it does not start with its magic number")
	case b[7] != markMagic[7]:
		return point{}, fmt.Errorf("it has format version %d, this program knows %d", b[7], markMagic[7])
	case binary.LittleEndian.Uint32(b[28:]) != crc32.Checksum(b[:28], castagnoli):
		return point{}, errors.New("its checksum does not match")
	}
	return point{binary.LittleEndian.Uint64(b[8:]), binary.LittleEndian.Uint64(b[16:])}, nil
}

func openMark(path string) (*mark, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	b := make([]byte, markLen+1)
	n, _ := f.ReadAt(b, 0)
	at, err := decodeMark(b[:n])
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return &mark{file: f, at: at}, nil
}

func (m *mark) raiseIndex(index uint64) error {
	return m.set(func(p *point) { p.index = index }, false)
}

func (m *mark) raiseTerm(term uint64) error {
	return m.set(func(p *point) { p.term = max(p.term, term) }, false)
}

func (m *mark) lowerIndex(index uint64) error {
	return m.set(func(p *point) { p.index = min(p.index, index) }, true)
}

// set writes a changed mark. A nil mark, in memory, remembers nothing.
func (m *mark) set(change func(*point), durable bool) error {
	if m == nil {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	to := m.at
	change(&to)
	if to == m.at {
		return nil
	}
	if _, err := m.file.WriteAt(encodeMark(to), 0); err != nil {
		return fmt.Errorf("write %s: %w", m.file.Name(), err)
	}
	m.at = to
	if durable {
		return m.file.Sync()
	}
	return nil
}

func (m *mark) close() error {
	if m == nil {
		return nil
	}
	return m.file.Close()
}
