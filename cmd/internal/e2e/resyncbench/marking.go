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
	markingRounds = 8
	markingTime   = 1500 * time.Millisecond // of each cluster in a round
	markingDepth  = 32
)

// marked is a cluster whose writes are counted, with a daemon that marks or one that does not.
type marked struct {
	*bench
	dev    *nbdclient.Client
	perSec []float64 // by round
	cold   cost      // in the first round
	warm   cost      // in all others
}

// marking compares clusters with maps to such whose daemon marks nothing, in memory or on disk, in rounds that alternate:
// whatever else the machine does meets both. Of each kind there are two, for a disk is not everywhere the same: what two of a
// kind differ by is what this measurement cannot tell. The first round, in which each write finds its region cold, is shown by
// itself.
func marking(ctx context.Context, o options, dir string) error {
	if o.unmarked == "" {
		fmt.Println("marking: not measured, -unmarked names no daemon without it")
		return nil
	}
	var all []*marked // with maps, without, with, without
	for i := range 4 {
		b, err := begin(ctx, e2e.Config{Dir: filepath.Join(dir, fmt.Sprint(i)), Bin: []string{o.bin, o.unmarked}[i%2], Size: "64GiB", IO: o.io})
		if err != nil {
			return err
		}
		defer b.Close()
		m := &marked{bench: b}
		if m.dev, err = nbdclient.Dial(ctx, b.URI(b.primary)); err != nil {
			return b.end(err)
		}
		defer m.dev.Close()
		all = append(all, m)
	}
	for round := range markingRounds {
		for j := range all {
			m := all[(round+j)%len(all)]
			if err := m.round(ctx); err != nil {
				return m.end(err)
			}
		}
	}
	showMarking(all, o.io)
	return nil
}

// round writes for a while and counts.
func (m *marked) round(ctx context.Context) error {
	before, err := m.costs()
	if err != nil {
		return err
	}
	n, err := randomWrites(ctx, m.dev)
	if err != nil {
		return err
	}
	after, err := m.costs()
	if err != nil {
		return err
	}
	if m.perSec = append(m.perSec, n); len(m.perSec) == 1 {
		m.cold = spent(before, after)
	} else {
		m.warm = m.warm.add(spent(before, after))
	}
	return nil
}

func showMarking(all []*marked, io string) {
	// ratios of what some clusters do to what others do, by round.
	ratios := func(some, others []*marked) (r []float64) {
		for i := range markingRounds {
			r = append(r, sum(some, i)/sum(others, i))
		}
		return r
	}
	with, without := []*marked{all[0], all[2]}, []*marked{all[1], all[3]}
	r := ratios(with, without)
	fmt.Printf("4 KiB random writes, QD%d, 64 GiB sparse, io %s: %.0f a second with maps, %.0f without: %.3f (median of %d rounds, %.3f to %.3f); in the first, cold one %.3f\n",
		markingDepth, io, mean(with), mean(without), median(r[1:]), len(r)-1, slices.Min(r[1:]), slices.Max(r[1:]), r[0])
	fmt.Printf("two of a kind differ by: with maps %.3f, without %.3f\n", median(ratios(all[:1], all[2:3])[1:]), median(ratios(all[1:2], all[3:])[1:]))
	for i, kind := range [][]*marked{with, without} {
		var cold, warm cost
		for _, m := range kind {
			cold, warm = cold.add(m.cold), warm.add(m.warm)
		}
		first := sum(kind, 0) * markingTime.Seconds()
		rest := mean(kind) * float64(len(kind)*(markingRounds-1)) * markingTime.Seconds()
		fmt.Printf("%-10s a write takes, on both nodes together: %s; in the first round %s\n", []string{"with maps,", "without,"}[i], warm.per(rest), cold.per(first))
	}
}

// sum is what clusters wrote in a second of a round.
func sum(all []*marked, round int) (perSec float64) {
	for _, m := range all {
		perSec += m.perSec[round]
	}
	return perSec
}

// mean is what one of the clusters writes in a second, over all rounds but the first.
func mean(all []*marked) (perSec float64) {
	for round := 1; round < markingRounds; round++ {
		perSec += sum(all, round) / float64(len(all)*(markingRounds-1))
	}
	return perSec
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
