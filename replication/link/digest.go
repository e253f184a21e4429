package link

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"hacluster/blockdev"
	"hacluster/replication/wire"
)

// digestChunk is what Digest reads at once.
const digestChunk = 1 << 20

// Digest returns the digests of the blocks of r, one after the other, wire.DigestSize bytes each. r starts at a block
// and ends at one or at the end of the device; it is at most wire.MaxDigestRange long. The digest of a short last
// block is that of its bytes. What the device knows to be a hole is not read.
func Digest(dev blockdev.Device, r blockdev.Range) ([]byte, error) {
	return digestData(dev, r, AppendDigests)
}

// Sums is Digest for a request with wire.Sums.
func Sums(dev blockdev.Device, r blockdev.Range) ([]byte, error) {
	return digestData(dev, r, AppendSums)
}

func digestData(dev blockdev.Device, r blockdev.Range, sum Sum) ([]byte, error) {
	if sums := DigestHole(dev, r, sum); sums != nil {
		return sums, nil
	}
	return digest(dev, r, dev.ReadAt, sum)
}

// Sum appends wire.DigestSize bytes for each block of p, of which the last may be short: AppendDigests or AppendSums.
type Sum func(out, p []byte) []byte

// DigestHole is Digest without reading; nil: dev does not know that all of r is a hole, or r is none that Digest takes. A
// new disk is one: reading it costs as much as writing it, and a filesystem may have readers and writers of it wait for each
// other.
func DigestHole(dev blockdev.Device, r blockdev.Range, sum Sum) []byte {
	if !digestible(dev, r) || !isHole(dev, r) {
		return nil
	}
	return OfHole(r, sum)
}

// ExtentAt is what r has of the extent of dev that begins where r does, and whether it is a hole; what is not known is data.
func ExtentAt(dev blockdev.Device, r blockdev.Range) (e blockdev.Range, hole bool) {
	m, ok := dev.(blockdev.Mapper)
	if !ok {
		return r, false
	}
	err := m.Extents(r, func(x blockdev.Range, h bool) bool {
		e, hole = x, h
		return false
	})
	if err != nil || e.Len == 0 {
		return r, false
	}
	return e, hole
}

func isHole(dev blockdev.Device, r blockdev.Range) bool {
	m, ok := dev.(blockdev.Mapper)
	if !ok {
		return false
	}
	all := true
	err := m.Extents(r, func(_ blockdev.Range, hole bool) bool {
		all = hole
		return hole
	})
	return err == nil && all
}

// OfHole are the sums of a range of zeroes.
func OfHole(r blockdev.Range, sum Sum) []byte {
	out := make([]byte, 0, wire.Digests(r)*wire.DigestSize)
	one := sum(nil, zeroBlock[:])
	for range r.Len / blockdev.BlockSize {
		out = append(out, one...)
	}
	return sum(out, zeroBlock[:r.Len%blockdev.BlockSize])
}

// digestible reports whether r is one that digests are made of.
func digestible(dev blockdev.Device, r blockdev.Range) bool {
	return r.Within(dev.Size()) && r.Len <= wire.MaxDigestRange && r.Off%blockdev.BlockSize == 0
}

// DigestKept is Digest, or Sums, that keeps what it read: buf is the caller's to free; nil: nothing was read, for all of r is a hole.
func DigestKept(dev blockdev.Device, r blockdev.Range, sum Sum) (sums []byte, buf *blockdev.Buf, err error) {
	if !digestible(dev, r) {
		return nil, nil, outside(dev, r)
	}
	if sums := DigestHole(dev, r, sum); sums != nil {
		return sums, nil, nil
	}
	buf = blockdev.NewBuf(int(r.Len))
	if _, err := dev.ReadAt(buf.Bytes(), r.Off); err != nil {
		buf.Free()
		return nil, nil, fmt.Errorf("digest %v: %w", r, err)
	}
	return sum(make([]byte, 0, wire.Digests(r)*wire.DigestSize), buf.Bytes()), buf, nil
}

func outside(dev blockdev.Device, r blockdev.Range) error {
	return fmt.Errorf("digest %v of a device of %d bytes: %w", r, dev.Size(), blockdev.ErrRange)
}

// DigestDisk is Digest of what is on the disk itself, as far as dev can read that.
func DigestDisk(dev blockdev.Device, r blockdev.Range) ([]byte, error) {
	if d, ok := dev.(blockdev.DiskReader); ok {
		return digest(dev, r, d.ReadDiskAt, AppendDigests)
	}
	return digest(dev, r, dev.ReadAt, AppendDigests)
}

func digest(dev blockdev.Device, r blockdev.Range, read func([]byte, int64) (int, error), sum Sum) ([]byte, error) {
	if !digestible(dev, r) {
		return nil, outside(dev, r)
	}
	buf := blockdev.NewBuf(int(min(r.Len, digestChunk)))
	defer buf.Free()
	out := make([]byte, 0, wire.Digests(r)*wire.DigestSize)
	for off := r.Off; off < r.End(); off += digestChunk {
		p := buf.Bytes()[:min(digestChunk, r.End()-off)]
		if _, err := read(p, off); err != nil {
			return nil, fmt.Errorf("digest %v: %w", r, err)
		}
		out = sum(out, p)
	}
	return out, nil
}

// AppendDigests appends the digests of the blocks of p, of which the last may be short. What is all zeroes, as most of a new
// disk is, costs no hashing.
func AppendDigests(out, p []byte) []byte {
	for len(p) > 0 {
		n := min(len(p), blockdev.BlockSize)
		if n == blockdev.BlockSize && bytes.Equal(p[:n], zeroBlock[:]) {
			out = append(out, zeroDigest[:]...)
		} else {
			sum := sha256.Sum256(p[:n])
			out = append(out, sum[:wire.DigestSize]...)
		}
		p = p[n:]
	}
	return out
}

// AppendSums appends the sums of the blocks of p, which cost a small part of what digests do. Blocks whose sums are not alike
// differ; whether others are alike, only their digests tell.
func AppendSums(out, p []byte) []byte {
	for len(p) > 0 {
		n := min(len(p), blockdev.BlockSize)
		out = binary.LittleEndian.AppendUint32(out, crc32.Checksum(p[:n], castagnoli))
		out = append(out, zeroBlock[:wire.DigestSize-4]...)
		p = p[n:]
	}
	return out
}

// OfZeroes reports whether a digest, or sum, is that of a whole block of zeroes.
func OfZeroes(sum []byte) bool { return bytes.Equal(sum, zeroDigest[:]) || bytes.Equal(sum, zeroSum) }

// AppendDigestsAgainst appends what compares with theirs, the digests of as many blocks, as the digests of the blocks of p do: where
// theirs is that of zeroes, a block of ours that holds anything else differs, and is not hashed to find out.
func AppendDigestsAgainst(out, p, theirs []byte) []byte {
	for len(p) > 0 {
		n := min(len(p), blockdev.BlockSize)
		if n == blockdev.BlockSize && bytes.Equal(theirs[:wire.DigestSize], zeroDigest[:]) && !bytes.Equal(p[:n], zeroBlock[:]) {
			out = append(out, notZero[:]...)
		} else {
			out = AppendDigests(out, p[:n])
		}
		p, theirs = p[n:], theirs[wire.DigestSize:]
	}
	return out
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var (
	zeroBlock  [blockdev.BlockSize]byte
	zeroDigest = func() (d [wire.DigestSize]byte) {
		sum := sha256.Sum256(zeroBlock[:])
		copy(d[:], sum[:])
		return d
	}()
	notZero [wire.DigestSize]byte // any but that
	zeroSum = AppendSums(nil, zeroBlock[:])
)
