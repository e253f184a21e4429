package scenario

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"hacluster/cmd/internal/api"
	"hacluster/cmd/internal/lab/disk"
)

// Faults of a disk that did not keep what it had been given: one that lied about flushes, one that was put back to an
// older state, one that rots.

// LyingPowerCut has the disk of a node answer flushes without doing anything, for a while, and takes its power. Its Raft
// state, too, went back then; if the others remember a newer one, the daemon refuses it, and a person replaces the node.
func LyingPowerCut(role Role) Fault {
	return func(ctx context.Context, r *Run) (Injected, error) {
		node := role(r)
		d, err := r.Lab.Disk(node)
		if err != nil {
			return Injected{}, err
		}
		if err := d.Fault(disk.Fault{Kind: disk.Lie, Op: disk.Flush}); err != nil {
			return Injected{}, err
		}
		before, err := d.Bites(disk.Lie)
		if err != nil {
			return Injected{}, err
		}
		if err := r.answers(ctx, "", 5*afterAll, within); err != nil {
			return Injected{}, err
		}
		after, err := d.Bites(disk.Lie)
		if err != nil {
			return Injected{}, err
		}
		in, err := PowerCut(disk.Drop, role)(ctx, r)
		if err != nil {
			return in, err
		}
		dead := in.Bites
		in.Mend = func(ctx context.Context) error { return r.startOrReplace(ctx, node) }
		in.Bites = func() (string, bool, error) {
			proof, ok, err := dead()
			return fmt.Sprintf("%d flushes of %s were lies, %s", after-before, node, proof), ok && after > before, err
		}
		return in, nil
	}
}

// RollBack puts the data directory of a node back to what it was before the cluster had gone on, as a snapshot of a
// virtual machine does. The daemon must refuse to run on it; a person replaces the node.
func RollBack(role Role) Fault {
	return func(ctx context.Context, r *Run) (Injected, error) {
		node := role(r)
		if err := r.Lab.Stop(node, toStop); err != nil {
			return Injected{}, err
		}
		dir := r.Lab.DataDir(node)
		old := dir + ".old"
		if err := os.RemoveAll(old); err != nil { // a soak rolls back more than once
			return Injected{}, err
		}
		if err := os.CopyFS(old, os.DirFS(dir)); err != nil {
			return Injected{}, err
		}
		if err := r.Lab.Start(node); err != nil {
			return Injected{}, err
		}
		if err := r.healthy(ctx, toHeal); err != nil {
			return Injected{}, err
		}
		if err := r.Lab.Stop(node, toStop); err != nil {
			return Injected{}, err
		}
		if err := emptyFolder(dir); err != nil {
			return Injected{}, err
		}
		if err := os.CopyFS(dir, os.DirFS(old)); err != nil {
			return Injected{}, err
		}
		said, err := logSize(r, node)
		if err != nil {
			return Injected{}, err
		}
		in := Injected{
			Bites: func() (string, bool, error) {
				ended, refused, err := r.refused(node, said)
				return fmt.Sprintf("%s has ended: %t, refused its old state: %t", node, ended, refused), ended && refused, err
			},
			Mend: func(ctx context.Context) error { return r.replace(ctx, node) },
		}
		if err := r.Lab.Start(node); err != nil {
			return in, err
		}
		ctx, cancel := context.WithTimeout(ctx, toHeal)
		defer cancel()
		for ctx.Err() == nil { // it has to hear of the others first
			if _, ok, err := in.Bites(); ok || err != nil {
				return in, err
			}
			select {
			case <-time.After(askEvery):
			case <-ctx.Done():
			}
		}
		return in, nil // Bites tells
	}
}

const superblockCopy = 4096 // each of the two copies has a block of its own

func logSize(r *Run, node string) (int64, error) {
	info, err := os.Stat(r.Lab.Log(node))
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// RotSuperblock changes a copy of what a stopped node keeps about its volume; the other copy is good, and is found.
func RotSuperblock(role Role) Fault {
	return func(ctx context.Context, r *Run) (Injected, error) {
		node := role(r)
		if err := r.Lab.Kill(node); err != nil {
			return Injected{}, err
		}
		path := superblock(r.Lab, node)
		before, err := os.ReadFile(path)
		if err != nil {
			return Injected{}, err
		}
		d, err := r.Lab.Disk(node)
		if err != nil {
			return Injected{}, err
		}
		// A copy of a bad sector: either may be hit, the newest or the older one.
		at := int64(r.Rand.IntN(2)) * superblockCopy
		if err := d.RotAt(at+int64(r.Rand.IntN(64)), 8, "superblock"); err != nil {
			return Injected{}, err
		}
		return Injected{
			Bites: func() (string, bool, error) {
				now, err := os.ReadFile(path)
				return fmt.Sprintf("the copy at byte %d of the superblock of %s has changed", at, node), err == nil && string(now) != string(before), err
			},
			Mend: func(context.Context) error { return r.Lab.Start(node) },
		}, nil
	}
}

// refusedState is in what a daemon says that must not vote with the state that it finds.
const refusedState = "was restored or copied"

// refused tells whether a node has ended, and whether it refused its state, behind what its log said before.
func (r *Run) refused(node string, said int64) (ended, refused bool, err error) {
	ids, err := r.Lab.Pids(node)
	text, rerr := os.ReadFile(r.Lab.Log(node))
	if err := errors.Join(err, rerr); err != nil {
		return false, false, err
	}
	return len(ids) == 0, strings.Contains(string(text[said:]), refusedState), nil
}

// startOrReplace starts a node, and replaces it if it refuses its state.
func (r *Run) startOrReplace(ctx context.Context, node string) error {
	said, err := logSize(r, node)
	if err != nil {
		return err
	}
	if err := r.Lab.Start(node); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, toHeal)
	defer cancel()
	for !slices.Contains(r.watch.present().InSync, node) {
		if ended, refused, err := r.refused(node, said); err != nil {
			return err
		} else if ended && refused {
			return r.replace(ctx, node)
		}
		select {
		case <-time.After(askEvery):
		case <-ctx.Done():
			return fmt.Errorf("%s is neither a member nor refused: %w", node, ctx.Err())
		}
	}
	return nil
}

// replace does with a node whose state nobody can trust what its messages say: remove it, empty its data directory, start
// it, add it anew.
func (r *Run) replace(ctx context.Context, node string) error {
	err := r.order(ctx, r.Witness(), func(ctx context.Context, c *api.Client) error { return c.NodeRemove(ctx, node) })
	if err != nil {
		return err
	}
	if err := emptyFolder(r.Lab.DataDir(node)); err != nil {
		return err
	}
	if err := r.Lab.Start(node); err != nil {
		return err
	}
	return r.order(ctx, r.Witness(), func(ctx context.Context, c *api.Client) error { return c.NodeAdd(ctx, node) })
}

func emptyFolder(dir string) error {
	all, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range all {
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}
