package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"hacluster/blockdev/frontend/nbd/nbdclient"
	"hacluster/cmd/internal/api"
	"hacluster/cmd/internal/e2e"
)

const (
	size      = "256MiB"
	sizeBytes = 256 << 20
	depth     = 32
)

// bench is a cluster and its one client.
type bench struct {
	*e2e.Cluster
	o       options
	primary string
	client  *nbdclient.Client
	files   [2]string // of the configuration, with local and with balance
}

// begin starts the nodes and fills the volume.
func (b *bench) begin(ctx context.Context) error {
	if err := b.Start(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	s, err := b.Until(ctx, "the volume is healthy", e2e.Healthy)
	if err != nil {
		return err
	}
	b.primary = s.Volumes[0].Primary
	text, err := os.ReadFile(b.File())
	if err != nil {
		return err
	}
	b.files = [2]string{b.File(), filepath.Join(filepath.Dir(b.File()), "balance.hcl")}
	balanced := strings.Replace(string(text), `mode = "sync"`, "mode = \"sync\"\n  read = \"balance\"", 1)
	if err := os.WriteFile(b.files[1], []byte(balanced), 0o644); err != nil {
		return err
	}
	if b.client, err = (nbdclient.Config{Window: depth}).Dial(ctx, b.URI(b.primary)); err != nil {
		return err
	}
	p := make([]byte, 1<<20)
	for off := int64(0); off < sizeBytes; off += int64(len(p)) {
		for i := range p {
			p[i] = byte(rand.Uint32())
		}
		if _, err := b.client.WriteAt(p, off); err != nil {
			return err
		}
	}
	return b.client.Flush()
}

// compare measures both in turns, and returns the median of what the rounds give.
func (b *bench) compare(ctx context.Context, what string, n int) (float64, error) {
	var rates [2][]float64
	var ratios []float64
	var there, all uint64
	for range b.o.rounds {
		for i, file := range b.files {
			if err := b.apply(ctx, file); err != nil {
				return 0, err
			}
			if _, err := b.read(ctx, n, b.o.each/4); err != nil { // what it takes is measured
				return 0, err
			}
			before, err := b.io(ctx)
			if err != nil {
				return 0, err
			}
			rate, err := b.read(ctx, n, b.o.each)
			if err != nil {
				return 0, err
			}
			after, err := b.io(ctx)
			if err != nil {
				return 0, err
			}
			rates[i] = append(rates[i], rate)
			if i == 1 {
				there, all = there+after.there-before.there, all+after.all-before.all
			}
		}
		last := len(rates[0]) - 1
		ratios = append(ratios, rates[1][last]/rates[0][last])
	}
	ratio := median(ratios)
	fmt.Printf("%s disks, random reads of %d KiB, %d at a time: local %.0f/s, balance %.0f/s, of %d rounds in the median %.2f times as many (%.2f); the standby answered %.0f %%\n",
		what, n>>10, depth, median(rates[0]), median(rates[1]), b.o.rounds, ratio, ratios, 100*float64(there)/float64(max(all, 1)))
	return ratio, nil
}

func (b *bench) apply(ctx context.Context, file string) error {
	for range 20 {
		if _, errs, code := b.Admin(ctx, "apply", file, "--yes"); code != 0 && code != 4 {
			return fmt.Errorf("apply %s: %s", file, errs)
		}
		out, _, code := b.AdminAt(ctx, filepath.Join(b.DataDir(b.primary), "admin.sock"), "config", "show", "-o", "json")
		if code == 0 && strings.Contains(out, `"read": "balance"`) == (file == b.files[1]) {
			return nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	return fmt.Errorf("%s does not come into force", file)
}

type counts struct{ there, all uint64 }

func (b *bench) io(ctx context.Context) (c counts, err error) {
	s, err := b.Until(ctx, "a node answers", func(s *api.Status) bool { return s.Quorum && len(s.Volumes) == 1 })
	if err != nil {
		return c, err
	}
	v := s.Volumes[0]
	if v.Primary != b.primary || v.State != api.VolumeHealthy {
		return c, fmt.Errorf("the volume is %s, with %s as primary: this measures nothing", v.State, v.Primary)
	}
	for _, r := range v.Replicas {
		c.there += r.ReadOps
	}
	c.all = v.IO.ReadOps
	return c, nil
}

// read reads at random places for a time, and returns how many it read in a second.
func (b *bench) read(ctx context.Context, n int, d time.Duration) (perSec float64, err error) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	var done atomic.Int64
	errs := make(chan error, depth)
	var all sync.WaitGroup
	began := time.Now()
	for range depth {
		all.Go(func() {
			p := make([]byte, n)
			for ctx.Err() == nil {
				if _, err := b.client.ReadAt(p, rand.Int64N(sizeBytes/int64(n))*int64(n)); err != nil {
					errs <- err
					return
				}
				done.Add(1)
			}
		})
	}
	all.Wait()
	select {
	case err := <-errs:
		return 0, err
	default:
		return float64(done.Load()) / time.Since(began).Seconds(), nil
	}
}
