package client

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"hacluster/cmd/internal/lab/history"
)

// BlockSize is the length of a register: what a volume keeps whole, old or new.
const BlockSize = 4096

// A register holds: magic, block, number and time of the write (8 bytes each), the writer's name (24 bytes), a filling
// that follows from block and number, of which each word stands there twice, so that it can be compressed, and in the last 4 bytes the CRC-32C of all before it. So whatever is torn,
// shifted, decayed or made up does not pass for any write.
const (
	stampMagic  = 0x68616c6162726567
	offName     = 32
	offFilling  = 56
	offChecksum = BlockSize - 4
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func stamp(p []byte, o history.Op) {
	le := binary.LittleEndian
	le.PutUint64(p, stampMagic)
	le.PutUint64(p[8:], uint64(o.Block))
	le.PutUint64(p[16:], o.Seq)
	le.PutUint64(p[24:], uint64(o.Sent))
	copy(p[offName:offFilling], o.Who)
	x := uint64(o.Block)*0x9e3779b97f4a7c15 ^ o.Seq*0xbf58476d1ce4e5b9 | 1
	for i := offFilling; i+8 <= offChecksum; i += 8 {
		if i/8%2 == 1 {
			x ^= x << 13
			x ^= x >> 7
			x ^= x << 17
		}
		le.PutUint64(p[i:], x)
	}
	le.PutUint32(p[offChecksum:], crc32.Checksum(p[:offChecksum], castagnoli))
}

var zeroes [BlockSize]byte

// ReadStamp tells the number of the write that a block holds; 0: none ever.
func ReadStamp(p []byte, block int64) (seq uint64, err error) {
	le := binary.LittleEndian
	switch at := int64(le.Uint64(p[8:])); {
	case bytes.Equal(p, zeroes[:]):
		return 0, nil
	case le.Uint64(p) != stampMagic:
		return 0, fmt.Errorf("something that no write put there: it begins with % x", p[:8])
	case le.Uint32(p[offChecksum:]) != crc32.Checksum(p[:offChecksum], castagnoli):
		return 0, fmt.Errorf("a part of write %d by %s, but its checksum is wrong", le.Uint64(p[16:]), bytes.TrimRight(p[offName:offFilling], "\x00"))
	case at != block:
		return 0, fmt.Errorf("what belongs into block %d", at)
	}
	return le.Uint64(p[16:]), nil
}
