package replication

import (
	"errors"
	"fmt"
	"time"

	"hacluster/blockdev"
	"hacluster/blockdev/failpoint"
	"hacluster/blockdev/undo"
	"hacluster/heartbeat/cluster"
)

// A replica that a person promotes in the middle of its resync returns to its last consistent point before it serves
// (R18), in this order: what is written back is marked (R14); it is written and flushed; the superblock says that the
// replica is whole; the undo area goes. A crash, or a newer epoch, before the superblock says so leaves the area, and all
// of it is written back once more. A member never gets here: its superblock says that it is whole.

// rollBack writes the old content back. It counts as an operation on the device, so that the role waits for it; its end
// kicks.
func (r *Replica) rollBack(e cluster.Epoch) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stopped || r.spoiltLocked() || r.node.Now() < r.again {
		return
	}
	p := r.pointLocked()
	if p == nil {
		r.again = r.node.Now().Add(refreshPause)
		r.sayLocked(noWayBack)
		return
	}
	r.draining++
	r.goes.Go(func() {
		defer r.returned()
		r.event("rollback began", fmt.Sprintf("a person had %s promoted in the middle of a resync: it returns to its last consistent point, of epoch %d, before it serves; %d bytes are written back", r.cfg.Node, p.Epoch, p.Bytes))
		err := r.writeBack(e, p.Bytes)
		if err == nil {
			err = r.rolledBack()
		}
		switch {
		case errors.Is(err, errOvertaken):
			r.say("")
		case err != nil:
			r.rollBackFailed(err)
		default:
			r.say("")
			r.event("rollback ended", fmt.Sprintf("%s is at its last consistent point, of epoch %d", r.cfg.Node, p.Epoch))
		}
	})
}

func (r *Replica) writeBack(e cluster.Epoch, total int64) error {
	done := int64(0)
	err := r.area().Each(func(at blockdev.Range, content []byte) error {
		if !r.rollingBack(e, done, total) {
			return errOvertaken
		}
		if err := r.markAndWait(at); err != nil {
			return err
		}
		failpoint.Hit(failpoint.RollbackWrite)
		var err error
		if content == nil {
			err = r.dev.Zero(at, true)
		} else {
			_, err = r.dev.WriteAt(content, at.Off)
		}
		failpoint.Hit(failpoint.RollbackWritten)
		if err != nil {
			r.noteFailure(err)
		}
		done += at.Len
		return err
	})
	if err != nil {
		return err
	}
	if err := r.dev.Flush(); err != nil {
		r.noteFailure(err)
		return err
	}
	return nil
}

// rolledBack notes that the replica is whole, and lets the area go. That a disk has failed stays noted.
func (r *Replica) rolledBack() error {
	err := r.setHealth(func(inconsistent, _ *bool) error { *inconsistent = false; return nil })
	if err == nil {
		err = r.endUndo()
	}
	if err == nil && r.cfg.Rescue != nil {
		err = r.cfg.Rescue.Drop() // what it held is there again
	}
	if err != nil {
		r.unusable("the end of the rollback cannot be noted: " + err.Error())
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.recv.Marked(false)
	return nil
}

func (r *Replica) rollBackFailed(err error) {
	again := "it is tried again every " + refreshPause.Round(time.Second).String() + ": repair the disk under it, or promote another replica"
	if errors.Is(err, undo.ErrCorrupt) {
		again = "promote another replica"
	}
	why := fmt.Sprintf("it was promoted in the middle of a resync and cannot return to its last consistent point, so it does not serve: %v; %s", err, again)
	r.mu.Lock()
	news := r.doing != why
	r.again = r.node.Now().Add(refreshPause)
	r.sayLocked(why)
	r.mu.Unlock()
	if news {
		r.event("rollback failed", why)
	}
}

// rollingBack notes how far it is; false: it is to end, for the epoch that it is for has.
func (r *Replica) rollingBack(e cluster.Epoch, done, total int64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.doing = fmt.Sprintf("it was promoted in the middle of a resync: it returns to its last consistent point before it serves, %d of %d MiB done", done>>20, total>>20)
	return r.vol.Epoch == e && r.problem == "" && !r.stopped
}
