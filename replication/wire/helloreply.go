package wire

import (
	"encoding/binary"
	"fmt"
)

// Refusal says why a standby does not take part in a stream. Zero: it does.
type Refusal uint8

// The refusals, each with what the primary makes of it.
const (
	Accepted            Refusal = iota
	RefusedVersion              // no common version: upgrade
	RefusedCluster              // another cluster: a wrong address
	RefusedTarget               // another node than the one that was meant: a wrong address
	RefusedVolume               // the volume is not known there, or has another id
	RefusedSize                 // the volumes differ in size
	RefusedBlockSize            // the volumes differ in block size
	RefusedGeneration           // another generation: an alarm
	RefusedOlderEpoch           // the reply's Epoch is newer: the sender is no primary any more and demotes
	RefusedNewerEpoch           // not applied there yet: try again (never believed, G44)
	RefusedOtherPrimary         // the epoch has another primary: impossible, an alarm (G43)
	RefusedOlderStream          // the reply's Stream is newer: this connection was replaced
	RefusedNotReady             // work of an earlier epoch or stream has not ended on the device: try again
	RefusedFailed               // the replica's disk failed or is stalled
	RefusedRole                 // the node holds no standby of this volume
	RefusedBusy                 // a limit is reached: try again
	refusals
)

var refusalText = [refusals]string{
	Accepted: "accepted", RefusedVersion: "no common version", RefusedCluster: "another cluster", RefusedTarget: "another node",
	RefusedVolume: "unknown volume", RefusedSize: "another volume size", RefusedBlockSize: "another block size",
	RefusedGeneration: "another generation", RefusedOlderEpoch: "older epoch", RefusedNewerEpoch: "epoch not applied yet",
	RefusedOtherPrimary: "another primary in the same epoch", RefusedOlderStream: "older stream",
	RefusedNotReady: "not ready", RefusedFailed: "failed disk", RefusedRole: "no standby", RefusedBusy: "busy",
}

func (r Refusal) String() string {
	if r < refusals {
		return refusalText[r]
	}
	return fmt.Sprintf("refusal %d", uint8(r))
}

// Retry reports whether the same greeting may succeed later.
func (r Refusal) Retry() bool {
	return r == RefusedNewerEpoch || r == RefusedNotReady || r == RefusedBusy
}

// ReplicaFlags say what state a standby's copy is in.
type ReplicaFlags uint8

// The states; none of them: a consistent copy with content.
const (
	ReplicaInconsistent ReplicaFlags = 1 << iota // cannot return to a consistent point (R18)
	ReplicaFailed                                // a write or flush failed; no candidate until resynced (R23)
	ReplicaFresh                                 // never written
	ReplicaKeeps                                 // what a resync overwrites is kept aside before (R19)
	replicaFlags        = 1<<iota - 1
)

// HelloReply answers a Hello.
type HelloReply struct {
	VersionMin, VersionMax uint16 // what the standby speaks; link fills in this package's own when both are zero
	Code                   Refusal
	Text                   string // for people; may be empty
	Node                   string // who answers
	Boot                   ID     // kernel boot id: with Node and Attachment the incarnation (R25)
	Attachment             string
	Process                uint64 // start number of the standby's process
	Generation, Epoch      uint64 // the standby's own
	Stream                 uint64 // the Hello's, or the newer one that the standby knows
	LastSeq                uint64 // every frame of this epoch up to here is written, by this process; 0: none
	Flags                  ReplicaFlags
	// Of the map that it keeps for the primary: the newest clearing that it promised, and that it knows to be settled.
	Promised, Clearing uint64
}

// The body of a HelloReply; as in a Hello, epoch and stream stand in the header.
const (
	replyMin           = 0
	replyMax           = 2
	replyCode          = 4
	replyFlags         = 5
	replyNodeLen       = 6
	replyAttachmentLen = 7
	replyBoot          = 8
	replyProcess       = 24
	replyGeneration    = 32
	replyLastSeq       = 40
	replyTextLen       = 48
	replyZero          = 50 // 6 bytes
	replyNode          = 56
	replyAttachment    = replyNode + MaxNodeName
	replyText          = replyAttachment + MaxAttachment
	replyPromised      = replyText + MaxText
	replyClearing      = replyPromised + 8
	replyCRC           = replyClearing + 8
	replyBody          = replyCRC + 4
)

// AppendHelloReply appends the encoded message to dst. A Text beyond MaxText is cut, for it only explains.
func AppendHelloReply(dst []byte, r HelloReply) ([]byte, error) {
	r.Text = printable(r.Text, MaxText)
	if err := r.check(); err != nil {
		return dst, err
	}
	dst = appendHeader(dst, header{version: r.VersionMax, kind: KindHelloReply, epoch: r.Epoch, stream: r.Stream, count: replyBody})
	dst, b := grow(dst, replyBody)
	binary.LittleEndian.PutUint16(b[replyMin:], r.VersionMin)
	binary.LittleEndian.PutUint16(b[replyMax:], r.VersionMax)
	b[replyCode], b[replyFlags] = byte(r.Code), byte(r.Flags)
	copy(b[replyBoot:], r.Boot[:])
	binary.LittleEndian.PutUint64(b[replyProcess:], r.Process)
	binary.LittleEndian.PutUint64(b[replyGeneration:], r.Generation)
	binary.LittleEndian.PutUint64(b[replyLastSeq:], r.LastSeq)
	b[replyNodeLen] = byte(copy(b[replyNode:replyAttachment], r.Node))
	b[replyAttachmentLen] = byte(copy(b[replyAttachment:replyText], r.Attachment))
	binary.LittleEndian.PutUint16(b[replyTextLen:], uint16(copy(b[replyText:replyPromised], r.Text)))
	binary.LittleEndian.PutUint64(b[replyPromised:], r.Promised)
	binary.LittleEndian.PutUint64(b[replyClearing:], r.Clearing)
	seal(b)
	return dst, nil
}

// DecodeHelloReply decodes a whole message. A *VersionError is returned as by DecodeHello.
func DecodeHelloReply(segments [][]byte) (r HelloReply, err error) {
	head, b, err := decodeGreeting(segments, KindHelloReply, replyBody)
	if b != nil {
		r.VersionMin = binary.LittleEndian.Uint16(b[replyMin:])
		r.VersionMax = binary.LittleEndian.Uint16(b[replyMax:])
	}
	if err != nil {
		return r, err
	}
	r.Epoch, r.Stream = head.epoch, head.stream
	r.Code, r.Flags = Refusal(b[replyCode]), ReplicaFlags(b[replyFlags])
	copy(r.Boot[:], b[replyBoot:])
	r.Process = binary.LittleEndian.Uint64(b[replyProcess:])
	r.Generation = binary.LittleEndian.Uint64(b[replyGeneration:])
	r.LastSeq = binary.LittleEndian.Uint64(b[replyLastSeq:])
	r.Promised = binary.LittleEndian.Uint64(b[replyPromised:])
	r.Clearing = binary.LittleEndian.Uint64(b[replyClearing:])
	s := stringReader{b: b}
	r.Node = s.read("node's name", replyNode, int(b[replyNodeLen]), MaxNodeName)
	r.Attachment = s.read("attachment", replyAttachment, int(b[replyAttachmentLen]), MaxAttachment)
	r.Text = s.read("text", replyText, int(binary.LittleEndian.Uint16(b[replyTextLen:])), MaxText)
	s.zero("hello reply", replyZero, replyNode)
	if s.err != nil {
		return HelloReply{}, s.err
	}
	if err := r.check(); err != nil {
		return HelloReply{}, err
	}
	return r, nil
}

func (r HelloReply) check() error {
	if r.VersionMin == 0 || r.VersionMin > r.VersionMax {
		return malformed("hello reply offers versions %d to %d", r.VersionMin, r.VersionMax)
	}
	if r.Code >= refusals {
		return malformed("hello reply has the unknown code %d", uint8(r.Code))
	}
	if r.Clearing > r.Promised {
		return malformed("hello reply knows of the settled clearing %d and has promised %d only", r.Clearing, r.Promised)
	}
	if r.Flags&^replicaFlags != 0 {
		return malformed("hello reply has unknown flags %#x", uint8(r.Flags))
	}
	return firstError(
		checkText("node's name", r.Node, 0, MaxNodeName),
		checkText("attachment", r.Attachment, 0, MaxAttachment),
		checkText("text", r.Text, 0, MaxText),
	)
}
