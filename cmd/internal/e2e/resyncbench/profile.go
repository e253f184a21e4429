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
)

// profileSeconds is how long the daemons are profiled from the beginning of a resync: less than it takes.
const profileSeconds = 4

// profile writes what the processor does in both daemons for a while to files in the folder: NAME-primary, NAME-standby.
func (b *bench) profile(ctx context.Context, folder, name string) error {
	var goes sync.WaitGroup
	var errs [2]error
	for i, node := range []string{b.primary, b.standby} {
		path := filepath.Join(folder, name+"-"+[]string{"primary", "standby"}[i])
		goes.Go(func() { errs[i] = fetch(ctx, b.HTTP(node), path) })
	}
	goes.Wait()
	return errors.Join(errs[:]...)
}

func fetch(ctx context.Context, address, path string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", address, profileSeconds), nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("profile of %s: %s", address, resp.Status)
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, resp.Body)
	return errors.Join(err, f.Close())
}
