package api

import (
	"encoding/json"
	"fmt"
	"time"
)

// Status is the status document. Its JSON is a promise to scripts: keys are never renamed, and every key but a reason,
// a point, rescue images, a comparison that there was none of and one that no schedule asks for, and what only a volume in async
// has, and what an operator keeps from happening by itself, is always there; lists are empty rather than null.
type Status struct {
	Cluster       string          `json:"cluster"`
	Quorum        bool            `json:"quorum"`
	Leader        string          `json:"leader"` // empty: none known
	ConfigVersion uint64          `json:"config_version"`
	Maintenance   bool            `json:"maintenance,omitempty"` // no volume goes to another node by itself
	Fencing       string          `json:"fencing,omitempty"`     // required: nobody follows a primary that was neither fenced nor confirmed off; left out: the end of its lease is enough
	Nodes         []NodeStatus    `json:"nodes"`
	Volumes       []VolumeStatus  `json:"volumes"`
	Services      []ServiceStatus `json:"services"`
	LastFailover  *Failover       `json:"last_failover"` // null: none yet
}

// NodeStatus is one node.
type NodeStatus struct {
	Name          string       `json:"name"`
	Role          string       `json:"role"`
	State         string       `json:"state"`
	Site          string       `json:"site,omitempty"`
	Drained       bool         `json:"drained,omitempty"` // it does not become primary by itself
	Voter         bool         `json:"voter"`
	LeaseMs       int64        `json:"lease_ms"` // what is left of its lease
	ConfigDiffers bool         `json:"config_differs"`
	Links         []LinkStatus `json:"links"`
	Fence         *FenceStatus `json:"fence,omitempty"` // left out: no agent can turn it off, and nobody was to
}

// LinkStatus is one network path to a node.
type LinkStatus struct {
	Address string  `json:"address"`
	State   string  `json:"state"`
	RTTMs   float64 `json:"rtt_ms"`
}

// The states of a volume; of those that apply, the first.
const (
	VolumeUnavailable = "unavailable"
	VolumeSuspended   = "suspended"
	VolumeResyncing   = "resyncing"
	VolumeDegraded    = "degraded"
	VolumeHealthy     = "healthy" // every replica a member, and the primary's export accepts writes
)

// VolumeStatus is one volume.
type VolumeStatus struct {
	Name       string          `json:"name"`
	Group      string          `json:"group,omitempty"` // the consistency group that it is part of: what follows but the size and the device is the group's
	Size       int64           `json:"size"`
	Mode       string          `json:"mode"`
	Epoch      uint64          `json:"epoch"`
	Primary    string          `json:"primary"` // empty: none
	State      string          `json:"state"`
	Reason     string          `json:"reason,omitempty"` // why it is not healthy, and what to do; left out when it is
	InSync     []string        `json:"in_sync"`
	Promotable []string        `json:"promotable"` // leaves out the primary
	Replicas   []ReplicaStatus `json:"replicas"`
	Device     string          `json:"device"` // of the primary's machine; empty: not attached
	// DeviceReason says why there is no device although one is wanted, and what to do; left out: there is one, or none is wanted.
	DeviceReason string `json:"device_reason,omitempty"`
	// NextSize is what the volume has from its next promotion on at which every replica is in sync, and NextSizeWaitsFor says what that waits for; left out: it stays.
	NextSize         int64  `json:"next_size,omitempty"`
	NextSizeWaitsFor string `json:"next_size_waits_for,omitempty"`
	// NextMode is what the volume has as soon as its primary has put it in force, and NextModeWaitsFor says what that waits for; left out: it
	// stays. Replicas that are to have another mode are named behind it.
	NextMode         string `json:"next_mode,omitempty"`
	NextModeWaitsFor string `json:"next_mode_waits_for,omitempty"`

	Async      *AsyncStatus  `json:"async,omitempty"` // left out in other modes
	IO         IOStatus      `json:"io"`
	Verify     *VerifyStatus `json:"verify,omitempty"`      // the comparison that runs, or the last one that a node remembers; left out: none
	VerifyNext *time.Time    `json:"verify_next,omitempty"` // when the schedule begins the next one, in UTC; left out: there is no schedule
}

// How a volume in async takes writes.
const (
	WritersFree   = "free"   // as fast as the primary's disk
	WritersSlowed = "slowed" // beyond half of the bound: down to the speed of the standby
	WritersHeld   = "held"   // a write has waited for a second: until the standby has written more, or is dropped
)

// AsyncStatus is what a failover of a volume in async would lose of what clients were told is done.
type AsyncStatus struct {
	// The bound: a standby lacks no more bytes of what clients were told, and from the first to the last of that no more time; and for
	// how long writers may be held before it is dropped.
	MaxLagBytes int64 `json:"max_lag_bytes"`
	MaxLagMs    int64 `json:"max_lag_ms"`
	PatienceMs  int64 `json:"patience_ms"`
	// LossBytes and LossMs are what would be lost if the primary were lost at this moment, at most; LossMs is the age of the oldest
	// of it. Null: nobody serves, or no standby would be promoted without a person's word.
	LossBytes *int64 `json:"loss_bytes"`
	LossMs    *int64 `json:"loss_ms"`
	// UsedPercent is how much of the bound is used, of bytes or time whichever is more.
	UsedPercent int64  `json:"used_percent"`
	Writers     string `json:"writers"`          // free | slowed | held; free as well while nobody serves
	Reason      string `json:"reason,omitempty"` // why they are not free, and what comes of it
	// SpoolBytes is what of the data that standbys lack lies in a file of the primary, for memory does not hold it; SpoolReason why that
	// takes nothing.
	SpoolBytes  int64  `json:"spool_bytes"`
	SpoolReason string `json:"spool_reason,omitempty"`
}

// The states of a comparison.
const (
	VerifyRunning     = "running"
	VerifyDone        = "done"
	VerifyStopped     = "stopped"     // on request
	VerifyInterrupted = "interrupted" // the primary is another, or no replica was left to compare with
)

// VerifyStatus is one comparison of the replicas of a volume.
type VerifyStatus struct {
	Group           string     `json:"group,omitempty"` // the consistency group that is compared: all but the ranges is the group's
	State           string     `json:"state"`
	Primary         string     `json:"primary"` // the node that compares
	Repair          bool       `json:"repair"`
	By              string     `json:"by"` // who asked for it
	StartedAt       time.Time  `json:"started_at"`
	EndedAt         *time.Time `json:"ended_at"` // null while it runs
	DoneBytes       int64      `json:"done_bytes"`
	TotalBytes      int64      `json:"total_bytes"`
	RateBytesPerSec int64      `json:"rate_bytes_per_s"`
	ETASeconds      *int64     `json:"eta_seconds"` // null: not known, or it has ended
	// DifferentBlocks and UnreadableBlocks were found, RepairedBlocks of those are equal since; blocks of 4096 bytes.
	DifferentBlocks  int64           `json:"different_blocks"`
	UnreadableBlocks int64           `json:"unreadable_blocks"`
	RepairedBlocks   int64           `json:"repaired_blocks"`
	Complete         bool            `json:"complete"` // it was compared to its end, with every replica that it began with
	Replicas         []VerifyReplica `json:"replicas"`
	Ranges           []VerifyRange   `json:"ranges"`      // the first ones
	MoreRanges       bool            `json:"more_ranges"` // there are more, which are only counted
}

// Equal reports whether it came to its end and nothing is left that differs or cannot be read.
func (v *VerifyStatus) Equal() bool {
	return v.Complete && v.DifferentBlocks+v.UnreadableBlocks == v.RepairedBlocks
}

// VerifyReplica is what was found of one replica; of the primary only what it cannot read.
type VerifyReplica struct {
	Node             string `json:"node"`
	DifferentBlocks  int64  `json:"different_blocks"`
	UnreadableBlocks int64  `json:"unreadable_blocks"`
	RepairedBlocks   int64  `json:"repaired_blocks"`
	SkippedBlocks    int64  `json:"skipped_blocks"`     // marked as different already: the mirror's own to mend
	LeftOut          string `json:"left_out,omitempty"` // why it was not compared, or not to the end
}

// VerifyRange is where something is wrong.
type VerifyRange struct {
	Volume        string `json:"volume,omitempty"` // of a group: whose it is, and in which the offset counts
	Node          string `json:"node"`
	Offset        int64  `json:"offset"`
	Length        int64  `json:"length"`
	Kind          string `json:"kind"` // different | unreadable
	RepairedBytes int64  `json:"repaired_bytes"`
	// Of the first block; empty for what cannot be read.
	PrimaryDigest string `json:"primary_digest"`
	ReplicaDigest string `json:"replica_digest"`
}

func (v VerifyStatus) whole() *VerifyStatus {
	v.StartedAt = v.StartedAt.UTC()
	v.Replicas = append([]VerifyReplica{}, v.Replicas...)
	v.Ranges = append([]VerifyRange{}, v.Ranges...)
	return &v
}

// The roles of a replica.
const (
	RolePrimary = "primary"
	RoleStandby = "standby"
)

// The states of a replica.
const (
	ReplicaInSync       = "in_sync"
	ReplicaResyncing    = "resyncing"
	ReplicaOutOfSync    = "out_of_sync"
	ReplicaInconsistent = "inconsistent"
	ReplicaOffline      = "offline"
	ReplicaFailed       = "failed"
)

// ReplicaStatus is one copy of a volume.
type ReplicaStatus struct {
	Node       string `json:"node"`
	Role       string `json:"role"`
	Mode       string `json:"mode,omitempty"` // its own; between two replicas the weaker one of both counts
	State      string `json:"state"`
	Reason     string `json:"reason,omitempty"` // why it is not in sync, and what to do; left out when it is
	LagBytes   int64  `json:"lag_bytes"`
	LagMs      int64  `json:"lag_ms"`
	DirtyBytes int64  `json:"dirty_bytes"` // what a resync of it would have to look at
	// ReadOps and ReadBytes are reads of clients that this standby answered for the primary, since that was promoted; they are part
	// of io. Left out: none.
	ReadOps   uint64 `json:"read_ops,omitempty"`
	ReadBytes uint64 `json:"read_bytes,omitempty"`
	// SettlingBytes is what a member may hold otherwise than the primary since the last failover or restart of the primary: none of it
	// was acknowledged since, it is compared now, and a read of it waits for that (R29). Left out: nothing.
	SettlingBytes int64         `json:"settling_bytes,omitempty"`
	Resync        *ResyncStatus `json:"resync"`            // null: none runs
	Point         *PointStatus  `json:"point,omitempty"`   // left out: it cannot be promoted, also not by force
	Rescue        *RescueStatus `json:"rescue,omitempty"`  // left out: there are no rescue images of it
	ByHand        string        `json:"by_hand,omitempty"` // why only a person promotes it ("is drained", "is at site far"); left out: it is not so
	Via           string        `json:"via,omitempty"`     // by way of which node the primary's stream to it goes now; left out: directly, or there is none
	Line          *LineStatus   `json:"line,omitempty"`    // left out: no link block names its node and the primary
}

// LineStatus is what the primary's node sends block data on to a replica's, of all volumes together, since its process started.
type LineStatus struct {
	RateBytesPerSec int64  `json:"rate_bytes_per_s"` // in force now; 0: no limit
	PlainBytes      uint64 `json:"plain_bytes"`
	SentBytes       uint64 `json:"sent_bytes"` // less than plain_bytes, when some of it was compressed
	WaitedMs        int64  `json:"waited_ms"`  // for their turn under the limit, all messages together
}

// RescueStatus is what is kept aside of a replica that a promotion by force left behind (R19).
type RescueStatus struct {
	Images int   `json:"images"`
	Bytes  int64 `json:"bytes"` // of their files
}

// PointStatus is what a forced promotion of a replica would give (R18).
type PointStatus struct {
	Epoch     uint64     `json:"epoch"`      // up to which it has every acknowledged write
	At        *time.Time `json:"at"`         // likewise; null: that is not known
	LossBytes int64      `json:"loss_bytes"` // how much may be older than that, at most
	Rollback  bool       `json:"rollback"`   // a resync has overwritten a part of it: it returns to this point before it serves
}

// ResyncStatus is how far a resync got.
type ResyncStatus struct {
	Source          string `json:"source"`
	DoneBytes       int64  `json:"done_bytes"`
	TotalBytes      int64  `json:"total_bytes"`
	RateBytesPerSec int64  `json:"rate_bytes_per_s"`
	ETASeconds      *int64 `json:"eta_seconds"` // null: not known while nothing moves
}

// IOStatus counts what clients did on the primary since it was promoted.
type IOStatus struct {
	ReadOps    uint64 `json:"read_ops"`
	WriteOps   uint64 `json:"write_ops"`
	ReadBytes  uint64 `json:"read_bytes"`
	WriteBytes uint64 `json:"write_bytes"`
	Suspended  bool   `json:"suspended"`
}

// ServiceStatus is one service.
type ServiceStatus struct {
	Name  string `json:"name"`
	Node  string `json:"node"`
	State string `json:"state"`
	// Reason says why it is not running, or what it waits for; mostly empty.
	Reason string `json:"reason,omitempty"`
}

// Failover is the record of one move of the primary role.
type Failover struct {
	Volume      string    `json:"volume"`
	From        string    `json:"from"`
	To          string    `json:"to"`
	Reason      string    `json:"reason"`
	Epoch       uint64    `json:"epoch"`
	At          time.Time `json:"at"`
	RTOMs       int64     `json:"rto_ms"`
	RTOTargetMs int64     `json:"rto_target_ms"`
	// RPOBytes and RPOMs are the most of what clients were told is done that may be lost: bytes, and the time from the first to the
	// last of it. In async they are the bound, for the old primary may have gone on to there unheard. -1: nobody knew it.
	RPOBytes int64 `json:"rpo_bytes"`
	RPOMs    int64 `json:"rpo_ms,omitempty"`
	// Lag is what the new primary lacked when the old one was heard last; left out: nothing could be lost, or it was not heard.
	Lag    *FailoverLag `json:"lag,omitempty"`
	Stages []Stage      `json:"stages"`
}

// FailoverLag is what the old primary said last of what it had acknowledged and the other had not written.
type FailoverLag struct {
	Bytes int64 `json:"bytes"`
	Ms    int64 `json:"ms"`
	AgeMs int64 `json:"age_ms"` // how long before the decision it was so
}

// Stage is one step of a failover and how long it took.
type Stage struct {
	Name string `json:"name"`
	Ms   int64  `json:"ms"`
}

// encodeStatus writes the document.
func encodeStatus(s *Status) ([]byte, error) {
	doc, err := json.Marshal(whole(*s))
	if err != nil {
		return nil, fmt.Errorf("write the status document: %w", err)
	}
	return doc, nil
}

// whole replaces lists that are nil by empty ones, in copies, so that no script meets a null where a list should be.
func whole(s Status) Status {
	s.Nodes = append([]NodeStatus{}, s.Nodes...)
	for i, n := range s.Nodes {
		s.Nodes[i].Links = append([]LinkStatus{}, n.Links...)
		if n.Fence != nil {
			f := *n.Fence
			f.Devices = append([]FenceDevice{}, f.Devices...)
			s.Nodes[i].Fence = &f
		}
	}
	s.Volumes = append([]VolumeStatus{}, s.Volumes...)
	for i, v := range s.Volumes {
		s.Volumes[i].InSync = append([]string{}, v.InSync...)
		s.Volumes[i].Promotable = append([]string{}, v.Promotable...)
		s.Volumes[i].Replicas = append([]ReplicaStatus{}, v.Replicas...)
		if v.Verify != nil {
			s.Volumes[i].Verify = v.Verify.whole()
		}
	}
	s.Services = append([]ServiceStatus{}, s.Services...)
	if s.LastFailover != nil {
		f := s.LastFailover.whole()
		s.LastFailover = &f
	}
	return s
}

func (f Failover) whole() Failover {
	f.At = f.At.UTC()
	f.Stages = append([]Stage{}, f.Stages...)
	return f
}
