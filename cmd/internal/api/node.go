// Package api is the admin service: what operators and scripts ask of a cluster, on the wire. The server side turns
// each RPC into one call of a Node and its error into a status code; the client side does the reverse, so that a
// caller sees the same values and kinds of errors whether it stands beside the Node or across the network. The package
// decides nothing, keeps no state and opens no listener: haclusterd brings the Node and the grpc.Server, ha-admin and
// nodes that pass a question on bring the connection.
//
// Who asks is settled before a call gets here, by packages identity and caller; what they may do is decided by a table
// of methods and roles (roles.go), for every call.
package api

import (
	"context"
	"time"

	"hacluster/cmd/internal/config"
)

// Node is what the daemon must provide. All methods may be called concurrently. Where only the leader can act, the
// node passes the call on (Forward). Errors made with Refused, Unavailable, BadRequest or NotSupported keep their kind
// across the wire; any other error means that it was tried and failed.
type Node interface {
	StatusReader
	Promoter
	VolumeKeeper
	RescueKeeper
	NodeKeeper
	Fencer
	Journal
	ConfigReader
	Configurer
}

// StatusReader tells how things are.
type StatusReader interface {
	// Status is linearizable with quorum; without, it is what this node knows, and says so. An empty volume means all.
	Status(ctx context.Context, volume string) (*Status, error)
}

// Promoter moves the primary role.
type Promoter interface {
	// Failover returns when the new primary accepts writes.
	Failover(ctx context.Context, r FailoverRequest) (Failover, error)
	// Failovers are the past ones, oldest first, as many as are remembered.
	Failovers(ctx context.Context) ([]Failover, error)
}

// FailoverRequest asks for a new primary.
type FailoverRequest struct {
	Volume string
	To     string // empty: the best member
	// Force asks for a promotion without the proof that nothing is lost. Without AcceptDataLoss the node refuses it,
	// naming the data at risk (R6).
	Force          bool
	AcceptDataLoss bool
	// Epoch, if not 0, is the epoch that the volume is moved out of. When it has moved already, what is told is that move:
	// an order may be given again when the leader that took it is gone.
	Epoch uint64
}

// VolumeKeeper manages volumes.
type VolumeKeeper interface {
	VolumeList(ctx context.Context) ([]Volume, error)
	VolumeCreate(ctx context.Context, r VolumeCreateRequest) error
	// VolumeResync and VolumePause say which group they were done to, all of it; empty: the volume is in none.
	VolumeResync(ctx context.Context, r VolumeResyncRequest) (group string, err error)
	VolumePause(ctx context.Context, r VolumePauseRequest) (group string, err error)
	// VolumeVerify begins or stops a comparison of the replicas. It does not wait for its end.
	VolumeVerify(ctx context.Context, r VolumeVerifyRequest) (VerifyBegun, error)
}

// Volume is a volume in a list.
type Volume struct {
	Name     string   `json:"name"`
	Size     int64    `json:"size"`
	Mode     string   `json:"mode"`
	State    string   `json:"state"`
	Primary  string   `json:"primary"`
	Epoch    uint64   `json:"epoch"`
	Replicas []string `json:"replicas"`
}

// VolumeCreateRequest says what becomes of content that is there at the first start. At most one of the two is set.
type VolumeCreateRequest struct {
	Volume      string
	InitialFrom string // this node's data is kept, the others are fully synced
	DiscardData bool
}

// VolumeResyncRequest asks to have a replica resynced that is not, or not as a whole. A pause of it ends.
type VolumeResyncRequest struct {
	Volume  string
	Replica string // its node
	Full    bool   // all of it is compared, whatever the maps say
	// DiscardTargetData is consent for a replica that is held after a forced promotion, to overwrite what it has of its own
	// without a rescue image; without it the node refuses and says what would be lost.
	DiscardTargetData bool
	// DropMember is consent for a full resync of a member: it leaves the in-sync set until it has been compared.
	DropMember bool
}

// VolumePauseRequest has nothing copied to replicas that are no members, until it is taken back. It outlives every primary.
type VolumePauseRequest struct {
	Volume  string
	Replica string // its node; empty: every one of the volume
	Paused  bool
}

// VolumeVerifyRequest asks for a comparison of the replicas.
type VolumeVerifyRequest struct {
	Volume string
	Repair bool // consent: what differs is overwritten with the primary's content
	Stop   bool // the one that runs is stopped
}

// VerifyBegun tells the comparison that was begun, or stopped, from others in the status.
type VerifyBegun struct {
	Primary   string
	StartedAt time.Time
	Group     string // what is compared, all of it; empty: the volume is in none
}

// RescueKeeper looks after what replicas held that a promotion by force left behind (R19).
type RescueKeeper interface {
	// RescueList tells of the images of a volume, or of all, on the nodes that answer.
	RescueList(ctx context.Context, volume string) ([]RescueImage, error)
	// RescueExport calls send for each part of the whole volume as it was. Parts are to be written in order over zeroes; later
	// ones replace earlier ones. It returns nil only behind the last one. Data is valid until send returns.
	RescueExport(ctx context.Context, r RescueExportRequest, send func(RescuePart) error) error
	RescueDelete(ctx context.Context, volume, id string) error
}

// RescueImage is what one replica held that a promotion by force left behind.
type RescueImage struct {
	Volume string     `json:"volume"`
	ID     string     `json:"id"`
	Node   string     `json:"node"`   // where it lies
	Epoch  uint64     `json:"epoch"`  // in which its resync began: what is in it may lack in this one
	Member *time.Time `json:"member"` // until when the replica was a member; null: that is not known
	Closed *time.Time `json:"closed"` // when the resync ended; null: it has not
	Bytes  int64      `json:"bytes"`  // of the volume that the resync overwrote and the image has the old content of
	Blocks int64      `json:"blocks"` // of 4096 bytes, likewise
	Size   int64      `json:"size"`   // of the volume
	File   int64      `json:"file_bytes"`
	Whole  bool       `json:"whole"` // it can be exported as the whole volume
	// Complete: all that the resync overwrote is in it. It is not when a person had the resync go on without room for it.
	Complete bool   `json:"complete"`
	Reason   string `json:"reason,omitempty"` // why it is not whole
}

// RescueExportRequest asks for an image as the whole volume.
type RescueExportRequest struct {
	Volume string
	ID     string
	// Partial is consent for an image that is no whole volume any more: what the resync overwrote is right, and the rest is as
	// the replica has it now.
	Partial bool
}

// RescuePart is a piece of a volume.
type RescuePart struct {
	Size, Off, Len int64 // Size: of the volume, in the first part only
	Data           []byte
}

// NodeKeeper manages the members of the cluster.
type NodeKeeper interface {
	NodeList(ctx context.Context) ([]Member, error)
	NodeAdd(ctx context.Context, name string) error
	NodeRemove(ctx context.Context, name string) error
	// NodeDrain has a node not become primary by itself, and hands over what it is primary of, or ends that.
	NodeDrain(ctx context.Context, name string, drained bool) error
	// Maintenance has no volume go to another node by itself, or ends that.
	Maintenance(ctx context.Context, on bool) error
}

// Member is a node in a list.
type Member struct {
	Name    string `json:"name"`
	Role    string `json:"role"`
	State   string `json:"state"`
	Voter   bool   `json:"voter"`
	Address string `json:"address"`
}

// Journal remembers what happened on the node that is asked.
type Journal interface {
	// Events calls send for what is remembered, oldest first, and with follow for what happens from then on, until ctx
	// ends or send fails; it returns that error, or nil. A reader that is too slow loses the oldest, never delays the node.
	Events(ctx context.Context, follow bool, send func(Event) error) error
}

// Event is one thing that happened.
type Event struct {
	Seq    uint64    `json:"seq"`    // the node's own count: a gap tells a follower that it was too slow
	Number uint64    `json:"number"` // in the cluster's own history, the same on every node; 0: only this node noticed it
	At     time.Time `json:"at"`
	Node   string    `json:"node"`
	Kind   string    `json:"kind"`
	Volume string    `json:"volume"` // empty: not about one volume
	Text   string    `json:"text"`
}

// ConfigReader tells what the node runs with.
type ConfigReader interface {
	ConfigShow(ctx context.Context) (config.Document, error)
	// ConfigExport is the applied text. Without quorum it is what this node runs with.
	ConfigExport(ctx context.Context) (ConfigText, error)
}

// ConfigText is a configuration as it was written. It may hold what only an administrator is to see.
type ConfigText struct {
	Version uint64
	Text    []byte
}

// Configurer changes the running cluster to what a file says.
type Configurer interface {
	// Apply plans, and unless only the plan is wanted does it: all of it or, if a step is refused or the configuration
	// is another than the one that was planned on, nothing. It returns when the nodes that answer run with it.
	Apply(ctx context.Context, r ApplyRequest) (Applied, error)
}

// ApplyRequest asks for a change of the configuration.
type ApplyRequest struct {
	Name              string // of the file, for messages
	File              []byte
	PlanOnly          bool
	OnVersion         uint64 // that was planned on; 0: the present one
	DisconnectClients bool   // consent: clients of volumes that are removed or shrink are cut off
	AcceptDataLoss    bool   // consent: what lies behind the new end of volumes that shrink is lost
	DeleteData        bool   // of volumes that are removed
}

// Applied is a plan and what became of it.
type Applied struct {
	Version    uint64        `json:"version"`     // of the configuration that the plan was made on
	NewVersion uint64        `json:"new_version"` // 0: nothing was applied
	Applied    bool          `json:"applied"`
	Steps      []config.Step `json:"steps"`
	// WaitingFor are nodes that do not run with it yet: they take it over when they answer again.
	WaitingFor []string `json:"waiting_for"`
}

func (a Applied) whole() Applied {
	a.Steps = append([]config.Step{}, a.Steps...)
	a.WaitingFor = append([]string{}, a.WaitingFor...)
	return a
}
