package node

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"hacluster/blockdev"
	"hacluster/blockdev/backend/filedev"
	"hacluster/blockdev/meta"
	"hacluster/heartbeat/cluster"
)

// noteShort is for a backing that was refused, or the device of a group's volume. One that has become smaller than what its replica held has lost what lay behind
// its end. When it is long enough again, zeroes or something foreign lie there, and no map would tell. So it is noted, durably,
// as long as it can be seen:
//
//	1 the map of marks is removed: all blocks may differ (R16)
//	2 the replica has failed, and did not stop cleanly: it is no candidate until it has been resynced (R23)
//
// A crash in between has both done at the next opening. The error, if any, is for people: what was lost, or why it cannot be
// noted. Another backing, or one too small for a growth only, has lost nothing of this replica; a device without any bytes is
// detached.
//
// Of a group it is not known what each file was like: also another, shorter one in its place counts as one that lost its end.
func (v *volumes) noteShort(st *cluster.State, vol cluster.Volume, w cluster.Window, device string, refused error) error {
	var short *filedev.ShortError
	if !errors.As(refused, &short) || short.Attachment == "" {
		return nil
	}
	dir, path := v.superblockPath(vol.Name)
	sb, err := meta.Read(path)
	bound, attachment, held := device, short.Attachment, sb.Size
	if vol.IsGroup() {
		rep, _ := vol.Replica(v.n.me.Name)
		bound, attachment, held = boundPath(rep.Device), "", w.Size
	}
	if err != nil || sb.VolumeID != idOf(vol.ID) || sb.DevicePath != bound || short.Has >= held {
		return nil // none, or one that the opening will refuse with its reason
	}
	if _, same := meta.SameBacking(sb.Attachment, attachment); !same || short.Has == 0 && isDevice(device) {
		return nil
	}
	lost := fmt.Errorf("the last %d bytes of what this replica held are lost: it is no candidate until the backing is long enough and has been resynced", held-short.Has)
	if sb.Failed {
		return lost
	}
	v.n.log.Error("the backing has become smaller than its replica", "volume", vol.Name, "device", device, "has", short.Has, "held", held)
	if err := v.failShort(dir, path, device, meta.Binding{ClusterID: idOf(st.ID), VolumeID: sb.VolumeID, Node: v.n.me.Name, Size: sb.Size, Resized: sb.Resized, Replica: sb.Replica,
		BlockSize: blockdev.BlockSize, DevicePath: bound, Attachment: attachment}); err != nil {
		return fmt.Errorf("note that the last %d bytes are lost: %w: resync this replica wholly before it is trusted again", held-short.Has, err)
	}
	return lost
}

func (v *volumes) failShort(dir, path, device string, b meta.Binding) error {
	defer v.n.disk.Begin("note that " + device + " is shorter than its replica")()
	f, err := meta.Open(path, b)
	if err != nil {
		return err // it is another's: nothing is changed
	}
	if err := os.Remove(filepath.Join(dir, "marks")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return errors.Join(err, f.Close())
	}
	if err := syncDir(dir); err != nil {
		return errors.Join(err, f.Close())
	}
	return errors.Join(f.Update(func(sb *meta.Superblock) { sb.Failed, sb.CleanStop = true, meta.CleanStop{} }), f.Close())
}

func isDevice(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode()&fs.ModeDevice != 0
}
