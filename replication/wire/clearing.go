package wire

import "encoding/binary"

// Clearing is the payload of a Promise: which replicas take back which marks of their map for each other. Replicas are
// named by the bits of their numbers (cluster.NumberBit); the primary is one of them.
//
//	0  set      u32
//	4  cover    u32
//	8  regions  what bitmap.AppendChunk made
type Clearing struct {
	Set uint32
	// Cover is those for which the receiver may take back that everything may differ: what may is in the regions that are
	// marked.
	Cover   uint32
	Regions []byte
}

const clearingHead = 8

// MaxClearing is the largest payload of a Promise, in bytes, and MaxMarks the largest piece of a map.
const (
	MaxMarks    = 256 << 10
	MaxClearing = clearingHead + MaxMarks
)

// AppendClearing appends the payload to dst.
func AppendClearing(dst []byte, c Clearing) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, c.Set)
	dst = binary.LittleEndian.AppendUint32(dst, c.Cover)
	return append(dst, c.Regions...)
}

// DecodeClearing decodes a payload whose checksum was verified. Regions is a copy.
func DecodeClearing(segments [][]byte) (c Clearing, err error) {
	var p []byte
	for _, s := range segments {
		p = append(p, s...)
	}
	if len(p) <= clearingHead {
		return c, malformed("a promise with a payload of %d bytes", len(p))
	}
	c = Clearing{Set: binary.LittleEndian.Uint32(p), Cover: binary.LittleEndian.Uint32(p[4:]), Regions: p[clearingHead:]}
	if c.Cover&^c.Set != 0 {
		return c, malformed("a promise covers the replicas %#x, those that take part are %#x", c.Cover, c.Set)
	}
	return c, nil
}
