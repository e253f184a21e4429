package undo

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"hacluster/blockdev"
	"hacluster/blockdev/backend/memdev"
)

var update = flag.Bool("update", false, "write the golden file anew")

// golden is an area of a known tag: one block of data, then one of data and a run of zeroes in one group.
func golden(t *testing.T) []byte {
	t.Helper()
	d := memdev.New(memdev.Config{Size: testVolume})
	for i := range int64(2) {
		p := bytes.Repeat([]byte{byte(i + 1)}, blockdev.BlockSize)
		_, err := d.WriteAt(p, i*blockdev.BlockSize)
		must(t, err)
	}
	b := testBinding()
	h := &header{tag: 0x1122334455667788, size: b.Size, cluster: b.Cluster, volume: b.Volume, node: b.Node, attachment: b.Attachment,
		point: testPoint, began: 9}
	p := &memPlace{}
	s, err := p.Create(h.encode())
	must(t, err)
	l := newLive(&Config{Binding: b, Place: p}, s, h, d)
	content := make([]byte, MaxRecord)
	must(t, l.log([]item{{at: block(0, 1)}}, content))
	must(t, l.log([]item{{at: block(1, 3)}}, content))
	out := make([]byte, l.end)
	must(t, read(s, out, 0))
	return out
}

func TestFormatIsPinned(t *testing.T) { // R22
	path := filepath.Join("testdata", "v1.golden")
	got := golden(t)
	if *update {
		must(t, os.WriteFile(path, got, 0o600))
	}
	want, err := os.ReadFile(path)
	must(t, err)
	if !bytes.Equal(got, want) {
		t.Fatal("the format is not that of testdata/v1.golden: give it a new version")
	}
	var ranges []blockdev.Range
	p := placeOf(t, want)
	a := opened(t, p, memdev.New(memdev.Config{Size: testVolume}))
	must(t, a.Each(func(at blockdev.Range, content []byte) error {
		if content != nil && content[0] != byte(at.Off/blockdev.BlockSize+1) {
			t.Errorf("content of %v is %d", at, content[0])
		}
		ranges = append(ranges, at)
		return nil
	}))
	if len(ranges) != 3 || ranges[0] != block(0, 1) || ranges[1] != block(1, 1) || ranges[2] != block(2, 2) {
		t.Fatalf("ranges %v", ranges)
	}
	if point, _, _ := a.Point(); point != testPoint {
		t.Fatalf("point %v", point)
	}
}

func placeOf(t testing.TB, p []byte) *memPlace {
	t.Helper()
	d := memdev.New(memdev.Config{Size: max(testRoom, int64(len(p))), Intermediate: 2})
	_, err := d.WriteFUA(p, 0)
	must(t, err)
	return &memPlace{dev: d}
}

// Whatever the bytes are, reading them back ends, and tells of nothing outside the volume.
func FuzzScan(f *testing.F) {
	if p, err := os.ReadFile(filepath.Join("testdata", "v1.golden")); err == nil {
		f.Add(p, 0)
		f.Add(p, 5000)
		f.Add(p[:len(p)-700], 100)
	}
	f.Add([]byte("haclundo"), 0)
	f.Fuzz(func(t *testing.T, p []byte, at int) {
		if len(p) > testRoom {
			return
		}
		if len(p) >= headerSize { // get past the checksums
			p = bytes.Clone(p)
			resum(p)
			if at = headerSize + max(at, 0)%(len(p)-headerSize+1)/recordSize*recordSize; at+recordSize <= len(p) {
				resumRecord(p[at:])
			}
		}
		a, err := Open(Config{Binding: testBinding(), Place: placeOf(t, p)}, memdev.New(memdev.Config{Size: testVolume}))
		if err != nil || !a.Live() {
			return
		}
		defer a.Close()
		must(t, a.Each(func(at blockdev.Range, content []byte) error {
			if !at.Within(testVolume) || content != nil && int64(len(content)) != at.Len {
				t.Errorf("range %v with %d bytes", at, len(content))
			}
			return nil
		}))
	})
}
