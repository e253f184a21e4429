package nbdproto

import "encoding/binary"

// Sizes of the fixed headers.
const (
	OptionLen     = 16
	OptReplyLen   = 20
	RequestLen    = 28
	SimpleLen     = 16
	StructuredLen = 20
)

var be = binary.BigEndian

// OptionHeader opens an option; Len bytes follow.
type OptionHeader struct {
	Magic  uint64
	Option Option
	Len    uint32
}

// ParseOption decodes OptionLen bytes; the caller checks Magic.
func ParseOption(b []byte) OptionHeader {
	return OptionHeader{Magic: be.Uint64(b), Option: Option(be.Uint32(b[8:])), Len: be.Uint32(b[12:])}
}

// AppendOption encodes an option with its data.
func AppendOption(b []byte, o Option, data []byte) []byte {
	b = be.AppendUint64(b, MagicOption)
	b = be.AppendUint32(b, uint32(o))
	b = be.AppendUint32(b, uint32(len(data)))
	return append(b, data...)
}

// OptReplyHeader opens the answer to an option; Len bytes follow.
type OptReplyHeader struct {
	Magic  uint64
	Option Option
	Rep    Rep
	Len    uint32
}

// ParseOptReply decodes OptReplyLen bytes; the caller checks Magic.
func ParseOptReply(b []byte) OptReplyHeader {
	return OptReplyHeader{
		Magic: be.Uint64(b), Option: Option(be.Uint32(b[8:])), Rep: Rep(be.Uint32(b[12:])), Len: be.Uint32(b[16:]),
	}
}

// AppendOptReply encodes an answer with its data.
func AppendOptReply(b []byte, o Option, r Rep, data []byte) []byte {
	b = be.AppendUint64(b, MagicOptReply)
	b = be.AppendUint32(b, uint32(o))
	b = be.AppendUint32(b, uint32(r))
	b = be.AppendUint32(b, uint32(len(data)))
	return append(b, data...)
}

// Request is the header of a command. Offset is unsigned on the wire: check it before making it an int64.
type Request struct {
	Magic  uint32
	Flags  CmdFlags
	Cmd    Cmd
	Cookie uint64
	Offset uint64
	Len    uint32
}

// ParseRequest decodes RequestLen bytes; the caller checks Magic.
func ParseRequest(b []byte) Request {
	_ = b[RequestLen-1]
	return Request{
		Magic: be.Uint32(b), Flags: CmdFlags(be.Uint16(b[4:])), Cmd: Cmd(be.Uint16(b[6:])),
		Cookie: be.Uint64(b[8:]), Offset: be.Uint64(b[16:]), Len: be.Uint32(b[24:]),
	}
}

// AppendRequest encodes a command's header; Magic is taken as it is, so that tests can send a wrong one.
func AppendRequest(b []byte, r Request) []byte {
	b = be.AppendUint32(b, r.Magic)
	b = be.AppendUint16(b, uint16(r.Flags))
	b = be.AppendUint16(b, uint16(r.Cmd))
	b = be.AppendUint64(b, r.Cookie)
	b = be.AppendUint64(b, r.Offset)
	return be.AppendUint32(b, r.Len)
}

// AppendSimple encodes a simple reply's header.
func AppendSimple(b []byte, e Errno, cookie uint64) []byte {
	b = be.AppendUint32(b, MagicSimpleReply)
	b = be.AppendUint32(b, uint32(e))
	return be.AppendUint64(b, cookie)
}

// Chunk is the header of one chunk of a structured reply; Len bytes follow.
type Chunk struct {
	Flags  uint16
	Type   uint16
	Cookie uint64
	Len    uint32
}

// AppendChunk encodes a chunk's header.
func AppendChunk(b []byte, c Chunk) []byte {
	b = be.AppendUint32(b, MagicStructuredReply)
	b = be.AppendUint16(b, c.Flags)
	b = be.AppendUint16(b, c.Type)
	b = be.AppendUint64(b, c.Cookie)
	return be.AppendUint32(b, c.Len)
}

// ParseChunk decodes StructuredLen bytes whose magic the caller has checked.
func ParseChunk(b []byte) Chunk {
	_ = b[StructuredLen-1]
	return Chunk{Flags: be.Uint16(b[4:]), Type: be.Uint16(b[6:]), Cookie: be.Uint64(b[8:]), Len: be.Uint32(b[16:])}
}
