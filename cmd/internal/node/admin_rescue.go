package node

import (
	"context"
	"errors"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"hacluster/blockdev"
	"hacluster/blockdev/rescue"
	"hacluster/cmd/internal/api"
	"hacluster/cmd/internal/caller"
	"hacluster/cmd/internal/control"
	"hacluster/heartbeat/cluster"
)

// RescueList implements api.RescueKeeper: each node tells what lies on it.
func (n *Node) RescueList(ctx context.Context, volume string) (all []api.RescueImage, err error) {
	v := n.look(ctx)
	of := v.state.Mirrored(volume)
	if _, ok := v.state.Volumes[of]; volume != "" && !ok {
		return nil, api.Failed("volume %q does not exist: `ha-admin volume list` shows those that do", volume)
	}
	for _, name := range sortedKeys(v.state.Volumes) {
		if volume != "" && name != of {
			continue
		}
		vol := v.state.Volumes[name]
		for _, r := range vol.Replicas {
			for _, i := range v.rescued(name, r.Node) {
				for _, w := range imagesAs(&vol, volume) {
					all = append(all, rescueImage(r.Node, w, i))
				}
			}
		}
	}
	return all, nil
}

// imagesAs is under which names an image of a group is shown to who asked for a volume: the group's, that of one of its volumes, or
// all of these.
func imagesAs(vol *cluster.Volume, asked string) (all []cluster.Window) {
	if asked == vol.Name {
		return []cluster.Window{{Name: vol.Name, Size: vol.Size}}
	}
	for _, w := range vol.Windows() {
		if asked == "" || asked == w.Name {
			all = append(all, w)
		}
	}
	return all
}

// rescued are the images of a volume that lie on a node, as far as it answers.
func (v *view) rescued(volume, node string) (all []control.Rescued) {
	if l := v.local[node]; l != nil {
		for _, r := range l.Rescued {
			if r.Volume == volume {
				all = append(all, r)
			}
		}
	}
	return all
}

func rescueImage(node string, w cluster.Window, r control.Rescued) api.RescueImage {
	i := &r.Image
	out := api.RescueImage{Volume: w.Name, ID: i.ID, Node: node, Epoch: i.Epoch, Bytes: i.Bytes, Blocks: (i.Bytes + blockdev.BlockSize - 1) / blockdev.BlockSize,
		Size: w.Size, File: i.File, Whole: i.Whole, Complete: i.Complete, Reason: i.Why}
	if t := i.Point.When(); !t.IsZero() {
		out.Member = utc(t)
	}
	if !i.Closed.IsZero() {
		out.Closed = utc(i.Closed)
	} else if out.Reason == "" {
		out.Reason = "its resync has not ended"
	}
	return out
}

func utc(t time.Time) *time.Time {
	t = t.UTC()
	return &t
}

// whereRescued is the node on which an image lies, and the volume, or group, that it is of.
func (n *Node) whereRescued(ctx context.Context, volume, id string) (node string, vol cluster.Volume, err error) {
	v := n.look(ctx)
	vol, ok := v.state.Volumes[v.state.Mirrored(volume)]
	if !ok {
		return "", vol, api.Failed("volume %q does not exist: `ha-admin volume list` shows those that do", volume)
	}
	var silent []string
	for _, r := range vol.Replicas {
		for _, i := range v.rescued(vol.Name, r.Node) {
			if i.Image.ID == id {
				return r.Node, vol, nil
			}
		}
		if v.local[r.Node] == nil {
			silent = append(silent, r.Node)
		}
	}
	if len(silent) > 0 {
		return "", vol, api.Unavailable("no node that answers has a rescue image %q of %q; %s may: start haclusterd there", id, volume, strings.Join(silent, ", "))
	}
	return "", vol, api.Failed("there is no rescue image %q of %q: `ha-admin volume rescue list %s` shows those that are", id, volume, volume)
}

// RescueExport implements api.RescueKeeper. It asks the node on which the image lies for piece after piece, and keeps nothing.
func (n *Node) RescueExport(ctx context.Context, r api.RescueExportRequest, send func(api.RescuePart) error) error {
	node, vol, err := n.whereRescued(ctx, r.Volume, r.ID)
	if err != nil {
		return err
	}
	windows := imagesAs(&vol, r.Volume)
	if vol.IsGroup() && r.Volume == vol.Name {
		return api.Failed("%q is a group: export the image of each of its volumes, %s", vol.Name, strings.Join(windowNames(&vol), ", "))
	}
	w := windows[0]
	size := w.Size
	ask := &control.RescueRead{Volume: vol.Name, ID: r.ID, Partial: r.Partial}
	for first := size; ; first = 0 {
		p, err := n.askRescueRead(ctx, node, ask)
		if err != nil {
			return rescueError(err, "export", r.Volume, r.ID, node)
		}
		if first > 0 {
			if err := send(api.RescuePart{Size: size}); err != nil {
				return err
			}
		}
		for _, part := range p.Parts {
			if part, ok := partIn(w, part); ok {
				if err := send(api.RescuePart{Off: part.Off, Len: part.Len, Data: part.Data}); err != nil {
					return err
				}
			}
		}
		if p.End {
			return nil
		}
		ask.From = p.Next
	}
}

// partIn is what of a part lies in the window, as its bytes are counted there.
func partIn(w cluster.Window, p rescue.Part) (rescue.Part, bool) {
	from, to := max(p.Off, w.Off), min(p.Off+p.Len, w.Off+w.Size)
	if from >= to {
		return p, false
	}
	if p.Data != nil {
		p.Data = p.Data[from-p.Off : to-p.Off]
	}
	p.Off, p.Len = from-w.Off, to-from
	return p, true
}

func windowNames(vol *cluster.Volume) (names []string) {
	for _, w := range vol.Windows() {
		names = append(names, w.Name)
	}
	return names
}

func (n *Node) askRescueRead(ctx context.Context, node string, ask *control.RescueRead) (*rescue.Piece, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if node == n.me.Name {
		return n.RescueRead(ctx, ask)
	}
	client, err := n.peers.control(node)
	if err != nil {
		return nil, err
	}
	return client.RescueRead(ctx, ask)
}

// RescueDelete implements api.RescueKeeper.
func (n *Node) RescueDelete(ctx context.Context, volume, id string) error {
	node, vol, err := n.whereRescued(ctx, volume, id)
	if err != nil {
		return err
	}
	if volume != vol.Name {
		return api.Refused("%s is an image of group %q, of all of its volumes, %s, and goes for all of them: name the group, `ha-admin volume rescue delete %s %s`", id, vol.Name, strings.Join(windowNames(&vol), ", "), vol.Name, id)
	}
	ask := &control.RescueRemove{Volume: volume, ID: id, By: caller.Of(ctx).String()}
	if node == n.me.Name {
		_, err = n.RescueRemove(ctx, ask)
	} else if client, dial := n.peers.control(node); dial != nil {
		err = dial
	} else {
		_, err = client.RescueRemove(ctx, ask)
	}
	if err != nil {
		return rescueError(err, "delete", volume, id, node)
	}
	return nil
}

// rescueError makes what a node answered an answer for an operator.
func rescueError(err error, what, volume, id, node string) error {
	text := status.Convert(err).Message()
	switch status.Code(err) {
	case codes.Aborted:
		return api.Refused("%s %s of %q: %s; export it all the same with --partial", what, id, volume, text)
	case codes.FailedPrecondition, codes.Internal:
		return api.Failed("%s %s of %q on %s: %s", what, id, volume, node, text)
	}
	if errors.Is(err, context.Canceled) {
		return err
	}
	return api.Unavailable("%s %s of %q: %s, where it lies, does not answer: %s: try again", what, id, volume, node, text)
}

// RescueRead implements control.Handler.
func (n *Node) RescueRead(_ context.Context, r *control.RescueRead) (*rescue.Piece, error) {
	rep := n.vols.replica(r.Volume)
	if rep == nil {
		return nil, status.Errorf(codes.FailedPrecondition, "no replica of the volume is open there")
	}
	p, err := rep.ReadRescue(r.ID, r.From, r.Partial)
	if err != nil {
		return nil, rescueStatus(err)
	}
	return &p, nil
}

// RescueRemove implements control.Handler.
func (n *Node) RescueRemove(_ context.Context, r *control.RescueRemove) (*control.Done, error) {
	rep := n.vols.replica(r.Volume)
	if rep == nil {
		return nil, status.Errorf(codes.FailedPrecondition, "no replica of the volume is open there")
	}
	if err := rep.RemoveRescue(r.ID, r.By); err != nil {
		return nil, rescueStatus(err)
	}
	return &control.Done{}, nil
}

func rescueStatus(err error) error {
	switch {
	case errors.Is(err, rescue.ErrNotWhole):
		return status.Error(codes.Aborted, err.Error())
	case errors.Is(err, rescue.ErrNone), errors.Is(err, rescue.ErrLive), errors.Is(err, rescue.ErrForeign), errors.Is(err, rescue.ErrOthers):
		return status.Error(codes.FailedPrecondition, err.Error())
	}
	return status.Error(codes.Internal, err.Error())
}

func (v *volumes) rescued() (all []control.Rescued) {
	for _, r := range v.replicas() {
		name := r.Volume().Name
		for _, i := range r.RescueImages() {
			all = append(all, control.Rescued{Volume: name, Image: i})
		}
	}
	return all
}
