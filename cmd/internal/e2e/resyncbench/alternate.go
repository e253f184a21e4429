package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"sync"
	"time"
)

// A disk that others use too is not the same for long: dd and resyncs take turns, each resync is held against the dd right before
// and right behind it, and the median of these ratios counts.

// rounds is how many resyncs of each kind are measured.
const rounds = 3

// yardstick is what a resync is held against.
type yardstick struct {
	name string
	run  func() (time.Duration, error)
}

// series is what took turns.
type series struct {
	what    string
	size    int64
	yards   []yardstick
	dds     [][]time.Duration // of each yardstick; one more than resyncs
	resyncs []resynced
	cost    cost // of all resyncs
}

// alternate measures resyncs that cause brings about.
func (b *bench) alternate(ctx context.Context, what string, cause func() error, yards ...yardstick) (s series, err error) {
	s = series{what: what, size: b.size, yards: yards, dds: make([][]time.Duration, len(yards))}
	if err := s.measure(); err != nil {
		return s, err
	}
	for range rounds {
		before, err := b.costs()
		if err != nil {
			return s, err
		}
		r, err := b.next(ctx, b.primary, cause)
		if err != nil {
			return s, err
		}
		after, err := b.costs()
		if err != nil {
			return s, err
		}
		s.resyncs = append(s.resyncs, r)
		s.cost = s.cost.add(spent(before, after))
		if err := s.measure(); err != nil {
			return s, err
		}
	}
	return s, nil
}

func (s *series) measure() error {
	for i, y := range s.yards {
		took, err := y.run()
		if err != nil {
			return err
		}
		s.dds[i] = append(s.dds[i], took)
	}
	return nil
}

func (s *series) show() {
	var took []time.Duration
	copied := int64(0)
	for _, r := range s.resyncs {
		took = append(took, r.took)
		copied += r.copied
	}
	all := float64(s.size * rounds)
	fmt.Printf("%s: %s; copied %.3f of the bytes that differ\n", s.what, s.rates(took), float64(copied)/all)
	for i, y := range s.yards {
		var ratios []float64
		for j, t := range took {
			ratios = append(ratios, (s.dds[i][j]+s.dds[i][j+1]).Seconds()/2/t.Seconds())
		}
		slices.Sort(ratios)
		fmt.Printf("  %.2f (%.2f to %.2f) of %s: %s\n", ratios[rounds/2], ratios[0], ratios[rounds-1], y.name, s.rates(s.dds[i]))
	}
	fmt.Printf("  each took, of both nodes together: %.2f s of processor, %.2f times what differs read from disks, %.2f times written\n",
		s.cost.processor.Seconds()/rounds, float64(s.cost.read)/all, float64(s.cost.wrote)/all)
}

func (s *series) rates(took []time.Duration) (text string) {
	for _, t := range took {
		text += fmt.Sprintf("%.0f, ", float64(s.size)/1e6/t.Seconds())
	}
	return text[:len(text)-2] + " MB/s"
}

func (s *series) judge() (err error) {
	for _, r := range s.resyncs {
		err = errors.Join(err, judgeCopied(r.copied, s.size))
	}
	return err
}

// one is dd of the primary's backing to a file beside it.
func (b *bench) one(ctx context.Context) yardstick {
	return yardstick{"dd between the backings", func() (time.Duration, error) { return b.dd(ctx, b.primary) }}
}

// both is dd of both backings at the same time.
func (b *bench) both(ctx context.Context) yardstick {
	return yardstick{"dd of both at a time", func() (time.Duration, error) { return b.dd(ctx, b.primary, b.standby) }}
}

func (b *bench) dd(ctx context.Context, nodes ...string) (took time.Duration, err error) {
	errs := make([]error, len(nodes))
	began := time.Now()
	var goes sync.WaitGroup
	for i, node := range nodes {
		goes.Go(func() { errs[i] = b.copy(ctx, node) })
	}
	goes.Wait()
	took = time.Since(began)
	for _, node := range nodes {
		err = errors.Join(err, os.Remove(b.Disk(node)+".copy"))
	}
	return took, errors.Join(errors.Join(errs...), err)
}

func (b *bench) copy(ctx context.Context, node string) error {
	dd := exec.CommandContext(ctx, "dd", "if="+b.Disk(node), "of="+b.Disk(node)+".copy", "bs=1M", "iflag=direct", "oflag=direct", "conv=fsync", "status=none")
	if out, err := dd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s: -d names a folder whose filesystem has O_DIRECT", err, out)
	}
	return nil
}
