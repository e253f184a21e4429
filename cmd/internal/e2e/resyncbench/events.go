package main

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"hacluster/cmd/internal/api"
	"hacluster/cmd/internal/e2e"
)

// resynced is what the primary's history says of one resync.
type resynced struct {
	compared, copied int64
	took             time.Duration
}

var endText = regexp.MustCompile(`is in sync: (\d+) bytes compared, (\d+) bytes copied`)

// ended are the resyncs that a node, as the primary, remembers to have ended since it was started. Each began with the last
// event of that kind before its end.
func (b *bench) ended(ctx context.Context, node string) (all []resynced, err error) {
	out, errs, code := b.AdminAt(ctx, filepath.Join(b.DataDir(node), "admin.sock"), "events", "-o", "json")
	if code != 0 {
		return nil, fmt.Errorf("ha-admin events: exit code %d: %s", code, errs)
	}
	var began time.Time
	for line := range strings.Lines(out) {
		var e api.Event
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			return nil, fmt.Errorf("event %s: %w", line, err)
		}
		switch e.Kind {
		case "resync begun":
			began = e.At
		case "resync ended":
			m := endText.FindStringSubmatch(e.Text)
			if m == nil {
				return nil, fmt.Errorf("the end of a resync without figures: %s", e.Text)
			}
			r := resynced{took: e.At.Sub(began)}
			r.compared, _ = strconv.ParseInt(m[1], 10, 64)
			r.copied, _ = strconv.ParseInt(m[2], 10, 64)
			all = append(all, r)
		}
	}
	return all, nil
}

// next runs what causes a resync by the node as primary, and returns the resync when the volume is healthy.
func (b *bench) next(ctx context.Context, node string, cause func() error) (r resynced, err error) {
	before, err := b.ended(ctx, node)
	if err != nil {
		return r, err
	}
	if err := cause(); err != nil {
		return r, err
	}
	for {
		if _, err := b.Until(ctx, "the replica is in sync again", e2e.Healthy); err != nil {
			return r, err
		}
		all, err := b.ended(ctx, node)
		if err != nil {
			return r, err
		}
		if len(all) > len(before) {
			return all[len(all)-1], nil
		}
		select {
		case <-ctx.Done():
			return r, fmt.Errorf("waiting for the end of a resync: %w", ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// resyncing is a condition for Until.
func resyncing(s *api.Status) bool {
	return s.Quorum && len(s.Volumes) == 1 && s.Volumes[0].State == api.VolumeResyncing
}

// dropped waits until a node is no member.
func (b *bench) dropped(ctx context.Context, node string) error {
	_, err := b.Until(ctx, node+" is dropped", func(s *api.Status) bool {
		if !s.Quorum || len(s.Volumes) != 1 {
			return false
		}
		for _, n := range s.Volumes[0].InSync {
			if n == node {
				return false
			}
		}
		return true
	})
	return err
}
