package node

import (
	"fmt"
	"path/filepath"

	"hacluster/blockdev/deadline"
	"hacluster/blockdev/meta"
	"hacluster/blockdev/rescue"
	"hacluster/blockdev/undo"
	"hacluster/cmd/internal/config"
	"hacluster/heartbeat/cluster"
)

// openRescue finds what is kept aside of a replica, beside its superblock (R19). What belongs to a resync that the superblock
// says has ended is closed now. In a replica that was replaced there is nothing of its own: its images are of the one before.
func (v *volumes) openRescue(st *cluster.State, vol cluster.Volume, attachment string, conf config.Volume, super *superblock, src undo.Source) (*rescue.Shelf, error) {
	dir, _ := v.superblockPath(vol.Name)
	op := "read or write a rescue image of volume " + vol.Name
	room := watchedRoom{&rescue.Dir{Path: filepath.Join(dir, "rescue"), Reserve: undoReserve}, v.n.disk, op}
	s, err := rescue.Open(rescue.Config{Room: room, Limit: conf.UndoLimit, Patience: v.n.conf().Timers.DropAfter / 2,
		Binding: undo.Binding{Cluster: meta.ID(idOf(st.ID)), Volume: meta.ID(idOf(vol.ID)), Node: v.n.me.Name, Size: vol.Size, Attachment: attachment, Epoch: uint64(super.Epoch())},
		Ended: func(id, why string) {
			v.n.events.add("rescue image not whole", vol.Name, fmt.Sprintf("%s has what the resync overwrote, and is no whole volume any more: %s", id, why))
		}}, src, super.Inconsistent())
	if err != nil {
		return nil, fmt.Errorf("volume %s: %w", vol.Name, err)
	}
	for _, i := range s.List() {
		if i.Why != "" {
			v.n.log.Warn("a rescue image is no whole volume: what the resync overwrote is in it", "volume", vol.Name, "image", i.ID, "why", i.Why)
		}
	}
	return s, nil
}

// watchedRoom is a rescue.Room whose operations are timed (R26).
type watchedRoom struct {
	rescue.Room
	disk *deadline.Watch
	op   string
}

func (r watchedRoom) Image(id string) undo.Place {
	return watchedPlace{r.Room.Image(id), r.disk, r.op}
}

func (r watchedRoom) Make(id string) error {
	defer r.disk.Begin(r.op)()
	return r.Room.Make(id)
}

func (r watchedRoom) SetLabel(id string, p []byte) error {
	defer r.disk.Begin(r.op)()
	return r.Room.SetLabel(id, p)
}

func (r watchedRoom) Spoil(id string, p []byte) error {
	defer r.disk.Begin(r.op)()
	return r.Room.Spoil(id, p)
}

func (r watchedRoom) Remove(id string) error {
	defer r.disk.Begin(r.op)()
	return r.Room.Remove(id)
}
