package main

import (
	"context"
	"errors"
	"path/filepath"
	"sync"
	"time"

	"hacluster/cmd/internal/e2e"
)

// profile begins to profile daemons for so long, if that is wanted, into files NUMBER-WHEN-NODE. end waits for it.
func (o options) profile(ctx context.Context, c *e2e.Cluster, when string, d time.Duration, nodes ...string) (end func() error) {
	if o.profiles == "" {
		return func() error { return nil }
	}
	var goes sync.WaitGroup
	errs := make([]error, len(nodes))
	for i, node := range nodes {
		goes.Go(func() {
			errs[i] = c.Profile(ctx, node, d, filepath.Join(o.profiles, when+"-"+node))
		})
	}
	return func() error {
		goes.Wait()
		return errors.Join(errs...)
	}
}
