package link

import (
	"crypto/sha256"
	"fmt"

	"hacluster/blockdev"
	"hacluster/replication/wire"
)

// digestChunk is what Digest reads at once.
const digestChunk = 256 << 10

// Digest returns the digests of the blocks of r, one after the other, wire.DigestSize bytes each. r starts at a block
// and ends at one or at the end of the device; it is at most wire.MaxDigestRange long. The digest of a short last
// block is that of its bytes.
func Digest(dev blockdev.Device, r blockdev.Range) ([]byte, error) {
	if !r.Within(dev.Size()) || r.Len > wire.MaxDigestRange || r.Off%blockdev.BlockSize != 0 {
		return nil, fmt.Errorf("digest %v of a device of %d bytes: %w", r, dev.Size(), blockdev.ErrRange)
	}
	buf := blockdev.NewBuf(int(min(r.Len, digestChunk)))
	defer buf.Free()
	out := make([]byte, 0, wire.Digests(r)*wire.DigestSize)
	for off := r.Off; off < r.End(); off += digestChunk {
		p := buf.Bytes()[:min(digestChunk, r.End()-off)]
		if _, err := dev.ReadAt(p, off); err != nil {
			return nil, fmt.Errorf("digest %v: %w", r, err)
		}
		out = appendDigests(out, p)
	}
	return out, nil
}

func appendDigests(out, p []byte) []byte {
	for len(p) > 0 {
		n := min(len(p), blockdev.BlockSize)
		sum := sha256.Sum256(p[:n])
		out = append(out, sum[:wire.DigestSize]...)
		p = p[n:]
	}
	return out
}
