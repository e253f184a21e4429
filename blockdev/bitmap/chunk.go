package bitmap

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/bits"
)

// A chunk is the encoded form of bits [from, to) of a Bitmap, little-endian; from is the beginning of a leaf, to that of
// another or the length.
//
//	magic, version | length | from | to | leaves that are not all clear, ascending | CRC-32C of all before
//
// A leaf is the number of clear ones before it (uvarint), its kind, and its bits: for leafFull how many full ones follow
// each other (uvarint); for leafRuns how many runs (uvarint), then the clear bits before each and its length (uvarints);
// for leafRaw its 512 words. A run that is not the first of its leaf has a clear bit before it.
const (
	chunkVersion = 1
	chunkHead    = 28 // magic 2, version 1, zero 1, length 8, from 8, to 8
	chunkTail    = 4

	leafFull = 1
	leafRuns = 2
	leafRaw  = 3

	// most bytes that one leaf may take: two uvarints and the words
	maxLeaf = 16 + leafWords*8
)

// MinChunk is the least limit that AppendChunk works with: one leaf fits in any case.
const MinChunk = chunkHead + maxLeaf + chunkTail

// ChunkUnit: a chunk begins at a multiple of so many bits.
const ChunkUnit = leafBits

// ErrChunk is wrapped by every refusal of Merge.
var ErrChunk = errors.New("part of a map is malformed")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// AppendChunk appends to dst, in at most limit bytes, what is set from bit from on, which is 0 or the next of the call
// before; next is the length when nothing is left. Bits set or cleared between the calls may be in or not.
func (b *Bitmap) AppendChunk(dst []byte, from int64, limit int) (out []byte, next int64) {
	if limit < MinChunk || from < 0 || from > b.n || from%leafBits != 0 && from != b.n {
		panic(fmt.Sprintf("bitmap: chunk of at most %d bytes from bit %d of %d", limit, from, b.n))
	}
	base := len(dst)
	dst = append(dst, 'b', 'm', chunkVersion, 0)
	for _, v := range []int64{b.n, from, b.n} {
		dst = binary.LittleEndian.AppendUint64(dst, uint64(v))
	}
	for at := from; ; {
		bit, ok := b.Next(at)
		if !ok {
			next = b.n
			break
		}
		leafAt := bit / leafBits * leafBits
		end := len(dst)
		dst = binary.AppendUvarint(dst, uint64((leafAt-at)/leafBits))
		dst, next = b.appendLeaf(dst, leafAt)
		if len(dst)-base > limit-chunkTail {
			dst, next = dst[:end], leafAt
			break
		}
		at = min(next, b.n)
	}
	binary.LittleEndian.PutUint64(dst[base+20:], uint64(next))
	return binary.LittleEndian.AppendUint32(dst, crc32.Checksum(dst[base:], castagnoli)), next
}

// appendLeaf appends the leaf at bit at, or as many full ones as there are, and returns where the next one begins.
func (b *Bitmap) appendLeaf(dst []byte, at int64) ([]byte, int64) {
	l := b.leaf(at)
	if l == full {
		_, end, _ := b.NextRange(at, b.n)
		n := (end - at) / leafBits
		return binary.AppendUvarint(append(dst, leafFull), uint64(n)), at + n*leafBits
	}
	begin := len(dst)
	dst = appendRuns(append(dst, leafRuns), l)
	if len(dst)-begin > leafWords*8 {
		dst = append(dst[:begin], leafRaw)
		for _, w := range l {
			dst = binary.LittleEndian.AppendUint64(dst, w)
		}
	}
	return dst, at + leafBits
}

// appendRuns stops early when the words themselves are shorter.
func appendRuns(dst []byte, l *leaf) []byte {
	runs, begin := 0, len(dst)
	for at, ok := l.next(0); ok; at, ok = nextIn(l, at+l.run(at)) {
		runs++
	}
	dst = binary.AppendUvarint(dst, uint64(runs))
	last := 0
	for at, ok := l.next(0); ok && len(dst)-begin <= leafWords*8; at, ok = nextIn(l, last) {
		n := l.run(at)
		dst = binary.AppendUvarint(binary.AppendUvarint(dst, uint64(at-last)), uint64(n))
		last = at + n
	}
	return dst
}

func nextIn(l *leaf, from int) (int, bool) {
	if from >= leafBits {
		return 0, false
	}
	return l.next(from)
}

// Merge unites a chunk that another node encoded with b, and returns which bits it covers. It never clears a bit. A
// chunk that is damaged, of another length or of another version is refused and changes nothing. The memory that it may
// take is that of b's own worst case, whatever the chunk says.
func (b *Bitmap) Merge(p []byte) (from, to int64, err error) {
	if from, to, err = b.checkHead(p); err == nil {
		err = walk(p, from, to, func(int64, int64, []byte) {})
	}
	if err != nil {
		return 0, 0, fmt.Errorf("%w: %w", ErrChunk, err)
	}
	_ = walk(p, from, to, func(at, n int64, raw []byte) { // it was walked without an error
		if raw == nil {
			b.Set(at, at+n)
			return
		}
		b.mergeRaw(at, raw)
	})
	return from, to, nil
}

// checkHead believes nothing before the checksum is right.
func (b *Bitmap) checkHead(p []byte) (from, to int64, err error) {
	le := binary.LittleEndian
	switch {
	case len(p) < chunkHead+chunkTail:
		return 0, 0, fmt.Errorf("it has %d bytes, at least %d are needed", len(p), chunkHead+chunkTail)
	case p[0] != 'b' || p[1] != 'm':
		return 0, 0, fmt.Errorf("it begins with %q", p[:2])
	case le.Uint32(p[len(p)-4:]) != crc32.Checksum(p[:len(p)-4], castagnoli):
		return 0, 0, errors.New("its checksum does not match")
	case p[2] != chunkVersion || p[3] != 0:
		return 0, 0, fmt.Errorf("it has version %d.%d, this program knows %d.0", p[2], p[3], chunkVersion)
	case le.Uint64(p[4:]) != uint64(b.n):
		return 0, 0, fmt.Errorf("it is of a map of %d bits, this one has %d", le.Uint64(p[4:]), b.n)
	}
	from, to = int64(le.Uint64(p[12:])), int64(le.Uint64(p[20:]))
	whole := func(at int64) bool { return at%leafBits == 0 || at == b.n }
	if from < 0 || to < from || to > b.n || !whole(from) || !whole(to) {
		return 0, 0, fmt.Errorf("it covers bits [%d, %d) of %d", from, to, b.n)
	}
	return from, to, nil
}

// walk goes through the runs and raw leaves of a chunk whose head is right, and ends at the first thing that does not fit.
func walk(p []byte, from, to int64, found func(at, n int64, raw []byte)) error {
	c := cursor{p: p[chunkHead : len(p)-chunkTail]}
	for at := from; len(c.p) > 0; {
		gap, ok := c.uvarint((to - at) / leafBits)
		if at += gap * leafBits; !ok || at >= to {
			return fmt.Errorf("a leaf lies outside of bits [%d, %d)", from, to)
		}
		var err error
		if at, err = c.leaf(at, to, found); err != nil {
			return err
		}
	}
	return nil
}

func (b *Bitmap) mergeRaw(at int64, raw []byte) {
	d := b.dirs[at/dirBits]
	if d == fullDir {
		return
	}
	d = b.open(at / dirBits)
	j := int(at % dirBits / leafBits)
	if d.leaves[j] != full {
		l := b.writable(d.leaves[j])
		n := 0
		for w := range l {
			l[w] |= binary.LittleEndian.Uint64(raw[8*w:])
			n += bits.OnesCount64(l[w])
		}
		b.put(d, j, n, l, allLines)
	}
	b.seal(at/dirBits, d)
}
