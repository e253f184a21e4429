package wire

import (
	"encoding/binary"
	"hash/crc32"
	"slices"
)

// The header of every message, little-endian:
//
//	 0  magic    "HBLK"
//	 4  version  u16   negotiated; in a greeting the sender's highest
//	 6  kind     u8
//	 7  packed   u8    of a batch: 1 if the payloads behind it are compressed (version 7); else zero
//	 8  epoch    u64
//	16  stream   u64
//	24  count    u32   records; in a greeting the bytes of its body
//	28  crc      u32   CRC-32C of bytes 0 to 27
const (
	HeaderSize = 32

	headMagic   = 0
	headVersion = 4
	headKind    = 6
	headPacked  = 7
	headEpoch   = 8
	headStream  = 16
	headCount   = 24
	headCRC     = 28

	magic = 'H' | 'B'<<8 | 'L'<<16 | 'K'<<24
)

// MessageKind says what a message is.
type MessageKind uint8

// The messages. Hello and HelloReply keep their layout in all versions: fields are only added behind the last.
const (
	KindHello MessageKind = iota + 1
	KindHelloReply
	KindBatch
	KindReplies
)

func (k MessageKind) String() string {
	switch k {
	case KindHello:
		return "hello"
	case KindHelloReply:
		return "hello reply"
	case KindBatch:
		return "batch"
	case KindReplies:
		return "replies"
	}
	return "unknown message"
}

type header struct {
	version uint16
	kind    MessageKind
	packed  uint8
	epoch   uint64
	stream  uint64
	count   uint32
}

func appendHeader(dst []byte, h header) []byte {
	dst, b := grow(dst, HeaderSize)
	binary.LittleEndian.PutUint32(b[headMagic:], magic)
	binary.LittleEndian.PutUint16(b[headVersion:], h.version)
	b[headKind], b[headPacked] = byte(h.kind), h.packed
	binary.LittleEndian.PutUint64(b[headEpoch:], h.epoch)
	binary.LittleEndian.PutUint64(b[headStream:], h.stream)
	binary.LittleEndian.PutUint32(b[headCount:], h.count)
	binary.LittleEndian.PutUint32(b[headCRC:], crc32.Checksum(b[:headCRC], castagnoli))
	return dst
}

// grow appends n zero bytes to dst and returns them too, for an encoder to fill in place.
func grow(dst []byte, n int) (all, added []byte) {
	from := len(dst)
	all = slices.Grow(dst, n)[:from+n]
	added = all[from:]
	clear(added)
	return all, added
}

// decodeHeader reads the header and checks all of it but count, whose meaning depends on the kind.
func decodeHeader(c *cursor, want MessageKind) (header, error) {
	b, ok := c.take(HeaderSize)
	if !ok {
		return header{}, malformed("%d bytes, too short for a header of %d", c.left, HeaderSize)
	}
	if got := binary.LittleEndian.Uint32(b[headMagic:]); got != magic {
		return header{}, malformed("starts with %#08x instead of the magic number %#08x", got, uint32(magic))
	}
	if binary.LittleEndian.Uint32(b[headCRC:]) != crc32.Checksum(b[:headCRC], castagnoli) {
		return header{}, malformed("the header's checksum does not match")
	}
	h := header{
		version: binary.LittleEndian.Uint16(b[headVersion:]),
		kind:    MessageKind(b[headKind]),
		packed:  b[headPacked],
		epoch:   binary.LittleEndian.Uint64(b[headEpoch:]),
		stream:  binary.LittleEndian.Uint64(b[headStream:]),
		count:   binary.LittleEndian.Uint32(b[headCount:]),
	}
	return h, h.check(want)
}

func (h header) check(want MessageKind) error {
	if h.kind != want {
		return malformed("%v (%d) where a %v is due", h.kind, h.kind, want)
	}
	if h.packed > 1 || h.packed == 1 && (h.kind != KindBatch || h.version < VersionPacked) {
		return malformed("reserved byte of the header of a %v of version %d is %#x", h.kind, h.version, h.packed)
	}
	greeting := h.kind == KindHello || h.kind == KindHelloReply
	if !greeting && (h.version < VersionMin || h.version > Version) {
		return &VersionError{Min: h.version, Max: h.version}
	}
	return nil
}
