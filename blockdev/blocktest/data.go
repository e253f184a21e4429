package blocktest

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"

	"hacluster/blockdev"
)

// spots are ranges at every kind of alignment: memory is shifted too, by the odd slices below.
var spots = []blockdev.Range{
	{Off: 0, Len: 4096}, {Off: 4096, Len: 8192}, {Off: 512, Len: 512}, {Off: 1, Len: 1}, {Off: 4095, Len: 2},
	{Off: 4097, Len: 4095}, {Off: 100, Len: 20000}, {Off: 8192, Len: 5000}, {Off: 70000, Len: 1 << 20},
	{Off: 1 << 19, Len: 3 << 19}, {Off: 100, Len: 2<<20 - 1000}, {Off: Size - 1, Len: 1}, {Off: Size - 5000, Len: 5000},
}

func readBack(t *testing.T, d blockdev.Device) {
	oracle := make([]byte, Size)
	for i, r := range spots {
		for _, shift := range []int{0, 1, 512} { // of the memory
			p := pattern(int(r.Len)+shift, uint64(i))[shift:]
			write(t, d, p, r.Off)
			copy(oracle[r.Off:], p)
			expect(t, d, r.Off, p)
		}
	}
	expect(t, d, 0, oracle)
}

func callerKeepsBuffer(t *testing.T, d blockdev.Device) {
	buf := blockdev.NewBuf(64 << 10)
	defer buf.Free()
	p := buf.Bytes()
	want := pattern(len(p), 5)
	copy(p, want)
	write(t, d, p, 12288)
	if !bytes.Equal(p, want) {
		t.Error("WriteAt changed the caller's buffer")
	}
	clear(p) // the caller's own again: the device must not look at it any more
	expect(t, d, 12288, want)
}

func lastBlock(t *testing.T, d blockdev.Device) {
	p := pattern(blockdev.BlockSize, 3)
	write(t, d, p, Size-blockdev.BlockSize)
	expect(t, d, Size-blockdev.BlockSize, p)
	expect(t, d, Size-2*blockdev.BlockSize, make([]byte, blockdev.BlockSize))
}

func zeroReadsZero(t *testing.T, d blockdev.Device) {
	for _, unmap := range []bool{false, true} {
		oracle := pattern(Size, 2)
		write(t, d, oracle, 0)
		for _, r := range spots {
			if err := d.Zero(r, unmap); err != nil {
				t.Fatalf("Zero(%v, unmap %v): %v", r, unmap, err)
			}
			clear(oracle[r.Off:r.End()])
			expectAround(t, d, r, oracle)
		}
		expect(t, d, 0, oracle)
		if err := d.Zero(blockdev.Range{Len: Size}, unmap); err != nil {
			t.Fatalf("Zero of everything, unmap %v: %v", unmap, err)
		}
		expect(t, d, 0, make([]byte, Size))
	}
}

func fuaReadsBack(t *testing.T, d blockdev.Device) {
	oracle := make([]byte, Size)
	for i, r := range spots {
		p := pattern(int(r.Len), uint64(20+i))
		if n, err := d.WriteFUA(p, r.Off); n != len(p) || err != nil {
			t.Fatalf("WriteFUA(%v) = %d, %v", r, n, err)
		}
		copy(oracle[r.Off:], p)
	}
	expect(t, d, 0, oracle)
}

func vectorWrites(t *testing.T, d blockdev.Device) {
	v, ok := d.(blockdev.VectorWriter)
	if !ok {
		t.Skipf("%T does not implement blockdev.VectorWriter", d)
	}
	oracle := make([]byte, Size)
	for i, lens := range [][]int{
		{4096}, {4096, 4096, 8192}, {0, 4096, 0}, {1, 2, 3}, {16384, 16384, 100}, {512, 4096, 3584}, many(3000, 7), many(1100, 512),
		many(80, 16384), // a frame of the wire: more than a mebibyte in pieces
	} {
		for _, off := range []int64{0, 4096, 777} {
			segments, all := segment(lens, uint64(i))
			if n, err := v.WriteVAt(segments, off); n != len(all) || err != nil {
				t.Fatalf("WriteVAt of %d segments, %d bytes, at %d = %d, %v", len(lens), len(all), off, n, err)
			}
			copy(oracle[off:], all)
			expectAround(t, d, blockdev.Range{Off: off, Len: int64(len(all))}, oracle)
		}
	}
	expect(t, d, 0, oracle)
}

func many(n, length int) []int {
	out := make([]int, n)
	for i := range out {
		out[i] = length
	}
	return out
}

func segment(lens []int, seed uint64) (segments [][]byte, all []byte) {
	for i, n := range lens {
		p := pattern(n, seed*10000+uint64(i))
		segments, all = append(segments, p), append(all, p...)
	}
	return segments, all
}

func extents(t *testing.T, d blockdev.Device) {
	m, ok := d.(blockdev.Mapper)
	if !ok {
		t.Skipf("%T does not implement blockdev.Mapper", d)
	}
	write(t, d, pattern(100000, 1), 1<<20)
	write(t, d, pattern(4096, 1), Size-4096)
	if err := d.Zero(blockdev.Range{Off: 1 << 20, Len: 32 << 10}, true); err != nil {
		t.Fatal(err)
	}
	for _, r := range append(spots, blockdev.Range{Len: Size}, blockdev.Range{Off: 5}) {
		walkExtents(t, d, m, r)
	}
	calls := 0
	if err := m.Extents(blockdev.Range{Len: Size}, func(blockdev.Range, bool) bool { calls++; return false }); err != nil || calls != 1 {
		t.Errorf("ended walk: %d calls, %v; want 1, nil", calls, err)
	}
}

func walkExtents(t *testing.T, d blockdev.Device, m blockdev.Mapper, r blockdev.Range) {
	t.Helper()
	at := r.Off
	err := m.Extents(r, func(e blockdev.Range, hole bool) bool {
		if e.Off != at || e.Len <= 0 || e.End() > r.End() {
			t.Fatalf("Extents(%v) reports %v where %d should follow", r, e, at)
		}
		if hole {
			expect(t, d, e.Off, make([]byte, e.Len))
		}
		at = e.End()
		return true
	})
	if err != nil || at != r.End() {
		t.Fatalf("Extents(%v) ended at %d: %v", r, at, err)
	}
}

func flushAfterEverything(t *testing.T, d blockdev.Device) {
	for i := range 3 {
		p := pattern(9000, uint64(i))
		write(t, d, p, int64(i)*3000)
		flush(t, d)
		if err := d.Zero(blockdev.Range{Off: 1 << 20, Len: 8192}, i%2 == 0); err != nil {
			t.Fatal(err)
		}
		flush(t, d)
		expect(t, d, int64(i)*3000, p)
	}
}

func randomOperations(t *testing.T, d blockdev.Device) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	oracle := make([]byte, Size)
	for step := range 250 {
		r := randomRange(rng)
		p := pattern(int(r.Len), rng.Uint64())
		var err error
		switch op := rng.IntN(12); op { // the calls that wait for a disk are rarer
		default:
			_, err = d.WriteAt(p, r.Off)
		case 3:
			_, err = d.WriteFUA(p, r.Off)
		case 4, 5:
			clear(p)
			err = d.Zero(r, op == 4)
		case 6:
			copy(p, oracle[r.Off:])
			err = d.Flush()
		case 7:
			copy(p, oracle[r.Off:])
			expect(t, d, r.Off, p)
		}
		if err != nil {
			t.Fatalf("seed %d step %d on %v: %v", seed, step, r, err)
		}
		copy(oracle[r.Off:], p)
	}
	expect(t, d, 0, oracle)
}

// randomRange is small mostly, aligned often.
func randomRange(rng *rand.Rand) blockdev.Range {
	n := 1 + rng.Int64N(1<<(1+rng.IntN(17)))
	off := rng.Int64N(Size)
	if rng.IntN(2) == 0 {
		off, n = off&^4095, (n+4095)&^4095
	}
	return blockdev.Range{Off: off, Len: min(n, Size-off)}
}

func closeEnds(t *testing.T, d blockdev.Device) {
	write(t, d, pattern(4096, 1), 0)
	if err := d.Close(); err != nil {
		t.Fatalf("Close: %v", err)
	}
	p := make([]byte, 4096)
	_, read := d.ReadAt(p, 0)
	_, wrote := d.WriteAt(p, 0)
	_, fua := d.WriteFUA(p, 0)
	for call, err := range map[string]error{
		"ReadAt": read, "WriteAt": wrote, "WriteFUA": fua, "Flush": d.Flush(),
		"Zero": d.Zero(blockdev.Range{Len: 4096}, true),
	} {
		if !errors.Is(err, blockdev.ErrClosed) {
			t.Errorf("%s after Close = %v, want ErrClosed", call, err)
		}
	}
	if err := d.Close(); err != nil && !errors.Is(err, blockdev.ErrClosed) {
		t.Errorf("second Close = %v, want nil or ErrClosed", err)
	}
	if d.Size() != Size {
		t.Errorf("Size() after Close = %d, want %d", d.Size(), Size)
	}
}

// closeWaits closes in the middle of traffic: each operation either took effect or says ErrClosed, and no Close
// pulls the device from under one.
func closeWaits(t *testing.T, d blockdev.Device) {
	var wg sync.WaitGroup
	started := make(chan struct{}, 4)
	for w := range 4 {
		wg.Go(func() {
			p := pattern(8192, uint64(w))
			for i := 0; ; i++ {
				_, err := d.WriteAt(p, int64(w)<<16)
				if errors.Is(err, blockdev.ErrClosed) {
					return
				}
				if err != nil {
					t.Errorf("write while closing: %v", err)
					return
				}
				if i == 0 {
					started <- struct{}{}
				}
			}
		})
	}
	for range 4 {
		<-started
	}
	if err := d.Close(); err != nil {
		t.Errorf("Close under traffic: %v", err)
	}
	wg.Wait()
}
