package undo

import (
	"bytes"
	"encoding/binary"
	"flag"
	"hash/crc32"
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
	go l.commit()
	must(t, logged(&Area{live: l}, block(0, 1)))
	must(t, logged(&Area{live: l}, block(1, 3)))
	l.stop()
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

// Whatever the bytes are, reading them back ends, and tells of nothing outside the volume. An input is short, so that one
// takes no time, and so does making it smaller: up to the first record it is the fields of the header, then 56 bytes make
// a record and its content; what is zero in every area is put between them. broken has one of the checksums wrong.
func FuzzScan(f *testing.F) {
	if p, err := os.ReadFile(filepath.Join("testdata", "v1.golden")); err == nil {
		short := shortened(p)
		f.Add(short, -1)
		f.Add(short, 1)
		f.Add(short[:len(short)-fuzzRecord], -1)
	}
	f.Add([]byte("haclundo"), -1)
	f.Fuzz(func(t *testing.T, short []byte, broken int) {
		p := expanded(short, broken)
		d := memdev.New(memdev.Config{Size: int64(len(p))})
		_, err := d.WriteFUA(p, 0)
		must(t, err)
		a, err := Open(Config{Binding: testBinding(), Place: &memPlace{dev: d}}, memdev.New(memdev.Config{Size: testVolume}))
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

const (
	fuzzRecord  = recRest + 4 // a record's fields, and what its content consists of
	fuzzRecords = 16
	fuzzContent = 4 * blockdev.BlockSize
)

// expanded makes an area of a short input.
func expanded(short []byte, broken int) []byte {
	p := make([]byte, headerSize)
	n := copy(p[:offRest], short)
	resum(p)
	for i := 0; n < len(short) && i < fuzzRecords; i++ {
		b := make([]byte, fuzzRecord)
		n += copy(b, short[n:])
		rec := append(b[:recRest:recRest], zeroes[:recordSize-recRest]...)
		var content []byte
		if length := binary.LittleEndian.Uint64(b[recLen:]); b[recFlags]&flagZero == 0 {
			content = bytes.Repeat(b[recRest:], int(min(length, fuzzContent))/4)
		}
		if i != broken {
			binary.LittleEndian.PutUint32(rec[recSum:], crc32.Checksum(content, castagnoli))
			resumRecord(rec)
		}
		p = append(append(p, rec...), content...)
	}
	return p
}

// shortened is the input that makes an area again, whose content repeats itself.
func shortened(p []byte) []byte {
	short := bytes.Clone(p[:offRest])
	for p = p[headerSize:]; len(p) >= recordSize; {
		short = append(short, p[:recRest]...)
		length := int(binary.LittleEndian.Uint64(p[recLen:]))
		if p[recFlags]&flagZero != 0 {
			length = 0
		}
		content := append(bytes.Clone(p[recordSize:recordSize+length]), 0, 0, 0, 0)
		short = append(short, content[:4]...)
		p = p[recordSize+length:]
	}
	return short
}

func TestShortInputsOfTheFuzzTargetMakeAreas(t *testing.T) {
	want := golden(t)
	if got := expanded(shortened(want), -1); !bytes.Equal(got, want) {
		t.Fatal("the golden area is not made again of its short form")
	}
}
