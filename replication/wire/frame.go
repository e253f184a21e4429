package wire

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"hacluster/blockdev"
)

// Kind says what a frame asks of the standby.
type Kind uint8

// The frames. The first four are in sequence: each carries the sequence number after that of the one before.
const (
	Write   Kind = iota + 1 // put the payload at Range
	Zero                    // make Range read as zeroes
	Flush                   // make durable what came before
	Close                   // the resync is closed: from here on frames are applied in order, without undo (R18)
	Digest                  // answer with the digests of Range
	Ping                    // answer with a pong
	Begin                   // the sequence of this stream begins at ID; with Resync, to a replica that is no member
	Marks                   // answer with what is marked for the sender, from region ID on
	Promise                 // store the promise of clearing ID, and answer; the payload is a Clearing, Range its length
	Settled                 // all that take part have promised clearing ID: carry it out
	Read                    // answer with the content of Range, once all that came before in the stream is written
)

func (k Kind) String() string {
	switch k {
	case Write:
		return "write"
	case Zero:
		return "zero"
	case Flush:
		return "flush"
	case Close:
		return "close"
	case Digest:
		return "digest"
	case Ping:
		return "ping"
	case Begin:
		return "begin"
	case Marks:
		return "map request"
	case Promise:
		return "promise"
	case Settled:
		return "settled"
	case Read:
		return "read"
	}
	return fmt.Sprintf("frame kind %d", uint8(k))
}

// Sequenced reports whether frames of this kind carry a sequence number and are acknowledged by it.
func (k Kind) Sequenced() bool { return k >= Write && k <= Close }

// bears reports whether a payload follows frames of this kind.
func (k Kind) bears() bool { return k == Write || k == Promise }

// Flags refine a frame.
type Flags uint8

// The flags.
const (
	FUA      Flags = 1 << iota // write, zero: durable before it is acknowledged
	Unmap                      // zero: the space may be given back
	Resync                     // write, zero: a copy of what the primary holds, not a client's write; begin: see there
	Ordered                    // digest: read at this place among the entries, before any that follows and overlaps (R33)
	FromDisk                   // digest: read past what the operating system keeps in memory
	Sums                       // digest: answer with sums, which tell surely what differs and not what is alike
	Fence                      // flush, or durable write or zero: nothing that follows it begins before it is durable (R13)
	Ahead                      // digest: the primary has nothing but data in the window behind that of this range (resync.Ahead), and will send it
)

var allowedFlags = [...]Flags{Write: FUA | Resync | Fence, Zero: FUA | Unmap | Resync | Fence, Flush: Fence, Close: 0, Digest: Ordered | FromDisk | Sums | Ahead, Ping: 0, Begin: Resync, Marks: 0, Promise: 0, Settled: 0, Read: 0}

// Frame is one step of what a primary tells a standby.
//
// To send, a Write's payload is Buf, and Sum the checksum that was made where the write entered; the frame borrows
// the Buf, it holds no reference of its own. A received Write has its payload in Payload, as a list of segments of
// the received message, valid as long as that message.
type Frame struct {
	Kind  Kind
	Flags Flags
	// Seq numbers the sequenced frames of an epoch without gaps; zero for the others.
	Seq uint64
	// ID pairs a Digest, Ping or Read with its answer, is the first sequence number of a Begin, the first region of a map
	// request, the number of a clearing. Of a sequenced frame it is the place in the primary's order, which is the same for all
	// standbys: who has written all up to here has all clients' operations up to that place (R6); zero: it says nothing.
	ID      uint64
	Range   blockdev.Range
	Sum     uint32
	Buf     *blockdev.Buf
	Payload [][]byte
}

// PayloadLen is the number of payload bytes that follow the frame.
func (f *Frame) PayloadLen() int {
	if !f.Kind.bears() {
		return 0
	}
	return int(f.Range.Len)
}

// Verify compares a received payload with its checksum. It is called before the payload is written (R21); the error
// is a *ChecksumError.
func (f *Frame) Verify() error {
	if !f.Kind.bears() {
		return nil
	}
	if got := Sum(f.Payload); got != f.Sum {
		return &ChecksumError{Seq: f.Seq, Want: f.Sum, Got: got}
	}
	return nil
}

// CopyTo copies a received payload into p, for a backing that needs aligned memory, and verifies what it copied as
// Verify does. p has room for PayloadLen bytes.
func (f *Frame) CopyTo(p []byte) error {
	var sum uint32
	for _, s := range f.Payload {
		n := copy(p, s)
		sum = crc32.Update(sum, castagnoli, p[:n])
		p = p[n:]
	}
	if f.Kind == Write && sum != f.Sum {
		return &ChecksumError{Seq: f.Seq, Want: f.Sum, Got: sum}
	}
	return nil
}

// A frame's record, little-endian:
//
//	 0  kind    u8
//	 1  flags   u8
//	 2  zero    u16
//	 4  sum     u32   CRC-32C of the payload
//	 8  seq     u64
//	16  off     i64
//	24  len     i64
//	32  id      u64
//	40  zero    u32
//	44  crc     u32   CRC-32C of bytes 0 to 43
const (
	FrameSize = 48

	frameKind  = 0
	frameFlags = 1
	frameZero  = 2
	frameSum   = 4
	frameSeq   = 8
	frameOff   = 16
	frameLen   = 24
	frameID    = 32
	frameZero2 = 40
	frameCRC   = 44
)

func appendFrame(dst []byte, f *Frame) []byte {
	dst, b := grow(dst, FrameSize)
	b[frameKind], b[frameFlags] = byte(f.Kind), byte(f.Flags)
	binary.LittleEndian.PutUint32(b[frameSum:], f.Sum)
	binary.LittleEndian.PutUint64(b[frameSeq:], f.Seq)
	binary.LittleEndian.PutUint64(b[frameOff:], uint64(f.Range.Off))
	binary.LittleEndian.PutUint64(b[frameLen:], uint64(f.Range.Len))
	binary.LittleEndian.PutUint64(b[frameID:], f.ID)
	binary.LittleEndian.PutUint32(b[frameCRC:], crc32.Checksum(b[:frameCRC], castagnoli))
	return dst
}

func parseFrame(b []byte) (Frame, error) {
	if binary.LittleEndian.Uint32(b[frameCRC:]) != crc32.Checksum(b[:frameCRC], castagnoli) {
		return Frame{}, malformed("the checksum of its record does not match")
	}
	if binary.LittleEndian.Uint16(b[frameZero:]) != 0 || binary.LittleEndian.Uint32(b[frameZero2:]) != 0 {
		return Frame{}, malformed("reserved bytes are not zero")
	}
	return Frame{
		Kind:  Kind(b[frameKind]),
		Flags: Flags(b[frameFlags]),
		Seq:   binary.LittleEndian.Uint64(b[frameSeq:]),
		ID:    binary.LittleEndian.Uint64(b[frameID:]),
		Range: blockdev.Range{
			Off: int64(binary.LittleEndian.Uint64(b[frameOff:])),
			Len: int64(binary.LittleEndian.Uint64(b[frameLen:])),
		},
		Sum: binary.LittleEndian.Uint32(b[frameSum:]),
	}, nil
}

// check refuses what no frame may say, for a volume of the given size.
func (f *Frame) check(size int64) error {
	if f.Kind < Write || f.Kind > Read {
		return malformed("unknown kind %d", uint8(f.Kind))
	}
	if bad := f.Flags &^ allowedFlags[f.Kind]; bad != 0 {
		return malformed("a %v has no flags %#x", f.Kind, uint8(bad))
	}
	if f.Kind == Digest && f.Flags&(Sums|Ahead) != 0 && f.Flags&(Ordered|FromDisk) != 0 {
		return malformed("a %v for a resync with the flags %#x", f.Kind, uint8(f.Flags))
	}
	if f.Flags&Fence != 0 && f.Kind != Flush && f.Flags&FUA == 0 {
		return malformed("a %v that need not be durable with the flags %#x", f.Kind, uint8(f.Flags))
	}
	if f.Kind.Sequenced() != (f.Seq != 0) {
		return malformed("a %v has sequence number %d and id %d", f.Kind, f.Seq, f.ID)
	}
	if f.Kind.Sequenced() && f.Flags&Resync != 0 && f.ID != 0 {
		return malformed("a copy has place %d in the order of clients' operations", f.ID)
	}
	if (f.Kind == Begin || f.Kind == Promise || f.Kind == Settled) && f.ID == 0 {
		return malformed("a %v with number 0; they count from 1", f.Kind)
	}
	if !f.Kind.bears() && f.Sum != 0 {
		return malformed("a %v has a payload checksum", f.Kind)
	}
	return f.checkRange(size)
}

func (f *Frame) checkRange(size int64) error {
	r := f.Range
	switch f.Kind {
	case Promise:
		if r.Off != 0 || r.Len <= clearingHead {
			return malformed("a promise has a payload of the range %v", r)
		}
		if r.Len > MaxClearing {
			return overLimit("length of a promise", r.Len, MaxClearing)
		}
		return nil
	case Flush, Close, Ping, Begin, Marks, Settled:
		if r != (blockdev.Range{}) {
			return malformed("a %v has the range %v", f.Kind, r)
		}
		return nil
	}
	if !r.Within(size) {
		return overLimit(fmt.Sprintf("end of the range %v of a %v", r, f.Kind), max(r.End(), r.Len), size)
	}
	if r.Len == 0 {
		return malformed("a %v has the empty range %v", f.Kind, r)
	}
	if f.Kind == Write && r.Len > MaxWrite {
		return overLimit("length of a write", r.Len, MaxWrite)
	}
	if f.Kind == Read && r.Len > MaxRead {
		return overLimit("length of a read", r.Len, MaxRead)
	}
	if f.Kind == Digest {
		return checkDigestRange(r, size)
	}
	return nil
}

// checkDigestRange demands whole blocks; only the volume's last one may be short.
func checkDigestRange(r blockdev.Range, size int64) error {
	if r.Len > MaxDigestRange {
		return overLimit("length of a digest's range", r.Len, MaxDigestRange)
	}
	whole := r.Len%blockdev.BlockSize == 0 || r.End() == size || size == NoSize
	if r.Off%blockdev.BlockSize != 0 || !whole {
		return malformed("a digest's range %v is not made of whole blocks of %d", r, blockdev.BlockSize)
	}
	return nil
}

// Digests is the number of digests that answer for r.
func Digests(r blockdev.Range) int {
	return int((r.Len + blockdev.BlockSize - 1) / blockdev.BlockSize)
}
