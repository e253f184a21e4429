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
	"hacluster/cmd/internal/api"
	"hacluster/cmd/internal/e2e"
)

const (
	besideTime    = 8 * time.Second // of clients beside the resync
	calmTime      = 4 * time.Second // of what that is held against, each
	besideClients = 4
)

// beside measures what clients feel of a resync: what their writes take beside it, and without it in each of three states. In
// sync, a write waits for both replicas. Without a standby it waits for one, and has the disk to itself. Beside a resync that an
// operator has paused it is sent to its target, which shares the disk here: what is more than that is the resync's own doing.
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
	inSync, err := b.timeWrites(ctx, size, calmTime)
	if err != nil {
		return err
	}
	if _, err := b.Stop(b.standby); err != nil {
		return err
	}
	alone, err := b.timeWrites(ctx, size, calmTime)
	if err != nil {
		return err
	}
	if err := b.empty(size); err != nil {
		return err
	}
	paused, err := b.besidePaused(ctx, size)
	if err != nil {
		return err
	}
	before, err := b.ended(ctx, b.primary)
	if err != nil {
		return err
	}
	if err := b.volume(ctx, "resume"); err != nil {
		return err
	}
	if _, err := b.Until(ctx, "the resync runs", resyncing); err != nil {
		return err
	}
	with, err := b.timeWrites(ctx, size, besideTime)
	if err != nil {
		return err
	}
	how, err := b.howFar(ctx, before)
	if err != nil {
		return err
	}
	fmt.Printf("4 KiB writes, QD%d, beside a resync (%s): %s\n", besideClients, how, show(with, besideTime))
	for _, c := range []struct {
		state string
		took  []time.Duration
	}{{"in sync", inSync}, {"without a standby", alone}, {"beside a paused resync", paused}} {
		ratio := func(q float64) float64 { return quantile(with, q).Seconds() / quantile(c.took, q).Seconds() }
		fmt.Printf("%-23s %s; beside the resync p50 %.2f, p99 %.2f times that\n", c.state+":", show(c.took, calmTime), ratio(0.5), ratio(0.99))
	}
	return nil
}

func show(took []time.Duration, in time.Duration) string {
	return fmt.Sprintf("%.0f a second, p50 %v, p99 %v", float64(len(took))/in.Seconds(), quantile(took, 0.5), quantile(took, 0.99))
}

// besidePaused starts the standby, whose resync is paused, and writes.
func (b *bench) besidePaused(ctx context.Context, size int64) ([]time.Duration, error) {
	if err := b.volume(ctx, "pause"); err != nil {
		return nil, err
	}
	if err := b.Start(b.standby); err != nil {
		return nil, err
	}
	_, err := b.Until(ctx, "the standby is connected", func(s *api.Status) bool {
		return s.Quorum && len(s.Volumes) == 1 && slices.ContainsFunc(s.Volumes[0].Replicas, func(r api.ReplicaStatus) bool { return r.Node == b.standby && r.State != api.ReplicaOffline })
	})
	if err != nil {
		return nil, err
	}
	return b.timeWrites(ctx, size, calmTime)
}

func (b *bench) volume(ctx context.Context, what string) error {
	if _, errs, code := b.Admin(ctx, "volume", what, e2e.Volume); code != 0 {
		return fmt.Errorf("ha-admin volume %s: exit code %d: %s", what, code, errs)
	}
	return nil
}

// howFar is what the resync did while clients wrote.
func (b *bench) howFar(ctx context.Context, before []resynced) (string, error) {
	s, err := b.Status(ctx)
	if err != nil {
		return "", err
	}
	after, err := b.ended(ctx, b.primary)
	if err != nil {
		return "", err
	}
	if len(after) > len(before) {
		return "it ended meanwhile", nil
	}
	for _, r := range s.Volumes[0].Replicas {
		if r.Resync != nil {
			return fmt.Sprintf("%d of %d MiB meanwhile", r.Resync.DoneBytes>>20, r.Resync.TotalBytes>>20), nil
		}
	}
	return "it did not end meanwhile", nil
}

// timeWrites gives what writes to random blocks took, in order of length.
func (b *bench) timeWrites(ctx context.Context, size int64, d time.Duration) (took []time.Duration, err error) {
	dev, err := nbdclient.Dial(ctx, b.URI(b.primary))
	if err != nil {
		return nil, err
	}
	defer dev.Close()
	ctx, cancel := context.WithTimeout(ctx, d)
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
