package node

import (
	"context"
	"slices"

	"hacluster/cmd/internal/api"
	"hacluster/heartbeat/cluster"
)

// decideTries is how often a decision on a volume's record is made anew because another entry came first.
const decideTries = 5

// decide has a command made from the volume's newest record and applied, again while other entries come between (R7).
// Nothing to do: make returns nil.
// group is the one that the volume is part of.
func (n *Node) decide(ctx context.Context, volume string, made func(vol *cluster.Volume) (*cluster.Command, error)) (group string, err error) {
	for try := 1; ; try++ {
		v := n.look(ctx)
		vol, ok := v.state.Volumes[v.state.Mirrored(volume)]
		switch {
		case !v.quorum:
			return "", api.Unavailable("%v", errNoLeader)
		case !ok:
			return "", api.Failed("volume %q does not exist: `ha-admin volume list` shows those that do", volume)
		}
		c, err := made(&vol)
		if err != nil || c == nil {
			return groupOf(&vol), err
		}
		res, err := n.mustApply(ctx, *c)
		switch {
		case err != nil:
			return "", api.Unavailable("the change was not confirmed: %v", err)
		case res.Void == "":
			return groupOf(&vol), nil
		case res.Volume == nil || res.Volume.Version == vol.Version || try == decideTries:
			return "", api.Failed("not done: %s", res.Void)
		}
	}
}

func on(vol *cluster.Volume) cluster.On {
	return cluster.On{Volume: vol.Name, Epoch: vol.Epoch, Version: vol.Version}
}

// VolumePause implements api.VolumeKeeper.
func (n *Node) VolumePause(ctx context.Context, r api.VolumePauseRequest) (group string, err error) {
	return n.decide(ctx, r.Volume, func(vol *cluster.Volume) (*cluster.Command, error) {
		var nodes []string
		for _, rep := range vol.Replicas {
			if (r.Replica == "" || rep.Node == r.Replica) && vol.IsPaused(rep.Node) != r.Paused {
				nodes = append(nodes, rep.Node)
			}
		}
		if _, ok := vol.Replica(r.Replica); r.Replica != "" && !ok {
			return nil, noReplica(vol, r.Replica)
		}
		if len(nodes) == 0 {
			return nil, nil // it is so already
		}
		return &cluster.Command{PauseResync: &cluster.PauseResync{On: on(vol), Nodes: nodes, Paused: r.Paused}}, nil
	})
}

func noReplica(vol *cluster.Volume, node string) error {
	var names []string
	for _, r := range vol.Replicas {
		names = append(names, r.Node)
	}
	return api.Failed("node %q holds no replica of volume %q: %v do", node, vol.Name, names)
}

// VolumeResync implements api.VolumeKeeper: first what a held replica needs, then the order for a full one, then the end of
// a pause. Each is an entry of its own; the command may be given again when only the first came through.
func (n *Node) VolumeResync(ctx context.Context, r api.VolumeResyncRequest) (group string, err error) {
	for _, step := range []func(*cluster.Volume, api.VolumeResyncRequest) (*cluster.Command, error){allowHeld, orderFull, endPause} {
		group, err = n.decide(ctx, r.Volume, func(vol *cluster.Volume) (*cluster.Command, error) {
			if err := mayResync(vol, r); err != nil {
				return nil, err
			}
			return step(vol, r)
		})
		if err != nil {
			return "", err
		}
	}
	return group, nil
}

// mayResync refuses what would lose data or redundancy without consent.
func mayResync(vol *cluster.Volume, r api.VolumeResyncRequest) error {
	_, ok := vol.Replica(r.Replica)
	held, member := slices.Contains(vol.Held, r.Replica), vol.IsMember(r.Replica)
	switch {
	case !ok:
		return noReplica(vol, r.Replica)
	case r.DiscardTargetData || r.DropMember:
		if err := consentNamesAll(vol, r.Volume, "volume resync "+vol.Name+" --replica "+r.Replica); err != nil {
			return err
		}
	}
	switch {
	case len(vol.Members) == 0:
		return api.Failed("volume %q has no in-sync set yet, so there is nothing to resync from: `ha-admin status %s` shows what it waits for", vol.Name, vol.Name)
	case r.Replica == vol.Primary:
		return api.Failed("%s is the primary of %q: the others are resynced from it", r.Replica, vol.Name)
	case held && !r.DiscardTargetData:
		return api.Refused("the replica of %q on %s may hold acknowledged writes that the others lack; its resync goes on by itself as soon as there is room to keep aside what it overwrites (`ha-admin status %s` shows what it waits for); to have them overwritten for good (R19), consent with --discard-target-data", vol.Name, r.Replica, vol.Name)
	case member && vol.WantsFull(r.Replica):
		return nil // an earlier try; the primary sends it away
	case member && !r.Full:
		return api.Failed("the replica of %q on %s is in sync: there is nothing to resync; --full compares all of it", vol.Name, r.Replica)
	case member && !r.DropMember:
		return api.Refused("the replica of %q on %s is in sync: a full resync takes it out of the in-sync set until it has been compared, and without it %d of %d replicas hold every write: consent with --drop-member", vol.Name, r.Replica, len(vol.Members)-1, len(vol.Replicas))
	}
	return nil
}

func allowHeld(vol *cluster.Volume, r api.VolumeResyncRequest) (*cluster.Command, error) {
	if !slices.Contains(vol.Held, r.Replica) {
		return nil, nil
	}
	return &cluster.Command{AllowResync: &cluster.AllowResync{On: on(vol), Node: r.Replica}}, nil
}

func orderFull(vol *cluster.Volume, r api.VolumeResyncRequest) (*cluster.Command, error) {
	if !r.Full || vol.WantsFull(r.Replica) {
		return nil, nil
	}
	return &cluster.Command{FullResync: &cluster.FullResync{On: on(vol), Node: r.Replica}}, nil
}

func endPause(vol *cluster.Volume, r api.VolumeResyncRequest) (*cluster.Command, error) {
	if !vol.IsPaused(r.Replica) {
		return nil, nil
	}
	return &cluster.Command{PauseResync: &cluster.PauseResync{On: on(vol), Nodes: []string{r.Replica}}}, nil
}
