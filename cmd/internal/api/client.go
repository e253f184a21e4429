package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"google.golang.org/grpc"

	"hacluster/cmd/internal/config"
	adminv1 "hacluster/proto/admin/v1"
)

// Client asks one node. Its methods mirror Node's; errors keep their kind (KindOf). It may be used concurrently.
type Client struct {
	// Server is the one that answered.
	Server string

	conn *grpc.ClientConn
	rpc  adminv1.AdminClient
}

// Close ends the connection; calls that run fail.
func (c *Client) Close() error { return c.conn.Close() }

// Status also gives the document as the node wrote it, with keys that this version may not know.
func (c *Client) Status(ctx context.Context, volume string) (*Status, []byte, error) {
	reply, err := c.rpc.Status(ctx, &adminv1.StatusRequest{Volume: volume})
	if err != nil {
		return nil, nil, err
	}
	st := &Status{}
	if err := json.Unmarshal(reply.GetDocument(), st); err != nil {
		return nil, nil, fmt.Errorf("read the status document of %s: %w", c.Server, err)
	}
	return st, reply.GetDocument(), nil
}

// Failover moves the primary role and returns when the new primary accepts writes.
func (c *Client) Failover(ctx context.Context, r FailoverRequest) (Failover, error) {
	reply, err := c.rpc.Failover(ctx, &adminv1.FailoverRequest{Volume: r.Volume, To: r.To, Force: r.Force, AcceptDataLoss: r.AcceptDataLoss, Epoch: r.Epoch})
	if err != nil {
		return Failover{}, err
	}
	return failoverFromProto(reply.GetFailover()), nil
}

// Failovers are the past ones, oldest first.
func (c *Client) Failovers(ctx context.Context) ([]Failover, error) {
	reply, err := c.rpc.Failovers(ctx, &adminv1.FailoversRequest{})
	if err != nil {
		return nil, err
	}
	past := []Failover{}
	for _, f := range reply.GetFailovers() {
		past = append(past, failoverFromProto(f))
	}
	return past, nil
}

// VolumeList lists the volumes.
func (c *Client) VolumeList(ctx context.Context) ([]Volume, error) {
	reply, err := c.rpc.VolumeList(ctx, &adminv1.VolumeListRequest{})
	if err != nil {
		return nil, err
	}
	all := []Volume{}
	for _, v := range reply.GetVolumes() {
		all = append(all, Volume{Name: v.GetName(), Size: v.GetSize(), Mode: v.GetMode(), State: v.GetState(), Primary: v.GetPrimary(),
			Epoch: v.GetEpoch(), Replicas: append([]string{}, v.GetReplicas()...)})
	}
	return all, nil
}

// VolumeCreate says what becomes of content at a volume's first start.
func (c *Client) VolumeCreate(ctx context.Context, r VolumeCreateRequest) error {
	_, err := c.rpc.VolumeCreate(ctx, &adminv1.VolumeCreateRequest{Volume: r.Volume, InitialFrom: r.InitialFrom, DiscardData: r.DiscardData})
	return err
}

// VolumeResync asks for a resync of a replica.
func (c *Client) VolumeResync(ctx context.Context, r VolumeResyncRequest) (group string, err error) {
	reply, err := c.rpc.VolumeResync(ctx, &adminv1.VolumeResyncRequest{Volume: r.Volume, Replica: r.Replica, Full: r.Full,
		DiscardTargetData: r.DiscardTargetData, DropMember: r.DropMember})
	return reply.GetGroup(), err
}

// VolumePause pauses the resync of replicas, or ends the pause.
func (c *Client) VolumePause(ctx context.Context, r VolumePauseRequest) (group string, err error) {
	reply, err := c.rpc.VolumePause(ctx, &adminv1.VolumePauseRequest{Volume: r.Volume, Replica: r.Replica, Paused: r.Paused})
	return reply.GetGroup(), err
}

// VolumeVerify begins or stops a comparison of the replicas.
func (c *Client) VolumeVerify(ctx context.Context, r VolumeVerifyRequest) (VerifyBegun, error) {
	reply, err := c.rpc.VolumeVerify(ctx, &adminv1.VolumeVerifyRequest{Volume: r.Volume, Repair: r.Repair, Stop: r.Stop})
	if err != nil {
		return VerifyBegun{}, err
	}
	return VerifyBegun{Primary: reply.GetPrimary(), StartedAt: reply.GetStartedAt().AsTime(), Group: reply.GetGroup()}, nil
}

// RescueList tells of the rescue images of a volume; empty: of all.
func (c *Client) RescueList(ctx context.Context, volume string) ([]RescueImage, error) {
	reply, err := c.rpc.RescueList(ctx, &adminv1.RescueListRequest{Volume: volume})
	if err != nil {
		return nil, err
	}
	all := []RescueImage{}
	if err := json.Unmarshal(reply.GetDocument(), &all); err != nil {
		return nil, fmt.Errorf("read the rescue images of %s: %w", c.Server, err)
	}
	return all, nil
}

// RescueExport calls fn for each part of the volume, in the order in which they are to be written. nil: it was the whole of it.
func (c *Client) RescueExport(ctx context.Context, r RescueExportRequest, fn func(RescuePart) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.rpc.RescueExport(ctx, &adminv1.RescueExportRequest{Volume: r.Volume, Id: r.ID, Partial: r.Partial})
	if err != nil {
		return fromStatus(c.Server, false, err)
	}
	for {
		p, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return Failed("%s ended the export of %s before its end: try again", c.Server, r.ID)
		case err != nil:
			return fromStatus(c.Server, answered(stream.Trailer()), err)
		case p.GetEnd():
			return nil
		}
		if err := fn(RescuePart{Size: p.GetSize(), Off: p.GetOffset(), Len: p.GetLength(), Data: p.GetData()}); err != nil {
			return err
		}
	}
}

// RescueDelete deletes a rescue image for good.
func (c *Client) RescueDelete(ctx context.Context, volume, id string) error {
	_, err := c.rpc.RescueDelete(ctx, &adminv1.RescueDeleteRequest{Volume: volume, Id: id})
	return err
}

// NodeList lists the nodes.
func (c *Client) NodeList(ctx context.Context) ([]Member, error) {
	reply, err := c.rpc.NodeList(ctx, &adminv1.NodeListRequest{})
	if err != nil {
		return nil, err
	}
	all := []Member{}
	for _, n := range reply.GetNodes() {
		all = append(all, Member{Name: n.GetName(), Role: n.GetRole(), State: n.GetState(), Voter: n.GetVoter(), Address: n.GetAddress()})
	}
	return all, nil
}

// NodeAdd takes a node of the file into the cluster.
func (c *Client) NodeAdd(ctx context.Context, name string) error {
	_, err := c.rpc.NodeAdd(ctx, &adminv1.NodeAddRequest{Name: name})
	return err
}

// NodeDrain has a node not become primary by itself, and hands over what it is primary of, or ends that.
func (c *Client) NodeDrain(ctx context.Context, name string, drained bool) error {
	_, err := c.rpc.NodeDrain(ctx, &adminv1.NodeDrainRequest{Name: name, Drained: drained})
	return err
}

// Maintenance has no volume go to another node by itself, or ends that.
func (c *Client) Maintenance(ctx context.Context, on bool) error {
	_, err := c.rpc.Maintenance(ctx, &adminv1.MaintenanceRequest{On: on})
	return err
}

// NodeRemove takes a node out of the cluster.
func (c *Client) NodeRemove(ctx context.Context, name string) error {
	_, err := c.rpc.NodeRemove(ctx, &adminv1.NodeRemoveRequest{Name: name})
	return err
}

// Events calls fn for each event. Without follow it returns at the end of what is remembered; with follow when ctx
// ends (nil), when fn fails (its error), or when the node goes away.
func (c *Client) Events(ctx context.Context, follow bool, fn func(Event) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.rpc.Events(ctx, &adminv1.EventsRequest{Follow: follow})
	if err != nil {
		return fromStatus(c.Server, false, err)
	}
	for {
		e, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF), err != nil && follow && ctx.Err() != nil:
			return nil
		case err != nil:
			return fromStatus(c.Server, answered(stream.Trailer()), err)
		}
		if err := fn(Event{Seq: e.GetSeq(), Number: e.GetNumber(), At: e.GetAt().AsTime(), Node: e.GetNode(), Kind: e.GetKind(), Volume: e.GetVolume(), Text: e.GetText()}); err != nil {
			return err
		}
	}
}

// ConfigShow is the configuration that the node runs with, also as the node wrote it.
func (c *Client) ConfigShow(ctx context.Context) (config.Document, []byte, error) {
	reply, err := c.rpc.ConfigShow(ctx, &adminv1.ConfigShowRequest{})
	if err != nil {
		return config.Document{}, nil, err
	}
	var doc config.Document
	if err := json.Unmarshal(reply.GetDocument(), &doc); err != nil {
		return config.Document{}, nil, fmt.Errorf("read the configuration of %s: %w", c.Server, err)
	}
	return doc, reply.GetDocument(), nil
}

// ConfigExport is the text of the applied configuration.
func (c *Client) ConfigExport(ctx context.Context) (ConfigText, error) {
	reply, err := c.rpc.ConfigExport(ctx, &adminv1.ConfigExportRequest{})
	if err != nil {
		return ConfigText{}, err
	}
	return ConfigText{Version: reply.GetVersion(), Text: reply.GetText()}, nil
}

// Apply changes the running cluster to what a file says, or plans that.
func (c *Client) Apply(ctx context.Context, r ApplyRequest) (Applied, error) {
	reply, err := c.rpc.Apply(ctx, &adminv1.ApplyRequest{Name: r.Name, File: r.File, PlanOnly: r.PlanOnly, OnVersion: r.OnVersion,
		DisconnectClients: r.DisconnectClients, DeleteData: r.DeleteData, AcceptDataLoss: r.AcceptDataLoss})
	if err != nil {
		return Applied{}, err
	}
	var a Applied
	if err := json.Unmarshal(reply.GetDocument(), &a); err != nil {
		return Applied{}, fmt.Errorf("read the plan of %s: %w", c.Server, err)
	}
	return a, nil
}
