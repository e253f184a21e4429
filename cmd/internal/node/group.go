package node

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"hacluster/blockdev"
	"hacluster/blockdev/backend/joindev"
	"hacluster/blockdev/backend/timed"
	"hacluster/blockdev/frontend/attach"
	"hacluster/blockdev/meta"
	"hacluster/cmd/internal/api"
	"hacluster/heartbeat/cluster"
	"hacluster/replication"
)

// A consistency group is one volume to everything below this package, with the name of the group: one replica on each node, whose
// backing is the devices of its volumes, joined; one superblock, map, undo area and set of rescue images. Only clients and operators
// know its volumes, as windows on it (cluster.Window).

// disk is an opened backing, watched for stalls.
type disk interface {
	replication.Backing
	blockdev.DiskReader
	SetDeadline(time.Duration)
}

// joined are the devices of a group.
type joined struct {
	*joindev.Dev
	parts []*timed.Dev
}

func join(parts []*timed.Dev) joined {
	var all []blockdev.Device
	for _, p := range parts {
		all = append(all, p)
	}
	return joined{joindev.New(all...), parts}
}

// Stalled implements replication.Backing: a stall of one is one of the replica.
func (j joined) Stalled() bool {
	for _, p := range j.parts {
		if p.Stalled() {
			return true
		}
	}
	return false
}

func (j joined) SetDeadline(after time.Duration) {
	for _, p := range j.parts {
		p.SetDeadline(after)
	}
}

func closeParts(parts []*timed.Dev) (err error) {
	for _, p := range parts {
		err = errors.Join(err, p.Close())
	}
	return err
}

// fresh reports whether none of the backings holds anything yet.
func (v *volumes) fresh(paths []string) (bool, error) {
	for _, path := range paths {
		if fresh, err := v.n.env.Disks.Fresh(path); err != nil || !fresh {
			return false, err
		}
	}
	return true, nil
}

// boundPath is what the superblock of a group has of its devices' paths, in their order: as many as fit, and a digest of all when
// they do not.
func boundPath(paths string) string {
	if len(paths) <= meta.MaxDevicePath {
		return paths
	}
	sum := sha256.Sum256([]byte(paths))
	end := " ... " + hex.EncodeToString(sum[:])
	return paths[:meta.MaxDevicePath-len(end)] + end
}

// window is one volume of a group as its clients are served it: a part of the group's tenure, and all of its order. A flush is one of
// the whole group.
type window struct {
	described
	cluster.Window
}

// windowed is what the clients of a volume are served of a tenure.
func windowed(t *replication.Tenure, vol *cluster.Volume, w cluster.Window) window {
	out := window{described{Export: t.Export()}, w}
	if t.Epoch() == vol.Epoch { // who holds requests learns of the epoch by its next connection
		out.tenure = attach.Tenure{ID: vol.ID, Epoch: uint64(vol.Epoch), Since: uint64(vol.Since)}
	}
	return out
}

// Describe implements nbd.Describer.
func (w window) Describe() string {
	if w.tenure == (attach.Tenure{}) {
		return ""
	}
	return w.described.Describe()
}

// Size is that of the volume.
func (w window) Size() int64 { return w.Window.Size }

// Submit starts one operation of the volume. What would reach into another volume of the group is refused.
func (w window) Submit(req *blockdev.Request) {
	if req.Op == blockdev.OpFlush {
		w.described.Submit(req)
		return
	}
	if !req.Range.Within(w.Window.Size) {
		req.Err = fmt.Errorf("volume %q has %d bytes, %v reaches outside: %w", w.Name, w.Window.Size, req.Range, blockdev.ErrRange)
		req.Done(req)
		return
	}
	req.Range.Off += w.Off
	w.described.Submit(req)
}

// Extents implements nbd.Export.
func (w window) Extents(r blockdev.Range, fn func(blockdev.Range, bool) bool) error {
	if !r.Within(w.Window.Size) {
		return blockdev.ErrRange
	}
	r.Off += w.Off
	return w.described.Extents(r, func(e blockdev.Range, hole bool) bool {
		e.Off -= w.Off
		return fn(e, hole)
	})
}

// windowsOf names the volumes that clients know of what is mirrored under a name.
func (n *Node) windowsOf(volume string) []string {
	vol, ok := n.state.get().Volumes[volume]
	if !ok {
		return []string{volume}
	}
	return windowNames(&vol)
}

// groupOf is the group that an order was carried out on; empty: it was on a volume that is in none.
func groupOf(vol *cluster.Volume) string {
	if vol.IsGroup() {
		return vol.Name
	}
	return ""
}

// consentNamesAll refuses a consent to a loss that was given in the name of one volume of a group: the others, which would lose as
// well, were not named. command is how it is given for all.
func consentNamesAll(vol *cluster.Volume, asked, command string) error {
	if asked == vol.Name {
		return nil
	}
	return api.Refused("volume %q is of group %q, and what is consented to would be done to all of its volumes, %s: name the group, `ha-admin %s` with the same consent", asked, vol.Name, strings.Join(windowNames(vol), ", "), command)
}

// asKnown is the status of what is mirrored, as that of the volumes that clients know: the one that was asked for, or of a group all.
func (v *view) asKnown(vol *cluster.Volume, all api.VolumeStatus, asked string) (out []api.VolumeStatus) {
	if !vol.IsGroup() {
		return []api.VolumeStatus{all}
	}
	for i, w := range vol.Windows() {
		if asked != "" && asked != vol.Name && asked != w.Name {
			continue
		}
		vs := all
		vs.Name, vs.Group, vs.Size = w.Name, vol.Name, w.Size
		vs.Device, vs.DeviceReason = "", ""
		if s := v.serving(vol); s != nil && i < len(s.Parts) {
			vs.Device, vs.DeviceReason = s.Parts[i].Device, s.Parts[i].DeviceReason
		}
		if vs.Verify != nil {
			vs.Verify = verifiedIn(vol.Name, w, *vs.Verify)
		}
		out = append(out, vs)
	}
	return out
}

// verifiedIn is a comparison of the group with the ranges that lie in the window; what is counted is the group's.
func verifiedIn(group string, w cluster.Window, s api.VerifyStatus) *api.VerifyStatus {
	all := s.Ranges
	s.Group, s.Ranges = group, nil
	for _, r := range all {
		if from, to := max(r.Offset, w.Off), min(r.Offset+r.Length, w.Off+w.Size); from < to {
			if from > r.Offset { // they are of a block of the volume before
				r.PrimaryDigest, r.ReplicaDigest = "", ""
			}
			r.RepairedBytes = max(r.RepairedBytes-(r.Length-(to-from)), 0) // where it was repaired is not known: at least so much of this
			r.Volume, r.Offset, r.Length = w.Name, from-w.Off, to-from
			s.Ranges = append(s.Ranges, r)
		}
	}
	return &s
}
