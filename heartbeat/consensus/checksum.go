package consensus

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/hashicorp/raft"
)

// summed keeps a checksum with each log entry, in the last four bytes of its Extensions, and behind each stored value
// (term, vote). raft-wal checks only the last
// batch of its last file, once, at start; a rotten entry elsewhere would be applied. (Its own hook for encodings
// cannot be used: v0.4.1 does not reopen what another codec has written.)
type summed struct{ backend }

const sumLen = 4

func (s summed) IsMonotonic() bool { return true }

func (s summed) StoreLog(l *raft.Log) error { return s.StoreLogs([]*raft.Log{l}) }

// StoreLogs writes copies: raft keeps the entries and sends them to peers without our checksum.
func (s summed) StoreLogs(logs []*raft.Log) error {
	copies := make([]*raft.Log, len(logs))
	for i, l := range logs {
		c := *l
		c.Extensions = binary.LittleEndian.AppendUint32(append([]byte(nil), l.Extensions...), entrySum(l))
		copies[i] = &c
	}
	return s.backend.StoreLogs(copies)
}

func (s summed) GetLog(index uint64, into *raft.Log) error {
	var l raft.Log
	if err := s.backend.GetLog(index, &l); err != nil {
		return err
	}
	n := len(l.Extensions) - sumLen
	if n < 0 {
		return fmt.Errorf("%w: log entry %d has no checksum", ErrCorrupt, index)
	}
	sum := binary.LittleEndian.Uint32(l.Extensions[n:])
	if l.Extensions = l.Extensions[:n:n]; n == 0 {
		l.Extensions = nil
	}
	if l.Index != index || sum != entrySum(&l) {
		return fmt.Errorf("%w: checksum of log entry %d does not match", ErrCorrupt, index)
	}
	*into = l
	return nil
}

// entrySum covers all that the group agrees on; the time of appending is local.
func entrySum(l *raft.Log) uint32 {
	var head [25]byte
	binary.LittleEndian.PutUint64(head[0:], l.Index)
	binary.LittleEndian.PutUint64(head[8:], l.Term)
	binary.LittleEndian.PutUint64(head[16:], uint64(len(l.Data)))
	head[24] = byte(l.Type)
	sum := crc32.Checksum(head[:], castagnoli)
	sum = crc32.Update(sum, castagnoli, l.Data)
	return crc32.Update(sum, castagnoli, l.Extensions)
}

func (s summed) Set(key, value []byte) error {
	return s.backend.Set(key, binary.LittleEndian.AppendUint32(append([]byte(nil), value...), valueSum(key, value)))
}

func (s summed) Get(key []byte) ([]byte, error) {
	b, err := s.backend.Get(key)
	if err != nil || len(b) == 0 {
		return nil, err
	}
	n := len(b) - sumLen
	if n < 0 || binary.LittleEndian.Uint32(b[n:]) != valueSum(key, b[:n]) {
		return nil, fmt.Errorf("%w: checksum of %s does not match", ErrCorrupt, key)
	}
	return b[:n:n], nil
}

func (s summed) SetUint64(key []byte, value uint64) error {
	return s.Set(key, binary.LittleEndian.AppendUint64(nil, value))
}

func (s summed) GetUint64(key []byte) (uint64, error) {
	b, err := s.Get(key)
	switch {
	case err != nil || b == nil:
		return 0, err
	case len(b) != 8:
		return 0, fmt.Errorf("%w: %s has %d bytes, not 8", ErrCorrupt, key, len(b))
	}
	return binary.LittleEndian.Uint64(b), nil
}

func valueSum(key, value []byte) uint32 {
	return crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, value)
}
