// Command attackbench measures what a stranger's connections cost those who are welcome: it starts a cluster with TLS,
// writes 4 KiB blocks through NBD one after the other, first in calm, then while connections that never finish a
// handshake, or say something wrong, come to every port, and prints both distributions and their ratio. The connections
// are spread evenly over a time (-connections, -for), or come as fast as this machine makes them (-connections 0).
// Attacker and cluster share the machine: part of the ratio is the attacker's own work.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"hacluster/blockdev/frontend/nbd/nbdclient"
	"hacluster/cmd/internal/api"
	"hacluster/cmd/internal/e2e"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "attackbench:", err)
		os.Exit(1)
	}
}

func run() error {
	cfg := e2e.Config{TLS: true, RTO: "10s", Size: "64MiB"}
	flag.StringVar(&cfg.Bin, "bin", "bin", "`folder` of haclusterd and ha-admin")
	each := flag.Duration("for", time.Minute, "how long each of the two parts takes")
	total := flag.Int("connections", 10000, "how many connections are spread over that time; 0: as many as can be made")
	workers := flag.Int("workers", 16, "how many connections the attacker makes at a time")
	flag.Parse()
	dir, err := os.MkdirTemp("", "hacluster-attack")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	cfg.Dir = dir
	if cfg.Bin, err = filepath.Abs(cfg.Bin); err != nil {
		return err
	}
	c, err := e2e.New(cfg)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.Start(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute+2**each)
	defer cancel()
	var s *api.Status
	if s, err = c.Until(ctx, "the volume is healthy", e2e.Healthy); err != nil {
		return err
	}
	dev, err := nbdclient.Config{}.Dial(ctx, c.URI(s.Volumes[0].Primary))
	if err != nil {
		return err
	}
	defer dev.Close()
	calm, err := write(dev, *each)
	if err != nil {
		return err
	}
	attack := c.AttackOn(1 << 30)
	if *total > 0 {
		attack.Total, attack.Over = *total, *each
	}
	attack.Workers = *workers
	under, stop := context.WithCancel(ctx)
	done := make(chan e2e.Result, 1)
	go func() { done <- attack.Run(under) }()
	attacked, err := write(dev, *each)
	stop()
	res := <-done
	if err != nil {
		return err
	}
	show("calm", calm)
	show("attacked", attacked)
	fmt.Printf("connections %d, refused %d, in %v; ratio p50 %.2f, p99 %.2f\n", res.Made, res.Refused, *each,
		float64(at(attacked, 0.5))/float64(at(calm, 0.5)), float64(at(attacked, 0.99))/float64(at(calm, 0.99)))
	return nil
}

// write gives the time that each write took.
func write(dev *nbdclient.Client, d time.Duration) (took []time.Duration, err error) {
	block := make([]byte, 4096)
	for end, i := time.Now().Add(d), int64(0); time.Now().Before(end); i++ {
		start := time.Now()
		if _, err := dev.WriteAt(block, i%4096*4096); err != nil {
			return nil, fmt.Errorf("write: %w", err)
		}
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	return took, nil
}

func at(sorted []time.Duration, q float64) time.Duration {
	return sorted[int(q*float64(len(sorted)-1))]
}

func show(name string, took []time.Duration) {
	fmt.Printf("%-9s %d writes: p50 %v, p99 %v, max %v\n", name, len(took), at(took, 0.5), at(took, 0.99), at(took, 1))
}
