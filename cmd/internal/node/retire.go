package node

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"hacluster/blockdev/meta"
	"hacluster/heartbeat/cluster"
)

// retire closes replicas of volumes that are no more, and sets aside what they leave behind. It waits for no disk.
func (v *volumes) retire(st *cluster.State) {
	if st.ID == "" {
		return
	}
	v.mu.Lock()
	for name, h := range v.all {
		vol, ok := st.Volumes[name]
		msg := ""
		switch {
		case !ok || vol.ID != h.id:
			msg = "closing a volume that was removed"
		case !v.isOf(&vol, h.stamp):
			msg = "closing a replica that was removed from its volume"
		}
		if msg != "" && !h.retired && !v.done {
			h.retired = true
			v.goes.Go(func() { v.close(name, h, msg, func() { delete(v.left, name) }) })
		}
	}
	v.mu.Unlock()
	if st.Nodes[v.n.me.Name].Start != v.n.dir.id.Start {
		return // what our log shows may be old
	}
	for _, gone := range st.Removed {
		v.sweep(st, gone)
	}
	v.sweepReplicas(st)
}

// close ends a replica in order: clients are cut off, the device is waited for and flushed, the clean-stop mark is left.
func (v *volumes) close(name string, h *held, msg string, thenLocked func()) {
	v.n.log.Info(msg, "volume", name)
	h.cancel()
	<-h.ended
	v.mu.Lock()
	if v.all[name] == h {
		delete(v.all, name)
	}
	thenLocked()
	v.mu.Unlock()
	v.wake()
}

// sweep sets aside the metadata of a volume that was removed, once its replica is closed: also on a node that was away
// when it happened, and on one whose replica had been removed before. A new volume of the same name has another id and is left alone.
func (v *volumes) sweep(st *cluster.State, gone cluster.Removed) {
	if v.swept[gone.ID] {
		return
	}
	v.mu.Lock()
	h := v.all[gone.Name]
	open := h != nil && (h.retired || h.id == gone.ID)
	v.mu.Unlock()
	if open {
		return // the end of close wakes us
	}
	v.swept[gone.ID] = true
	end := v.n.disk.Begin("set the metadata of a removed volume aside")
	defer end()
	switch where, err := v.setAside(st, gone); {
	case err != nil:
		v.n.log.Error("what a removed volume left behind stays where it is", "volume", gone.Name, "error", err)
	case where != "":
		v.n.log.Info("removed volume", "volume", gone.Name, "what_is_left", where)
		v.n.events.add("volume closed", gone.Name, where)
	}
}

// leftBacking is a backing of a removed volume. user is the volume that has it now; empty: none.
type leftBacking struct{ device, user string }

func (v *volumes) backingsOf(st *cluster.State, gone cluster.Removed, rep cluster.Replica) (all []leftBacking) {
	for _, device := range cluster.Paths(gone.Parts, rep) {
		all = append(all, leftBacking{device, userOf(st, v.n.me.Name, device, v.opened)})
	}
	return all
}

// setAside does what the removal asked for, in this order: the data first, so that a crash between does not leave data
// that nobody remembers to delete. where says what was done; empty: there was nothing. What an earlier replica of this node left, that the
// removed volume had no more, is none of its data, and what its record has for this node it never took: nothing is deleted.
func (v *volumes) setAside(st *cluster.State, gone cluster.Removed) (where string, err error) {
	dir, path := v.superblockPath(gone.Name)
	sb, err := meta.Read(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", nil
	case err != nil:
		return "", err
	case sb.VolumeID != idOf(gone.ID):
		return "", nil
	}
	last := cluster.Volume{Name: gone.Name, ID: gone.ID, Parts: gone.Parts, Replicas: gone.Replicas}
	if !v.isOf(&last, sb.Replica) {
		return v.putAside(&last, &sb)
	}
	rep, _ := last.Replica(v.n.me.Name)
	backings := v.backingsOf(st, gone, rep)
	if gone.DeleteData {
		return deleteAll(dir, backings)
	}
	to := filepath.Join(v.n.cfg.DataDir(), "removed", gone.Name+"-"+gone.ID[:min(8, len(gone.ID))])
	if err := makeDirs(v.n.cfg.DataDir(), filepath.Dir(to)); err != nil {
		return "", err
	}
	if err := os.Rename(dir, to); err != nil {
		return "", err
	}
	var devices []string
	for _, b := range backings {
		devices = append(devices, b.device)
	}
	return fmt.Sprintf("its data stays in %s, its metadata lies in %s", strings.Join(devices, " and "), to), errors.Join(syncDir(filepath.Dir(dir)), syncDir(filepath.Dir(to)))
}

// opened reports whether this node has ever opened its replica of the volume.
func (v *volumes) opened(vol cluster.Volume) bool {
	_, path := v.superblockPath(vol.Name)
	sb, err := meta.Read(path)
	return err == nil && sb.VolumeID == idOf(vol.ID)
}

// userOf is the volume whose replica on node has the device and has been opened; empty: none. What is to be deleted is deleted
// before another volume gets to it; but where that failed, a later process tries it again, and somebody else's data lies there.
func userOf(st *cluster.State, node, device string, opened func(cluster.Volume) bool) string {
	for name, vol := range st.Volumes {
		if r, ok := vol.Replica(node); ok && slices.Contains(cluster.Paths(vol.Parts, r), device) && opened(vol) {
			return name
		}
	}
	return ""
}

// deleteAll deletes the data, and then the metadata. What it did with one backing it does again after a crash.
func deleteAll(dir string, backings []leftBacking) (where string, err error) {
	var all []string
	for _, b := range backings {
		where, err := deleteData(b.device, b.user)
		if err != nil {
			return "", err
		}
		all = append(all, where)
	}
	if err := os.RemoveAll(dir); err != nil {
		return "", err
	}
	return strings.Join(all, "; "), syncDir(filepath.Dir(dir))
}

func deleteData(device, user string) (where string, err error) {
	info, err := os.Lstat(device)
	switch {
	case user != "":
		where = fmt.Sprintf("%s has been given to volume %s: its metadata is deleted, the content stays", device, user)
	case errors.Is(err, fs.ErrNotExist):
		where = "its data was gone already"
	case err != nil:
		return "", err
	case info.Mode().IsRegular():
		if err := os.Remove(device); err != nil {
			return "", err
		}
		if err := syncDir(filepath.Dir(device)); err != nil { // else it may be back after a power cut, and its metadata not
			return "", err
		}
		where = device + " is deleted"
	case info.Mode()&fs.ModeSymlink != 0:
		where = device + " is a symbolic link: its metadata is deleted, and what it leads to stays: " + leadsTo(device)
	default:
		where = device + " is a device: its metadata is deleted, its content stays"
	}
	return where, nil
}

// leadsTo tells of a symbolic link what a person finds behind it.
func leadsTo(link string) string {
	path, err := filepath.EvalSymlinks(link)
	if err != nil {
		return "nothing is there" // it is for the text only
	}
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return path
	case info.Mode().IsRegular():
		return "the file " + path
	}
	return "the device " + path
}
