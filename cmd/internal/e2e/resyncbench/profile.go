package main

import (
	"context"
	"errors"
	"path/filepath"
	"sync"
	"time"
)

// profileTime is how long the daemons are profiled from the beginning of a resync: less than it takes.
const profileTime = 4 * time.Second

// profile writes what the processor does in both daemons for a while to files in the folder: NAME-primary, NAME-standby.
func (b *bench) profile(ctx context.Context, folder, name string) error {
	var goes sync.WaitGroup
	var errs [2]error
	for i, node := range []string{b.primary, b.standby} {
		path := filepath.Join(folder, name+"-"+[]string{"primary", "standby"}[i])
		goes.Go(func() { errs[i] = b.Profile(ctx, node, profileTime, path) })
	}
	goes.Wait()
	return errors.Join(errs[:]...)
}
