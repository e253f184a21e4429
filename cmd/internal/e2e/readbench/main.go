// Command readbench measures what read = "balance" gives where disks are what reads wait for, and what it costs where they are not:
// random reads of one client, 32 at a time, with read = "local" and "balance" in turns on one cluster.
//
// The slow disks are files on hadisk, each of which carries out one read after the other, a millisecond each; the fast ones are
// files on tmpfs.
//
// Exit codes: 0 both aims are met, 1 one is not, or something else went wrong, and it says what.
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
	"syscall"
	"time"

	"hacluster/cmd/internal/e2e"
	"hacluster/cmd/internal/lab/disk"
)

type options struct {
	bin, hadisk string
	dir, fast   string
	rounds      int
	each        time.Duration
	turn        time.Duration
}

// The aims: two equal disks that are the bottleneck answer this much more than one, and fast ones lose no more than this.
const (
	slowAim = 1.6
	fastAim = 0.95
)

var sizes = []int{4 << 10, 128 << 10}

func main() { os.Exit(run()) }

func run() int {
	var o options
	flag.StringVar(&o.bin, "bin", "bin", "`folder` of haclusterd and ha-admin")
	flag.StringVar(&o.hadisk, "hadisk", "bin/hadisk", "`program` of the slow disks; they need root and FUSE")
	flag.StringVar(&o.dir, "d", "/var/tmp", "`folder` of the slow disks' bytes")
	flag.StringVar(&o.fast, "fast", "/dev/shm", "`folder` of the fast disks")
	flag.IntVar(&o.rounds, "n", 5, "how many `rounds`")
	flag.DurationVar(&o.each, "t", 2*time.Second, "how long each measurement `takes`")
	flag.DurationVar(&o.turn, "turn", time.Millisecond, "how long a read of a slow disk `takes`")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := errors.Join(slow(ctx, o), fast(ctx, o)); err != nil {
		fmt.Fprintln(os.Stderr, "readbench:", err)
		return 1
	}
	return 0
}

// slow measures on disks that carry out one read after the other.
func slow(ctx context.Context, o options) (err error) {
	dir, err := os.MkdirTemp(o.dir, "hacluster-reads-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	var disks []*disk.Disk
	defer func() {
		for _, d := range disks {
			err = errors.Join(err, d.Stop())
		}
	}()
	for _, n := range []string{"alpha", "beta"} {
		d, err := disk.Start(ctx, disk.Config{Bin: o.hadisk, Dir: filepath.Join(dir, n+".disk"), Mount: filepath.Join(dir, n+".mnt")})
		if err != nil {
			return err
		}
		disks = append(disks, d)
	}
	return measure(ctx, o, e2e.Config{Dir: dir, Bin: o.bin, RTO: "6s", Size: size, IO: "direct", Disks: filepath.Join(dir, "${node.name}.mnt")}, "slow", slowAim, func() error {
		for _, d := range disks {
			if err := d.Fault(disk.Fault{Kind: disk.Busy, Op: disk.Read, Glob: "*.img", Delay: o.turn}); err != nil {
				return err
			}
		}
		return nil
	})
}

func fast(ctx context.Context, o options) (err error) {
	dir, err := os.MkdirTemp(o.fast, "hacluster-reads-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	return measure(ctx, o, e2e.Config{Dir: dir, Bin: o.bin, RTO: "6s", Size: size}, "fast", fastAim, func() error { return nil })
}

// measure starts a cluster, and compares.
func measure(ctx context.Context, o options, cfg e2e.Config, what string, aim float64, ready func() error) (err error) {
	c, err := e2e.New(cfg)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			c.ShowLogs(os.Stderr, 20)
		}
		c.Close()
	}()
	b := &bench{Cluster: c, o: o}
	if err := b.begin(ctx); err != nil {
		return err
	}
	if err := ready(); err != nil {
		return err
	}
	var missed error
	for _, n := range sizes {
		ratio, err := b.compare(ctx, what, n)
		if err != nil {
			return err
		}
		if ratio < aim {
			missed = errors.Join(missed, fmt.Errorf("%s disks, %d KiB: balance answers %.2f times as much as local, %.2f is the aim", what, n>>10, ratio, aim))
		}
	}
	return missed
}

func median(of []float64) float64 {
	of = slices.Sorted(slices.Values(of))
	return of[len(of)/2]
}
