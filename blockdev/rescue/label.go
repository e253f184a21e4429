package rescue

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"strings"
)

// The label. Magic, version and checksum are at the same places in every version. What is between the fields and the
// checksum is zero.
const (
	labelSize = 4096
	// LabelVersion is the format that this program writes, and the newest that it reads.
	LabelVersion = 1

	offMagic    = 0  // 8
	offVersion  = 8  // 4, then 4 zero
	offClosed   = 16 // 8, milliseconds since 1970
	offBytes    = 24 // 8
	offEnd      = 32 // 8, of the image when it was closed; 0: that is not known
	offBase     = 40 // 8
	offWhy      = 48 // maxWhy, padded with zeroes
	offRest     = offWhy + maxWhy
	offChecksum = labelSize - 4

	maxWhy = 512
)

var (
	magic      = [8]byte{'h', 'a', 'c', 'l', 'r', 'e', 's', 'c'}
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// base is how it stands with what the image does not hold.
type base uint64

const (
	baseEnded   base = iota // it may have been written to
	baseRunning             // a process keeps it, or has ended without a word: then it may have been written to
	baseStopped             // it was kept until the process stopped in order
	basePart                // as baseEnded; nor is all in it that the resync overwrote
)

type label struct {
	closedMillis int64
	bytes        int64
	end          int64 // 0: how far it goes is for its records to say
	base         base
	why          string
}

func (l *label) encode() []byte {
	p := make([]byte, labelSize)
	le := binary.LittleEndian
	copy(p[offMagic:], magic[:])
	le.PutUint32(p[offVersion:], LabelVersion)
	le.PutUint64(p[offClosed:], uint64(l.closedMillis))
	le.PutUint64(p[offBytes:], uint64(l.bytes))
	le.PutUint64(p[offEnd:], uint64(l.end))
	le.PutUint64(p[offBase:], uint64(l.base))
	copy(p[offWhy:offRest], strings.ReplaceAll(l.why, "\x00", "?")) // it ends at the first zero, or in the middle of a letter (shown)
	le.PutUint32(p[offChecksum:], crc32.Checksum(p[:offChecksum], castagnoli))
	return p
}

// decodeLabel believes nothing before the checksum is right, and of a newer version nothing at all.
func decodeLabel(p []byte) (l label, err error) {
	le := binary.LittleEndian
	switch {
	case len(p) != labelSize:
		return l, fmt.Errorf("label: found %d bytes, it has %d", len(p), labelSize)
	case !bytes.Equal(p[:offVersion], magic[:]):
		return l, fmt.Errorf("label: magic: found %q, expected %q", p[:offVersion], magic[:])
	}
	if found, want := le.Uint32(p[offChecksum:]), crc32.Checksum(p[:offChecksum], castagnoli); found != want {
		return l, fmt.Errorf("label: checksum: found %#08x, its content has %#08x", found, want)
	}
	if v := le.Uint32(p[offVersion:]); v != LabelVersion {
		return l, fmt.Errorf("label: it has version %d, this program knows %d: install the newer program again; nothing was written", v, LabelVersion)
	}
	why, rest, _ := bytes.Cut(p[offWhy:offRest], []byte{0})
	l = label{closedMillis: int64(le.Uint64(p[offClosed:])), bytes: int64(le.Uint64(p[offBytes:])), end: int64(le.Uint64(p[offEnd:])),
		base: base(le.Uint64(p[offBase:])), why: string(why)}
	if l.base > basePart || l.end < 0 || l.bytes < 0 || !zero(rest) || !zero(p[offVersion+4:offClosed]) || !zero(p[offRest:offChecksum]) {
		return label{}, errors.New("label: no program of this version writes that")
	}
	return l, nil
}

// shown is why as people are shown it.
func (l *label) shown() string { return strings.ToValidUTF8(l.why, "?") }

func zero(p []byte) bool {
	for _, b := range p {
		if b != 0 {
			return false
		}
	}
	return true
}
