package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"hacluster/blockdev"
	"hacluster/blockdev/frontend/nbd/nbdclient"
	"hacluster/cmd/internal/e2e"
)

// region is the unit of the marks on stable storage, of volumes up to 1 TiB.
const region = 4 << 20

// crash measures what is compared after a node was killed under load. The clients write within a part of the volume; what
// is compared must lie in the regions that they wrote to: those are marked, and nothing else.
func crash(ctx context.Context, o options, dir string) error {
	b, err := begin(ctx, e2e.Config{Dir: dir, Bin: o.bin, Size: "4GiB"})
	if err != nil {
		return err
	}
	return b.end(b.crash(ctx))
}

func (b *bench) crash(ctx context.Context) error {
	w := writers{regions: map[int64]bool{}}
	for _, who := range []string{"standby", "primary"} {
		victim, after := b.standby, b.primary
		if who == "primary" {
			victim, after = after, victim
		}
		r, err := b.next(ctx, after, func() error { return b.killUnder(ctx, &w, victim) })
		if err != nil {
			return err
		}
		hot := int64(len(w.regions)) * region
		fmt.Printf("crash of the %s under load: compared %d MiB of 4096, %.3f of the %d MiB in the regions that were written; copied %d KiB\n",
			who, r.compared>>20, float64(r.compared)/float64(hot), hot>>20, r.copied>>10)
		if r.compared > hot {
			return fmt.Errorf("after the crash of the %s %d bytes were compared, the regions that were ever written have %d", who, r.compared, hot)
		}
		if err := b.look(ctx); err != nil {
			return err
		}
	}
	return nil
}

// killUnder kills a node in the middle of the load, and starts it again after the load has ended.
func (b *bench) killUnder(ctx context.Context, w *writers, victim string) error {
	dev, err := nbdclient.Open(ctx, b.URIs(), nbdclient.ReconnectConfig{})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 4*time.Second)
	defer cancel()
	kill := time.AfterFunc(2*time.Second, func() { b.Kill(victim) })
	defer kill.Stop()
	if err := errors.Join(w.run(ctx, dev, 64<<20, 8), dev.Close()); err != nil {
		return err
	}
	return b.Start(victim)
}

// writers write single blocks and remember which regions they wrote to.
type writers struct {
	mu      sync.Mutex
	regions map[int64]bool
}

// run has depth writes at a time go to random blocks below limit, and some far away, until ctx ends.
func (w *writers) run(ctx context.Context, dev blockdev.Device, limit int64, depth int) error {
	errs := make(chan error, depth)
	for range depth {
		go func() {
			block := make([]byte, blockdev.BlockSize)
			rnd := rand.NewChaCha8([32]byte{4, byte(rand.Uint32()), byte(rand.Uint32())})
			for ctx.Err() == nil {
				rnd.Read(block)
				at := rand.Int64N(limit / blockdev.BlockSize)
				if rand.IntN(500) == 0 {
					at = rand.Int64N(dev.Size()/region/16) * 16 * region / blockdev.BlockSize
				}
				w.mu.Lock()
				w.regions[at*blockdev.BlockSize/region] = true
				w.mu.Unlock()
				if _, err := dev.WriteAt(block, at*blockdev.BlockSize); err != nil {
					errs <- err
					return
				}
			}
			errs <- nil
		}()
	}
	var failed error
	for range depth {
		failed = errors.Join(failed, <-errs)
	}
	return failed
}
