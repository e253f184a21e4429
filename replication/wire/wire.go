// Package wire is the language of the data path: the messages between a volume's primary and one standby, as bytes.
// It encodes, decodes and limits; it opens no socket and starts no goroutine. Package link carries the messages.
//
// A stream between a primary and a standby, for one volume in one epoch:
//
//	primary                                   standby
//	   Hello            ------------------->               who I am, which volume, which epoch, which stream
//	                    <-------------------  HelloReply   accepted or why not; incarnation, last sequence
//	   Batch{Frame...}  ------------------->               write, zero, flush, close; digest request, ping;
//	                                                       map request, promise, settled, read
//	                    <-------------------  Replies{Reply...}   ack (a prefix), nack, digests, pong, marks, promised, data
//
// Every message starts with one fixed header that names its version, kind, epoch and stream (R2). Fixed-size records
// follow, each with its own checksum, and behind the records the bulk: payloads in the order of their records. So a
// sender lends each payload as one piece of memory, and a receiver has checked every record before it looks at the
// first payload byte.
//
// What it promises:
//   - nothing is allocated, and no payload is handed on, before every count, length and range is within its limit (R28);
//   - a payload is never copied and never flattened: it is a list of segments of what was received;
//   - a payload's CRC-32C travels as it was made where the write entered (R21); decoding does not look at the payload,
//     Frame.Verify does, and whoever writes it calls that first;
//   - what decodes encodes to the same bytes: unused fields are zero or the message is refused.
package wire

import (
	"hash/crc32"
	"math"
)

// Version is the newest protocol version that this package speaks; the greeting offers [VersionMin, Version], and a stream
// speaks the newest that both sides know. Version 2 knew no reads at a member, no digests in the order of entries and past the
// page cache, and had longer frames. Version 3 knew no sums in the place of digests (Sums) and no mode semisync (Received), and is the same otherwise.
// Version 4 knew no Fence: its standbys go by their own record. Version 5 knew no places: its standbys cannot tell how long their
// prefix is. Version 6 knew no compressed payloads (Batch.Packed) and no Ahead. Version 7 knew no Asked.
const (
	Version       = 8
	VersionMin    = 3
	VersionSums   = 4 // the first that knows Sums
	VersionFence  = 5 // the first that knows Fence
	VersionPlace  = 6 // the first whose sequenced frames have an ID
	VersionPacked = 7 // the first that knows compressed payloads
	VersionAhead  = 7 // the first that knows Ahead
	VersionAsked  = 8 // the first that knows Asked
)

// Limits. A message that exceeds one is refused before anything is allocated for it.
const (
	// MaxWrite is the largest payload of one write, in bytes.
	MaxWrite = 32 << 20
	// MaxFrames is the largest number of frames, or of replies, in one message.
	MaxFrames = 256
	// MaxBatchPayload is the largest sum of payloads of a message with several frames. A frame alone in its message
	// is limited by MaxWrite only.
	MaxBatchPayload = 4 << 20
	// MaxMessage is the largest message from a primary, in bytes.
	MaxMessage = HeaderSize + MaxFrames*FrameSize + MaxWrite
	// MaxDigestRange is the largest range of one digest request, in bytes.
	MaxDigestRange = 16 << 20
	// MaxRead is the largest range of one read at a standby, in bytes.
	MaxRead = 256 << 10
	// MaxBlobs is the largest sum of texts and digests in a message from a standby, in bytes.
	MaxBlobs = 1 << 20
	// MaxReplies is the largest message from a standby, in bytes.
	MaxReplies = HeaderSize + MaxFrames*ReplySize + MaxBlobs
	// MaxVolumeName, MaxNodeName, MaxAttachment and MaxText limit strings, in bytes.
	MaxVolumeName = 128
	MaxNodeName   = 64
	MaxAttachment = 128
	MaxText       = 512
	// MaxGreeting is the largest Hello or HelloReply that is read at all, in bytes behind the header: room for fields
	// of later versions.
	MaxGreeting = 4096
)

// Asked is set in the ID of a Read that is for a client: it is answered as soon as it is read, while others are, and with no regard to
// what is on its way. MaxAsked of them may be unanswered.
const (
	Asked    = 1 << 63
	MaxAsked = 8
)

// DigestSize is the length of one block's digest: SHA-256, truncated. To a request with Sums it is CRC-32C, in four bytes,
// and zeroes: blocks of which these are not alike differ, and of others nothing is known.
const DigestSize = 16

// NoSize stands for the size of a volume where it is not known: every range that does not overflow is within it.
const NoSize = math.MaxInt64

// ID names a cluster, a volume or a boot of a kernel.
type ID [16]byte

var castagnoli = crc32.MakeTable(crc32.Castagnoli)
