package undo

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// scan reads what is in the store, record by record, and tells found of each that is whole, content included; nil content
// stands for zeroes. It returns where the next record goes, and the last one that is whole.
//
// What follows the last whole record may be a group that was being written when the power went. A record of a group behind
// that one says that it was not: that is ErrCorrupt.
func scan(s Store, h *header, found func(r *record, content []byte) error) (end int64, last record, err error) {
	size, err := s.Size()
	if err != nil {
		return 0, last, err
	}
	buf := make([]byte, min(recordSize+MaxRecord, max(recordSize, size))) // no record goes beyond the end
	for end = headerSize; ; {
		r, content, bad, err := readRecord(s, h, end, size, buf)
		if err != nil {
			return end, last, err
		}
		if bad == nil && (r.seq != last.seq+1 || r.group != next(&last)) {
			bad = fmt.Errorf("record %d of group %d follows record %d of group %d", r.seq, r.group, last.seq, last.group)
		}
		if bad != nil {
			return end, last, torn(s, h, end, size, next(&last), bad, buf)
		}
		if err := found(&r, content); err != nil {
			return end, last, err
		}
		last, end = r, end+recordSize+r.payload()
	}
}

// next is the group of the record behind r.
func next(r *record) uint64 {
	if r.last || r.seq == 0 {
		return r.group + 1
	}
	return r.group
}

var errEnd = errors.New("end of the area")

// readRecord reads the record at an offset with its content. bad says why there is none; err that it cannot be read.
func readRecord(s Store, h *header, at, size int64, buf []byte) (r record, content []byte, bad, err error) {
	if at+recordSize > size {
		return r, nil, errEnd, nil
	}
	if err := read(s, buf[:recordSize], at); err != nil {
		return r, nil, nil, err
	}
	if r, bad = decodeRecord(buf, h); bad != nil || r.zero {
		return r, nil, bad, nil
	}
	if at+recordSize+r.at.Len > size {
		return r, nil, errEnd, nil
	}
	content = buf[recordSize : recordSize+r.at.Len]
	if err := read(s, content, at+recordSize); err != nil {
		return r, nil, nil, err
	}
	if sum := crc32.Checksum(content, castagnoli); sum != r.sum {
		bad = fmt.Errorf("content of %v: its checksum is %#08x, the record says %#08x", r.at, sum, r.sum)
	}
	return r, content, bad, nil
}

func read(s Store, p []byte, off int64) error {
	if n, err := s.ReadAt(p, off); err != nil && !(errors.Is(err, io.EOF) && n == len(p)) {
		return fmt.Errorf("read the undo area at %d: %w", off, err)
	}
	return nil
}

// torn looks behind the last whole record for one of a group that began after group was durable.
func torn(s Store, h *header, from, size int64, group uint64, why error, buf []byte) error {
	for at := from; at+recordSize <= size; {
		n := min(int64(len(buf)), size-at) / recordSize * recordSize
		if err := read(s, buf[:n], at); err != nil {
			return err
		}
		for p := buf[:n]; len(p) > 0; p = p[recordSize:] {
			if binary.LittleEndian.Uint32(p) != recordMagic {
				continue
			}
			if r, bad := decodeRecord(p, h); bad == nil && r.group > group {
				return fmt.Errorf("%w: at byte %d: %w; yet group %d was written behind it", ErrCorrupt, from, why, r.group)
			}
		}
		at += n
	}
	return nil
}
