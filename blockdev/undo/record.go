package undo

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"hacluster/blockdev"
)

// A record is 512 bytes, one disk sector, and behind it as many bytes of old content as the range has; none when that is
// all zeroes.
const (
	recordSize = 512

	recMagic   = 0  // 4
	recFlags   = 4  // 4
	recTag     = 8  // 8, of the area
	recSeq     = 16 // 8, from 1, without gaps
	recGroup   = 24 // 8, from 1, without gaps
	recOff     = 32 // 8
	recLen     = 40 // 8
	recSum     = 48 // 4, of the content
	recRest    = 52
	recChecked = recordSize - 4 // checksum of all before it

	flagZero = 1 // the old content is zeroes
	flagLast = 2 // of its group

	recordMagic = 0x63657275 // "urec"
)

// MaxRecord is how many bytes of content a record holds at most. A range of zeroes may be longer.
const MaxRecord = 1 << 20

type record struct {
	seq, group uint64
	at         blockdev.Range
	zero, last bool
	sum        uint32
}

// payload is how many bytes follow the record.
func (r *record) payload() int64 {
	if r.zero {
		return 0
	}
	return r.at.Len
}

// encode writes the record to the first 512 bytes of p.
func (r *record) encode(p []byte, tag uint64) {
	p = p[:recordSize]
	clear(p)
	le := binary.LittleEndian
	flags := uint32(0)
	if r.zero {
		flags |= flagZero
	}
	if r.last {
		flags |= flagLast
	}
	le.PutUint32(p[recMagic:], recordMagic)
	le.PutUint32(p[recFlags:], flags)
	le.PutUint64(p[recTag:], tag)
	le.PutUint64(p[recSeq:], r.seq)
	le.PutUint64(p[recGroup:], r.group)
	le.PutUint64(p[recOff:], uint64(r.at.Off))
	le.PutUint64(p[recLen:], uint64(r.at.Len))
	le.PutUint32(p[recSum:], r.sum)
	le.PutUint32(p[recChecked:], crc32.Checksum(p[:recChecked], castagnoli))
}

// decodeRecord takes 512 bytes for a record of the area h, or says why they are none.
func decodeRecord(p []byte, h *header) (r record, err error) {
	le := binary.LittleEndian
	p = p[:recordSize]
	if le.Uint32(p[recMagic:]) != recordMagic || le.Uint64(p[recTag:]) != h.tag {
		return r, fmt.Errorf("magic and tag: found %#x and %#x, expected %#x and %#x", le.Uint32(p[recMagic:]), le.Uint64(p[recTag:]), recordMagic, h.tag)
	}
	if found, want := le.Uint32(p[recChecked:]), crc32.Checksum(p[:recChecked], castagnoli); found != want {
		return r, fmt.Errorf("checksum: found %#08x, its content has %#08x", found, want)
	}
	flags := le.Uint32(p[recFlags:])
	r = record{seq: le.Uint64(p[recSeq:]), group: le.Uint64(p[recGroup:]), zero: flags&flagZero != 0, last: flags&flagLast != 0,
		at: blockdev.Range{Off: int64(le.Uint64(p[recOff:])), Len: int64(le.Uint64(p[recLen:]))}, sum: le.Uint32(p[recSum:])}
	switch {
	case flags&^(flagZero|flagLast) != 0 || !zero(p[recRest:recChecked]):
		return r, fmt.Errorf("flags %#x, or reserved bytes, are unknown", flags)
	case r.at.Len <= 0 || !r.at.Within(h.size) || r.at.Off%blockdev.BlockSize != 0 || r.at.Len%blockdev.BlockSize != 0:
		return r, fmt.Errorf("range %v: no program of this version writes that for a volume of %d bytes", r.at, h.size)
	case r.payload() > MaxRecord:
		return r, fmt.Errorf("%d bytes of content, at most %d are written", r.payload(), MaxRecord)
	}
	return r, nil
}
