package blocktest

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"hacluster/blockdev"
)

// pattern is n bytes that differ between seeds and between places; none is zero.
func pattern(n int, seed uint64) []byte {
	p := make([]byte, n+8)
	src := rand.New(rand.NewPCG(seed, 42))
	for i := 0; i < n; i += 8 {
		binary.LittleEndian.PutUint64(p[i:], src.Uint64()|0x0101010101010101)
	}
	return p[:n]
}

func write(t testing.TB, d blockdev.Device, p []byte, off int64) {
	t.Helper()
	if n, err := d.WriteAt(p, off); n != len(p) || err != nil {
		t.Fatalf("WriteAt of %d bytes at %d = %d, %v", len(p), off, n, err)
	}
}

func flush(t testing.TB, d blockdev.Device) {
	t.Helper()
	if err := d.Flush(); err != nil {
		t.Fatalf("Flush: %v", err)
	}
}

// expect holds the device's content at off against want.
func expect(t testing.TB, d blockdev.Device, off int64, want []byte) {
	t.Helper()
	got := bytes.Repeat([]byte{0xAA}, len(want))
	if n, err := d.ReadAt(got, off); n != len(want) || err != nil {
		t.Fatalf("ReadAt of %d bytes at %d = %d, %v", len(want), off, n, err)
	}
	if !bytes.Equal(got, want) {
		i := firstDifference(got, want)
		t.Fatalf("byte %d reads %#x, want %#x (first difference of %d bytes at %d)", off+int64(i), got[i], want[i], len(want), off)
	}
}

// expectAround expects of r and what lies beside it what the whole device, all, should hold there: the race detector takes
// its time with every byte that is looked at.
func expectAround(t testing.TB, d blockdev.Device, r blockdev.Range, all []byte) {
	t.Helper()
	const beside = 64 << 10
	from, to := max(r.Off-beside, 0), min(r.End()+beside, int64(len(all)))
	expect(t, d, from, all[from:to])
}

func firstDifference(a, b []byte) int {
	for i := range a {
		if a[i] != b[i] {
			return i
		}
	}
	return -1
}
