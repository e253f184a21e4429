// Command resyncbench measures resyncs of a real cluster on loopback addresses of this machine, and what the maps of what
// may differ cost. In one run, each in a cluster of its own:
//
//	empty      a replica whose disk was replaced, in turns with dd with O_DIRECT between the backings
//	kept       one that differs wholly and keeps its way back, likewise
//	beside     what clients feel of a resync, and of its target, which is on the same disk
//	scattered  what is copied where single blocks differ, over what differs
//	crash      what is compared after a crash of the standby and of the primary, over the regions that were written
//	marking    writes to random blocks of a sparse volume, over those of a daemon that marks nothing
//
// Exit codes: 0 all is as promised, 1 something is not, and it says what. Ratios of speed are printed and not judged: other
// work on the machine decides them.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"hacluster/cmd/internal/e2e"
)

type options struct {
	bin, unmarked, dir, data, io, profiles string
	mib                                    int64
}

// part is one of the measurements. It gets a folder of its own.
type part struct {
	name string
	run  func(ctx context.Context, o options, dir string) error
}

var parts = []part{{"empty", emptied}, {"kept", kept}, {"beside", beside}, {"scattered", scattered}, {"crash", crash}, {"marking", marking}}

func main() { os.Exit(run()) }

func run() int {
	var o options
	flag.StringVar(&o.bin, "bin", "bin", "`folder` of haclusterd and ha-admin")
	flag.StringVar(&o.unmarked, "unmarked", "", "`folder` of the same built with the tag bench_unmarked; without, marking is not measured")
	flag.StringVar(&o.dir, "d", "", "`folder` for disks and all else, on a filesystem that has O_DIRECT; without, that of temporary files")
	flag.StringVar(&o.data, "data", "", "`folder` on another disk: \"kept\" has its data directories there, and so the undo area")
	flag.StringVar(&o.io, "io", "auto", "auto, buffered or direct, of the volume whose marking is measured")
	flag.StringVar(&o.profiles, "profiles", "", "`folder` for profiles of both daemons in the resyncs of \"empty\" and \"kept\"; they cost some speed; without, none are made")
	flag.Int64Var(&o.mib, "size", 1024, "`MiB` of the volume that differs wholly")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: resyncbench [flags] [empty|kept|beside|scattered|crash|marking ...]")
		flag.PrintDefaults()
	}
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	var failed error
	for _, p := range parts {
		if flag.NArg() > 0 && !slices.Contains(flag.Args(), p.name) {
			continue
		}
		if err := one(ctx, o, p); err != nil {
			failed = errors.Join(failed, fmt.Errorf("%s: %w", p.name, err))
		}
	}
	if failed != nil {
		fmt.Fprintln(os.Stderr, "resyncbench:", strings.ReplaceAll(failed.Error(), "\n", "\nresyncbench: "))
		return 1
	}
	return 0
}

func one(ctx context.Context, o options, p part) (err error) {
	dir, err := os.MkdirTemp(o.dir, "hacluster-resync-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	return p.run(ctx, o, dir)
}

// bench is a cluster whose volume is healthy.
type bench struct {
	*e2e.Cluster
	primary, standby string
	size             int64 // of the volume, where all of it is copied
}

func begin(ctx context.Context, cfg e2e.Config) (b *bench, err error) {
	if cfg.Bin, err = filepath.Abs(cfg.Bin); err != nil {
		return nil, err
	}
	c, err := e2e.New(cfg)
	if err != nil {
		return nil, err
	}
	b = &bench{Cluster: c}
	if err := c.Start(); err != nil {
		return b, b.end(err)
	}
	if err := b.look(ctx); err != nil {
		return nil, b.end(err)
	}
	return b, nil
}

// look waits until the volume is healthy and learns who is primary.
func (b *bench) look(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	s, err := b.Until(ctx, "the volume is healthy", e2e.Healthy)
	if err != nil {
		return err
	}
	b.primary = s.Volumes[0].Primary
	b.standby = map[string]string{"alpha": "beta", "beta": "alpha"}[b.primary]
	return nil
}

// end stops everything; after an error it shows what the nodes said.
func (b *bench) end(err error) error {
	if err != nil {
		b.ShowLogs(os.Stderr, 10)
	}
	b.Close()
	return err
}
