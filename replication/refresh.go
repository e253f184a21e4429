package replication

import (
	"errors"
	"fmt"
	"time"

	"hacluster/blockdev"
	"hacluster/heartbeat/cluster"
)

// After a failed write or flush the page cache may show, as clean, what the disk never took: it reads as new and no
// later flush writes it. Two things make such a replica sound again, and nothing else does:
//
//	a resync     the primary has every block written again, also those that read alike (CopyAll)
//	a person     promotes it all the same, because nothing better is left: then it writes every block again itself,
//	             from what it reads, before the mark of the failure goes and before it serves (R20)
//
// In both cases the backing is opened anew first: a failed flush is final for the opening in which it failed.

// refreshPause is how long a refresh that failed waits before it begins again.
const refreshPause = 10 * time.Second

// refreshUnit is how much is read and written at a time.
const refreshUnit = 1 << 20

// spoiltLocked reports whether the backing failed since it was opened.
func (r *Replica) spoiltLocked() bool { return r.super != nil && r.failures.Load() != r.reopened }

// quietLocked reports whether nothing of ours is on the device, and nothing will be before something changes here.
func (r *Replica) quietLocked() bool {
	return r.tenure == nil && r.session == nil && r.draining == 0 && r.recv.Outstanding() == 0 && r.digesting == 0 && r.unnoted == 0
}

// reopen opens a backing that failed anew, and has its map of marks written anew if that failed, once nothing is on
// the device (R2, R26). It counts as an operation on the device until it is over: no epoch is stored and no stream
// answered meanwhile. begun: it was begun here, its end kicks.
func (r *Replica) reopen() (begun bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.spoiltLocked() || !r.quietLocked() || r.stopped || r.dev.Stalled() || r.node.Now() < r.again {
		return false
	}
	failures := r.failures.Load()
	r.draining++
	r.goes.Go(func() {
		defer r.returned()
		what, err := "the backing failed and cannot be opened anew", r.dev.Reopen()
		if err == nil && r.cfg.Marks != nil { // a mark that failed was a failed write
			what, err = noMarks, r.cfg.Marks.Revive()
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		if err != nil {
			r.again = r.node.Now().Add(r.timers.drop())
			r.sayLocked(fmt.Sprintf("%s: %v", what, err))
			return
		}
		r.reopened = failures
		r.sayLocked("")
		r.revivedLocked()
		r.log.Info("the backing was opened anew after its failure")
	})
	return true
}

// sayLocked puts in the status what the replica is at, and in the log what it is when that is news.
func (r *Replica) sayLocked(doing string) {
	if doing != "" && doing != r.doing {
		r.log.Warn("replica is not ready", "why", doing)
	}
	r.doing = doing
}

func (r *Replica) say(doing string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sayLocked(doing)
}

// refresh writes the whole content again and removes the mark of the failed disk. It counts as an operation on the
// device, so that the role waits for it; its end kicks. The mark stays until the end, so a crash begins it anew. When a
// write or flush fails again the replica does not serve: it says why, and tries again after a pause.
func (r *Replica) refresh(e cluster.Epoch) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stopped || r.spoiltLocked() || r.node.Now() < r.again {
		return
	}
	failures := r.failures.Load()
	r.draining++
	r.goes.Go(func() {
		defer r.returned()
		r.event("refresh began", fmt.Sprintf("a person had %s promoted although a write or flush of its disk had failed: its whole content is written again before it serves", r.cfg.Node))
		unreadable, err := r.rewrite(e)
		if err == nil {
			err = r.setHealth(func(_, failed *bool) error {
				if r.failures.Load() != failures {
					return errFailedAgain
				}
				*failed = false
				return nil
			})
			if err != nil && !errors.Is(err, errFailedAgain) {
				r.unusable(fmt.Sprintf("the mark of the failed disk cannot be removed: %v", err))
			}
		}
		switch {
		case errors.Is(err, errOvertaken):
			r.say("")
		case err != nil:
			r.refreshFailed(err)
		default:
			r.say("")
			r.event("refresh ended", fmt.Sprintf("the content of %s was written again and is durable; %d bytes could not be read and stay unreadable", r.cfg.Node, unreadable))
		}
	})
}

func (r *Replica) refreshFailed(err error) {
	why := fmt.Sprintf("its disk failed again while its content was written anew, so it does not serve: %v; it is tried again every %v: repair the disk under it, or promote another replica", err, refreshPause)
	r.mu.Lock()
	news := r.doing != why
	r.again = r.node.Now().Add(refreshPause)
	r.sayLocked(why)
	r.mu.Unlock()
	if news {
		r.event("refresh failed", why)
	}
}

var (
	errOvertaken   = errors.New("the epoch or the process ended meanwhile")
	errFailedAgain = errors.New("another operation of the device failed meanwhile")
)

// rewrite reads and writes every block that holds data, and flushes. Blocks that cannot be read are left alone: nothing
// of them is in memory that the disk could lack, and reading them goes on telling so.
func (r *Replica) rewrite(e cluster.Epoch) (unreadable int64, err error) {
	size := r.cfg.Volume.Size
	buf := blockdev.NewBuf(refreshUnit)
	defer buf.Free()
	for off := int64(0); off < size; off += refreshUnit {
		if !r.refreshing(e, off) {
			return 0, errOvertaken
		}
		at := blockdev.Range{Off: off, Len: min(refreshUnit, size-off)}
		var data []blockdev.Range
		if err := r.dev.Extents(at, func(x blockdev.Range, hole bool) bool {
			if !hole {
				data = append(data, x)
			}
			return true
		}); err != nil {
			return 0, err
		}
		for _, x := range data {
			lost, err := r.rewriteRange(buf.Bytes()[:x.Len], x.Off)
			if err != nil {
				r.noteFailure(err)
				return 0, err
			}
			unreadable += lost
		}
	}
	if err := r.dev.Flush(); err != nil {
		r.noteFailure(err)
		return 0, err
	}
	return unreadable, nil
}

// rewriteRange tries it block by block where the whole cannot be read.
func (r *Replica) rewriteRange(p []byte, off int64) (unreadable int64, err error) {
	if _, err := r.dev.ReadAt(p, off); err == nil {
		_, err = r.dev.WriteAt(p, off)
		return 0, err
	}
	for at := 0; at < len(p); at += blockdev.BlockSize {
		block := p[at:min(at+blockdev.BlockSize, len(p))]
		if _, err := r.dev.ReadAt(block, off+int64(at)); err != nil {
			unreadable += int64(len(block))
			continue
		}
		if _, err := r.dev.WriteAt(block, off+int64(at)); err != nil {
			return 0, err
		}
	}
	return unreadable, nil
}

// refreshing notes how far a refresh is; false: it is to end, for the epoch that it is for has.
func (r *Replica) refreshing(e cluster.Epoch, done int64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.doing = fmt.Sprintf("its disk had failed and it was promoted all the same: it writes its content again before it serves, %d of %d MiB done", done>>20, r.cfg.Volume.Size>>20)
	return r.vol.Epoch == e && r.problem == "" && !r.stopped
}

func (r *Replica) event(kind, text string) { r.node.Event(r.cfg.Volume.Name, kind, text) }
