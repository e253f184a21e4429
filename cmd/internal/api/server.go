package api

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/timestamppb"

	"hacluster/cmd/internal/config"
	adminv1 "hacluster/proto/admin/v1"
)

const (
	maxRequest = config.MaxFile + 64<<10 // a file to apply, and a few names
	maxStreams = 64                      // per connection
	maxHeaders = 16 << 10
	handshake  = 5 * time.Second
)

// ServerOptions bound what a client of the admin service can make a node hold (faults.md G47, G56).
func ServerOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.MaxRecvMsgSize(maxRequest),
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.MaxHeaderListSize(maxHeaders),
		grpc.ConnectionTimeout(handshake),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 30 * time.Second, Timeout: 10 * time.Second}),
	}
}

// Register makes s serve n.
func Register(s grpc.ServiceRegistrar, n Node) { adminv1.RegisterAdminServer(s, &server{node: n}) }

// server is the RPC face of a Node.
type server struct {
	adminv1.UnimplementedAdminServer
	node Node
}

func (s *server) Status(ctx context.Context, r *adminv1.StatusRequest) (*adminv1.StatusReply, error) {
	st, err := s.node.Status(ctx, r.GetVolume())
	if err != nil {
		return nil, refuse(ctx, err)
	}
	doc, err := encodeStatus(st)
	if err != nil {
		return nil, refuse(ctx, err)
	}
	return &adminv1.StatusReply{Document: doc, Cluster: st.Cluster, Quorum: st.Quorum, Leader: st.Leader}, nil
}

func (s *server) Failover(ctx context.Context, r *adminv1.FailoverRequest) (*adminv1.FailoverReply, error) {
	if r.GetVolume() == "" {
		return nil, refuse(ctx, BadRequest("failover: no volume is named"))
	}
	if r.GetAcceptDataLoss() && !r.GetForce() {
		return nil, refuse(ctx, BadRequest("failover of %q: consent to data loss means nothing without force", r.GetVolume()))
	}
	f, err := s.node.Failover(ctx, FailoverRequest{Volume: r.GetVolume(), To: r.GetTo(), Force: r.GetForce(),
		AcceptDataLoss: r.GetAcceptDataLoss(), Epoch: r.GetEpoch()})
	if err != nil {
		return nil, refuse(ctx, err)
	}
	return &adminv1.FailoverReply{Failover: failoverToProto(f)}, nil
}

func (s *server) Failovers(ctx context.Context, _ *adminv1.FailoversRequest) (*adminv1.FailoversReply, error) {
	past, err := s.node.Failovers(ctx)
	if err != nil {
		return nil, refuse(ctx, err)
	}
	reply := &adminv1.FailoversReply{}
	for _, f := range past {
		reply.Failovers = append(reply.Failovers, failoverToProto(f))
	}
	return reply, nil
}

func (s *server) VolumeList(ctx context.Context, _ *adminv1.VolumeListRequest) (*adminv1.VolumeListReply, error) {
	all, err := s.node.VolumeList(ctx)
	if err != nil {
		return nil, refuse(ctx, err)
	}
	reply := &adminv1.VolumeListReply{}
	for _, v := range all {
		reply.Volumes = append(reply.Volumes, &adminv1.Volume{Name: v.Name, Size: v.Size, Mode: v.Mode, State: v.State,
			Primary: v.Primary, Epoch: v.Epoch, Replicas: v.Replicas})
	}
	return reply, nil
}

func (s *server) VolumeCreate(ctx context.Context, r *adminv1.VolumeCreateRequest) (*adminv1.VolumeCreateReply, error) {
	if r.GetVolume() == "" {
		return nil, refuse(ctx, BadRequest("volume create: no volume is named"))
	}
	if r.GetInitialFrom() != "" && r.GetDiscardData() {
		return nil, refuse(ctx, BadRequest("volume create %q: data is either kept or discarded, not both", r.GetVolume()))
	}
	err := s.node.VolumeCreate(ctx, VolumeCreateRequest{Volume: r.GetVolume(), InitialFrom: r.GetInitialFrom(),
		DiscardData: r.GetDiscardData()})
	return &adminv1.VolumeCreateReply{}, refuse(ctx, err)
}

func (s *server) VolumeResync(ctx context.Context, r *adminv1.VolumeResyncRequest) (*adminv1.VolumeResyncReply, error) {
	if r.GetVolume() == "" || r.GetReplica() == "" {
		return nil, refuse(ctx, BadRequest("volume resync: volume %q, replica %q: both are needed", r.GetVolume(), r.GetReplica()))
	}
	group, err := s.node.VolumeResync(ctx, VolumeResyncRequest{Volume: r.GetVolume(), Replica: r.GetReplica(), Full: r.GetFull(),
		DiscardTargetData: r.GetDiscardTargetData(), DropMember: r.GetDropMember()})
	return &adminv1.VolumeResyncReply{Group: group}, refuse(ctx, err)
}

func (s *server) VolumePause(ctx context.Context, r *adminv1.VolumePauseRequest) (*adminv1.VolumePauseReply, error) {
	if r.GetVolume() == "" {
		return nil, refuse(ctx, BadRequest("volume pause: no volume is named"))
	}
	group, err := s.node.VolumePause(ctx, VolumePauseRequest{Volume: r.GetVolume(), Replica: r.GetReplica(), Paused: r.GetPaused()})
	return &adminv1.VolumePauseReply{Group: group}, refuse(ctx, err)
}

func (s *server) VolumeVerify(ctx context.Context, r *adminv1.VolumeVerifyRequest) (*adminv1.VolumeVerifyReply, error) {
	switch {
	case r.GetVolume() == "":
		return nil, refuse(ctx, BadRequest("volume verify: no volume is named"))
	case r.GetRepair() && r.GetStop():
		return nil, refuse(ctx, BadRequest("volume verify %q: stop and repair contradict each other", r.GetVolume()))
	}
	b, err := s.node.VolumeVerify(ctx, VolumeVerifyRequest{Volume: r.GetVolume(), Repair: r.GetRepair(), Stop: r.GetStop()})
	if err != nil {
		return nil, refuse(ctx, err)
	}
	return &adminv1.VolumeVerifyReply{Primary: b.Primary, StartedAt: timestamppb.New(b.StartedAt), Group: b.Group}, nil
}

func (s *server) RescueList(ctx context.Context, r *adminv1.RescueListRequest) (*adminv1.RescueListReply, error) {
	all, err := s.node.RescueList(ctx, r.GetVolume())
	if err != nil {
		return nil, refuse(ctx, err)
	}
	doc, err := json.Marshal(append([]RescueImage{}, all...))
	if err != nil {
		return nil, refuse(ctx, err)
	}
	return &adminv1.RescueListReply{Document: doc}, nil
}

func (s *server) RescueExport(r *adminv1.RescueExportRequest, stream adminv1.Admin_RescueExportServer) error {
	if r.GetVolume() == "" || r.GetId() == "" {
		return refuseStream(stream, BadRequest("volume rescue export: volume %q, image %q: both are needed", r.GetVolume(), r.GetId()))
	}
	err := s.node.RescueExport(stream.Context(), RescueExportRequest{Volume: r.GetVolume(), ID: r.GetId(), Partial: r.GetPartial()}, func(p RescuePart) error {
		return stream.Send(&adminv1.RescuePart{Size: p.Size, Offset: p.Off, Length: p.Len, Data: p.Data})
	})
	if err != nil {
		return refuseStream(stream, err)
	}
	return stream.Send(&adminv1.RescuePart{End: true})
}

// refuseStream is refuse for a stream: its trailer tells that a node has answered.
func refuseStream(stream grpc.ServerStream, err error) error {
	stream.SetTrailer(metadata.Pairs(answeredKey, "1"))
	return toStatus(err)
}

func (s *server) RescueDelete(ctx context.Context, r *adminv1.RescueDeleteRequest) (*adminv1.RescueDeleteReply, error) {
	if r.GetVolume() == "" || r.GetId() == "" {
		return nil, refuse(ctx, BadRequest("volume rescue delete: volume %q, image %q: both are needed", r.GetVolume(), r.GetId()))
	}
	return &adminv1.RescueDeleteReply{}, refuse(ctx, s.node.RescueDelete(ctx, r.GetVolume(), r.GetId()))
}

func (s *server) NodeList(ctx context.Context, _ *adminv1.NodeListRequest) (*adminv1.NodeListReply, error) {
	all, err := s.node.NodeList(ctx)
	if err != nil {
		return nil, refuse(ctx, err)
	}
	reply := &adminv1.NodeListReply{}
	for _, m := range all {
		reply.Nodes = append(reply.Nodes, &adminv1.Node{Name: m.Name, Role: m.Role, State: m.State, Voter: m.Voter, Address: m.Address})
	}
	return reply, nil
}

func (s *server) NodeAdd(ctx context.Context, r *adminv1.NodeAddRequest) (*adminv1.NodeAddReply, error) {
	if r.GetName() == "" {
		return nil, refuse(ctx, BadRequest("node add: no node is named"))
	}
	return &adminv1.NodeAddReply{}, refuse(ctx, s.node.NodeAdd(ctx, r.GetName()))
}

func (s *server) NodeRemove(ctx context.Context, r *adminv1.NodeRemoveRequest) (*adminv1.NodeRemoveReply, error) {
	if r.GetName() == "" {
		return nil, refuse(ctx, BadRequest("node remove: no node is named"))
	}
	return &adminv1.NodeRemoveReply{}, refuse(ctx, s.node.NodeRemove(ctx, r.GetName()))
}

func (s *server) NodeDrain(ctx context.Context, r *adminv1.NodeDrainRequest) (*adminv1.NodeDrainReply, error) {
	if r.GetName() == "" {
		return nil, refuse(ctx, BadRequest("node drain: no node is named"))
	}
	return &adminv1.NodeDrainReply{}, refuse(ctx, s.node.NodeDrain(ctx, r.GetName(), r.GetDrained()))
}

func (s *server) Maintenance(ctx context.Context, r *adminv1.MaintenanceRequest) (*adminv1.MaintenanceReply, error) {
	return &adminv1.MaintenanceReply{}, refuse(ctx, s.node.Maintenance(ctx, r.GetOn()))
}

func (s *server) Events(r *adminv1.EventsRequest, stream adminv1.Admin_EventsServer) error {
	ctx := stream.Context()
	err := s.node.Events(ctx, r.GetFollow(), func(e Event) error {
		return stream.Send(&adminv1.Event{Seq: e.Seq, Number: e.Number, At: timestamppb.New(e.At), Node: e.Node, Kind: e.Kind, Volume: e.Volume, Text: e.Text})
	})
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return refuse(ctx, err)
}

func (s *server) ConfigShow(ctx context.Context, _ *adminv1.ConfigShowRequest) (*adminv1.ConfigShowReply, error) {
	doc, err := s.node.ConfigShow(ctx)
	if err != nil {
		return nil, refuse(ctx, err)
	}
	return &adminv1.ConfigShowReply{Document: doc.JSON()}, nil
}

func (s *server) ConfigExport(ctx context.Context, _ *adminv1.ConfigExportRequest) (*adminv1.ConfigExportReply, error) {
	t, err := s.node.ConfigExport(ctx)
	if err != nil {
		return nil, refuse(ctx, err)
	}
	return &adminv1.ConfigExportReply{Version: t.Version, Text: t.Text}, nil
}

func (s *server) Apply(ctx context.Context, r *adminv1.ApplyRequest) (*adminv1.ApplyReply, error) {
	if len(r.GetFile()) > config.MaxFile {
		return nil, refuse(ctx, BadRequest("apply: the file has %d bytes, the limit is %d", len(r.GetFile()), config.MaxFile))
	}
	a, err := s.node.Apply(ctx, ApplyRequest{Name: r.GetName(), File: r.GetFile(), PlanOnly: r.GetPlanOnly(), OnVersion: r.GetOnVersion(),
		DisconnectClients: r.GetDisconnectClients(), DeleteData: r.GetDeleteData(), AcceptDataLoss: r.GetAcceptDataLoss()})
	if err != nil {
		return nil, refuse(ctx, err)
	}
	doc, err := json.Marshal(a.whole())
	if err != nil {
		return nil, refuse(ctx, err)
	}
	return &adminv1.ApplyReply{Document: doc}, nil
}

func failoverToProto(f Failover) *adminv1.Failover {
	p := &adminv1.Failover{Volume: f.Volume, From: f.From, To: f.To, Reason: f.Reason, Epoch: f.Epoch,
		At: timestamppb.New(f.At), RtoMs: f.RTOMs, RtoTargetMs: f.RTOTargetMs, RpoBytes: f.RPOBytes, RpoMs: f.RPOMs}
	if l := f.Lag; l != nil {
		p.Lag = &adminv1.FailoverLag{Bytes: l.Bytes, Ms: l.Ms, AgeMs: l.AgeMs}
	}
	for _, s := range f.Stages {
		p.Stages = append(p.Stages, &adminv1.Stage{Name: s.Name, Ms: s.Ms})
	}
	return p
}

func failoverFromProto(p *adminv1.Failover) Failover {
	f := Failover{Volume: p.GetVolume(), From: p.GetFrom(), To: p.GetTo(), Reason: p.GetReason(), Epoch: p.GetEpoch(),
		At: p.GetAt().AsTime(), RTOMs: p.GetRtoMs(), RTOTargetMs: p.GetRtoTargetMs(), RPOBytes: p.GetRpoBytes(), RPOMs: p.GetRpoMs()}
	if l := p.GetLag(); l != nil {
		f.Lag = &FailoverLag{Bytes: l.GetBytes(), Ms: l.GetMs(), AgeMs: l.GetAgeMs()}
	}
	for _, s := range p.GetStages() {
		f.Stages = append(f.Stages, Stage{Name: s.GetName(), Ms: s.GetMs()})
	}
	return f.whole()
}
