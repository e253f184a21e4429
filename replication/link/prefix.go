package link

import (
	"encoding/binary"
	"fmt"

	"hacluster/replication/wire"
)

// Before each message stands its length in two parts, little-endian, so that a receiver knows what to read, and where
// to, before it has decoded anything:
//
//	0  head     u32   header, records and blobs; or goodbye
//	4  payload  u32   the payloads behind it
//
// The prefix bears no checksum: a length that is wrong contradicts the records that follow, which do.
const prefixSize = 8

// goodbye in the place of a head's length announces a text instead of a message: why a standby ends the stream.
const goodbye = 1<<32 - 1

// The largest heads: of a greeting, of frames, of replies.
const (
	maxGreetingHead = wire.HeaderSize + wire.MaxGreeting
	maxFramesHead   = wire.HeaderSize + wire.MaxFrames*wire.FrameSize
	maxRepliesHead  = wire.MaxReplies
)

func putPrefix(b []byte, head, payload int) {
	binary.LittleEndian.PutUint32(b, uint32(head))
	binary.LittleEndian.PutUint32(b[4:], uint32(payload))
}

// limits is what a message may be long at a point of the conversation.
type limits struct{ head, payload int }

var (
	greetingLimits = limits{head: maxGreetingHead}
	framesLimits   = limits{head: maxFramesHead, payload: wire.MaxWrite}
	repliesLimits  = limits{head: maxRepliesHead}
)

// parsePrefix checks both lengths before memory is taken for either (R28, faults.md G47).
func parsePrefix(b []byte, max limits) (head, payload int, err error) {
	h, p := binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint32(b[4:])
	switch {
	case h == goodbye && max.payload == 0 && p <= wire.MaxText:
		return 0, int(p), &goodbyeError{}
	case h < wire.HeaderSize:
		return 0, 0, fmt.Errorf("%w: %w: a message of %d bytes, too short for a header of %d", ErrProtocol, wire.ErrMalformed, h, wire.HeaderSize)
	case h > uint32(max.head) || p > uint32(max.payload):
		return 0, 0, fmt.Errorf("%w: %w: a message of %d and %d bytes, at most %d and %d are taken", ErrProtocol, wire.ErrLimit, h, p, max.head, max.payload)
	}
	return int(h), int(p), nil
}
