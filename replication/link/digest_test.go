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

// What the device knows to be a hole is not read, and its digests are those of the zeroes that it holds.
func TestDigestsOfAHoleAreMadeWithoutReading(t *testing.T) {
	const hole = 3*4096 + 100
	whole := &image{data: make([]byte, 5*4096+100), bad: -1}
	whole.data[0] = 1
	dev := &holey{image{data: whole.data, bad: -1}, blockdev.Range{Off: 2 * 4096, Len: hole}}
	for _, c := range []struct {
		r    blockdev.Range
		hole bool
	}{
		{blockdev.Range{Off: 2 * 4096, Len: hole}, true},
		{blockdev.Range{Off: 3 * 4096, Len: 4096}, true},
		{blockdev.Range{Off: 5 * 4096, Len: 100}, true},
		{blockdev.Range{Off: 4096, Len: 2 * 4096}, false},
		{blockdev.Range{Off: 0, Len: 4096}, false},
		{blockdev.Range{Off: 0, Len: dev.Size()}, false},
	} {
		want, err := Digest(whole, c.r)
		if err != nil {
			t.Fatal(err)
		}
		dev.bad = -1
		if c.hole {
			dev.bad = c.r.Off // reading it would fail
		}
		if got, err := Digest(dev, c.r); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%v: %v, the digests are those of its content: %t", c.r, err, bytes.Equal(got, want))
		}
		if got, buf, err := DigestKept(dev, c.r, AppendDigests); err != nil || !bytes.Equal(got, want) || (buf == nil) != c.hole {
			t.Errorf("%v: %v, kept: %t, the digests are those of its content: %t", c.r, err, buf != nil, bytes.Equal(got, want))
		}
		if got := DigestHole(dev, c.r, AppendDigests); (got != nil) != c.hole {
			t.Errorf("%v: it is taken for a hole: %t", c.r, got != nil)
		}
		if got := DigestHole(whole, c.r, AppendDigests); got != nil {
			t.Errorf("%v: of a device that knows nothing it is taken for a hole", c.r)
		}
	}
	if got := DigestHole(dev, blockdev.Range{Off: 2 * 4096, Len: 4 * 4096}, AppendDigests); got != nil {
		t.Error("a hole that ends behind the device has digests")
	}
}

// holey is an image that knows where it has a hole, to its end.
type holey struct {
	image
	hole blockdev.Range
}

func (d *holey) Extents(r blockdev.Range, fn func(blockdev.Range, bool) bool) error {
	if r.Off < d.hole.Off {
		if data := (blockdev.Range{Off: r.Off, Len: min(r.End(), d.hole.Off) - r.Off}); !fn(data, false) {
			return nil
		}
	}
	if off := max(r.Off, d.hole.Off); off < r.End() {
		fn(blockdev.Range{Off: off, Len: r.End() - off}, true)
	}
	return nil
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
