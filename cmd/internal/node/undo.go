package node

import (
	"errors"
	"path/filepath"

	"hacluster/blockdev/meta"
	"hacluster/blockdev/undo"
	"hacluster/heartbeat/cluster"
)

// openUndo opens the undo area of a replica, which lies beside the superblock. What is found beside a replica that is whole
// is over and removed: the closing of a resync was noted, or its first overwrite had not begun (R18). So is what is found
// beside a superblock that was just made, for it is not of that one. One that is damaged
// leads nowhere and stays until the resync ends. One of another volume, node or device, or that a newer program wrote, is a
// problem of the replica.
func (v *volumes) openUndo(st *cluster.State, vol cluster.Volume, attachment string, limit int64, made bool, super *superblock, src undo.Source) (*undo.Area, error) {
	dir, _ := v.superblockPath(vol.Name)
	place := watchedPlace{&undo.Dir{Path: filepath.Join(dir, "undo"), Space: &v.space}, v.n.disk, "read or write the undo area of volume " + vol.Name}
	if made || !super.Inconsistent() {
		if err := removeIfThere(place); err != nil {
			return nil, err
		}
	}
	a, err := undo.Open(undo.Config{Place: place, Limit: limit, Binding: undo.Binding{Cluster: meta.ID(idOf(st.ID)), Volume: meta.ID(idOf(vol.ID)),
		Node: v.n.me.Name, Size: vol.Size, Attachment: attachment, Epoch: uint64(super.Epoch())}}, src)
	if err != nil {
		return nil, err
	}
	if why := a.Damage(); why != "" {
		v.n.log.Error("a resync has overwritten a part of this replica, and its undo area leads nowhere: until the resync ends it cannot be promoted, also not by force",
			"volume", vol.Name, "why", why)
	}
	return a, nil
}

func removeIfThere(p undo.Place) error {
	s, err := p.Open()
	if errors.Is(err, undo.ErrNone) {
		return nil
	}
	if err != nil {
		return err
	}
	return errors.Join(s.Close(), p.Remove())
}

// undoReserve is what undo areas and rescue images together leave of their file system for Raft, superblocks and maps: a tenth,
// at most 1 GiB.
func undoReserve(total int64) int64 { return min(total/10, 1<<30) }

// watch is what times the operations, as deadline.Watch does.
type watch interface{ Begin(op string) (end func()) }

// watchedPlace is an undo.Place whose operations are timed (R26).
type watchedPlace struct {
	undo.Place
	disk watch
	op   string
}

func (p watchedPlace) Open() (undo.Store, error) { return p.watched(p.Place.Open()) }

func (p watchedPlace) Create(head []byte) (undo.Store, error) {
	defer p.disk.Begin(p.op)()
	return p.watched(p.Place.Create(head))
}

func (p watchedPlace) Remove() error {
	defer p.disk.Begin(p.op)()
	return p.Place.Remove()
}

func (p watchedPlace) watched(s undo.Store, err error) (undo.Store, error) {
	if err != nil {
		return nil, err
	}
	return watchedUndo{s, p.disk, p.op}, nil
}

type watchedUndo struct {
	undo.Store
	disk watch
	op   string
}

func (s watchedUndo) ReadAt(p []byte, off int64) (int, error) {
	defer s.disk.Begin(s.op)()
	return s.Store.ReadAt(p, off)
}

func (s watchedUndo) WriteAt(p []byte, off int64) (int, error) {
	defer s.disk.Begin(s.op)()
	return s.Store.WriteAt(p, off)
}

func (s watchedUndo) Flush() error {
	defer s.disk.Begin(s.op)()
	return s.Store.Flush()
}

// left is in which epoch, and when in milliseconds since 1970, the node's replica was a member last, as far as the events
// in the state go back; zero: that is not known. It leaves by a drop, or by a promotion of another.
func left(st *cluster.State, volume, node string) (e cluster.Epoch, atMillis int64) {
	for i := len(st.Events) - 1; i >= 0; i-- {
		ev := &st.Events[i]
		if ev.Volume != volume {
			continue
		}
		switch {
		case ev.Node == node && ev.Kind == "member dropped":
			return ev.Epoch, ev.AtMillis
		case ev.Node == node && ev.Kind == "member admitted":
			return e, atMillis
		case ev.Node == node && ev.Kind == "promoted": // it was a member from then on
			return e, atMillis
		case ev.Kind == "promoted" && ev.Epoch > 0:
			e, atMillis = ev.Epoch-1, ev.AtMillis
		}
	}
	return e, atMillis
}
