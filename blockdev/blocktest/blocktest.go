// Package blocktest is the one conformance suite that every blockdev.Device passes, wrappers and replicated volumes
// included. It holds a device against the words of the interface: ranges, read-back, zeroing, durability calls, vector
// writes, extents, concurrency, closing, and random operations against a slice of bytes.
//
// Only tests import it. It says nothing about power loss or speed: those are tested where they are made.
package blocktest

import (
	"bytes"
	"errors"
	"math"
	"testing"

	"hacluster/blockdev"
)

// Size is the length of the devices that the suite asks for: small, and odd enough to leave a short last mebibyte.
const Size = 2<<20 + 3*blockdev.BlockSize

// Factory makes a device of the given size that reads as zeroes. The suite closes it. A factory that cannot make one
// here skips, saying why.
type Factory func(t testing.TB, size int64) blockdev.Device

// Run holds devices of a factory against the whole suite.
func Run(t *testing.T, make Factory) {
	for _, c := range []struct {
		name string
		fn   func(*testing.T, blockdev.Device)
	}{
		{"SizeIsAsAsked", sizeIsAsAsked},
		{"FreshReadsZero", freshReadsZero},
		{"OutsideRefusedAndNothingTouched", outsideRefused}, // faults.md N18, N26
		{"EmptyOperationsSucceed", emptyOperations},         // faults.md N24
		{"ReadBackAtAnyAlignment", readBack},                // faults.md N25
		{"CallerKeepsBuffer", callerKeepsBuffer},
		{"LastBlock", lastBlock},
		{"ZeroReadsZero", zeroReadsZero},
		{"FUAReadsBack", fuaReadsBack},
		{"VectorWrites", vectorWrites},
		{"ExtentsCoverRangeAndHolesAreZero", extents},
		{"FlushAfterEverything", flushAfterEverything},
		{"ConcurrentOnDisjointRanges", concurrentDisjoint},
		{"ConcurrentUnalignedNeighbours", concurrentNeighbours},
		{"RandomOperationsAgreeWithOracle", randomOperations},
		{"CloseEndsEverything", closeEnds},
		{"CloseWaitsForOperationsInFlight", closeWaits},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := make(t, Size)
			t.Cleanup(func() {
				if err := d.Close(); err != nil && !errors.Is(err, blockdev.ErrClosed) {
					t.Errorf("Close: %v", err)
				}
			})
			c.fn(t, d)
		})
	}
}

func sizeIsAsAsked(t *testing.T, d blockdev.Device) {
	if d.Size() != Size {
		t.Fatalf("Size() = %d, want %d", d.Size(), Size)
	}
}

func freshReadsZero(t *testing.T, d blockdev.Device) {
	expect(t, d, 0, make([]byte, Size))
}

// outside are ranges that no device may accept. Lengths are those of buffers, so they stay small; Zero gets more below.
var outside = []struct {
	name string
	off  int64
	n    int
}{
	{"at the end", Size, 1},
	{"across the end", Size - 1, 2},
	{"across the end by blocks", Size - blockdev.BlockSize, 2 * blockdev.BlockSize},
	{"far behind", 1 << 40, 4096},
	{"negative", -1, 1},
	{"negative reaching in", -4096, 8192},
	{"offset plus length wraps", math.MaxInt64 - 100, 4096},
	{"most negative", math.MinInt64, 4096},
	{"empty but behind", Size + 1, 0},
	{"empty but negative", -1, 0},
}

func outsideRefused(t *testing.T, d blockdev.Device) {
	content := pattern(Size, 1)
	write(t, d, content, 0)
	for _, c := range outside {
		p := pattern(c.n, 99)
		keep := bytes.Clone(p)
		refused(t, c.name, "ReadAt", func() (int, error) { return d.ReadAt(p, c.off) })
		if !bytes.Equal(p, keep) {
			t.Errorf("%s: refused ReadAt changed the buffer", c.name)
		}
		refused(t, c.name, "WriteAt", func() (int, error) { return d.WriteAt(p, c.off) })
		refused(t, c.name, "WriteFUA", func() (int, error) { return d.WriteFUA(p, c.off) })
		if v, ok := d.(blockdev.VectorWriter); ok {
			half := c.n / 2
			refused(t, c.name, "WriteVAt", func() (int, error) { return v.WriteVAt([][]byte{p[:half], p[half:]}, c.off) })
		}
		refuseRange(t, d, blockdev.Range{Off: c.off, Len: int64(c.n)})
	}
	for _, r := range []blockdev.Range{
		{Off: 0, Len: -1}, {Off: 4096, Len: -4096}, {Off: 0, Len: Size + 1}, {Off: 4096, Len: math.MaxInt64},
		{Off: math.MaxInt64, Len: math.MaxInt64}, {Off: Size - 4096, Len: 4 << 30},
	} {
		refuseRange(t, d, r)
	}
	expect(t, d, 0, content)
}

func refuseRange(t *testing.T, d blockdev.Device, r blockdev.Range) {
	t.Helper()
	for _, unmap := range []bool{false, true} {
		if err := d.Zero(r, unmap); !errors.Is(err, blockdev.ErrRange) {
			t.Errorf("Zero(%v, %v) = %v, want ErrRange", r, unmap, err)
		}
	}
	if m, ok := d.(blockdev.Mapper); ok {
		err := m.Extents(r, func(blockdev.Range, bool) bool { t.Errorf("Extents(%v) reported one", r); return false })
		if !errors.Is(err, blockdev.ErrRange) {
			t.Errorf("Extents(%v) = %v, want ErrRange", r, err)
		}
	}
}

func refused(t *testing.T, name, call string, fn func() (int, error)) {
	t.Helper()
	if n, err := fn(); n != 0 || !errors.Is(err, blockdev.ErrRange) {
		t.Errorf("%s %s = %d, %v; want 0, ErrRange", call, name, n, err)
	}
}

func emptyOperations(t *testing.T, d blockdev.Device) {
	for _, off := range []int64{0, 1, Size} {
		for call, fn := range map[string]func([]byte, int64) (int, error){
			"ReadAt": d.ReadAt, "WriteAt": d.WriteAt, "WriteFUA": d.WriteFUA,
		} {
			if n, err := fn(nil, off); n != 0 || err != nil {
				t.Errorf("%s of nothing at %d = %d, %v; want 0, nil", call, off, n, err)
			}
		}
		if err := d.Zero(blockdev.Range{Off: off}, true); err != nil {
			t.Errorf("Zero of nothing at %d: %v", off, err)
		}
	}
	if v, ok := d.(blockdev.VectorWriter); ok {
		for _, segments := range [][][]byte{nil, {{}, {}}} {
			if n, err := v.WriteVAt(segments, Size); n != 0 || err != nil {
				t.Errorf("WriteVAt of %d empty segments = %d, %v; want 0, nil", len(segments), n, err)
			}
		}
	}
	expect(t, d, 0, make([]byte, Size))
}
