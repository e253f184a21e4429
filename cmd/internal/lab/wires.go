package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"hacluster/cmd/internal/lab/topology"
	"hacluster/cmd/internal/lab/wire"
)

// delay and reorder give a node's cable a bad character.
func delay(_ context.Context, c *call) error {
	if err := c.want("NODE", "DELAY"); err != nil {
		return err
	}
	d, err := time.ParseDuration(c.words[1])
	if err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	return c.rewire(wire.Config{Delay: d, Jitter: c.jitter})
}

func reorder(_ context.Context, c *call) error {
	if err := c.want("NODE", "PERCENT"); err != nil {
		return err
	}
	percent, err := c.number(1, "%")
	if err != nil {
		return err
	}
	return c.rewire(wire.Config{Delay: c.delay, Reorder: percent, Double: c.double})
}

func (c *call) rewire(character wire.Config) error {
	if c.link == "" {
		c.link = topology.Replication
	}
	l, err := c.open()
	if err != nil {
		return err
	}
	character.Seed = c.seed
	return l.Rewire(c.words[0], c.link, character)
}

const statsEvery = 100 * time.Millisecond

// carry is the process of a wire.
func carry(ctx context.Context, c *call) error {
	if err := c.want("INTERFACE", "INTERFACE", "STATS", "CHARACTER"); err != nil {
		return err
	}
	var cfg wire.Config
	if err := json.Unmarshal([]byte(c.words[3]), &cfg); err != nil {
		return err
	}
	w, err := wire.Open(c.words[0], c.words[1], cfg)
	if err != nil {
		return err
	}
	fmt.Fprintln(c.stdout, "ready")
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var told sync.WaitGroup
	var failed error
	told.Go(func() { failed = tell(ctx, w, c.words[2]) })
	err = w.Run(ctx)
	cancel()
	told.Wait()
	return errors.Join(err, failed)
}

// tell writes down what the wire did, again and again.
func tell(ctx context.Context, w *wire.Wire, path string) error {
	t := time.NewTicker(statsEvery)
	defer t.Stop()
	for {
		select {
		case <-t.C:
		case <-ctx.Done():
			return nil
		}
		b, err := json.Marshal(w.Stats())
		if err != nil {
			return err
		}
		if err := errors.Join(os.WriteFile(path+".new", b, 0o644), os.Rename(path+".new", path)); err != nil {
			return err
		}
	}
}
