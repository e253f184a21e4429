package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"syscall"

	"hacluster/blockdev"
	"hacluster/blockdev/frontend/nbd/nbdclient"
	"hacluster/cmd/internal/e2e"
)

// scatteredBlocks are written while the standby is away.
const scatteredBlocks = 2000

// scattered measures what is copied where single blocks differ: once to the process that was away, whose map is known to
// the block, and once to a new process, of which only the regions are known.
func scattered(ctx context.Context, o options, dir string) error {
	b, err := begin(ctx, e2e.Config{Dir: dir, Bin: o.bin, Size: "1GiB"})
	if err != nil {
		return err
	}
	return b.end(b.scattered(ctx))
}

func (b *bench) scattered(ctx context.Context) error {
	for _, away := range []struct {
		name      string
		go_, back func() error
	}{
		{"stopped for a while", func() error { return b.Signal(b.standby, syscall.SIGSTOP) }, func() error { return b.Signal(b.standby, syscall.SIGCONT) }},
		{"killed", func() error { b.Kill(b.standby); return nil }, func() error { return b.Start(b.standby) }},
	} {
		var differ int64
		r, err := b.next(ctx, b.primary, func() (err error) {
			if err = away.go_(); err != nil {
				return err
			}
			if differ, err = b.scatter(ctx); err != nil {
				return err
			}
			return away.back()
		})
		if err != nil {
			return err
		}
		fmt.Printf("scattered 4 KiB blocks, standby %-19s copied %.3f of the %d bytes that differ; compared %d, digests %.3f\n", away.name+":",
			float64(r.copied)/float64(differ), differ, r.compared, float64(r.compared)/256/float64(differ))
		if r.copied == differ-blockdev.BlockSize {
			// The first write was on its way when the standby stopped: it was carried out before word of the drop came.
			differ = r.copied
		}
		if err := judgeCopied(r.copied, differ); err != nil {
			return err
		}
	}
	return nil
}

// scatter writes single blocks, no two of them neighbours; the first waits until the standby is dropped.
func (b *bench) scatter(ctx context.Context) (bytes int64, err error) {
	dev, err := nbdclient.Dial(ctx, b.URI(b.primary))
	if err != nil {
		return 0, err
	}
	defer dev.Close()
	block := make([]byte, blockdev.BlockSize)
	places := rand.Perm(int(dev.Size() / blockdev.BlockSize / 2))[:scatteredBlocks]
	rnd := rand.NewChaCha8([32]byte{3, byte(rand.Uint32())})
	for _, at := range places {
		rnd.Read(block)
		if _, err := dev.WriteAt(block, int64(at)*2*blockdev.BlockSize); err != nil {
			return 0, err
		}
	}
	return scatteredBlocks * blockdev.BlockSize, dev.Flush()
}
