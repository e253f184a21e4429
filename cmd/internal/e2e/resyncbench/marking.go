package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"hacluster/blockdev"
	"hacluster/blockdev/frontend/nbd/nbdclient"
	"hacluster/cmd/internal/e2e"
)

const (
	markingRounds = 11
	markingTime   = 1500 * time.Millisecond // of each in a round
	markingDepth  = 32
)

// marking compares a cluster with its maps to one whose daemon marks nothing, in memory or on disk, in rounds that
// alternate: whatever else the machine does meets both. The first round, in which each write finds its region cold, is
// shown by itself.
func marking(ctx context.Context, o options, dir string) error {
	if o.unmarked == "" {
		fmt.Println("marking: not measured, -unmarked names no daemon without it")
		return nil
	}
	var all [2]*bench
	var dev [2]*nbdclient.Client
	for i, bin := range []string{o.bin, o.unmarked} {
		b, err := begin(ctx, e2e.Config{Dir: filepath.Join(dir, fmt.Sprint(i)), Bin: bin, Size: "64GiB", IO: o.io})
		if err != nil {
			return err
		}
		defer b.Close()
		dev[i], err = nbdclient.Dial(ctx, b.URI(b.primary))
		if err != nil {
			return b.end(err)
		}
		defer dev[i].Close()
		all[i] = b
	}
	var perSec [2][]float64
	for round := range markingRounds {
		for j := range 2 {
			i := (round + j) % 2
			n, err := randomWrites(ctx, dev[i])
			if err != nil {
				return all[i].end(err)
			}
			perSec[i] = append(perSec[i], n)
		}
	}
	var ratios []float64
	for r := range markingRounds {
		ratios = append(ratios, perSec[0][r]/perSec[1][r])
	}
	cold, warm := ratios[0], ratios[1:]
	slices.Sort(warm)
	fmt.Printf("4 KiB random writes, QD%d, 64 GiB sparse, io %s: %.0f a second with maps, %.0f without: %.3f (median of %d rounds, %.3f to %.3f); in the first, cold one %.3f\n",
		markingDepth, o.io, median(perSec[0][1:]), median(perSec[1][1:]), median(warm), len(warm), warm[0], warm[len(warm)-1], cold)
	return nil
}

func median(values []float64) float64 {
	s := slices.Sorted(slices.Values(values))
	return s[len(s)/2]
}

// randomWrites writes for markingTime, markingDepth blocks at a time, and tells how many a second.
func randomWrites(ctx context.Context, dev *nbdclient.Client) (perSec float64, err error) {
	ctx, cancel := context.WithTimeout(ctx, markingTime)
	defer cancel()
	blocks := dev.Size() / blockdev.BlockSize
	began := time.Now()
	var writes atomic.Int64
	errs := make(chan error, markingDepth)
	for range markingDepth {
		go func() {
			block := make([]byte, blockdev.BlockSize)
			rand.NewChaCha8([32]byte{5, byte(rand.Uint32())}).Read(block)
			for ctx.Err() == nil {
				if _, err := dev.WriteAt(block, rand.Int64N(blocks)*blockdev.BlockSize); err != nil {
					errs <- err
					return
				}
				writes.Add(1)
			}
			errs <- nil
		}()
	}
	for range markingDepth {
		err = errors.Join(err, <-errs)
	}
	return float64(writes.Load()) / time.Since(began).Seconds(), err
}
