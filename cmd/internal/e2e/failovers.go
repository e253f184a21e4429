package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"hacluster/cmd/internal/api"
)

// FirstWrite is the last stage of a failover: the first write that the new primary acknowledged.
const FirstWrite = "first write"

// Failovers are all that the cluster remembers, oldest first.
func (c *Cluster) Failovers(ctx context.Context) (past []api.Failover, err error) {
	out, errs, code := c.Admin(ctx, "failovers", "-o", "json")
	if code != 0 {
		return nil, fmt.Errorf("ha-admin failovers: exit code %d: %s", code, errs)
	}
	return past, json.Unmarshal([]byte(out), &past)
}

// FailoverTo waits for the record of the failover that began an epoch, complete up to its first write.
func (c *Cluster) FailoverTo(ctx context.Context, epoch uint64) (api.Failover, error) {
	var last []api.Failover
	for {
		past, err := c.Failovers(ctx)
		if err == nil {
			last = past
		}
		for _, f := range past {
			if f.Epoch == epoch && slices.ContainsFunc(f.Stages, func(s api.Stage) bool { return s.Name == FirstWrite }) {
				return f, nil
			}
		}
		select {
		case <-ctx.Done():
			return api.Failover{}, fmt.Errorf("waiting for the record of the failover to epoch %d: %w; last answer %+v, %v", epoch, ctx.Err(), last, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}
