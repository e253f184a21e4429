package link

import (
	"bytes"
	"crypto/sha256"
	"fmt"

	"hacluster/blockdev"
	"hacluster/replication/wire"
)

// digestChunk is what Digest reads at once.
const digestChunk = 1 << 20

// Digest returns the digests of the blocks of r, one after the other, wire.DigestSize bytes each. r starts at a block
// and ends at one or at the end of the device; it is at most wire.MaxDigestRange long. The digest of a short last
// block is that of its bytes.
func Digest(dev blockdev.Device, r blockdev.Range) ([]byte, error) {
	return digest(dev, r, dev.ReadAt)
}

// DigestKept is Digest that keeps what it read: buf is the caller's to free. Without an error it is there.
func DigestKept(dev blockdev.Device, r blockdev.Range) (sums []byte, buf *blockdev.Buf, err error) {
	if !r.Within(dev.Size()) || r.Len > wire.MaxDigestRange || r.Off%blockdev.BlockSize != 0 {
		return nil, nil, outside(dev, r)
	}
	buf = blockdev.NewBuf(int(r.Len))
	if _, err := dev.ReadAt(buf.Bytes(), r.Off); err != nil {
		buf.Free()
		return nil, nil, fmt.Errorf("digest %v: %w", r, err)
	}
	return AppendDigests(make([]byte, 0, wire.Digests(r)*wire.DigestSize), buf.Bytes()), buf, nil
}

func outside(dev blockdev.Device, r blockdev.Range) error {
	return fmt.Errorf("digest %v of a device of %d bytes: %w", r, dev.Size(), blockdev.ErrRange)
}

// DigestDisk is Digest of what is on the disk itself, as far as dev can read that.
func DigestDisk(dev blockdev.Device, r blockdev.Range) ([]byte, error) {
	if d, ok := dev.(blockdev.DiskReader); ok {
		return digest(dev, r, d.ReadDiskAt)
	}
	return digest(dev, r, dev.ReadAt)
}

func digest(dev blockdev.Device, r blockdev.Range, read func([]byte, int64) (int, error)) ([]byte, error) {
	if !r.Within(dev.Size()) || r.Len > wire.MaxDigestRange || r.Off%blockdev.BlockSize != 0 {
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
		out = AppendDigests(out, p)
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

var (
	zeroBlock  [blockdev.BlockSize]byte
	zeroDigest = func() (d [wire.DigestSize]byte) {
		sum := sha256.Sum256(zeroBlock[:])
		copy(d[:], sum[:])
		return d
	}()
	notZero [wire.DigestSize]byte // any but that
)
