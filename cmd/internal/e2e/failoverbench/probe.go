package main

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"hacluster/blockdev/frontend/nbd/nbdclient"
	"hacluster/cmd/internal/e2e"
)

// probe is a client with little to do, that notices every pause.
type probe struct {
	dev  *nbdclient.Reconnecting
	load e2e.Load
}

func newProbe(ctx context.Context, c *e2e.Cluster) (*probe, error) {
	dev, err := nbdclient.Open(ctx, c.URIs(), nbdclient.ReconnectConfig{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	rec, err := e2e.NewRecorder("")
	return &probe{dev: dev, load: e2e.Load{Dev: dev, Record: rec, First: fioSize / e2e.StampSize,
		Blocks: (calmSize - fioSize) / e2e.StampSize, Workers: 1, Think: 20 * time.Millisecond}}, err
}

func (p *probe) run(ctx context.Context) error { return p.load.Run(ctx) }

func (p *probe) close() { p.dev.Close() }

// judge reads back what the probe wrote.
func (p *probe) judge() error {
	lost, err := p.load.Record.Check(p.dev)
	if err == nil && len(lost) > 0 {
		err = fmt.Errorf("LOST: %d blocks do not hold what was acknowledged, the first: %v", len(lost), lost[0])
	}
	return err
}
