package wire

import (
	"encoding/binary"
	"hash/crc32"
	"strings"
	"unicode/utf8"
)

// Hello is the first message on a stream: which primary wants to replicate which volume to whom. The standby compares
// all of it with what it holds before it answers (R2).
type Hello struct {
	VersionMin, VersionMax uint16 // encoded as given; link fills in this package's own when both are zero
	Cluster, Volume        ID
	VolumeName             string
	Size                   int64  // of the volume, in bytes
	BlockSize              uint32 // in which replicas are compared and marked, in bytes
	Generation, Epoch      uint64
	Primary                string // node name of the sender
	Process                uint64 // start number of the sender's process
	Stream                 uint64 // grows with every connection of (epoch, process)
	Target                 string // node name of the receiver
}

// The body of a Hello. Epoch and stream stand in the header. In every version the first four bytes are the versions
// and the last four the CRC-32C of the bytes before.
const (
	helloMin        = 0
	helloMax        = 2
	helloBlockSize  = 4
	helloCluster    = 8
	helloVolume     = 24
	helloSize       = 40
	helloGeneration = 48
	helloProcess    = 56
	helloNameLen    = 64
	helloPrimaryLen = 65
	helloTargetLen  = 66
	helloZero       = 67 // 5 bytes
	helloName       = 72
	helloPrimary    = helloName + MaxVolumeName
	helloTarget     = helloPrimary + MaxNodeName
	helloCRC        = helloTarget + MaxNodeName
	helloBody       = helloCRC + 4
)

// AppendHello appends the encoded message to dst. An error means that h cannot be said in this protocol.
func AppendHello(dst []byte, h Hello) ([]byte, error) {
	if err := h.check(); err != nil {
		return dst, err
	}
	dst = appendHeader(dst, header{version: h.VersionMax, kind: KindHello, epoch: h.Epoch, stream: h.Stream, count: helloBody})
	dst, b := grow(dst, helloBody)
	binary.LittleEndian.PutUint16(b[helloMin:], h.VersionMin)
	binary.LittleEndian.PutUint16(b[helloMax:], h.VersionMax)
	binary.LittleEndian.PutUint32(b[helloBlockSize:], h.BlockSize)
	copy(b[helloCluster:], h.Cluster[:])
	copy(b[helloVolume:], h.Volume[:])
	binary.LittleEndian.PutUint64(b[helloSize:], uint64(h.Size))
	binary.LittleEndian.PutUint64(b[helloGeneration:], h.Generation)
	binary.LittleEndian.PutUint64(b[helloProcess:], h.Process)
	b[helloNameLen] = byte(copy(b[helloName:helloPrimary], h.VolumeName))
	b[helloPrimaryLen] = byte(copy(b[helloPrimary:helloTarget], h.Primary))
	b[helloTargetLen] = byte(copy(b[helloTarget:helloCRC], h.Target))
	seal(b)
	return dst, nil
}

// DecodeHello decodes a whole message. The error is a *VersionError, and h holds the versions, when the two sides have
// none in common; the rest of such a message is not looked at.
func DecodeHello(segments [][]byte) (h Hello, err error) {
	head, b, err := decodeGreeting(segments, KindHello, helloBody)
	if b != nil {
		h.VersionMin = binary.LittleEndian.Uint16(b[helloMin:])
		h.VersionMax = binary.LittleEndian.Uint16(b[helloMax:])
	}
	if err != nil {
		return h, err
	}
	h.Epoch, h.Stream = head.epoch, head.stream
	h.BlockSize = binary.LittleEndian.Uint32(b[helloBlockSize:])
	copy(h.Cluster[:], b[helloCluster:])
	copy(h.Volume[:], b[helloVolume:])
	h.Size = int64(binary.LittleEndian.Uint64(b[helloSize:]))
	h.Generation = binary.LittleEndian.Uint64(b[helloGeneration:])
	h.Process = binary.LittleEndian.Uint64(b[helloProcess:])
	s := stringReader{b: b}
	h.VolumeName = s.read("volume name", helloName, int(b[helloNameLen]), MaxVolumeName)
	h.Primary = s.read("primary's name", helloPrimary, int(b[helloPrimaryLen]), MaxNodeName)
	h.Target = s.read("target's name", helloTarget, int(b[helloTargetLen]), MaxNodeName)
	s.zero("hello", helloZero, helloName)
	if s.err != nil {
		return Hello{}, s.err
	}
	if err := h.check(); err != nil {
		return Hello{}, err
	}
	return h, nil
}

func (h Hello) check() error {
	if h.VersionMin == 0 || h.VersionMin > h.VersionMax {
		return malformed("hello offers versions %d to %d", h.VersionMin, h.VersionMax)
	}
	if h.Size <= 0 {
		return malformed("hello names a volume of %d bytes", h.Size)
	}
	if h.BlockSize == 0 {
		return malformed("hello names a block size of zero")
	}
	return firstError(
		checkText("volume name", h.VolumeName, 1, MaxVolumeName),
		checkText("primary's name", h.Primary, 1, MaxNodeName),
		checkText("target's name", h.Target, 1, MaxNodeName),
	)
}

// decodeGreeting returns the body of a Hello or HelloReply after its checksum and versions were checked. With a
// *VersionError the body is returned too, for its first bytes.
func decodeGreeting(segments [][]byte, kind MessageKind, size int) (header, []byte, error) {
	c := newCursor(segments)
	head, err := decodeHeader(&c, kind)
	if err != nil {
		return header{}, nil, err
	}
	n := int64(head.count)
	if n > MaxGreeting {
		return header{}, nil, overLimit("the body of a "+kind.String(), n, MaxGreeting)
	}
	if n != int64(c.left) || n < 8 {
		return header{}, nil, malformed("%v of %d bytes says it has %d", kind, c.left, n)
	}
	b, _ := c.take(c.left)
	if binary.LittleEndian.Uint32(b[n-4:]) != crc32.Checksum(b[:n-4], castagnoli) {
		return header{}, nil, malformed("the checksum of the %v does not match", kind)
	}
	lo, hi := binary.LittleEndian.Uint16(b[0:]), binary.LittleEndian.Uint16(b[2:])
	if lo > Version || hi < VersionMin {
		return head, b, &VersionError{Min: lo, Max: hi}
	}
	if head.version != hi {
		return header{}, nil, malformed("%v of version %d says that it speaks up to %d", kind, head.version, hi)
	}
	// A later version may append fields; it says so by its number.
	if len(b) < size || (len(b) > size && hi <= Version) {
		return header{}, nil, malformed("%v of version %d has %d bytes, not %d", kind, hi, len(b), size)
	}
	return head, b, nil
}

// seal puts the checksum into the last four bytes of a greeting's body.
func seal(b []byte) []byte {
	n := len(b) - 4
	binary.LittleEndian.PutUint32(b[n:], crc32.Checksum(b[:n], castagnoli))
	return b
}

// stringReader reads zero-padded strings out of a body and keeps the first error.
type stringReader struct {
	b   []byte
	err error
}

func (s *stringReader) read(what string, off, n, room int) string {
	if n > room {
		s.fail(overLimit("length of the "+what, int64(n), int64(room)))
		return ""
	}
	s.zero(what, off+n, off+room)
	return string(s.b[off : off+n])
}

// zero demands that the bytes from..to are not used.
func (s *stringReader) zero(what string, from, to int) {
	for i := from; i < to; i++ {
		if s.b[i] != 0 {
			s.fail(malformed("unused bytes behind the %s are not zero", what))
			return
		}
	}
}

func (s *stringReader) fail(err error) {
	if s.err == nil {
		s.err = err
	}
}

// checkText refuses what could not be shown in one line of a log or a status.
func checkText(what, s string, least, most int) error {
	if len(s) > most {
		return overLimit("length of the "+what, int64(len(s)), int64(most))
	}
	if len(s) < least {
		return malformed("%s is empty", what)
	}
	control := func(r rune) bool { return r < ' ' || r == 0x7f }
	if !utf8.ValidString(s) || strings.ContainsFunc(s, control) {
		return malformed("%s %q holds control characters or is not UTF-8", what, s)
	}
	return nil
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
