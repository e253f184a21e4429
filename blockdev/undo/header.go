package undo

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"hacluster/blockdev"
	"hacluster/blockdev/meta"
)

// The header. Magic, version and checksum are at the same places in every version, so that an older program can tell
// "newer" from "damaged". Strings are padded with zeroes; what is between the fields and the checksum is zero.
const (
	headerSize = 4096

	offMagic      = 0   // 8
	offVersion    = 8   // 4, then 4 zero
	offTag        = 16  // 8
	offSize       = 24  // 8
	offCluster    = 32  // 16
	offVolume     = 48  // 16
	offNode       = 64  // 64
	offAttachment = 128 // 128
	offEpoch      = 256 // 8, of the point
	offAt         = 264 // 8, of the point: milliseconds since 1970
	offBegan      = 272 // 8, the epoch in which the area was begun
	offRest       = 280
	offChecksum   = headerSize - 4
)

var (
	magic      = [8]byte{'h', 'a', 'c', 'l', 'u', 'n', 'd', 'o'}
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

type header struct {
	tag             uint64 // given at random; every record bears it
	size            int64
	cluster, volume meta.ID
	node            string
	attachment      string
	point           Point
	began           uint64
}

func (h *header) encode() []byte {
	p := make([]byte, headerSize)
	le := binary.LittleEndian
	copy(p[offMagic:], magic[:])
	le.PutUint32(p[offVersion:], Version)
	le.PutUint64(p[offTag:], h.tag)
	le.PutUint64(p[offSize:], uint64(h.size))
	copy(p[offCluster:], h.cluster[:])
	copy(p[offVolume:], h.volume[:])
	copy(p[offNode:], h.node)
	copy(p[offAttachment:], h.attachment)
	le.PutUint64(p[offEpoch:], h.point.Epoch)
	le.PutUint64(p[offAt:], uint64(h.point.AtMillis))
	le.PutUint64(p[offBegan:], h.began)
	le.PutUint32(p[offChecksum:], crc32.Checksum(p[:offChecksum], castagnoli))
	return p
}

// decodeHeader believes nothing before the checksum is right, and of a newer version nothing at all.
func decodeHeader(p []byte) (*header, error) {
	le := binary.LittleEndian
	if len(p) < headerSize {
		return nil, fmt.Errorf("%w: header: found %d bytes, it has %d", ErrCorrupt, len(p), headerSize)
	}
	p = p[:headerSize]
	if !bytes.Equal(p[:offVersion], magic[:]) {
		return nil, fmt.Errorf("%w: magic: found %q, expected %q", ErrCorrupt, p[:offVersion], magic[:])
	}
	if found, want := le.Uint32(p[offChecksum:]), crc32.Checksum(p[:offChecksum], castagnoli); found != want {
		return nil, fmt.Errorf("%w: header checksum: found %#08x, its content has %#08x", ErrCorrupt, found, want)
	}
	if v := le.Uint32(p[offVersion:]); v != Version {
		return nil, fmt.Errorf("%w: it has version %d, this program knows %d: install the newer program again; nothing was written", ErrVersion, v, Version)
	}
	h := &header{
		tag: le.Uint64(p[offTag:]), size: int64(le.Uint64(p[offSize:])),
		cluster: meta.ID(p[offCluster:offVolume]), volume: meta.ID(p[offVolume:offNode]),
		point: Point{Epoch: le.Uint64(p[offEpoch:]), AtMillis: int64(le.Uint64(p[offAt:]))}, began: le.Uint64(p[offBegan:]),
	}
	errs := []error{
		text(p[offNode:offAttachment], "node", &h.node),
		text(p[offAttachment:offEpoch], "attachment", &h.attachment),
	}
	if h.size <= 0 || h.size%blockdev.BlockSize != 0 {
		errs = append(errs, fmt.Errorf("size %d: no program of this version writes that", h.size))
	}
	if !zero(p[offVersion+4:offTag]) || !zero(p[offRest:offChecksum]) {
		errs = append(errs, errors.New("reserved bytes: found some that are not zero"))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("%w: header: %w", ErrCorrupt, err)
	}
	return h, nil
}

func text(p []byte, field string, into *string) error {
	s, rest, _ := bytes.Cut(p, []byte{0})
	if !zero(rest) {
		return fmt.Errorf("%s: found %q, which goes on behind its end", field, p)
	}
	*into = string(s)
	return nil
}

func zero(p []byte) bool {
	for len(p) > 0 {
		n := min(len(p), len(zeroes))
		if !bytes.Equal(p[:n], zeroes[:n]) {
			return false
		}
		p = p[n:]
	}
	return true
}

var zeroes [64 << 10]byte
