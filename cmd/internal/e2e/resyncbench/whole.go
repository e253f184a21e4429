package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"

	"golang.org/x/sys/unix"

	"hacluster/blockdev"
	"hacluster/blockdev/frontend/nbd/nbdclient"
	"hacluster/cmd/internal/e2e"
)

// emptied measures resyncs of a replica whose disk was replaced.
func emptied(ctx context.Context, o options, dir string) error {
	return whole(ctx, o, e2e.Config{Dir: dir}, func(b *bench) (series, error) {
		return b.alternate(ctx, "resync to an empty disk", b.profiled(ctx, o, "empty", b.replace), b.one(ctx))
	})
}

// kept measures resyncs of a replica that differs in each block and keeps its way back.
func kept(ctx context.Context, o options, dir string) error {
	measure := func(b *bench) (series, error) {
		return b.alternate(ctx, "resync that keeps a way back, which reads and writes as much as dd of both", b.profiled(ctx, o, "kept", func() error { return b.differ(ctx) }),
			b.one(ctx), b.both(ctx))
	}
	if o.data == "" {
		return whole(ctx, o, e2e.Config{Dir: dir}, measure)
	}
	data, err := os.MkdirTemp(o.data, "hacluster-resync-")
	if err != nil {
		return err
	}
	fmt.Printf("with the data directories, and so what a way back takes, in %s:\n", o.data)
	return errors.Join(whole(ctx, o, e2e.Config{Dir: data, Disks: dir}, measure), os.RemoveAll(data))
}

func whole(ctx context.Context, o options, cfg e2e.Config, measure func(b *bench) (series, error)) error {
	cfg.Bin, cfg.RTO, cfg.IO, cfg.Size = o.bin, "4s", "direct", fmt.Sprintf("%dMiB", o.mib)
	b, err := begin(ctx, cfg)
	if err != nil {
		return err
	}
	b.size = o.mib << 20
	if err := b.fill(ctx, b.size); err != nil {
		return b.end(err)
	}
	s, err := measure(b)
	if err != nil {
		return b.end(err)
	}
	s.show()
	return b.end(errors.Join(s.judge(), b.alike(ctx)))
}

// profiled has both daemons profiled in the resyncs that cause brings about, if that is wanted.
func (b *bench) profiled(ctx context.Context, o options, name string, cause func() error) func() error {
	return func() error {
		err := cause()
		if err != nil || o.profiles == "" {
			return err
		}
		_, err = b.Until(ctx, "the resync runs", resyncing)
		return errors.Join(err, b.profile(ctx, o.profiles, name))
	}
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
	buf := blockdev.NewBuf(1 << 20)
	defer buf.Free()
	block := buf.Bytes()
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

// replace gives the standby an empty disk.
func (b *bench) replace() error {
	if _, err := b.Stop(b.standby); err != nil {
		return err
	}
	if err := b.empty(b.size); err != nil {
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
func (b *bench) differ(ctx context.Context) error {
	disk, err := os.OpenFile(b.Disk(b.standby), os.O_WRONLY|unix.O_DIRECT, 0) // nothing of it is left in the page cache
	if err != nil {
		return err
	}
	if err := errors.Join(scribble(disk, b.size, 2), disk.Sync(), disk.Close()); err != nil {
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
