package link

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"testing"

	"hacluster/blockdev"
	"hacluster/replication/wire"
)

// image is a device of fixed content.
type image struct {
	blockdev.Device
	data []byte
	bad  int64 // reads that cover this offset fail; -1: none
}

func (d *image) Size() int64 { return int64(len(d.data)) }

func (d *image) ReadAt(p []byte, off int64) (int, error) {
	if d.bad >= off && d.bad < off+int64(len(p)) {
		return 0, io.ErrUnexpectedEOF
	}
	return copy(p, d.data[off:]), nil
}

func TestDigestsAreThoseOfEachBlock(t *testing.T) {
	dev := &image{data: make([]byte, 300*4096+100), bad: -1}
	for i := range dev.data {
		dev.data[i] = byte(i * i >> 12)
	}
	clear(dev.data[5*4096 : 7*4096])
	clear(dev.data[300*4096:])
	for _, r := range []blockdev.Range{{Off: 0, Len: dev.Size()}, {Off: 4096, Len: 4096}, {Off: 8192, Len: 100 * 4096}, {Off: 300 * 4096, Len: 100}} {
		got, err := Digest(dev, r)
		if err != nil {
			t.Fatal(err)
		}
		var want []byte
		for off := r.Off; off < r.End(); off += 4096 {
			sum := sha256.Sum256(dev.data[off:min(off+4096, r.End())])
			want = append(want, sum[:16]...)
		}
		if !bytes.Equal(got, want) || len(got) != wire.Digests(r)*wire.DigestSize {
			t.Errorf("%v: %d bytes of digests differ from the %d expected", r, len(got), len(want))
		}
	}
}

func TestDigestFailsWholly(t *testing.T) {
	dev := &image{data: make([]byte, 1<<20), bad: 900 << 10}
	if got, err := Digest(dev, blockdev.Range{Len: 1 << 20}); got != nil || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("bad sector: %d bytes, %v", len(got), err)
	}
	for _, r := range []blockdev.Range{{Off: 0, Len: 2 << 20}, {Off: 512, Len: 4096}, {Off: -4096, Len: 4096}, {Off: 0, Len: wire.MaxDigestRange + 4096}} {
		if _, err := Digest(dev, r); !errors.Is(err, blockdev.ErrRange) {
			t.Errorf("%v: %v, want %v", r, err, blockdev.ErrRange)
		}
	}
}

// What is compared by it comes out as by the digests themselves, whatever either side holds.
func TestDigestsAgainstCompareLikeDigests(t *testing.T) {
	zero, one, two := make([]byte, 4096), bytes.Repeat([]byte{1}, 4096), bytes.Repeat([]byte{2}, 4096)
	short, shortZero := []byte{1, 2, 3}, make([]byte, 3)
	pieces := [][]byte{zero, one, two}
	for _, end := range [][]byte{nil, short, shortZero} {
		for _, theirEnd := range [][]byte{nil, short, shortZero} {
			if (end == nil) != (theirEnd == nil) {
				continue
			}
			var ours, theirs []byte
			for i := range 9 {
				ours, theirs = append(ours, pieces[i/3]...), append(theirs, pieces[i%3]...)
			}
			ours, theirs = append(ours, end...), append(theirs, theirEnd...)
			sums, full := AppendDigests(nil, theirs), AppendDigests(nil, ours)
			got := AppendDigestsAgainst(nil, ours, sums)
			if len(got) != len(full) {
				t.Fatalf("%d bytes of digests, want %d", len(got), len(full))
			}
			for at := 0; at < len(full); at += wire.DigestSize {
				same := func(d []byte) bool { return bytes.Equal(d[at:at+wire.DigestSize], sums[at:at+wire.DigestSize]) }
				if same(got) != same(full) {
					t.Errorf("block %d: alike %t, by the digests %t", at/wire.DigestSize, same(got), same(full))
				}
			}
		}
	}
}
