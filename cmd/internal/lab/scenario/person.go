package scenario

import (
	"context"
	"fmt"
	"time"

	"hacluster/cmd/internal/api"
	"hacluster/cmd/internal/lab/topology"
)

// order gives a person's order over the socket of a node, again and again until it is taken: right after a start there may
// be no leader, or no report yet.
func (r *Run) order(ctx context.Context, node string, give func(context.Context, *api.Client) error) error {
	ctx, cancel := context.WithTimeout(ctx, toHeal)
	defer cancel()
	for {
		err := r.orderOnce(ctx, node, give)
		if err == nil {
			return nil
		}
		select {
		case <-time.After(askEvery):
		case <-ctx.Done():
			return fmt.Errorf("an order was not taken within %v: %w", toHeal, err)
		}
	}
}

func (r *Run) orderOnce(ctx context.Context, node string, give func(context.Context, *api.Client) error) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	c, err := api.Dial(ctx, []string{socket(r.Lab, node)}, api.DialSocket)
	if err != nil {
		return err
	}
	defer c.Close()
	return give(ctx, c)
}

// startForced starts a standby without its primary, has a person promote it, and brings the old primary back, which
// is resynced by itself, and keeps aside what that overwrites.
func (r *Run) startForced(ctx context.Context) error {
	if err := r.Lab.Start(r.Standby(), r.Witness()); err != nil {
		return err
	}
	err := r.order(ctx, r.Witness(), func(ctx context.Context, c *api.Client) error {
		_, err := c.Failover(ctx, api.FailoverRequest{Volume: topology.Volume, To: r.Standby(), Force: true, AcceptDataLoss: true})
		return err
	})
	if err != nil {
		return err
	}
	if err := r.answers(ctx, r.Standby(), afterAll, within); err != nil {
		return fmt.Errorf("after the forced promotion: %w", err)
	}
	return r.Lab.Start(r.Primary())
}
