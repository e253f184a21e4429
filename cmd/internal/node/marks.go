package node

import (
	"errors"
	"fmt"
	"path/filepath"

	"hacluster/blockdev/deadline"
	"hacluster/blockdev/marks"
	"hacluster/blockdev/meta"
	"hacluster/heartbeat/cluster"
	"hacluster/replication"
)

// openMarks opens the map of what may differ from the other replicas, which lies beside the superblock. Where there is
// none, or a damaged one, all may differ, unless the volume was never written anywhere (R16). One that belongs to another
// volume, node or device, or that a newer program wrote, is a problem of the replica. doubt says why one that is there must
// not be believed.
func (v *volumes) openMarks(st *cluster.State, vol cluster.Volume, attachment string, fresh bool, doubt string) (*marks.File, error) {
	defer v.n.disk.Begin("open the map of marks of volume " + vol.Name)()
	dir, _ := v.superblockPath(vol.Name)
	path := filepath.Join(dir, "marks")
	b := v.marksBinding(st, vol, attachment, doubt)
	peers := replication.Peers(&vol, v.n.me.Name)
	f, err := v.loadMarks(path, vol.Name, b)
	if errors.Is(err, marks.ErrNone) || errors.Is(err, marks.ErrCorrupt) {
		if !fresh {
			v.n.log.Warn("there is no map of what may differ: the next resync compares everything", "volume", vol.Name, "why", err)
		}
		if err := marks.CreatePath(path, marks.New{Binding: b, Peers: peers, Everything: !fresh}); err != nil {
			return nil, err
		}
		b.Doubt = ""
		f, err = v.loadMarks(path, vol.Name, b)
	}
	if err != nil {
		return nil, err
	}
	for _, line := range f.Damage() {
		v.n.log.Warn("map of marks was damaged, or cannot be believed", "volume", vol.Name, "what", line)
	}
	if err := f.Fit(peers); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func (v *volumes) marksBinding(st *cluster.State, vol cluster.Volume, attachment, doubt string) marks.Binding {
	return marks.Binding{Cluster: meta.ID(idOf(st.ID)), Volume: meta.ID(idOf(vol.ID)), Node: v.n.me.Name, Size: vol.Size,
		Incarnation: marks.Incarnation{Boot: meta.ID(v.n.boot), Attachment: attachment, Start: v.n.dir.id.Start}, Doubt: doubt}
}

// doubtOf says why a map of marks that is found must not be believed: its superblock is not the one that it was made
// with, or went back. That one was primary of this epoch is known of it to have stored the epoch before it wrote (R16).
func doubtOf(vol cluster.Volume, self string, made bool, epoch cluster.Epoch) string {
	switch {
	case made:
		return "there was a map, but no superblock: it may be of another backing"
	case vol.Primary == self && epoch < vol.Epoch:
		return fmt.Sprintf("this node was primary of epoch %d, its superblock knows of epoch %d only: it may have been restored", vol.Epoch, epoch)
	}
	return ""
}

func (v *volumes) loadMarks(path, volume string, b marks.Binding) (*marks.File, error) {
	store, err := marks.OpenPath(path)
	if err != nil {
		return nil, err
	}
	f, err := marks.Open(watchedStore{store, v.n.disk, "write the map of marks of volume " + volume}, b)
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	return f, nil
}

// watchedStore is a marks.Store whose writes are timed (R26).
type watchedStore struct {
	marks.Store
	disk *deadline.Watch
	op   string
}

func (s watchedStore) WriteAt(p []byte, off int64) (int, error) {
	defer s.disk.Begin(s.op)()
	return s.Store.WriteAt(p, off)
}

func (s watchedStore) Flush() error {
	defer s.disk.Begin(s.op)()
	return s.Store.Flush()
}
