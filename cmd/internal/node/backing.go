package node

import (
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"hacluster/blockdev"
	"hacluster/blockdev/backend/filedev"
	"hacluster/blockdev/backend/timed"
	"hacluster/blockdev/deadline"
	"hacluster/blockdev/failpoint"
	"hacluster/blockdev/marks"
	"hacluster/blockdev/meta"
	"hacluster/blockdev/rescue"
	"hacluster/blockdev/undo"
	"hacluster/cmd/internal/config"
	"hacluster/heartbeat/cluster"
	"hacluster/replication"
)

// backing is an opened local device with its superblock and its map of what may differ.
type backing struct {
	dev         disk
	attachment  string
	super       *superblock
	marks       *marks.File
	undo        *undo.Area
	rescue      *rescue.Shelf
	incarnation cluster.Incarnation
	fresh       bool
	inline      bool
	stalled     atomic.Pointer[replication.Replica] // who is told of a stall
	close       func()
}

func (v *volumes) superblockPath(volume string) (dir, path string) {
	dir = filepath.Join(v.n.cfg.DataDir(), "volumes", volume)
	return dir, filepath.Join(dir, "superblock")
}

// openBacking opens and holds the device (R24) and finds its superblock. Nothing is made where something may be lost:
// a superblock only for a replica that is no member, a file only for one that never had any.
func (v *volumes) openBacking(st *cluster.State, vol cluster.Volume, device string, conf config.Volume) (*backing, error) {
	dir, path := v.superblockPath(vol.Name)
	_, err := os.Stat(path)
	known := err == nil
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	if !known && vol.IsMember(v.n.me.Name) {
		return nil, fmt.Errorf("superblock %s is missing, yet this replica is a member: restore data_dir, or remove the node from the cluster and add it again to have it resynced", path)
	}
	paths := cluster.Paths(vol.Parts, cluster.Replica{Node: v.n.me.Name, Device: device})
	fresh, err := v.fresh(paths)
	if err != nil && !known { // else it is not claimed, and the opening below says what is wrong with which device
		return nil, err
	}
	if !known && !fresh && vol.Stamp(v.n.me.Name) != 0 && !vol.WantsFull(v.n.me.Name) {
		return nil, fmt.Errorf("%s holds data, or is a block device, of which that is not known: remove what is there, or say that it may be overwritten with `ha-admin volume resync %s --replica %s --full`",
			strings.Join(paths, " and "), vol.Name, v.n.me.Name)
	}
	var was *meta.Superblock
	if known {
		if was, err = resizing(path, vol); err != nil {
			return nil, err
		}
	}
	b := &backing{fresh: fresh && vol.Epoch == 0}
	if err := v.openDisks(b, st, vol, paths, filedev.Config{Mode: ioMode(conf.IO), Create: !known}); err != nil {
		return nil, err
	}
	b.incarnation = cluster.Incarnation{Boot: hex.EncodeToString(v.n.boot[:]), Attachment: b.attachment}.Of(vol.Stamp(v.n.me.Name))
	if !known && vol.Next > vol.Size { // it may be a member when that size comes into force
		if err := v.prepare(&vol, device); err != nil {
			return nil, errors.Join(fmt.Errorf("volume %s has %d bytes and is to have %d: %w", vol.Name, vol.Size, vol.Next, err), b.dev.Close())
		}
	}
	if was != nil {
		if err := v.resize(vol, device, was, b.dev, v.marksBinding(st, vol, b.attachment, "")); err != nil {
			return nil, errors.Join(err, b.dev.Close())
		}
	}
	bound := device
	if vol.IsGroup() {
		bound = boundPath(device)
	}
	if b.super, err = v.openSuper(st, vol, dir, path, bound, b.attachment, known); err != nil {
		return nil, errors.Join(err, b.dev.Close())
	}
	doubt := doubtOf(vol, v.n.me.Name, !known, b.super.Epoch())
	if v.asLeft(vol.Name, b.super.Epoch()) {
		doubt = "" // promoted, and opened anew before it has stored the epoch
	}
	if b.marks, err = v.openMarks(st, vol, b.attachment, b.fresh && b.super.Epoch() == 0, doubt); err != nil {
		return nil, errors.Join(err, b.super.close(), b.dev.Close())
	}
	if b.undo, err = v.openUndo(st, vol, b.attachment, conf.UndoLimit, !known, b.super, b.dev); err != nil {
		return nil, errors.Join(err, b.marks.Close(), b.super.close(), b.dev.Close())
	}
	if b.rescue, err = v.openRescue(st, vol, b.attachment, conf, b.super, b.dev); err != nil {
		return nil, errors.Join(err, b.undo.Close(), b.marks.Close(), b.super.close(), b.dev.Close())
	}
	b.close = func() {
		if err := errors.Join(b.rescue.Stop(), b.undo.Close(), b.marks.Close(), b.super.close(), b.dev.Close()); err != nil {
			v.n.log.Error("closing the backing", "volume", vol.Name, "error", err)
		}
	}
	return b, nil
}

// openDisks opens and holds each of the devices, and joins those of a group. One that is refused does not end it: another may have
// lost its end, which has to be noted while it can be seen (R16, R23).
func (v *volumes) openDisks(b *backing, st *cluster.State, vol cluster.Volume, paths []string, c filedev.Config) error {
	var parts []*timed.Dev
	var attachments []string
	var failed error
	b.inline = true
	for i, w := range vol.Windows() {
		c.Size = w.Size
		file, err := v.n.env.Disks.Open(paths[i], c)
		if err != nil {
			if lost := v.noteShort(st, vol, w, paths[i], err); lost != nil {
				err = fmt.Errorf("%w; %w", err, lost)
			}
			if failed = errors.Join(failed, err); c.Create {
				break // it held nothing yet, and no further file is made
			}
			continue
		}
		parts, attachments = append(parts, v.timed(b, file, vol, w, paths[i])), append(attachments, file.Attachment())
		b.inline = b.inline && file.Fast()
	}
	if failed != nil {
		return errors.Join(failed, closeParts(parts))
	}
	if b.dev, b.attachment = parts[0], attachments[0]; vol.IsGroup() {
		b.dev, b.attachment = join(parts), meta.JoinedAttachment(attachments)
	}
	return nil
}

// timed watches one device of the backing.
func (v *volumes) timed(b *backing, file Disk, vol cluster.Volume, w cluster.Window, path string) *timed.Dev {
	return timed.New(file, timed.Config{Deadline: v.n.conf().Cluster.DiskDeadline, OnStall: func(op blockdev.Op, r blockdev.Range, since time.Duration) {
		if vol.IsGroup() {
			v.n.log.Error("a device of the group does not answer", "group", vol.Name, "volume", w.Name, "device", path, "operation", op, "for", since)
			v.n.events.add("disk stalled", vol.Name, fmt.Sprintf("%s of %s, of volume %s, does not answer for %v: %v", path, v.n.me.Name, w.Name, since.Round(time.Millisecond), op))
		}
		if r.Len > 0 {
			r.Off += w.Off
		}
		if rep := b.stalled.Load(); rep != nil {
			rep.Stalled(op, r, since)
		}
	}, OnError: func(op blockdev.Op, err error) {
		b.super.suspect.mark(op, err) // it is there before the first operation
	}})
}

func ioMode(m config.IO) filedev.Mode {
	switch m {
	case config.IOBuffered:
		return filedev.Buffered
	case config.IODirect:
		return filedev.Direct
	}
	return filedev.Auto
}

func (v *volumes) openSuper(st *cluster.State, vol cluster.Volume, dir, path, device, attachment string, known bool) (*superblock, error) {
	defer v.n.disk.Begin("open the superblock of volume " + vol.Name)()
	if !known {
		if err := makeDirs(v.n.cfg.DataDir(), dir); err != nil {
			return nil, err
		}
		sb := meta.Superblock{ClusterID: idOf(st.ID), VolumeID: idOf(vol.ID), Node: v.n.me.Name, Size: vol.Size, Resized: vol.Resized, Replica: vol.Stamp(v.n.me.Name), BlockSize: blockdev.BlockSize,
			DevicePath: device, Attachment: attachment, Inconsistent: vol.Epoch > 0} // it holds no state that the volume ever had
		if err := meta.Create(path, sb); err != nil {
			return nil, err
		}
	}
	f, err := meta.Open(path, meta.Binding{ClusterID: idOf(st.ID), VolumeID: idOf(vol.ID), Node: v.n.me.Name, Size: vol.Size, Resized: vol.Resized,
		Replica: vol.Stamp(v.n.me.Name), BlockSize: blockdev.BlockSize, DevicePath: device, Attachment: attachment})
	if err != nil {
		return nil, err
	}
	for _, line := range f.Repaired() {
		v.n.log.Warn("superblock repaired from its other copy", "volume", vol.Name, "what", line)
	}
	s := &superblock{file: f, disk: v.n.disk, op: "write the superblock of volume " + vol.Name}
	if s.Epoch() > vol.Epoch && st.Nodes[v.n.me.Name].Start == v.n.dir.id.Start {
		return nil, errors.Join(fmt.Errorf("the superblock of volume %s has epoch %d, the cluster knows %d: the cluster's state went back; do not go on before it is clear why",
			vol.Name, s.Epoch(), vol.Epoch), f.Close())
	}
	if s.suspect, err = openSuspect(dir, hex.EncodeToString(v.n.boot[:])); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if err := v.recall(vol.Name, s, attachment); err != nil {
		return nil, errors.Join(err, s.suspect.close(), f.Close())
	}
	return s, nil
}

// recall notes in the superblock what an earlier process of this boot knew of the backing and could not note any more.
func (v *volumes) recall(volume string, s *superblock, attachment string) error {
	left, err := s.suspect.left()
	if err != nil {
		return err
	}
	if left {
		v.n.log.Error("the backing failed under an earlier process, which died before it could note that: the replica is no candidate until it has been resynced", "volume", volume)
	}
	return s.suspect.during(func() error {
		return s.update(func(sb *meta.Superblock) { sb.Attachment, sb.Failed = attachment, sb.Failed || left })
	})
}

// superblock shows a meta.File as replication wants it. Its writes are timed (R26).
type superblock struct {
	file *meta.File
	disk *deadline.Watch
	op   string
	// suspect has what of Failed is not stored yet.
	suspect *suspect
}

func (s *superblock) close() error { return errors.Join(s.file.Close(), s.suspect.close()) }

func (s *superblock) update(change func(*meta.Superblock)) error {
	defer s.disk.Begin(s.op)()
	return s.file.Update(change)
}

var _ replication.Superblock = (*superblock)(nil)

func (s *superblock) Epoch() cluster.Epoch { return cluster.Epoch(s.file.Get().Epoch) }
func (s *superblock) Inconsistent() bool   { return s.file.Get().Inconsistent }
func (s *superblock) Failed() bool         { return s.file.Get().Failed }

func (s *superblock) SetEpoch(e cluster.Epoch) error {
	return s.update(func(sb *meta.Superblock) { sb.Epoch = max(sb.Epoch, uint64(e)) })
}

func (s *superblock) SetHealth(inconsistent, failed bool) error {
	return s.suspect.during(func() error {
		return s.update(func(sb *meta.Superblock) { sb.Inconsistent, sb.Failed = inconsistent, failed })
	})
}

func (s *superblock) Clean() *cluster.Clean {
	c := s.file.Get().CleanStop
	if !c.Valid {
		return nil
	}
	return &cluster.Clean{Incarnation: cluster.Incarnation{Boot: hex.EncodeToString(c.BootID[:]), Attachment: c.Attachment}, Process: c.Start}
}

func (s *superblock) SetClean(c *cluster.Clean) error {
	if c == nil && !s.file.Get().CleanStop.Valid {
		return nil
	}
	if c == nil {
		failpoint.Hit(failpoint.CleanClear)
		defer failpoint.Hit(failpoint.CleanIsCleared)
	}
	return s.update(func(sb *meta.Superblock) {
		sb.CleanStop = meta.CleanStop{}
		if c != nil {
			sb.CleanStop = meta.CleanStop{Valid: true, BootID: idOf(c.Incarnation.Boot), Attachment: c.Incarnation.Attachment, Start: c.Process}
		}
	})
}
