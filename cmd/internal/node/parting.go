package node

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"hacluster/blockdev/meta"
	"hacluster/heartbeat/cluster"
)

// A replica that was removed from its volume while that goes on, or removed and added again, so that it is another one by now: what the
// old one leaves behind is set aside, also on a node that was away when it happened. Its superblock bears its number, so it is never
// taken for what a later replica of the node has (R25).

// isOf reports whether a replica of this node that bears the stamp is the one that the record has.
func (v *volumes) isOf(vol *cluster.Volume, stamp uint32) bool {
	_, here := vol.Replica(v.n.me.Name)
	return here && vol.Stamp(v.n.me.Name) == stamp
}

// sweepReplicas looks, until it succeeds, for each change of a volume's replicas. It is called when our log is not older than this process.
func (v *volumes) sweepReplicas(st *cluster.State) {
	for name, vol := range st.Volumes {
		if vol.LastNumber == 0 {
			continue // as it was created
		}
		key := fmt.Sprintf("%s replica %d of %d", vol.ID, vol.NumberOf(v.n.me.Name), vol.LastNumber)
		v.mu.Lock()
		h := v.all[name]
		v.mu.Unlock()
		if v.swept[key] || h != nil && !v.isOf(&vol, h.stamp) { // the end of its close wakes us
			continue
		}
		if h != nil {
			v.swept[key] = true
			continue
		}
		end := v.n.disk.Begin("set the metadata of a removed replica aside")
		where, err := v.partAside(&vol)
		end()
		v.swept[key] = err == nil // else it is tried again
		switch {
		case err != nil:
			if v.unswept[key] != err.Error() {
				v.unswept[key] = err.Error()
				v.n.log.Error("what a removed replica left behind stays where it is", "volume", name, "error", err)
			}
		case where != "":
			v.n.log.Info("the replica of this node was removed", "volume", name, "what_is_left", where)
			v.n.events.add("replica closed", name, fmt.Sprintf("the replica of %s was removed from the volume: %s", v.n.me.Name, where))
		}
	}
}

// partAside sets aside the metadata of a replica that is none any more. where says what was done; empty: there was nothing.
func (v *volumes) partAside(vol *cluster.Volume) (where string, err error) {
	_, path := v.superblockPath(vol.Name)
	sb, err := meta.Read(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", nil
	case err != nil:
		return "", err
	case sb.VolumeID != idOf(vol.ID) || v.isOf(vol, sb.Replica):
		return "", nil
	case sb.Replica > vol.LastNumber:
		return "", fmt.Errorf("its superblock has number %d, and the volume gave %d the last: the cluster's state went back; do not go on before it is clear why", sb.Replica, vol.LastNumber)
	}
	return v.putAside(vol, &sb)
}

// putAside does it, in this order: the superblock goes, and with it all that acts on the data; then what only it needed is removed. Rescue
// images stay (R19), and so does the data.
func (v *volumes) putAside(vol *cluster.Volume, sb *meta.Superblock) (where string, err error) {
	dir, _ := v.superblockPath(vol.Name)
	to := filepath.Join(v.n.cfg.DataDir(), "removed", fmt.Sprintf("%s-%s-replica-%d", vol.Name, vol.ID[:min(8, len(vol.ID))], sb.Replica))
	if err := makeDirs(v.n.cfg.DataDir(), filepath.Dir(to)); err != nil {
		return "", err
	}
	if err := os.Rename(dir, to); err != nil {
		return "", err
	}
	if err := errors.Join(syncDir(filepath.Dir(dir)), syncDir(filepath.Dir(to))); err != nil {
		return "", err
	}
	entries, err := os.ReadDir(to)
	for _, e := range entries {
		if n := e.Name(); n != "superblock" && n != "rescue" {
			err = errors.Join(err, os.RemoveAll(filepath.Join(to, n)))
		}
	}
	kept := ""
	if _, serr := os.Stat(filepath.Join(to, "rescue")); serr == nil {
		kept = ", and rescue images"
	}
	return fmt.Sprintf("its data stays in %s, which may be used for something else; its superblock%s lie in %s", sb.DevicePath, kept, to), err
}
