package replication

import (
	"encoding/binary"
	"hash/crc32"
	"math/rand/v2"
	"testing"

	"hacluster/blockdev"
	"hacluster/blockdev/backend/memdev"
	"hacluster/replication/resync"
)

// sameSum changes a block to another one that has the same CRC-32C.
func sameSum(block []byte, at int) {
	const poly = 1 | uint64(crc32.Castagnoli)<<1 // the polynomial itself: adding it changes no remainder
	p := block[at : at+8]
	binary.LittleEndian.PutUint64(p, binary.LittleEndian.Uint64(p)^poly)
}

// R15: where what was compared lately differed, sums are asked for. They never have a block taken for alike: what has the same
// sum and another content is copied, and what is alike is not.
func TestSumsTellWhatDiffersAndNotWhatIsAlike(t *testing.T) {
	for seed := range seeds(1) {
		r := leave(t, seed)
		r.b.crash()
		r.dropped()
		r.b.mem, r.b.table = r.b.mem.Reopen(), nil // without a map everything is compared
		rng := rand.NewChaCha8([32]byte{byte(seed), 3})
		const differ, end = 20 * resync.ChunkSize, 28 * resync.ChunkSize // to differ wholly: so sums are asked for behind it
		a, b := make([]byte, blockdev.BlockSize), make([]byte, blockdev.BlockSize)
		collide := 0
		for off := int64(0); off < end; off += blockdev.BlockSize {
			rng.Read(a)
			copy(b, a)
			switch kind := rng.Uint64() % 8; {
			case off < differ || kind < 5:
				rng.Read(b)
			case kind == 5:
				sameSum(b, int(rng.Uint64()%(blockdev.BlockSize-8)))
				collide++
			}
			if kind := rng.Uint64() % 50; off >= differ && kind == 0 {
				clear(a)
			} else if kind == 1 {
				clear(b)
			}
			put(t, r.a.mem, off, a)
			put(t, r.b.mem, off, b)
		}
		for off := int64(end); off < marksVolume; off += resync.ChunkSize {
			put(t, r.a.mem, off, a) // no hole, so that all is read
			put(t, r.b.mem, off, a)
		}
		differs := r.differing("a", "b")
		r.b.tally.reset()
		r.b.start()
		r.back(differs, 2*marksVolume)
		if n := r.b.tally.read.Load(); n <= marksVolume {
			t.Errorf("seed %d: %d bytes were read: sums were never asked for, or were taken for digests", seed, n)
		}
		if collide == 0 {
			t.Errorf("seed %d: no two blocks have the same sum", seed)
		}
	}
}

func put(t *testing.T, dev *memdev.Dev, off int64, p []byte) {
	t.Helper()
	if _, err := dev.WriteAt(p, off); err != nil {
		t.Fatal(err)
	}
}

func TestBlocksOfOneSumExist(t *testing.T) {
	p := pattern(blockdev.BlockSize, 7)
	table := crc32.MakeTable(crc32.Castagnoli)
	before := crc32.Checksum(p, table)
	was := string(p)
	if sameSum(p, 100); crc32.Checksum(p, table) != before || string(p) == was {
		t.Error("the sum changed, or the block did not")
	}
}
