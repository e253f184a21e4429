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
	var cold, warm [2]cost // of a write
	var writes [2]float64  // in warm
	for round := range markingRounds {
		for j := range 2 {
			i := (round + j) % 2
			before, err := all[i].costs()
			if err != nil {
				return all[i].end(err)
			}
			n, err := randomWrites(ctx, dev[i])
			if err != nil {
				return all[i].end(err)
			}
			after, err := all[i].costs()
			if err != nil {
				return all[i].end(err)
			}
			perSec[i] = append(perSec[i], n)
			if round == 0 {
				cold[i] = after.less(before)
			} else {
				warm[i], writes[i] = warm[i].add(after.less(before)), writes[i]+n*markingTime.Seconds()
			}
		}
	}
	var ratios []float64
	for r := range markingRounds {
		ratios = append(ratios, perSec[0][r]/perSec[1][r])
	}
	first, rest := ratios[0], ratios[1:]
	slices.Sort(rest)
	fmt.Printf("4 KiB random writes, QD%d, 64 GiB sparse, io %s: %.0f a second with maps, %.0f without: %.3f (median of %d rounds, %.3f to %.3f); in the first, cold one %.3f\n",
		markingDepth, o.io, median(perSec[0][1:]), median(perSec[1][1:]), median(rest), len(rest), rest[0], rest[len(rest)-1], first)
	for i, what := range []string{"with maps", "without"} {
		fmt.Printf("%-10s a write takes, on both nodes together: %s; in the first round %s\n", what+",", warm[i].per(writes[i]), cold[i].per(perSec[i][0]*markingTime.Seconds()))
	}
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
