package node

import (
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"

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
	room := &watchedRoom{Room: &rescue.Dir{Path: filepath.Join(dir, "rescue"), Space: &v.space}, disk: v.n.disk, op: op}
	s, err := rescue.Open(rescue.Config{Room: room, Limit: conf.UndoLimit, Patience: v.n.conf().Timers.DropAfter / 2,
		Binding: undo.Binding{Cluster: meta.ID(idOf(st.ID)), Volume: meta.ID(idOf(vol.ID)), Node: v.n.me.Name, Size: vol.Size, Attachment: attachment, Epoch: uint64(super.Epoch())},
		Ended: func(id, why string) {
			v.n.events.add("rescue image not whole", vol.Name, fmt.Sprintf("%s has what the resync overwrote, and is no whole volume any more: %s", id, why))
		},
		Left: func(id string, err error) {
			v.n.log.Warn("among the rescue images is what is none, and it stays", "volume", vol.Name, "directory", id, "why", err)
		},
		Unnoted: func(err error) {
			v.n.log.Warn("what outlives the rescue images cannot be read or noted", "volume", vol.Name, "why", err)
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

// watchedRoom is a rescue.Room whose operations are timed (R26), except for an image that is closed: what goes on there has its
// own end (rescue.Config.Patience), and is no reason to end the node.
type watchedRoom struct {
	rescue.Room
	disk *deadline.Watch
	op   string

	mu     sync.Mutex
	closed map[string]*atomic.Bool
}

func (r *watchedRoom) watch(id string) untilClosed {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed == nil {
		r.closed = map[string]*atomic.Bool{}
	}
	if r.closed[id] == nil {
		r.closed[id] = &atomic.Bool{}
	}
	return untilClosed{r.disk, r.closed[id]}
}

func (r *watchedRoom) Closed(id string) { r.watch(id).closed.Store(true) }

func (r *watchedRoom) Image(id string) undo.Place {
	return watchedPlace{r.Room.Image(id), r.watch(id), r.op}
}

func (r *watchedRoom) Make(id string) error {
	defer r.watch(id).Begin(r.op)()
	return r.Room.Make(id)
}

func (r *watchedRoom) SetLabel(id string, p []byte) error {
	defer r.watch(id).Begin(r.op)()
	return r.Room.SetLabel(id, p)
}

func (r *watchedRoom) SetLedger(p []byte) error {
	defer r.disk.Begin(r.op)()
	return r.Room.SetLedger(p)
}

func (r *watchedRoom) Spoil(id string, p []byte) error {
	defer r.watch(id).Begin(r.op)()
	return r.Room.Spoil(id, p)
}

// Remove forgets the name.
func (r *watchedRoom) Remove(id string) error {
	defer r.watch(id).Begin(r.op)()
	err := r.Room.Remove(id)
	if err == nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.closed, id)
	}
	return err
}

// untilClosed watches until the image is closed, also what was opened before.
type untilClosed struct {
	disk   *deadline.Watch
	closed *atomic.Bool
}

func (u untilClosed) Begin(op string) func() {
	if u.closed.Load() {
		return func() {}
	}
	return u.disk.Begin(op)
}
