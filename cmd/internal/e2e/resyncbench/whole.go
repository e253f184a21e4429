package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"hacluster/blockdev/frontend/nbd/nbdclient"
	"hacluster/cmd/internal/e2e"
)

// whole measures resyncs of a replica that differs in each block. dd runs before and after them: a disk that others use is
// not the same for long.
func whole(ctx context.Context, o options, dir string) error {
	size := o.mib << 20
	b, err := begin(ctx, e2e.Config{Dir: dir, Bin: o.bin, RTO: "4s", IO: "direct", Size: fmt.Sprintf("%dMiB", o.mib)})
	if err != nil {
		return err
	}
	return b.end(b.whole(ctx, size, filepath.Join(dir, "dd.img"), o.profiles))
}

func (b *bench) whole(ctx context.Context, size int64, copyTo, profiles string) error {
	profile := func(name string) error {
		if profiles == "" {
			return nil
		}
		_, err := b.Until(ctx, "the resync runs", resyncing)
		return errors.Join(err, b.profile(ctx, profiles, name))
	}
	if err := b.fill(ctx, size); err != nil {
		return err
	}
	before, err := b.dd(ctx, copyTo)
	if err != nil {
		return err
	}
	began, err := costOf(b.Pid(b.primary)) // the standby's process is a new one
	if err != nil {
		return err
	}
	empty, err := b.next(ctx, b.primary, func() error { return errors.Join(b.replace(size), profile("empty")) })
	if err != nil {
		return err
	}
	emptyCost, err := b.costs()
	if err != nil {
		return err
	}
	emptyCost = emptyCost.less(began)
	between, err := b.dd(ctx, copyTo)
	if err != nil {
		return err
	}
	twiceBefore, err := b.ddTwice(ctx, copyTo)
	if err != nil {
		return err
	}
	if began, err = b.costs(); err != nil {
		return err
	}
	kept, err := b.next(ctx, b.primary, func() error { return errors.Join(b.differ(ctx, size), profile("kept")) })
	if err != nil {
		return err
	}
	keptCost, err := b.costs()
	if err != nil {
		return err
	}
	keptCost = keptCost.less(began)
	twiceAfter, err := b.ddTwice(ctx, copyTo)
	if err != nil {
		return err
	}
	after, err := b.dd(ctx, copyTo)
	if err != nil {
		return err
	}
	rate := func(d time.Duration) float64 { return float64(size) / 1e6 / d.Seconds() }
	fmt.Printf("dd with O_DIRECT between the backings: %.0f, %.0f, %.0f MB/s, before, between and after what follows\n", rate(before), rate(between), rate(after))
	fmt.Printf("resync to an empty disk:               %.0f MB/s, %.2f of dd; copied %.3f of the bytes that differ\n", rate(empty.took),
		(before+between).Seconds()/2/empty.took.Seconds(), float64(empty.copied)/float64(size))
	fmt.Printf("dd of both backings at a time, which reads and writes what one with a way back does: %.0f, %.0f MB/s\n", rate(twiceBefore), rate(twiceAfter))
	fmt.Printf("resync that keeps a way back:          %.0f MB/s, %.2f of dd, %.2f of dd of both; copied %.3f of the bytes that differ\n", rate(kept.took),
		(between+after).Seconds()/2/kept.took.Seconds(), (twiceBefore+twiceAfter).Seconds()/2/kept.took.Seconds(), float64(kept.copied)/float64(size))
	show := func(what string, c cost) {
		fmt.Printf("%s took, of both nodes together: %.2f s of processor, %.2f times what differs read from disks, %.2f times written\n", what,
			c.processor.Seconds(), float64(c.read)/float64(size), float64(c.wrote)/float64(size))
	}
	show("the one to an empty disk", emptyCost)
	show("the one with a way back", keptCost)
	return errors.Join(judgeCopied(max(empty.copied, kept.copied), size), b.alike(ctx))
}

// alike holds the backings against each other, byte by byte, while nobody writes.
func (b *bench) alike(ctx context.Context) error {
	if out, err := exec.CommandContext(ctx, "cmp", b.Disk(b.primary), b.Disk(b.standby)).CombinedOutput(); err != nil {
		return fmt.Errorf("after the resyncs the replicas are not the same: %w: %s", err, out)
	}
	return nil
}

// fill writes what does not compress and is nowhere zero.
func (b *bench) fill(ctx context.Context, size int64) error {
	dev, err := nbdclient.Dial(ctx, b.URI(b.primary))
	if err != nil {
		return err
	}
	return errors.Join(scribble(dev, size, 1), dev.Flush(), dev.Close())
}

func scribble(w interface {
	WriteAt(p []byte, off int64) (int, error)
}, size int64, seed byte) error {
	block := make([]byte, 1<<20)
	rnd := rand.NewChaCha8([32]byte{seed})
	for off := int64(0); off < size; off += int64(len(block)) {
		p := block[:min(int64(len(block)), size-off)]
		rnd.Read(p)
		if _, err := w.WriteAt(p, off); err != nil {
			return err
		}
	}
	return nil
}

// dd copies the primary's backing to a file beside it, and tells how long that took.
func (b *bench) dd(ctx context.Context, to string) (time.Duration, error) {
	began := time.Now()
	err := b.copy(ctx, b.primary, to)
	return time.Since(began), errors.Join(err, os.Remove(to))
}

// ddTwice copies both backings at the same time.
func (b *bench) ddTwice(ctx context.Context, to string) (time.Duration, error) {
	began := time.Now()
	var errs [2]error
	var goes sync.WaitGroup
	for i, node := range []string{b.primary, b.standby} {
		goes.Go(func() { errs[i] = b.copy(ctx, node, to+node) })
	}
	goes.Wait()
	took := time.Since(began)
	return took, errors.Join(errs[0], errs[1], os.Remove(to+b.primary), os.Remove(to+b.standby))
}

func (b *bench) copy(ctx context.Context, node, to string) error {
	dd := exec.CommandContext(ctx, "dd", "if="+b.Disk(node), "of="+to, "bs=1M", "iflag=direct", "oflag=direct", "conv=fsync", "status=none")
	if out, err := dd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s: -d names a folder whose filesystem has O_DIRECT", err, out)
	}
	return nil
}

// replace gives the standby an empty disk.
func (b *bench) replace(size int64) error {
	if _, err := b.Stop(b.standby); err != nil {
		return err
	}
	if err := b.empty(size); err != nil {
		return err
	}
	return b.Start(b.standby)
}

// empty puts an empty disk under a standby that is stopped.
func (b *bench) empty(size int64) error {
	if err := os.Remove(b.Disk(b.standby)); err != nil {
		return err
	}
	if err := os.RemoveAll(filepath.Join(b.DataDir(b.standby), "volumes", e2e.Volume)); err != nil {
		return err
	}
	disk, err := os.OpenFile(b.Disk(b.standby), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(disk.Truncate(size), disk.Close())
}

// differ writes something else over the standby's disk, behind the back of its daemon, and has all of it compared.
func (b *bench) differ(ctx context.Context, size int64) error {
	disk, err := os.OpenFile(b.Disk(b.standby), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	if err := errors.Join(scribble(disk, size, 2), disk.Sync(), disk.Close()); err != nil {
		return err
	}
	_, errs, code := b.Admin(ctx, "volume", "resync", e2e.Volume, "--replica", b.standby, "--full", "--drop-member")
	if code != 0 {
		return fmt.Errorf("ha-admin volume resync: exit code %d: %s", code, errs)
	}
	return b.dropped(ctx, b.standby)
}

// judgeCopied holds what was copied against what differs.
func judgeCopied(copied, differ int64) error {
	if copied < differ || float64(copied) > 1.2*float64(differ) {
		return fmt.Errorf("%d bytes were copied of %d that differ: not less is right, and 1.2 times as much at most", copied, differ)
	}
	return nil
}
