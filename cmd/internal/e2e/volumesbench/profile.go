package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
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
			errs[i] = fetch(ctx, fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", c.HTTP(node), int(d.Seconds())), filepath.Join(o.profiles, when+"-"+node))
		})
	}
	return func() error {
		goes.Wait()
		return errors.Join(errs...)
	}
}

func fetch(ctx context.Context, url, path string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, resp.Status)
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, resp.Body)
	return errors.Join(err, f.Close())
}
