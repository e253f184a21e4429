package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"hacluster/blockdev"
	"hacluster/blockdev/failpoint"
	"hacluster/blockdev/marks"
	"hacluster/blockdev/meta"
	"hacluster/blockdev/undo"
	"hacluster/cmd/internal/api"
	"hacluster/cmd/internal/config"
	"hacluster/cmd/internal/control"
	"hacluster/heartbeat/cluster"
	"hacluster/replication"
)

// How a volume grows and shrinks. A size belongs to an epoch, so that within one all replicas, streams, maps and clients have the
// same.
//
//	1 every replica is a member, takes part in the epoch, so has the present size, and keeps no rescue image, which would be of
//	  that size. To grow: its backing holds the new size, and reads as zeroes where the volume was larger before (Enlarge): a
//	  larger backing is served as before. To shrink: a person consented to the loss of what lies behind the new end, by how much
//	  it is, and no client is connected, or he consented to cut them off
//	2 the applied configuration, with the size that the volume has from the next promotion on at which every replica is a
//	  member, is committed. A promotion by force gives it up. From here on clients are shown the smaller of the two sizes
//	  (replication.Export), so that nothing is acknowledged that the promotion takes away
//	3 the role is handed over. Writes go on until then; a failover instead does as well
//	4 the promotion is committed: its epoch has the new size, with the next number. Whoever serves then stops, as at any promotion
//	5 each replica that finds itself open with another size, or an older number, is closed, flushed, and opened anew
//	  (backing.resize) before it acts in the epoch: the promoted one before it serves, the others before they take a stream, a
//	  node that was away at its next start
//
// A crash before 2 leaves larger backings, between 2 and 4 a volume of the old size that gets the new one with its next promotion,
// after 4 one of the new size. A member that cannot be opened with the new size answers nothing, and is dropped before any
// write is acknowledged without it (R4); if it is the promoted one, it gives the role up (R23). Nothing is written to what a
// smaller size cuts off, and no backing is made shorter: what lay there is there until the volume grows over it.

// mayResize refuses what a replica could not follow, or a person has not consented to, before anything is committed, and has the
// backings prepared.
func (n *Node) mayResize(ctx context.Context, v *view, c *cluster.Configure, r api.ApplyRequest) error {
	for _, to := range c.Resize {
		vol := v.state.Volumes[to.Name]
		if err := v.mayResize(&vol, to, r); err != nil {
			return err
		}
	}
	for _, to := range c.Resize {
		vol := v.state.Volumes[to.Name]
		if to.Size <= vol.Size {
			continue
		}
		for _, r := range vol.Replicas {
			ask := &control.Enlarge{Volume: vol.Name, ID: vol.ID, From: vol.Size, Number: vol.Resized, Size: to.Size, Cleared: vol.Cleared(to.Size)}
			if err := n.askEnlarge(ctx, r.Node, ask); err != nil {
				return api.Failed("nothing is applied: the replica of %q on %s cannot have %d bytes: %s", vol.Name, r.Node, to.Size, status.Convert(err).Message())
			}
		}
	}
	return nil
}

func (v *view) mayResize(vol *cluster.Volume, to cluster.ResizeVolume, r api.ApplyRequest) error {
	if to.Size == vol.Size {
		return nil // what was decided and is not in force is taken back
	}
	if vol.Primary == "" || v.serving(vol) == nil {
		return api.Unavailable("volume %q is to be resized and is not served at the moment: `ha-admin status %s` shows why", vol.Name, vol.Name)
	}
	if len(vol.Replicas) < 2 {
		return api.Refused("volume %q is to be resized and has one replica only: nobody could take the role over with the new size", vol.Name)
	}
	for _, r := range vol.Replicas {
		rep := v.report(r.Node, vol.Name)
		switch {
		case !vol.IsMember(r.Node) || rep == nil || !rep.Usable():
			return api.Refused("volume %q is to be resized and the replica of %s is not in sync, or does not answer: wait until `ha-admin status %s` says healthy", vol.Name, r.Node, vol.Name)
		case rep.Epoch != vol.Epoch: // it may have the size before still
			return api.Refused("volume %q is to be resized and the replica of %s takes no part in epoch %d yet: wait until `ha-admin status %s` says healthy", vol.Name, r.Node, vol.Epoch, vol.Name)
		}
		if kept := v.rescued(vol.Name, r.Node); len(kept) > 0 {
			return api.Refused("volume %q is to be resized and %s keeps %d rescue images of it, which are of its present size (R19): export what is wanted of them and delete them, `ha-admin volume rescue list %s` shows them",
				vol.Name, r.Node, len(kept), vol.Name)
		}
	}
	if to.Size < vol.Size {
		return mayShrink(vol, to, v.serving(vol).Clients, r)
	}
	return nil
}

// mayShrink is about consent.
func mayShrink(vol *cluster.Volume, to cluster.ResizeVolume, clients int, r api.ApplyRequest) error {
	if !r.AcceptDataLoss {
		return api.Refused("volume %q is to shrink from %d to %d bytes, and its last %d bytes are lost: make what is on it smaller first (`resize2fs`), then consent with --accept-data-loss; to keep them, have size = %d in the configuration",
			vol.Name, vol.Size, to.Size, vol.Size-to.Size, vol.Size)
	}
	if clients > 0 && !r.DisconnectClients {
		return api.Refused("volume %q is to shrink and %d clients are connected to it, which use its present size: disconnect them, or consent with --disconnect-clients", vol.Name, clients)
	}
	return nil
}

func (n *Node) askEnlarge(ctx context.Context, node string, ask *control.Enlarge) error {
	if node == n.me.Name {
		_, err := n.Enlarge(ctx, ask)
		return err
	}
	client, err := n.peers.control(node)
	if err != nil {
		return err
	}
	_, err = client.Enlarge(ctx, ask)
	return err
}

// Enlarge implements control.Handler.
func (n *Node) Enlarge(ctx context.Context, r *control.Enlarge) (*control.Done, error) {
	vol, ok := n.state.get().Volumes[r.Volume]
	rep, here := vol.Replica(n.me.Name)
	if !ok || !here || vol.ID != r.ID {
		return nil, status.Errorf(codes.FailedPrecondition, "no replica of volume %q with id %s here", r.Volume, r.ID)
	}
	if vol.Size != r.From || vol.Resized != r.Number {
		return nil, status.Errorf(codes.FailedPrecondition, "volume %q has %d bytes here (size %d), asked was on %d (size %d)", r.Volume, vol.Size, vol.Resized, r.From, r.Number)
	}
	if err := n.env.Disks.Enlarge(rep.Device, r.Size); err != nil {
		return nil, status.Error(codes.FailedPrecondition, err.Error())
	}
	failpoint.Hit(failpoint.ResizeEnlarged)
	if r.Cleared > r.From {
		if err := n.vols.clearTail(ctx, &vol, rep.Device, blockdev.Range{Off: r.From, Len: min(r.Cleared, r.Size) - r.From}); err != nil {
			return nil, status.Error(codes.FailedPrecondition, err.Error())
		}
	}
	return &control.Done{}, nil
}

// takeForce hands the roles of volumes that are resized over, so that their sizes are in force when the answer goes out.
func (n *Node) takeForce(ctx context.Context, before *cluster.State, c *cluster.Configure) error {
	return takeForce(c.Resize, func(g cluster.ResizeVolume) error {
		if g.Size == before.Volumes[g.Name].Size {
			return nil // taken back
		}
		epoch := before.Volumes[g.Name].Epoch
		if _, err := n.Failover(ctx, api.FailoverRequest{Volume: g.Name, Epoch: uint64(epoch)}); err != nil {
			return fmt.Errorf("the role was not handed over now: %w", err)
		}
		if has := n.state.get().Volumes[g.Name].Size; has != g.Size {
			return errors.New("a replica had left the set when the role was handed over")
		}
		return nil
	})
}

// takeForce has each volume handed over, also when one before it could not be, and says of all that were not why.
func takeForce(all []cluster.ResizeVolume, handOver func(cluster.ResizeVolume) error) error {
	var names, whys []string
	for _, g := range all {
		if err := handOver(g); err != nil {
			names = append(names, g.Name)
			whys = append(whys, fmt.Sprintf("%s, which is to have %d bytes: %v", g.Name, g.Size, err))
		}
	}
	if len(names) == 0 {
		return nil
	}
	return api.Failed("the change is applied, and %d of %d volumes that are resized have their old size until their next promotion at which every replica is in sync (%s): wait until `ha-admin status` says healthy, then `ha-admin failover VOLUME`; %s",
		len(names), len(all), strings.Join(names, ", "), strings.Join(whys, "; "))
}

// sizeWaitsFor says why a volume that is to have another size has its old one still.
func sizeWaitsFor(vol *cluster.Volume, promotable []string) string {
	const next = "its next promotion, for within an epoch its size stays"
	for _, r := range vol.Replicas {
		if !vol.IsMember(r.Node) {
			return fmt.Sprintf("%s; the replica of %s has to be in sync first: then `ha-admin failover %s` hands the role over", next, r.Node, vol.Name)
		}
	}
	if len(promotable) == 0 {
		return fmt.Sprintf("%s; no replica can take the role over now: when one is in sync, `ha-admin failover %s` hands it over", next, vol.Name)
	}
	return fmt.Sprintf("%s: `ha-admin failover %s` hands the role over, to %s for one", next, vol.Name, promotable[0])
}

// overtaken are the sizes that the file and the applied configuration agree on and that the volumes do not have, and are not to
// get: a promotion by force gave the growth up.
func overtaken(st *cluster.State, old, next *config.Config) (steps []config.Step) {
	for _, g := range resizes(st, next) {
		if o, _ := old.Mirror(g.Name); o.Size == g.Size {
			kind := config.StepChange
			if g.Loses > 0 {
				kind = config.StepShrink
			}
			steps = append(steps, config.Step{Kind: kind, What: "volume " + g.Name + ": size",
				Text: fmt.Sprintf("%d bytes -> %d bytes: this was applied before, and given up when the volume was promoted by force", st.Volumes[g.Name].Size, g.Size)})
		}
	}
	return steps
}

// resizes are the sizes that the configuration has and the volumes neither have nor are to get.
func resizes(st *cluster.State, next *config.Config) (all []cluster.ResizeVolume) {
	for _, vol := range next.Mirrors() {
		if v, ok := st.Volumes[vol.Name]; ok && vol.Size != v.NextSize() {
			all = append(all, cluster.ResizeVolume{Name: v.Name, ID: v.ID, Epoch: v.Epoch, Version: v.Version, Size: vol.Size, Number: v.Resized + 1, Loses: max(0, v.Size-vol.Size)})
		}
	}
	return all
}

// reopenResized closes a replica that was opened with another size than its volume has by now. True: it is not to be used.
func (v *volumes) reopenResized(vol cluster.Volume, h *held) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if h.size == vol.Size && h.resized == vol.Resized {
		return h.retired
	}
	if !h.retired && !v.done {
		h.retired = true
		v.goes.Go(func() {
			v.close(vol.Name, h, "closing a replica, to open it with the volume's new size", func() { v.left[vol.Name] = h.replica.Report().Epoch })
		})
	}
	return true
}

// mayLag reports whether what our log shows of a volume may be older than its replica here, and must not be acted on before the
// start of this process is in it: a superblock is made only for a replica that is no member, and one that was being resized when
// the process before died would be refused for the old size. Its map of marks has the new one before its superblock has. A map that keeps
// what a replica lacks of which the log does not know would forget it.
func (v *volumes) mayLag(vol cluster.Volume) bool {
	dir, path := v.superblockPath(vol.Name)
	sb, err := meta.Read(path)
	if err != nil {
		return true
	}
	size, peers, err := marks.Peek(filepath.Join(dir, "marks"))
	if err != nil {
		size, peers = sb.Size, nil // without a map, all may differ: that is no reason to wait
	}
	known := replication.Peers(&vol, v.n.me.Name)
	if slices.ContainsFunc(peers, func(p marks.Peer) bool { return !slices.Contains(known, p) }) {
		return true
	}
	return behind(&sb, size, vol, vol.Stamp(v.n.me.Name))
}

// behind is the decision: sb is what the superblock says, marked the size that the map of marks is of.
func behind(sb *meta.Superblock, marked int64, vol cluster.Volume, stamp uint32) bool {
	if sb.Replica != stamp {
		return true // of before, or of after, the replica was removed and added again
	}
	switch vol.AgeOf(sb.Size, sb.Resized) {
	case cluster.SizeNewer, cluster.SizeConflict:
		return true
	case cluster.SizeOlder:
		return marked != sb.Size && marked != vol.Size
	}
	return marked != vol.Size
}

// asLeft reports whether a superblock has the epoch with which this very process closed the replica to open it anew: then it is
// no older one that was put in its place (R16).
func (v *volumes) asLeft(volume string, stored cluster.Epoch) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	e, ok := v.left[volume]
	delete(v.left, volume)
	return ok && e == stored
}

// resizing is what a replica was before its volume got its size; nil: it has that size.
func resizing(path string, vol cluster.Volume) (*meta.Superblock, error) {
	sb, err := meta.Read(path)
	if err != nil {
		return nil, err
	}
	if sb.VolumeID != idOf(vol.ID) || vol.AgeOf(sb.Size, sb.Resized) != cluster.SizeOlder {
		return nil, nil // what does not fit is refused with its reason
	}
	return &sb, nil
}

// resize makes the metadata of a replica that of its volume's new size, in this order:
//
//	1 an undo area leads back to a state of the old size: it is removed, and a replica that is in pieces stays that until its
//	  resync ends. All were members at the promotion, so none should be
//	2 the map of marks has the new size. What lies behind the old end of a volume that grows, unless it is a hole on this
//	  backing, may differ from what the others have there: it is marked, so it is settled or resynced like after a crash (R14,
//	  R29)
//	3 the superblock has it, and its number
//
// A crash in between leaves the superblock with the old size, and all of it is done again at the next opening.
func (v *volumes) resize(vol cluster.Volume, device string, was *meta.Superblock, dev extents, b marks.Binding) error {
	dir, path := v.superblockPath(vol.Name)
	defer v.n.disk.Begin("resize the metadata of volume " + vol.Name)()
	f, err := meta.Open(path, meta.Binding{ClusterID: meta.ID(b.Cluster), VolumeID: meta.ID(b.Volume), Node: b.Node, Size: was.Size, Resized: was.Resized, Replica: vol.Stamp(v.n.me.Name),
		BlockSize: blockdev.BlockSize, DevicePath: device, Attachment: b.Incarnation.Attachment})
	if err != nil {
		return err // it is another's: nothing of it is changed
	}
	if err := v.resizeInto(dir, vol, was, f, dev, b); err != nil {
		return errors.Join(err, f.Close())
	}
	return f.Close()
}

func (v *volumes) resizeInto(dir string, vol cluster.Volume, was *meta.Superblock, f *meta.File, dev extents, b marks.Binding) error {
	beyond := false
	if vol.Size > was.Size {
		var err error
		if beyond, err = holdsData(dev, blockdev.Range{Off: was.Size, Len: vol.Size - was.Size}); err != nil {
			return err
		}
	}
	failpoint.Hit(failpoint.Resize)
	if was.Inconsistent {
		v.n.log.Warn("the volume was resized while this replica was in the middle of a resync: its way back is removed", "volume", vol.Name)
		if err := removeIfThere(&undo.Dir{Path: filepath.Join(dir, "undo")}); err != nil {
			return err
		}
	}
	if err := resizeMarks(dir, vol, was, beyond, b); err != nil {
		return err
	}
	failpoint.Hit(failpoint.ResizeMarked)
	for range 2 { // both of its copies: one of another size would be taken for damaged
		if err := f.Update(func(sb *meta.Superblock) { sb.Size, sb.Resized = vol.Size, vol.Resized }); err != nil {
			return err
		}
	}
	failpoint.Hit(failpoint.Resized)
	v.n.log.Info("the replica has another size", "volume", vol.Name, "from", was.Size, "to", vol.Size, "marked", beyond)
	v.n.events.add("replica resized", vol.Name, fmt.Sprintf("the replica of %s has %d bytes, it had %d", v.n.me.Name, vol.Size, was.Size))
	return nil
}

// resizeMarks: a replica that missed a size on the way knows nothing of what became of its end meanwhile. All of it may differ
// then, which is what no map says (R16).
func resizeMarks(dir string, vol cluster.Volume, was *meta.Superblock, beyond bool, b marks.Binding) error {
	path := filepath.Join(dir, "marks")
	if vol.Resized > was.Resized+1 {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return syncDir(dir)
	}
	b.Size = was.Size
	err := marks.ResizePath(path, b, vol.Size, beyond)
	if errors.Is(err, marks.ErrNone) || errors.Is(err, marks.ErrCorrupt) { // then all may differ: openMarks says so
		return nil
	}
	return err
}

type extents interface {
	Extents(r blockdev.Range, fn func(e blockdev.Range, hole bool) bool) error
}

// holdsData reports whether anything of r is, or may be, something else than a hole.
func holdsData(dev extents, r blockdev.Range) (data bool, err error) {
	err = dev.Extents(r, func(_ blockdev.Range, hole bool) bool {
		data = data || !hole
		return !data
	})
	return data, err
}
