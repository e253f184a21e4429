package replication

import (
	"errors"
	"fmt"
	"time"

	"hacluster/blockdev"
	"hacluster/blockdev/rescue"
	"hacluster/blockdev/undo"
	"hacluster/heartbeat/cluster"
	"hacluster/replication/standby"
)

// A replica that is held after a promotion by force may have acknowledged writes that the new epoch lacks. It is resynced all
// the same, for what is overwritten goes into a rescue image first (R19; blockdev/rescue), which is its undo area meanwhile
// and stays when the resync has ended. Without room for it nothing more is overwritten: the stream ends, and every roomPause
// it is tried again, until there is room, or a person says that the image is not wanted.

// roomPause is how long a replica without room for a rescue image waits before it looks again.
const roomPause = time.Minute

// errAwaits ends an entry that must not be carried out: what it overwrites is not kept aside. The device is sound.
var errAwaits = errors.New("what the resync overwrites is not kept aside")

// area is what keeps old content in the resync that has not ended.
func (r *Replica) area() *undo.Area {
	if s := r.cfg.Rescue; s != nil {
		if a, _ := s.Live(); a != nil {
			return a
		}
	}
	return r.cfg.Undo
}

// keepLocked is what becomes of what a resync overwrites now.
func (r *Replica) keepLocked() standby.Keeping {
	w := standby.Way{InPieces: r.recv.Inconsistent(), Room: r.cfg.Rescue != nil}
	if a := r.area(); a != nil {
		w.Live = a.Live()
	}
	if w.Room {
		a, since := r.cfg.Rescue.Live()
		w.Image, w.Since, w.Kept = a != nil, cluster.Epoch(since), r.keptSince()
	}
	return standby.Keep(&r.vol, r.cfg.Node, w)
}

func (r *Replica) keep() standby.Keeping {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.keepLocked()
}

// awaitsLocked is why no resync may overwrite this replica now, for the primary and for people; empty: it may.
func (r *Replica) awaitsLocked() string {
	switch {
	case !r.owesLocked():
		r.noRoom = ""
	case r.keepLocked() == standby.Await:
		return fmt.Sprintf("it may hold acknowledged writes that the others lack, and they cannot be kept aside, for an earlier resync had begun to overwrite it: `ha-admin volume resync %s --replica %s --discard-target-data` has them overwritten",
			r.cfg.Volume.Name, r.cfg.Node)
	case r.node.Now() < r.roomAt:
		return r.noRoom
	}
	return ""
}

// awaitRoom has nothing more overwritten for a while: old content cannot be kept aside, and nobody said that it need not be.
func (r *Replica) awaitRoom(cause error) error {
	why := fmt.Sprintf("it may hold acknowledged writes that the others lack, and they cannot be kept aside as a rescue image: %v; make room, and its resync goes on by itself within %v, or `ha-admin volume resync %s --replica %s --discard-target-data` has them overwritten",
		cause, roomPause, r.cfg.Volume.Name, r.cfg.Node)
	r.mu.Lock()
	news := why != r.noRoom
	r.noRoom, r.roomAt = why, r.node.Now().Add(roomPause)
	if s := r.session; s != nil {
		s.silent.Store(true)
		s.link.Close()
	}
	r.mu.Unlock()
	if news {
		r.log.Error("the resync of this replica waits for room, or for a person", "why", cause)
		r.event("resync waits", r.cfg.Node+": "+why)
	}
	return fmt.Errorf("%w: %w", errAwaits, cause)
}

// beginImage makes the rescue image, before the first block is overwritten.
func (r *Replica) beginImage() error {
	epoch, at := r.node.Left(r.cfg.Volume.Name)
	r.mu.Lock()
	lacks := r.vol.Epoch
	r.mu.Unlock()
	err := r.cfg.Rescue.Begin(undo.Point{Epoch: uint64(epoch), AtMillis: at}, uint64(r.super.Epoch()))
	if err != nil {
		return r.awaitRoom(err)
	}
	r.event("rescue image begun", fmt.Sprintf("%s may hold acknowledged writes that epoch %d lacks: what its resync overwrites is kept aside", r.cfg.Node, lacks))
	return nil
}

// takeUp has an image that was out of room take old content again, before anything of a new stream is carried out.
func (r *Replica) takeUp() error {
	a := r.area()
	if a == nil || a.Failed() == nil || r.keep() != standby.GoOn || !r.owes() {
		return nil
	}
	if err := a.Reopen(r.dev); err != nil {
		return r.awaitRoom(err)
	}
	return nil
}

// keptSince is since when nothing that this replica had of its own is left on it; 0: that is not known.
func (r *Replica) keptSince() cluster.Epoch {
	if r.cfg.Rescue == nil {
		return 0
	}
	return cluster.Epoch(r.cfg.Rescue.Kept())
}

func (r *Replica) owesLocked() bool { return standby.Owes(&r.vol, r.cfg.Node, r.keptSince()) }

func (r *Replica) owes() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.owesLocked()
}

// goOnWithout decides about what is not logged: it is given up, or nothing is overwritten.
func (r *Replica) goOnWithout(cause error) error {
	if r.owes() {
		return r.awaitRoom(cause)
	}
	return r.dropUndo(cause)
}

// endImage closes the rescue image of a resync that has ended.
func (r *Replica) endImage() error {
	s := r.cfg.Rescue
	if s == nil {
		return nil
	}
	i, err := s.Finish(time.Now())
	if err == nil && i.ID != "" {
		r.event("rescue image kept", fmt.Sprintf("%d bytes that %s held and epoch %d lacks are kept there as %s, until `ha-admin volume rescue delete %s %s`",
			i.Bytes, r.cfg.Node, i.Epoch, i.ID, r.cfg.Volume.Name, i.ID))
	}
	return err
}

// leaveImage closes the rescue image of a resync that a person has go on without it.
func (r *Replica) leaveImage(cause error) error {
	i, err := r.cfg.Rescue.CloseEarly(time.Now(), fmt.Sprintf("a person had the resync go on without it: what was overwritten from then on is not in it (%v)", cause))
	if err == nil && i.ID != "" {
		r.event("rescue image incomplete", fmt.Sprintf("%s has %d bytes that %s held and epoch %d lacks; the rest is overwritten without it, as a person said: `ha-admin volume rescue export %s %s --partial`",
			i.ID, i.Bytes, r.cfg.Node, i.Epoch, r.cfg.Volume.Name, i.ID))
	}
	return err
}

// RescueImages tells of what is kept aside of this replica, oldest first.
func (r *Replica) RescueImages() []rescue.Info {
	if r.cfg.Rescue == nil {
		return nil
	}
	return r.cfg.Rescue.List()
}

// ReadRescue reads a piece of an image; see rescue.Shelf.
func (r *Replica) ReadRescue(id string, c rescue.Cursor, partial bool) (rescue.Piece, error) {
	if r.cfg.Rescue == nil {
		return rescue.Piece{}, fmt.Errorf("%w: %s", rescue.ErrNone, id)
	}
	return r.cfg.Rescue.Read(id, c, partial)
}

// RemoveRescue deletes an image for good.
func (r *Replica) RemoveRescue(id, by string) error {
	if r.cfg.Rescue == nil {
		return fmt.Errorf("%w: %s", rescue.ErrNone, id)
	}
	err := r.cfg.Rescue.Remove(id)
	if err == nil {
		r.event("rescue image deleted", fmt.Sprintf("%s of %s, by %s", id, r.cfg.Node, by))
	}
	return err
}

// keptBacking has old content kept before anything is written, for images that are closed.
type keptBacking struct {
	Backing
	shelf *rescue.Shelf
}

func (k *keptBacking) WriteAt(p []byte, off int64) (int, error) {
	k.shelf.Keep(blockdev.Range{Off: off, Len: int64(len(p))})
	return k.Backing.WriteAt(p, off)
}

func (k *keptBacking) WriteFUA(p []byte, off int64) (int, error) {
	k.shelf.Keep(blockdev.Range{Off: off, Len: int64(len(p))})
	return k.Backing.WriteFUA(p, off)
}

func (k *keptBacking) WriteVAt(segments [][]byte, off int64) (int, error) {
	n := 0
	for _, s := range segments {
		n += len(s)
	}
	k.shelf.Keep(blockdev.Range{Off: off, Len: int64(n)})
	return k.Backing.WriteVAt(segments, off)
}

func (k *keptBacking) Zero(at blockdev.Range, unmap bool) error {
	k.shelf.Keep(at)
	return k.Backing.Zero(at, unmap)
}

// ReadDiskAt implements blockdev.DiskReader as far as the backing does.
func (k *keptBacking) ReadDiskAt(p []byte, off int64) (int, error) {
	if d, ok := k.Backing.(blockdev.DiskReader); ok {
		return d.ReadDiskAt(p, off)
	}
	return k.Backing.ReadAt(p, off)
}

var (
	_ Backing             = (*keptBacking)(nil)
	_ blockdev.DiskReader = (*keptBacking)(nil)
)
