package memdev

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"

	"hacluster/blockdev"
)

const crashSize = 16 * pageSize

func write(t *testing.T, d *Dev, off int64, p []byte) {
	t.Helper()
	if _, err := d.WriteAt(p, off); err != nil {
		t.Fatal(err)
	}
}

func flush(t *testing.T, d *Dev) {
	t.Helper()
	if err := d.Flush(); err != nil {
		t.Fatal(err)
	}
}

func content(t *testing.T, d *Dev) []byte {
	t.Helper()
	p := make([]byte, d.Size())
	if _, err := d.ReadAt(p, 0); err != nil {
		t.Fatal(err)
	}
	return p
}

func of(b byte, n int) []byte { return bytes.Repeat([]byte{b}, n) }

// written has 1 flushed everywhere, and 2 and then 3 written over the middle without a flush.
func written(t *testing.T, cfg Config) *Dev {
	cfg.Size = crashSize
	d := New(cfg)
	write(t, d, 0, of(1, crashSize))
	flush(t, d)
	write(t, d, 2*pageSize, of(2, 10*pageSize))
	write(t, d, 2*pageSize, of(3, 10*pageSize))
	return d
}

func rng(t *testing.T) *rand.Rand {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

func TestLoseUnflushedGoesBackToTheLastFlush(t *testing.T) {
	d := written(t, Config{})
	if err := d.Zero(blockdev.Range{Len: pageSize}, true); err != nil {
		t.Fatal(err)
	}
	c := d.Clone(CrashOptions{})
	if !bytes.Equal(content(t, c), of(1, crashSize)) {
		t.Error("the clone does not hold what was flushed")
	}
	if got := content(t, d); got[0] != 0 || got[2*pageSize] != 3 {
		t.Error("cloning changed the device")
	}
	write(t, c, 0, of(9, pageSize))
	if content(t, d)[0] == 9 || content(t, c.Clone(CrashOptions{}))[0] == 9 {
		t.Error("the clone shares memory, or makes durable by itself")
	}
}

func TestKeepRandomKeepsWholeSectors(t *testing.T) {
	for intermediate, allowed := range map[int][]byte{0: {1, 3}, 1: {1, 2, 3}} {
		got := content(t, written(t, Config{Intermediate: intermediate}).Clone(CrashOptions{Rand: rng(t), Mode: KeepRandom}))
		seen := map[byte]int{}
		for at := 0; at < crashSize; at += sectorSize {
			sector := got[at : at+sectorSize]
			if !bytes.Equal(sector, of(sector[0], sectorSize)) {
				t.Fatalf("the sector at %d is torn", at)
			}
			if inside := at >= 2*pageSize && at < 12*pageSize; inside {
				seen[sector[0]]++
			} else if sector[0] != 1 {
				t.Fatalf("the sector at %d, not written since the flush, holds %d", at, sector[0])
			}
		}
		if len(seen) != len(allowed) { // 80 sectors: that one content is never drawn has odds of 1 in 10^13
			t.Errorf("intermediate %d: contents %v came back, want each of %v", intermediate, seen, allowed)
		}
		for _, b := range allowed {
			if seen[b] == 0 {
				t.Errorf("intermediate %d: content %d never came back: %v", intermediate, b, seen)
			}
		}
	}
}

func TestTornTearsWithinSectors(t *testing.T) {
	got := content(t, written(t, Config{}).Clone(CrashOptions{Rand: rng(t), Mode: Torn}))
	torn := 0
	for at := 0; at < crashSize; at += sectorSize {
		sector := got[at : at+sectorSize]
		changes := 0
		for i := 1; i < sectorSize; i++ {
			if sector[i] != sector[i-1] {
				changes++
			}
		}
		if changes > 1 {
			t.Fatalf("the sector at %d is torn %d times", at, changes)
		}
		torn += changes
	}
	if torn == 0 {
		t.Error("nothing is torn")
	}
	if !bytes.Equal(got[:2*pageSize], of(1, 2*pageSize)) {
		t.Error("flushed sectors were torn")
	}
}

func TestSameSeedCrashesTheSameWay(t *testing.T) {
	d := written(t, Config{Intermediate: 3})
	crash := func(seed uint64) []byte {
		return content(t, d.Clone(CrashOptions{Rand: rand.New(rand.NewPCG(seed, 0)), Mode: Torn}))
	}
	if !bytes.Equal(crash(1), crash(1)) {
		t.Error("the same seed gives another crash")
	}
	if bytes.Equal(crash(1), crash(2)) {
		t.Error("another seed gives the same crash")
	}
}

func TestFUASurvivesAndNothingBesideIt(t *testing.T) {
	for _, mode := range []Mode{LoseUnflushed, KeepRandom, Torn} {
		d := New(Config{Size: crashSize, Intermediate: 2})
		write(t, d, 0, of(1, pageSize))
		write(t, d, 0, of(2, pageSize))
		if _, err := d.WriteFUA(of(7, 1000), 100); err != nil {
			t.Fatal(err)
		}
		for range 20 {
			got := content(t, d.Clone(CrashOptions{Rand: rng(t), Mode: mode}))
			if !bytes.Equal(got[100:1100], of(7, 1000)) {
				t.Fatalf("mode %d: the durable write was lost", mode)
			}
			if mode == LoseUnflushed && (got[99] != 0 || got[1100] != 0) {
				t.Fatalf("mode %d: bytes beside the durable write became durable", mode)
			}
		}
		write(t, d, 100, of(8, 1000)) // over it again, not flushed
		if got := content(t, d.Clone(CrashOptions{})); !bytes.Equal(got[100:1100], of(7, 1000)) {
			t.Errorf("mode %d: a later unflushed write undid a durable one", mode)
		}
	}
}

// faults.md D96, D97: the disk says that it is durable, and lies.
func TestD96LyingFlushKeepsNothing(t *testing.T) {
	d := New(Config{Size: crashSize, LyingFlush: true})
	write(t, d, 0, of(1, pageSize))
	flush(t, d)
	if _, err := d.WriteFUA(of(1, pageSize), pageSize); err != nil {
		t.Fatal(err)
	}
	if got := content(t, d.Clone(CrashOptions{})); !bytes.Equal(got, make([]byte, crashSize)) {
		t.Error("a lying disk kept something")
	}
}

func TestZeroIsLostToo(t *testing.T) {
	for _, unmap := range []bool{false, true} {
		d := New(Config{Size: crashSize})
		write(t, d, 0, of(1, crashSize))
		flush(t, d)
		if err := d.Zero(blockdev.Range{Off: 100, Len: crashSize - 200}, unmap); err != nil {
			t.Fatal(err)
		}
		if got := content(t, d.Clone(CrashOptions{})); !bytes.Equal(got, of(1, crashSize)) {
			t.Errorf("unmap %v: zeroes were durable without a flush", unmap)
		}
		flush(t, d)
		if got := content(t, d.Clone(CrashOptions{})); got[99] != 1 || got[100] != 0 || got[crashSize-101] != 0 || got[crashSize-100] != 1 {
			t.Errorf("unmap %v: zeroes were lost after a flush", unmap)
		}
	}
}

func TestReopenAfterTheProcessDiedLosesNothingAndFlushesNothing(t *testing.T) {
	d := New(Config{Size: crashSize})
	write(t, d, 0, of(1, pageSize))
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	again := d.Reopen()
	if content(t, again)[0] != 1 {
		t.Error("the page cache was lost with the process")
	}
	if content(t, d.Clone(CrashOptions{}))[0] != 0 {
		t.Error("the end of the process made the write durable")
	}
	if _, err := d.WriteAt(of(2, 1), 0); !errors.Is(err, blockdev.ErrClosed) {
		t.Errorf("the old handle: %v, want ErrClosed", err)
	}
	flush(t, again)
	if content(t, d.Clone(CrashOptions{}))[0] != 1 {
		t.Error("the new handle's flush flushed nothing")
	}
}

// A device of 8 EiB costs what is written to it, also when it is zeroed or mapped as a whole.
func TestHugeDeviceCostsItsContentOnly(t *testing.T) {
	const huge = 1<<63 - 2*pageSize
	d := New(Config{Size: huge})
	write(t, d, huge-100, of(1, 100))
	write(t, d, 1<<40, of(2, 100))
	type ext struct {
		r    blockdev.Range
		hole bool
	}
	extents := func() (out []ext) {
		if err := d.Extents(blockdev.Range{Len: huge}, func(r blockdev.Range, hole bool) bool {
			out = append(out, ext{r, hole})
			return true
		}); err != nil {
			t.Fatal(err)
		}
		return out
	}
	if got := extents(); len(got) != 4 || got[1] != (ext{blockdev.Range{Off: 1 << 40, Len: pageSize}, false}) || !got[2].hole {
		t.Errorf("extents %v", got)
	}
	if err := d.Zero(blockdev.Range{Len: huge}, true); err != nil {
		t.Fatal(err)
	}
	if got := extents(); len(got) != 1 || !got[0].hole {
		t.Errorf("extents after zeroing everything: %v", got)
	}
}

func BenchmarkWrite4K(b *testing.B) {
	d := New(Config{Size: 64 << 20})
	p := of(1, pageSize)
	b.SetBytes(pageSize)
	b.ReportAllocs()
	for i := int64(0); b.Loop(); i++ {
		if _, err := d.WriteAt(p, i%(64<<20/pageSize)*pageSize); err != nil {
			b.Fatal(err)
		}
	}
}

// faults.md D90: after a failed flush a device behind a page cache shows what the disk never took. Another flush makes that no
// more durable; writing it again does, as a whole page.
func TestD90FailedFlushLosesWhatItWasToWrite(t *testing.T) {
	d := New(Config{Size: 4 * pageSize})
	put := func(off int64, b byte, n int) {
		t.Helper()
		if _, err := d.WriteAt(bytes.Repeat([]byte{b}, n), off); err != nil {
			t.Fatal(err)
		}
	}
	want := func(d *Dev, what string, sums ...byte) {
		t.Helper()
		p := make([]byte, 4*pageSize)
		if _, err := d.ReadAt(p, 0); err != nil {
			t.Fatal(err)
		}
		for i, b := range sums {
			if !bytes.Equal(p[i*pageSize:(i+1)*pageSize], bytes.Repeat([]byte{b}, pageSize)) {
				t.Errorf("%s: page %d begins with %d and ends with %d, want %d", what, i, p[i*pageSize], p[(i+1)*pageSize-1], b)
			}
		}
	}
	put(0, 1, 4*pageSize)
	if err := d.Flush(); err != nil {
		t.Fatal(err)
	}
	put(0, 2, 2*pageSize)
	if err := d.Zero(blockdev.Range{Off: 2 * pageSize, Len: pageSize}, true); err != nil {
		t.Fatal(err)
	}
	d.FailFlush()
	put(3*pageSize, 2, pageSize)
	if err := d.Flush(); err != nil {
		t.Fatal(err)
	}
	want(d, "in memory", 2, 2, 0, 2)
	want(d.Clone(CrashOptions{}), "after the power was cut", 1, 1, 1, 2)
	put(0, 2, 512) // the rest of its page goes with it
	if err := d.Zero(blockdev.Range{Off: 2 * pageSize, Len: pageSize}, true); err != nil {
		t.Fatal(err)
	}
	if err := d.Flush(); err != nil {
		t.Fatal(err)
	}
	want(d.Clone(CrashOptions{}), "written again", 2, 1, 0, 2)
}
