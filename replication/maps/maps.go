// Package maps decides which blocks of two replicas may differ: when a block is marked, when its mark may leave, what a
// resync or a settling must copy, and when a stored map must not be believed (R14, R15, R16). It is pure: no disk, no
// network, no goroutine, no clock. Who is a member, and what is acknowledged when, is decided in replication/primary.
//
// Words: a block is marked for a peer while it may differ from the peer's. The mark is behind while the peer may lack
// the content, and live while both have it once nothing is in flight: then only the flushes are missing.
//
//	            Missed, Broke, Unite, Load                  Sent
//	 (clean) ---------------------------> behind   (clean) ------> live
//	 behind --the whole block was copied or overwritten on both--> live
//	 live --nothing in flight, a flush begun after that succeeded on both--> (clean)
//
//	primary: Primary, with a Peer for each other replica       knows what is in flight where
//	standby: Standby, a map for each other replica             learns from the primary what is durable on whom
//	both:    Regions (which coarse marks on disk may go), Judge (did a map go back?)
//
// Nothing of a Peer outlives a stream, but for a member that goes on in its incarnation: when one ends, or the peer comes
// back as another incarnation, or a flush of our own fails, all that is marked is behind, and is sent again (R25). So no
// mark leaves on the word of an incarnation that is gone.
//
// Invariants:
//   - behind and live are disjoint; what is marked is their union
//   - done and flushing are parts of live, and disjoint
//   - a block in flight to a peer is marked for it, and not in flushing
//   - a mark of a Standby leaves only by Durable, and only if nothing was taken for it since the flush that it names
//
// Neither type is safe for concurrent use: their owner's lock guards them. DESIGN.md says how they are wired, and what is not.
package maps

import (
	"hacluster/blockdev"
	"hacluster/blockdev/bitmap"
)

const blockSize = blockdev.BlockSize

// Blocks is how many blocks a volume has; the last may be short.
func Blocks(size int64) int64 { return (size + blockSize - 1) / blockSize }

// touched is every block that r has a byte in.
func touched(r blockdev.Range) (from, to int64) {
	if r.Len == 0 {
		return 0, 0
	}
	return r.Off / blockSize, (r.End() + blockSize - 1) / blockSize
}

// whole is every block that r covers to the last byte, in a volume of the given size.
func whole(r blockdev.Range, size int64) (from, to int64) {
	from, to = (r.Off+blockSize-1)/blockSize, r.End()/blockSize
	if r.End() == size {
		to = Blocks(size)
	}
	return from, max(from, to)
}

func rangeOf(from, to, size int64) blockdev.Range {
	return blockdev.Range{Off: from * blockSize, Len: min(to*blockSize, size) - from*blockSize}
}

func empty(b *bitmap.Bitmap) { b.Empty() }

// setExcept sets [from, to) in b where except is clear.
func setExcept(b *bitmap.Bitmap, from, to int64, except *bitmap.Bitmap) {
	if !except.Any(from, to) {
		b.Set(from, to)
		return
	}
	for from < to {
		start, end, ok := except.NextRange(from, to-from)
		if !ok || start >= to {
			start, end = to, to
		}
		b.Set(from, start)
		from = min(end, to)
	}
}
