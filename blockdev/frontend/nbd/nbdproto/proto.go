// Package nbdproto holds the words of the NBD protocol that the server and the client of this project share: magic
// numbers, option, command and reply codes, and the fixed headers. It encodes and decodes; it opens no socket, allocates
// nothing from a length that came from outside, and knows nothing about volumes.
//
// The source is https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md. Everything is big-endian.
package nbdproto

// Handshake magic numbers.
const (
	MagicInit     uint64 = 0x4e42444d41474943 // "NBDMAGIC"
	MagicOption   uint64 = 0x49484156454f5054 // "IHAVEOPT"
	MagicOptReply uint64 = 0x0003e889045565a9
)

// Transmission magic numbers.
const (
	MagicRequest         uint32 = 0x25609513
	MagicSimpleReply     uint32 = 0x67446698
	MagicStructuredReply uint32 = 0x668e33ef
)

// Handshake flags; the client's have the same values.
const (
	FlagFixedNewstyle uint16 = 1 << 0
	FlagNoZeroes      uint16 = 1 << 1
)

// Limits that the protocol itself names.
const (
	MaxName       = 4096     // bytes of an export name or of any other string
	MaxPayload    = 32 << 20 // bytes that a client may assume every server takes in one read or write
	ExportNamePad = 124      // zeroes after an EXPORT_NAME answer, unless both sides agreed on none
)

// Option is what a client asks for during the handshake.
type Option uint32

// The options.
const (
	OptExportName      Option = 1
	OptAbort           Option = 2
	OptList            Option = 3
	OptStartTLS        Option = 5
	OptInfo            Option = 6
	OptGo              Option = 7
	OptStructuredReply Option = 8
	OptListMetaContext Option = 9
	OptSetMetaContext  Option = 10
)

// Rep is the type of an answer to an option. Errors have the highest bit set.
type Rep uint32

// The answers.
const (
	RepAck         Rep = 1
	RepServer      Rep = 2
	RepInfo        Rep = 3
	RepMetaContext Rep = 4

	RepErrUnsup         Rep = 1<<31 | 1
	RepErrPolicy        Rep = 1<<31 | 2
	RepErrInvalid       Rep = 1<<31 | 3
	RepErrPlatform      Rep = 1<<31 | 4
	RepErrTLSReqd       Rep = 1<<31 | 5
	RepErrUnknown       Rep = 1<<31 | 6
	RepErrShutdown      Rep = 1<<31 | 7
	RepErrBlockSizeReqd Rep = 1<<31 | 8
	RepErrTooBig        Rep = 1<<31 | 9
)

// IsError reports whether the answer refuses the option.
func (r Rep) IsError() bool { return r&(1<<31) != 0 }

// Info names a piece of information about an export (in RepInfo and in what a client asks for).
type Info uint16

// The pieces.
const (
	InfoExport      Info = 0
	InfoName        Info = 1
	InfoDescription Info = 2
	InfoBlockSize   Info = 3
)

// TransFlags tell a client what an export can do.
type TransFlags uint16

// The transmission flags.
const (
	HasFlags        TransFlags = 1 << 0
	ReadOnly        TransFlags = 1 << 1
	SendFlush       TransFlags = 1 << 2
	SendFUA         TransFlags = 1 << 3
	SendTrim        TransFlags = 1 << 5
	SendWriteZeroes TransFlags = 1 << 6
	SendDF          TransFlags = 1 << 7
	CanMultiConn    TransFlags = 1 << 8
	SendCache       TransFlags = 1 << 10
	SendFastZero    TransFlags = 1 << 11
)

// Cmd is the type of a request.
type Cmd uint16

// The commands.
const (
	CmdRead        Cmd = 0
	CmdWrite       Cmd = 1
	CmdDisc        Cmd = 2
	CmdFlush       Cmd = 3
	CmdTrim        Cmd = 4
	CmdCache       Cmd = 5
	CmdWriteZeroes Cmd = 6
	CmdBlockStatus Cmd = 7
	CmdResize      Cmd = 8
)

// CmdFlags modify a request.
type CmdFlags uint16

// The command flags.
const (
	CmdFUA      CmdFlags = 1 << 0
	CmdNoHole   CmdFlags = 1 << 1
	CmdDF       CmdFlags = 1 << 2
	CmdReqOne   CmdFlags = 1 << 3
	CmdFastZero CmdFlags = 1 << 4
)

// Chunk types and flags of structured replies.
const (
	ChunkNone        uint16 = 0
	ChunkOffsetData  uint16 = 1
	ChunkOffsetHole  uint16 = 2
	ChunkBlockStatus uint16 = 5
	ChunkError       uint16 = 1<<15 | 1
	ChunkErrorOffset uint16 = 1<<15 | 2

	ChunkDone uint16 = 1 // the last chunk of a reply
)

// IsErrorChunk reports whether a chunk type tells of an error.
func IsErrorChunk(typ uint16) bool { return typ&(1<<15) != 0 }

// BaseAllocation is the metadata context that tells holes from data; its states:
const (
	BaseAllocation = "base:allocation"

	StateHole uint32 = 1 << 0 // no space is allocated
	StateZero uint32 = 1 << 1 // reads as zeroes
)
