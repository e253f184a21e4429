package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"hacluster/blockdev"
	"hacluster/blockdev/frontend/nbd/nbdclient"
	"hacluster/cmd/internal/e2e"
)

const (
	besideTime    = 8 * time.Second // of clients alone, and at most beside the resync
	besideClients = 4
)

// beside measures what clients feel of a resync: what their writes take before it and beside it.
func beside(ctx context.Context, o options, dir string) error {
	b, err := begin(ctx, e2e.Config{Dir: dir, Bin: o.bin, RTO: "4s", IO: "direct", Size: fmt.Sprintf("%dMiB", o.mib)})
	if err != nil {
		return err
	}
	return b.end(b.beside(ctx, o.mib<<20))
}

func (b *bench) beside(ctx context.Context, size int64) error {
	if err := b.fill(ctx, size); err != nil {
		return err
	}
	if _, err := b.Stop(b.standby); err != nil {
		return err
	}
	alone, err := b.timeWrites(ctx, size) // without a standby, as while it is resynced
	if err != nil {
		return err
	}
	if err := b.empty(size); err != nil {
		return err
	}
	before, err := b.ended(ctx, b.primary)
	if err != nil {
		return err
	}
	if err := b.Start(b.standby); err != nil {
		return err
	}
	if _, err := b.Until(ctx, "the resync runs", resyncing); err != nil {
		return err
	}
	with, err := b.timeWrites(ctx, size)
	if err != nil {
		return err
	}
	s, err := b.Status(ctx)
	if err != nil {
		return err
	}
	after, err := b.ended(ctx, b.primary)
	if err != nil {
		return err
	}
	how := "it ended meanwhile"
	if len(after) == len(before) {
		how = "it did not end meanwhile"
		for _, r := range s.Volumes[0].Replicas {
			if r.Resync != nil {
				how = fmt.Sprintf("%d of %d MiB meanwhile", r.Resync.DoneBytes>>20, r.Resync.TotalBytes>>20)
			}
		}
	}
	ratio := func(q float64) float64 { return quantile(with, q).Seconds() / quantile(alone, q).Seconds() }
	fmt.Printf("4 KiB writes, QD%d, without a resync: %d, p50 %v, p99 %v; beside one (%s): %d, p50 %v, p99 %v; p50 %.2f, p99 %.2f times\n", besideClients,
		len(alone), quantile(alone, 0.5), quantile(alone, 0.99), how, len(with), quantile(with, 0.5), quantile(with, 0.99), ratio(0.5), ratio(0.99))
	return nil
}

// timeWrites gives what writes to random blocks took, in order of length.
func (b *bench) timeWrites(ctx context.Context, size int64) (took []time.Duration, err error) {
	dev, err := nbdclient.Dial(ctx, b.URI(b.primary))
	if err != nil {
		return nil, err
	}
	defer dev.Close()
	ctx, cancel := context.WithTimeout(ctx, besideTime)
	defer cancel()
	var mu sync.Mutex
	var goes sync.WaitGroup
	for range besideClients {
		goes.Go(func() {
			block := make([]byte, blockdev.BlockSize)
			rand.NewChaCha8([32]byte{6, byte(rand.Uint32())}).Read(block)
			for ctx.Err() == nil {
				began := time.Now()
				_, e := dev.WriteAt(block, rand.Int64N(size/blockdev.BlockSize)*blockdev.BlockSize)
				mu.Lock()
				took, err = append(took, time.Since(began)), errors.Join(err, e)
				mu.Unlock()
				if e != nil {
					return
				}
			}
		})
	}
	goes.Wait()
	slices.Sort(took)
	return took, err
}

func quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[int(q*float64(len(sorted)-1))].Round(time.Microsecond)
}
