package undo

import (
	"errors"
	"fmt"
	"io"
	"time"

	"hacluster/blockdev"
	"hacluster/blockdev/meta"
)

// Head is what an area's header says.
type Head struct {
	Cluster, Volume meta.ID
	Node            string
	Size            int64 // of the volume
	Point           Point
	Epoch           uint64 // in which it was begun
}

// When is the time of a Point; zero when that is not known.
func (p Point) When() time.Time {
	if p.AtMillis == 0 {
		return time.Time{}
	}
	return time.UnixMilli(p.AtMillis)
}

// Reader reads what the file of an area holds, record by record, also while that grows: it has nothing to do with any Area.
// It must be closed.
type Reader struct {
	store Store
	head  *header
	at    int64
	end   int64
	buf   []byte
}

// Start is where the first record is.
const Start = headerSize

// NewReader reads from the record at byte from, up to byte end of the file. The header is checked, not whose it is.
func NewReader(p Place, from, end int64) (*Reader, error) {
	s, err := p.Open()
	if err != nil {
		return nil, err
	}
	r, err := newReader(s, from, end)
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return r, nil
}

func newReader(s Store, from, end int64) (*Reader, error) {
	size, err := s.Size()
	if err != nil {
		return nil, err
	}
	p := make([]byte, min(size, headerSize))
	if err := read(s, p, 0); err != nil {
		return nil, err
	}
	h, err := decodeHeader(p)
	if err != nil {
		return nil, err
	}
	if from < headerSize || from%recordSize != 0 {
		return nil, fmt.Errorf("record at byte %d: none begins there", from)
	}
	return &Reader{store: s, head: h, at: from, end: min(end, size), buf: make([]byte, recordSize+MaxRecord)}, nil
}

// Head is what the header says.
func (r *Reader) Head() Head {
	h := r.head
	return Head{Cluster: h.cluster, Volume: h.volume, Node: h.node, Size: h.size, Point: h.point, Epoch: h.began}
}

// At is where the next record is.
func (r *Reader) At() int64 { return r.at }

// Next is the next record; io.EOF behind the last one. Content is valid until the next call; nil: zeroes, of any length.
// ErrCorrupt: what stands here is no whole record.
func (r *Reader) Next() (at blockdev.Range, content []byte, err error) {
	if r.at >= r.end {
		return at, nil, io.EOF
	}
	rec, content, bad, err := readRecord(r.store, r.head, r.at, r.end, r.buf)
	switch {
	case err != nil:
		return at, nil, err
	case bad != nil:
		return at, nil, fmt.Errorf("%w: at byte %d of %d: %w", ErrCorrupt, r.at, r.end, bad)
	}
	r.at += recordSize + rec.payload()
	return rec.at, content, nil
}

// Close ends reading.
func (r *Reader) Close() error { return r.store.Close() }
