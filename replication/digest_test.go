package replication

import (
	"testing"

	"hacluster/blockdev"
	"hacluster/blockdev/backend/faultdev"
	"hacluster/blockdev/backend/memdev"
	"hacluster/replication/link"
)

// Behind maxBadBlocks the rest of a chunk is given up unseen, but for what a read waits for (faults.md D93).
func TestDigestTriesWhatIsAwaitedBehindManyBadBlocks(t *testing.T) {
	block := func(i, n int64) blockdev.Range {
		return blockdev.Range{Off: i * blockdev.BlockSize, Len: n * blockdev.BlockSize}
	}
	dev := faultdev.New(memdev.New(memdev.Config{Size: 1 << 20}))
	defer dev.Close()
	if _, err := dev.WriteAt(make([]byte, 1<<20), 0); err != nil { // it is no hole
		t.Fatal(err)
	}
	bad := dev.Add(faultdev.Rule{Op: blockdev.OpRead, Range: block(1, maxBadBlocks), Err: errFault})
	dev.Add(faultdev.Rule{Op: blockdev.OpRead, Range: block(200, 1), Err: errFault})
	chunk := blockdev.Range{Len: 1 << 20}
	d := digestOf(dev, chunk, nil, link.Digest)
	if len(d.bad) != 1 || d.bad[0] != block(1, 255) || len(d.tried) != 1 || d.tried[0] != block(1, maxBadBlocks) || d.err != nil {
		t.Fatalf("bad %v, of which %v were tried, %v", d.bad, d.tried, d.err)
	}
	d = digestOf(dev, chunk, []blockdev.Range{block(100, 2), block(200, 1)}, link.Digest)
	if len(d.bad) != 2 || d.bad[0] != block(1, 99) || d.bad[1] != block(102, 154) {
		t.Errorf("bad %v, want all behind the first but what is awaited and can be read", d.bad)
	}
	if len(d.tried) != 2 || d.tried[1] != block(200, 1) {
		t.Errorf("tried and bad %v, want what is awaited among it", d.tried)
	}
	whole, err := link.Digest(dev, block(100, 1))
	if at := 100 * len(whole); err != nil || string(d.sums[at:at+len(whole)]) != string(whole) {
		t.Errorf("the digest of what is awaited is not in its place: %v", err)
	}
	if bad.Remove(); len(digestOf(dev, chunk, nil, link.Digest).bad) != 1 {
		t.Error("what is bad is not found")
	}
}
