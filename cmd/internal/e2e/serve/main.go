// Command serve starts a cluster of daemons on loopback addresses, by default two servers and a witness, waits until its volume is healthy, prints
// where it is served, or where each of several is, and by which processes, and ends it when its standard input ends.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"hacluster/cmd/internal/api"
	"hacluster/cmd/internal/e2e"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "serve:", err)
		os.Exit(1)
	}
}

func run() error {
	var cfg e2e.Config
	flag.StringVar(&cfg.Bin, "bin", "bin", "`folder` of haclusterd and ha-admin")
	flag.StringVar(&cfg.Disks, "disks", "", "`folder` of the backings; default: beside the rest")
	flag.StringVar(&cfg.Size, "size", "1GiB", "`size` of the volume")
	flag.StringVar(&cfg.IO, "io", "auto", "auto, buffered or direct")
	flag.StringVar(&cfg.RTO, "rto", "3s", "the RTO target")
	flag.StringVar(&cfg.Mode, "mode", "sync", "sync, semisync or async")
	flag.IntVar(&cfg.Copies, "copies", 2, "`replicas` of the volume: 2, 3 or 4")
	volumes := flag.Int("volumes", 1, "how many volumes, each by itself")
	flag.BoolVar(&cfg.TLS, "tls", false, "with certificates, not --insecure")
	alone := flag.Bool("alone", false, "no cluster: the NBD server over one file, for comparison")
	flag.Parse()
	dir, err := os.MkdirTemp("", "hacluster-serve")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if *alone {
		return serveAlone(dir, cfg)
	}
	cfg.Dir, cfg.Apart = dir, true
	for i := 2; i <= *volumes; i++ {
		cfg.More = append(cfg.More, fmt.Sprint("v", i))
	}
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
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var s *api.Status
	s, err = c.Until(ctx, "the volumes are healthy", func(s *api.Status) bool {
		unhealthy := func(v api.VolumeStatus) bool { return v.State != api.VolumeHealthy }
		return s.Quorum && len(s.Volumes) == *volumes && !slices.ContainsFunc(s.Volumes, unhealthy)
	})
	if err != nil {
		return err
	}
	for _, v := range s.Volumes {
		fmt.Printf("uri=%s\n", c.URIOf(v.Primary, v.Name))
	}
	var pids []string
	for _, n := range c.Nodes() {
		pids = append(pids, strconv.Itoa(c.Pid(n)))
	}
	fmt.Println("pids=" + strings.Join(pids, ","))
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}
