package node

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"hacluster/blockdev"
	"hacluster/cmd/internal/api"
	"hacluster/cmd/internal/caller"
	"hacluster/cmd/internal/control"
	"hacluster/heartbeat/cluster"
	"hacluster/replication"
)

// VolumeVerify implements api.VolumeKeeper: the primary compares, so it is asked.
func (n *Node) VolumeVerify(ctx context.Context, r api.VolumeVerifyRequest) (b api.VerifyBegun, err error) {
	v := n.look(ctx)
	asked := r.Volume
	r.Volume = v.state.Mirrored(asked)
	vol, ok := v.state.Volumes[r.Volume]
	switch {
	case !ok:
		return b, api.Failed("volume %q does not exist: `ha-admin volume list` shows those that do", r.Volume)
	case vol.Primary == "":
		return b, api.Unavailable("volume %q has no primary, which would have to compare: `ha-admin status %s` shows why", r.Volume, r.Volume)
	}
	if r.Repair {
		if err := consentNamesAll(&vol, asked, "volume verify "+vol.Name); err != nil {
			return b, err
		}
	}
	ask := &control.Verify{Volume: r.Volume, Epoch: vol.Epoch, Repair: r.Repair, Stop: r.Stop, By: caller.Of(ctx).String()}
	reply, err := n.askVerify(ctx, vol.Primary, ask)
	switch status.Code(err) {
	case codes.OK:
		return api.VerifyBegun{Primary: vol.Primary, StartedAt: reply.Began, Group: groupOf(&vol)}, nil
	case codes.FailedPrecondition:
		return b, api.Failed("verify of %q on %s: %s", r.Volume, vol.Primary, status.Convert(err).Message())
	}
	return b, api.Unavailable("the primary of %q, %s, does not answer: %v: try again", r.Volume, vol.Primary, err)
}

func (n *Node) askVerify(ctx context.Context, primary string, ask *control.Verify) (*control.VerifyReply, error) {
	if primary == n.me.Name {
		return n.Verify(ctx, ask)
	}
	client, err := n.peers.control(primary)
	if err != nil {
		return nil, err
	}
	return client.Verify(ctx, ask)
}

// Verify implements control.Handler.
func (n *Node) Verify(_ context.Context, r *control.Verify) (*control.VerifyReply, error) {
	rep := n.vols.replica(r.Volume)
	if rep == nil {
		return nil, status.Errorf(codes.FailedPrecondition, "no replica of the volume is open there")
	}
	t := rep.Tenure()
	if t == nil || t.Epoch() != r.Epoch {
		return nil, status.Errorf(codes.FailedPrecondition, "the node does not serve the volume in epoch %d: `ha-admin status` shows who does", r.Epoch)
	}
	if r.Stop {
		if !t.StopVerify() {
			return nil, status.Errorf(codes.FailedPrecondition, "none runs")
		}
	} else if err := t.Verify(replication.VerifyRequest{Repair: r.Repair, By: r.By}); err != nil {
		if errors.Is(err, blockdev.ErrNotPrimary) {
			err = fmt.Errorf("the node is %w: `ha-admin status` shows who is", err)
		}
		return nil, status.Error(codes.FailedPrecondition, err.Error())
	}
	s, _ := rep.VerifyStatus()
	return &control.VerifyReply{Began: s.Began}, nil
}

func (v *volumes) verified() (all []control.Verified) {
	for _, r := range v.replicas() {
		if s, ok := r.VerifyStatus(); ok {
			all = append(all, control.Verified{Volume: r.Volume().Name, Status: s})
		}
	}
	return all
}

// verifyOf is the newest comparison that a node which answers remembers; nil: none does.
func (v *view) verifyOf(vol *cluster.Volume) (newest *api.VerifyStatus) {
	for node, l := range v.local {
		for i := range l.Verified {
			s := &l.Verified[i]
			if s.Volume == vol.Name && (newest == nil || s.Status.Began.After(newest.StartedAt)) {
				newest = verifyStatus(node, vol, &s.Status)
			}
		}
	}
	return newest
}

func verifyStatus(node string, vol *cluster.Volume, s *replication.VerifyStatus) *api.VerifyStatus {
	out := &api.VerifyStatus{State: string(s.State), Primary: node, Repair: s.Repair, By: s.By, StartedAt: s.Began, DoneBytes: s.Compared,
		TotalBytes: vol.Size, RateBytesPerSec: s.RateBytesPerSec, MoreRanges: s.More, Complete: s.State == replication.VerifyDone && s.Whole()}
	out.DifferentBlocks, out.UnreadableBlocks, out.RepairedBlocks = s.Blocks()
	if s.State != replication.VerifyRunning {
		out.EndedAt = &s.Ended
	} else if s.RateBytesPerSec > 0 {
		eta := (vol.Size - s.Compared) / s.RateBytesPerSec
		out.ETASeconds = &eta
	}
	for _, r := range s.Nodes {
		out.Replicas = append(out.Replicas, api.VerifyReplica{Node: r.Node, DifferentBlocks: r.Different, UnreadableBlocks: r.Unreadable,
			RepairedBlocks: r.Repaired, SkippedBlocks: r.Skipped, LeftOut: r.LeftOut})
	}
	for _, r := range s.Ranges {
		out.Ranges = append(out.Ranges, api.VerifyRange{Node: r.Node, Offset: r.Off, Length: r.Len, Kind: string(r.Kind), RepairedBytes: r.Mended,
			PrimaryDigest: fmt.Sprintf("%x", r.Mine), ReplicaDigest: fmt.Sprintf("%x", r.Theirs)})
	}
	return out
}
