package e2e

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// StampSize is the length of a stamped block: the unit in which a volume may keep the old or the new content.
const StampSize = 4096

const stampMagic = 0x68616d6972726f72

// Stamp fills p, one block, with what write number seq puts at block number block: a header that names both, and a
// filling that follows from them, so that a block that is torn, shifted or made up does not pass for any write.
func Stamp(p []byte, block int64, seq uint64) {
	binary.LittleEndian.PutUint64(p, stampMagic)
	binary.LittleEndian.PutUint64(p[8:], uint64(block))
	binary.LittleEndian.PutUint64(p[16:], seq)
	x := uint64(block)*0x9e3779b97f4a7c15 ^ seq*0xbf58476d1ce4e5b9 | 1
	for i := 24; i < StampSize; i += 8 {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		binary.LittleEndian.PutUint64(p[i:], x)
	}
}

var zeroes [StampSize]byte

// readStamp tells which write p, block number block, holds: 0 if none ever wrote it.
func readStamp(p []byte, block int64) (seq uint64, err error) {
	if bytes.Equal(p, zeroes[:]) {
		return 0, nil
	}
	if binary.LittleEndian.Uint64(p) != stampMagic {
		return 0, fmt.Errorf("something that no write put there (it begins with % x)", p[:8])
	}
	if at := int64(binary.LittleEndian.Uint64(p[8:])); at != block {
		return 0, fmt.Errorf("what belongs into block %d", at)
	}
	seq = binary.LittleEndian.Uint64(p[16:])
	var whole [StampSize]byte
	if Stamp(whole[:], block, seq); !bytes.Equal(p, whole[:]) {
		return 0, fmt.Errorf("a part of write %d only", seq)
	}
	return seq, nil
}
