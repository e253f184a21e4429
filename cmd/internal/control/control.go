// Package control is what the nodes of a cluster tell each other beside Raft, gossip and block data: lease requests,
// the questions of a confirmation round, proposals for the leader, hand-overs, the forming of a cluster. Messages are
// plain Go structs in JSON: they are few and small, and a reader of a capture can read them.
//
// It decides nothing and opens nothing: the node implements Handler and brings the connections. Who may call is held
// against certificates and the cluster's id by Guard, before a Handler sees anything.
package control

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/metadata"

	"hacluster/blockdev/rescue"
	"hacluster/heartbeat/cluster"
	"hacluster/heartbeat/failover"
	"hacluster/replication"
)

// Version of these messages, of the commands that they carry among them. A node refuses another one by the Hello. Version 1 knew
// no members that stay at a promotion, and no unmarked return; version 2 no volumes that grow; version 3 no numbers of sizes, by which one that shrank is told from an old log;
// version 4 no batches, version 5 no packed ones.
const Version = 6

const (
	serviceName = "hacluster.control.v1.Control"
	codecName   = "hajson"
	// maxMessage bounds a message in bytes; the cluster's whole state is the largest.
	maxMessage = 8 << 20
)

type (
	// Hello asks who is there, before anything else is settled.
	Hello struct {
		Version int    `json:"version"`
		Cluster string `json:"cluster"` // name
		From    string `json:"from"`
		RaftID  string `json:"raft_id"` // of who asks
	}
	// Seen is how far a voter has come: its term, and the newest entry that it had applied.
	Seen struct {
		Term  uint64 `json:"term"`
		Index uint64 `json:"index"`
	}
	// HelloReply tells it. Members says that the node has Raft state, so it belongs to a cluster already.
	HelloReply struct {
		Version   int    `json:"version"`
		Cluster   string `json:"cluster"`
		ClusterID string `json:"cluster_id"` // empty: none yet
		Node      string `json:"node"`
		RaftID    string `json:"raft_id"`
		DataDir   string `json:"data_dir"`
		HasState  bool   `json:"has_state"`
		Seen      Seen   `json:"seen"` // what the node remembers of who asks
		// Voters is what it remembers of all voters, itself among them, by Raft id, so that who starts remembers it too (R32).
		Voters map[string]Seen `json:"voters,omitempty"`
	}
	// Form proposes to an empty node that it founds a cluster together with the others named.
	Form struct {
		Cluster   string        `json:"cluster"`
		Formation *cluster.Init `json:"formation"`
	}
	// Join tells an empty node that it was added to a cluster.
	Join struct {
		Cluster string `json:"cluster"`
		RaftID  string `json:"raft_id"`
	}
	// Done is the reply of what only succeeds or fails.
	Done struct{}

	// Lease carries a lease request to the leader; Relayed counts the nodes that passed it on, By is the last of them.
	Lease struct {
		Request cluster.LeaseRequest `json:"request"`
		Relayed int                  `json:"relayed"`
		By      string               `json:"by,omitempty"`
	}
	// Ask is the question of a confirmation round (R8). It carries what the leader remembers of each voter, by Raft id,
	// so that all remember it (R32).
	Ask struct {
		Round   uint64          `json:"round"`
		Seen    map[string]Seen `json:"seen"`
		Reports bool            `json:"reports"` // are wanted, not the term only
	}
	// Answer is a node's own term, read after the question, and its reports.
	Answer struct {
		Node    string           `json:"node"`
		RaftID  string           `json:"raft_id"`
		Term    uint64           `json:"term"`
		Index   uint64           `json:"index"` // of the newest entry applied
		Reports []cluster.Report `json:"reports"`
	}
	// Propose carries an encoded command to the leader.
	Propose struct {
		Command []byte `json:"command"`
	}
	// GiveUp carries a primary's give-up to the leader.
	GiveUp struct {
		GiveUp failover.GiveUp `json:"give_up"`
	}
	// HandOver asks a primary to give a volume up in order.
	HandOver struct {
		Volume string        `json:"volume"`
		To     string        `json:"to"`
		Epoch  cluster.Epoch `json:"epoch"` // in which it was decided; in another it is void (R7)
	}
	// Enlarge asks a node to have the backing of its replica hold a size, before the volume gets it, and read as zeroes where there
	// may be what an earlier size had.
	Enlarge struct {
		Volume  string `json:"volume"`
		ID      string `json:"id"`   // of the volume
		From    int64  `json:"from"` // the size in force, and its number: with another it is void
		Number  uint64 `json:"number"`
		Size    int64  `json:"size"`
		Cleared int64  `json:"cleared"` // from From to there it has to read as zeroes
	}
	// Verify asks a primary to begin a comparison of the volume's replicas, or to stop it.
	Verify struct {
		Volume string        `json:"volume"`
		Epoch  cluster.Epoch `json:"epoch"` // in another it is void
		Repair bool          `json:"repair"`
		Stop   bool          `json:"stop"`
		By     string        `json:"by"`
	}
	// VerifyReply tells the comparison from others.
	VerifyReply struct {
		Began time.Time `json:"began"`
	}
	// Rescued is a rescue image that lies on the node.
	Rescued struct {
		Volume string      `json:"volume"`
		Image  rescue.Info `json:"image"`
	}
	// RescueRead asks for a piece of one.
	RescueRead struct {
		Volume  string        `json:"volume"`
		ID      string        `json:"id"`
		From    rescue.Cursor `json:"from"`
		Partial bool          `json:"partial"`
	}
	// RescueRemove has one deleted.
	RescueRemove struct {
		Volume string `json:"volume"`
		ID     string `json:"id"`
		By     string `json:"by"`
	}
	// Verified is the comparison of a volume that runs on the node as primary, or ran last.
	Verified struct {
		Volume string                   `json:"volume"`
		Status replication.VerifyStatus `json:"status"`
	}
	// Served tells the leader how far a failover has come at the new primary.
	Served struct {
		Volume    string        `json:"volume"`
		Epoch     cluster.Epoch `json:"epoch"`
		Node      string        `json:"node"`
		PromoteMs int64         `json:"promote_ms"` // from learning of the promotion to serving
		FirstAck  bool          `json:"first_ack"`
		SinceMs   int64         `json:"since_ms"` // from learning of the promotion to now
		// More are of other volumes, or of later.
		More []Served `json:"more,omitempty"`
	}
	// ServiceStopped asks whether a service runs on the node, of one that leads its volumes in the epochs. From then on the node starts
	// it in no older one (R31). Volumes are named by their ids, for the epochs of one that is made anew begin anew.
	ServiceStopped struct {
		Service string                   `json:"service"`
		Epochs  map[string]cluster.Epoch `json:"epochs"`
	}
	// ServiceStoppedReply tells that nothing of it runs there.
	ServiceStoppedReply struct {
		Stopped bool `json:"stopped"`
	}
	// ServiceState is a service as a node has it.
	ServiceState struct {
		Name   string `json:"name"`
		State  string `json:"state"`
		Reason string `json:"reason"`
	}
	// State asks the leader for its applied state behind a barrier.
	State struct{}
	// StateReply is that, encoded, and the Raft ids that vote.
	StateReply struct {
		State  []byte   `json:"state"`
		Voters []string `json:"voters"`
	}
	// Local asks a node for what only it knows.
	Local struct{}
	// LocalReply is that.
	LocalReply struct {
		Node          string           `json:"node"`
		ConfigVersion uint64           `json:"config_version"` // of what it runs with
		File          string           `json:"file"`           // hash of its cluster.hcl as it is now; empty: unreadable
		LeaseMs       int64            `json:"lease_ms"`
		Reports       []cluster.Report `json:"reports"`
		Serving       []Serving        `json:"serving"`
		Verified      []Verified       `json:"verified,omitempty"`
		Rescued       []Rescued        `json:"rescued,omitempty"`
		Services      []ServiceState   `json:"services,omitempty"`
	}
	// Serving is a volume that the node serves as primary.
	Serving struct {
		Volume    string        `json:"volume"`
		Epoch     cluster.Epoch `json:"epoch"`
		Suspended bool          `json:"suspended"`
		Peers     []Peer        `json:"peers"`
		ReadOps   uint64        `json:"read_ops"`
		WriteOps  uint64        `json:"write_ops"`
		ReadBytes uint64        `json:"read_bytes"`
		WriteByte uint64        `json:"write_bytes"`
		Clients   int           `json:"clients"`         // connections that have chosen it
		Bound     *Bound        `json:"bound,omitempty"` // in async; nil in the other modes
		Spool     *Spool        `json:"spool,omitempty"` // in async
		// ModeWaits is what a change of the mode waits for; empty: there is none.
		ModeWaits string `json:"mode_waits,omitempty"`
		// Device is the local one, empty: there is none, and DeviceReason says why, unless none is wanted.
		Device       string `json:"device,omitempty"`
		DeviceReason string `json:"device_reason,omitempty"`
		// Parts are the volumes of a group, each with a device of its own.
		Parts []PartServing `json:"parts,omitempty"`
	}
	// PartServing is one volume of a group.
	PartServing struct {
		Name         string `json:"name"`
		Device       string `json:"device,omitempty"`
		DeviceReason string `json:"device_reason,omitempty"`
	}
	// Bound is what a volume in async may lose, as it is in force.
	Bound struct {
		Bytes      int64 `json:"bytes"`
		Ms         int64 `json:"ms"`
		PatienceMs int64 `json:"patience_ms"`
	}
	// Spool is what of the data that standbys lack is in a file.
	Spool struct {
		Bytes  int64  `json:"bytes"`
		Reason string `json:"reason,omitempty"` // why it takes nothing
	}
	// Lag is what a standby lacks of what clients were told is done, and how much of the bound that is.
	Lag struct {
		Bytes    int64 `json:"bytes"`
		Ms       int64 `json:"ms"`        // since a client was told of the oldest
		PerMille int64 `json:"per_mille"` // of the bound
		Slowed   bool  `json:"slowed"`    // writers are
		Held     bool  `json:"held"`      // a write waits at the bound, and not for a moment
		HeldMs   int64 `json:"held_ms"`   // if so, for how long
	}
	// Peer is how the primary sees one standby.
	Peer struct {
		Node            string `json:"node"`
		Connected       bool   `json:"connected"`
		Resyncing       bool   `json:"resyncing"`
		Known           bool   `json:"known"` // RemainingBytes is all that a resync would look at
		RemainingBytes  int64  `json:"remaining_bytes"`
		TotalBytes      int64  `json:"total_bytes"` // what RemainingBytes was when the resync began
		UnackedBytes    int64  `json:"unacked_bytes"`
		SettlingBytes   int64  `json:"settling_bytes,omitempty"` // of a member: what is not known to be equal since before this tenure
		LagMs           int64  `json:"lag_ms"`                   // age of the oldest unacknowledged entry; in async, since a client was told of it
		Lag             *Lag   `json:"lag,omitempty"`            // in async, of one that writers may have to wait for
		RateBytesPerSec int64  `json:"rate_bytes_per_s"`
		ETAMs           int64  `json:"eta_ms"`             // until the resync ends; negative: not known
		Via             string `json:"via,omitempty"`      // by way of which node it is sent to; empty: directly
		ReadOps         uint64 `json:"read_ops,omitempty"` // reads of clients that it answered
		ReadBytes       uint64 `json:"read_bytes,omitempty"`
		Reason          string `json:"reason"`
		Blocked         string `json:"blocked,omitempty"` // what keeps its resync from ending
		Line            *Line  `json:"line,omitempty"`    // nil: nothing is set for the two nodes
	}

	// Line is what a primary's node sends block data on to another, of all volumes together.
	Line struct {
		RateBytesPerSec int64  `json:"rate_bytes_per_s"` // in force; 0: no limit
		PlainBytes      uint64 `json:"plain_bytes"`
		SentBytes       uint64 `json:"sent_bytes"` // less, when some of it was compressed
		WaitedMs        int64  `json:"waited_ms"`  // of all senders together
	}
)

// Handler is the node's side. All methods may be called concurrently.
type Handler interface {
	Hello(context.Context, *Hello) (*HelloReply, error)
	Form(context.Context, *Form) (*Done, error)
	Join(context.Context, *Join) (*Done, error)
	Lease(context.Context, *Lease) (*cluster.Grant, error)
	Ask(context.Context, *Ask) (*Answer, error)
	Propose(context.Context, *Propose) (*cluster.Result, error)
	GiveUp(context.Context, *GiveUp) (*Done, error)
	HandOver(context.Context, *HandOver) (*Done, error)
	Verify(context.Context, *Verify) (*VerifyReply, error)
	RescueRead(context.Context, *RescueRead) (*rescue.Piece, error)
	RescueRemove(context.Context, *RescueRemove) (*Done, error)
	Enlarge(context.Context, *Enlarge) (*Done, error)
	Served(context.Context, *Served) (*Done, error)
	State(context.Context, *State) (*StateReply, error)
	Local(context.Context, *Local) (*LocalReply, error)
	ServiceStopped(context.Context, *ServiceStopped) (*ServiceStoppedReply, error)
}

// Register adds the service to a server.
func Register(r grpc.ServiceRegistrar, h Handler) {
	r.RegisterService(&grpc.ServiceDesc{ServiceName: serviceName, HandlerType: (*Handler)(nil), Methods: []grpc.MethodDesc{
		method("Hello", Handler.Hello), method("Form", Handler.Form), method("Join", Handler.Join),
		method("Lease", Handler.Lease), method("Ask", Handler.Ask), method("Propose", Handler.Propose),
		method("GiveUp", Handler.GiveUp), method("HandOver", Handler.HandOver), method("Served", Handler.Served),
		method("State", Handler.State), method("Local", Handler.Local), method("Verify", Handler.Verify),
		method("RescueRead", Handler.RescueRead), method("RescueRemove", Handler.RescueRemove),
		method("Enlarge", Handler.Enlarge), method("ServiceStopped", Handler.ServiceStopped),
	}}, h)
}

func method[Req, Resp any](name string, call func(Handler, context.Context, *Req) (*Resp, error)) grpc.MethodDesc {
	return grpc.MethodDesc{MethodName: name, Handler: func(srv any, ctx context.Context, dec func(any) error, guard grpc.UnaryServerInterceptor) (any, error) {
		req := new(Req)
		if err := dec(req); err != nil {
			return nil, err
		}
		do := func(ctx context.Context, req any) (any, error) { return call(srv.(Handler), ctx, req.(*Req)) }
		if guard == nil {
			return do(ctx, req)
		}
		return guard(ctx, req, &grpc.UnaryServerInfo{Server: srv, FullMethod: "/" + serviceName + "/" + name}, do)
	}}
}

// Client speaks to one node. The zero Client is not usable.
type Client struct {
	Conn grpc.ClientConnInterface
	// Of is the caller's own cluster, which every call names.
	Of Cluster
}

func call[Resp, Req any](ctx context.Context, c Client, name string, req *Req) (*Resp, error) {
	resp := new(Resp)
	ctx = metadata.AppendToOutgoingContext(ctx, clusterKey, c.Of.Name, clusterIDKey, c.Of.ID)
	err := c.Conn.Invoke(ctx, "/"+serviceName+"/"+name, req, resp, grpc.CallContentSubtype(codecName), grpc.MaxCallRecvMsgSize(maxMessage))
	if err != nil {
		return nil, err
	}
	return resp, nil
}

// The calls, named as in Handler.
func (c Client) Hello(ctx context.Context, r *Hello) (*HelloReply, error) {
	return call[HelloReply](ctx, c, "Hello", r)
}
func (c Client) Form(ctx context.Context, r *Form) (*Done, error) {
	return call[Done](ctx, c, "Form", r)
}
func (c Client) Join(ctx context.Context, r *Join) (*Done, error) {
	return call[Done](ctx, c, "Join", r)
}
func (c Client) Lease(ctx context.Context, r *Lease) (*cluster.Grant, error) {
	return call[cluster.Grant](ctx, c, "Lease", r)
}
func (c Client) Ask(ctx context.Context, r *Ask) (*Answer, error) {
	return call[Answer](ctx, c, "Ask", r)
}
func (c Client) Propose(ctx context.Context, r *Propose) (*cluster.Result, error) {
	return call[cluster.Result](ctx, c, "Propose", r)
}
func (c Client) GiveUp(ctx context.Context, r *GiveUp) (*Done, error) {
	return call[Done](ctx, c, "GiveUp", r)
}
func (c Client) HandOver(ctx context.Context, r *HandOver) (*Done, error) {
	return call[Done](ctx, c, "HandOver", r)
}
func (c Client) Verify(ctx context.Context, r *Verify) (*VerifyReply, error) {
	return call[VerifyReply](ctx, c, "Verify", r)
}
func (c Client) RescueRead(ctx context.Context, r *RescueRead) (*rescue.Piece, error) {
	return call[rescue.Piece](ctx, c, "RescueRead", r)
}
func (c Client) RescueRemove(ctx context.Context, r *RescueRemove) (*Done, error) {
	return call[Done](ctx, c, "RescueRemove", r)
}
func (c Client) Enlarge(ctx context.Context, r *Enlarge) (*Done, error) {
	return call[Done](ctx, c, "Enlarge", r)
}
func (c Client) Served(ctx context.Context, r *Served) (*Done, error) {
	return call[Done](ctx, c, "Served", r)
}
func (c Client) State(ctx context.Context, r *State) (*StateReply, error) {
	return call[StateReply](ctx, c, "State", r)
}
func (c Client) Local(ctx context.Context, r *Local) (*LocalReply, error) {
	return call[LocalReply](ctx, c, "Local", r)
}

func (c Client) ServiceStopped(ctx context.Context, r *ServiceStopped) (*ServiceStoppedReply, error) {
	return call[ServiceStoppedReply](ctx, c, "ServiceStopped", r)
}

// jsonCodec is the encoding of this service's messages, chosen by each call's content type.
type jsonCodec struct{}

func (jsonCodec) Name() string { return codecName }

func (jsonCodec) Marshal(v any) ([]byte, error) { return json.Marshal(v) }

func (jsonCodec) Unmarshal(b []byte, v any) error {
	if len(b) > maxMessage {
		return fmt.Errorf("message of %d bytes, the limit is %d", len(b), maxMessage)
	}
	return json.Unmarshal(b, v)
}

func init() { encoding.RegisterCodec(jsonCodec{}) }
