package blocktest

import (
	"bytes"
	"math/rand/v2"
	"sync"
	"testing"

	"hacluster/blockdev"
)

// concurrentDisjoint gives each worker a part of the device of its own: whatever the others do, it reads back what it
// wrote last.
func concurrentDisjoint(t *testing.T, d blockdev.Device) {
	const workers = 8
	part := int64(Size / workers / blockdev.BlockSize * blockdev.BlockSize)
	var wg sync.WaitGroup
	for w := range int64(workers) {
		wg.Go(func() { churn(t, d, blockdev.Range{Off: w * part, Len: part}, uint64(w)) })
	}
	wg.Wait()
}

// concurrentNeighbours lets workers write ranges that share blocks but no byte. A device that reads, changes and writes
// back whole blocks loses a neighbour's bytes here unless it excludes them.
func concurrentNeighbours(t *testing.T, d blockdev.Device) {
	const workers, each = 8, 1500
	var wg sync.WaitGroup
	for w := range int64(workers) {
		wg.Go(func() { churn(t, d, blockdev.Range{Off: 4000 + w*each, Len: each}, uint64(w)) })
	}
	wg.Wait()
	expect(t, d, 0, make([]byte, 4000))
	expect(t, d, 4000+workers*each, make([]byte, 8192))
}

// churn writes, zeroes and flushes within own and then compares with what it did.
func churn(t *testing.T, d blockdev.Device, own blockdev.Range, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 7))
	oracle := make([]byte, own.Len)
	for step := range 40 {
		at := rng.Int64N(own.Len)
		n := 1 + rng.Int64N(min(own.Len-at, 32<<10))
		p := pattern(int(n), rng.Uint64())
		var err error
		switch step % 8 {
		case 5:
			clear(p)
			err = d.Zero(blockdev.Range{Off: own.Off + at, Len: n}, rng.IntN(2) == 0)
		case 6:
			_, err = d.WriteFUA(p, own.Off+at)
		case 7:
			copy(p, oracle[at:])
			err = d.Flush()
		default:
			_, err = d.WriteAt(p, own.Off+at)
		}
		if err != nil {
			t.Errorf("step %d of the worker on %v: %v", step, own, err)
			return
		}
		copy(oracle[at:], p)
	}
	got := make([]byte, own.Len)
	if _, err := d.ReadAt(got, own.Off); err != nil || !bytes.Equal(got, oracle) {
		t.Errorf("the worker on %v does not read back its own writes (error %v): first difference at %d",
			own, err, firstDifference(got, oracle))
	}
}
