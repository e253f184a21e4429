// Package cluster is the small replicated state that decides who may write, and the rules by which it changes.
//
// It is pure: State and Apply know no disk, network, goroutine or clock. Raft (package consensus) keeps the log of
// Commands; every node applies the same ones in the same order and so holds the same State. The package also holds the
// lease as its holder sees it (lease.go), because "may I serve now?" is asked of the two together.
//
// Invariants, checked by the model after every step:
//   - a volume's epoch only grows, by one, and each epoch has one primary and one process of it (R1, R2)
//   - the primary is a member; a volume that was formatted has at least one member
//   - every applied command on a volume raises its version; a command decided on another version is void (R7)
package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// Epoch is a volume's promotion number. Zero: never promoted.
type Epoch uint64

// Incarnation is what a replica's written but not durable data survives within: one boot of the kernel and one
// attachment of the device. The node is implied by where it is stored.
type Incarnation struct {
	Boot       string `json:"boot"`
	Attachment string `json:"attachment"`
}

// Member is a replica of the in-sync set: the incarnation and the process (start number) that are a member (R25).
type Member struct {
	Incarnation Incarnation `json:"incarnation"`
	Process     uint64      `json:"process"`
}

// Replica is one node's copy of a volume, as configured.
type Replica struct {
	Node   string `json:"node"`
	Device string `json:"device"` // of a consistency group: those of its parts, for people; Part.Devices has them
	// Number tells it from every other replica that the volume had or will have; 0: its place in the list, from 1 on. Added: the volume
	// was created without it (number.go).
	Number uint32 `json:"number,omitempty"`
	Added  bool   `json:"added,omitempty"`
	// Leaving: it is to go (members.go).
	Leaving bool `json:"leaving,omitempty"`
	// Mode is that of this replica, in force; empty: the volume's. NextMode is the one that comes into force with the volume's next;
	// empty: that.
	Mode     string `json:"mode,omitempty"`
	NextMode string `json:"next_mode,omitempty"`
}

// Volume is the replicated record of one volume.
type Volume struct {
	Name     string    `json:"name"`
	ID       string    `json:"id"`   // 32 hex digits
	Size     int64     `json:"size"` // in force in this epoch
	Mode     string    `json:"mode"` // in force
	Replicas []Replica `json:"replicas"`
	// LastNumber is the highest number that a replica ever had; 0: the places in Replicas are the numbers (number.go).
	LastNumber uint32 `json:"last_number,omitempty"`
	// Parts are the volumes of a consistency group, which is this one, in the order in which they lie in it (group.go).
	Parts []Part `json:"parts,omitempty"`

	Epoch   Epoch  `json:"epoch"`
	Version uint64 `json:"version"`
	// Next, when not 0, is the size from the next promotion on at which every replica is a member: a size never changes within
	// an epoch.
	Next int64 `json:"grow,omitempty"`
	// Resized numbers the sizes that were in force, so that of two the newer is known, whichever is larger. 0: as it was created,
	// or grown by a program that did not number. NextResized is that of Next.
	Resized     uint64 `json:"resized,omitempty"`
	NextResized uint64 `json:"next_resized,omitempty"`
	// OldEnd is how far a replica may hold, from Size on, what an earlier and larger size had: before that is part of the volume
	// again it has to read as zeroes on every replica. 0: there is nothing.
	OldEnd int64 `json:"old_end,omitempty"`
	// NextMode, when not empty, is the mode that the primary is to put in force (SetMode), with those of replicas that have others. It is
	// the present one if only theirs change.
	NextMode string `json:"next_mode,omitempty"`
	// Primary and Process name the one process that may serve in this epoch. Empty before the first promotion.
	Primary string `json:"primary"`
	Process uint64 `json:"process"`
	// Since is the epoch from which on Primary has been that node without a break, and has lost nothing that it had acknowledged:
	// what a program beside it asked of it in one of them and was not answered, it may be asked again (a device that outlives
	// the daemon). 0: that is not known, as of a volume promoted last by a program that did not note it.
	Since Epoch `json:"since,omitempty"`
	// Previous is the old primary, still a member: it must be removed by a second entry before the new one answers
	// anything (R6). Empty when there is none or when it handed over.
	Previous string `json:"previous,omitempty"`
	// Served, in semisync and async, is the node that was let act as primary last. It has written all that was acknowledged before,
	// which of the others only their present process may have, and in async perhaps none (IsProcess). It is the primary from its
	// own entry on, or at once if nothing was unwritten: a hand-over, a first promotion, one by force.
	Served string `json:"served,omitempty"`
	// Members is the in-sync set, keyed by node.
	Members map[string]Member `json:"members"`
	// Held names the replicas that may hold acknowledged writes which this epoch lacks: what a resync overwrites of them is
	// kept aside before, unless a person says by name that it need not be (R19). HeldSince is the epoch of the promotion by
	// force, or in async of another than who had served, that they are held for; what was kept aside before it does not count.
	Held      []string `json:"held,omitempty"`
	HeldSince Epoch    `json:"held_since,omitempty"`
	// Paused names the replicas that an operator has nothing copied to while they are no members; Full those that are to be
	// compared as a whole before they are members again.
	Paused []string `json:"paused,omitempty"`
	Full   []string `json:"full,omitempty"`
	// InitialFrom is what a person decided about replicas with content: the node whose data is kept.
	InitialFrom string `json:"initial_from,omitempty"`
	// Drops and Admissions count changes of the set, Promotions those of the primary by what they rested on, since the
	// volume exists: the history is bounded, these are not.
	Drops      uint64           `json:"drops,omitempty"`
	Admissions uint64           `json:"admissions,omitempty"`
	Promotions map[Basis]uint64 `json:"promotions,omitempty"`
}

// The modes of a volume: when a write is acknowledged (R3).
const (
	ModeSync     = "sync"     // every member has written it
	ModeSemisync = "semisync" // the primary has written it, and every other member has it in memory
	ModeAsync    = "async"    // the primary has written it, and what the other members lack stays within a bound (R13)
)

// Replica reports whether node holds a replica of the volume, and which.
func (v *Volume) Replica(node string) (Replica, bool) {
	for _, r := range v.Replicas {
		if r.Node == node {
			return r, true
		}
	}
	return Replica{}, false
}

// IsMember reports whether node is in the in-sync set.
func (v *Volume) IsMember(node string) bool { _, ok := v.Members[node]; return ok }

// MemberNames lists the in-sync set in the order of the configuration.
func (v *Volume) MemberNames() []string {
	names := make([]string, 0, len(v.Members))
	for _, r := range v.Replicas {
		if v.IsMember(r.Node) {
			names = append(names, r.Node)
		}
	}
	return names
}

// IsHeld reports whether node's replica may hold acknowledged writes that this epoch lacks.
func (v *Volume) IsHeld(node string) bool { return slices.Contains(v.Held, node) }

// Clone is a deep copy.
func (v Volume) Clone() Volume {
	v.Replicas, v.Parts = slices.Clone(v.Replicas), slices.Clone(v.Parts)
	v.Members = maps.Clone(v.Members)
	v.Held = slices.Clone(v.Held)
	v.Paused, v.Full = slices.Clone(v.Paused), slices.Clone(v.Full)
	v.Promotions = maps.Clone(v.Promotions)
	return v
}

// Node is the replicated record of one server.
type Node struct {
	Name    string `json:"name"`
	Witness bool   `json:"witness"`
	Address string `json:"address"`
	RaftID  string `json:"raft_id"`
	// DataDir is the identity of the node's data directory; a wiped one has another and must be removed and added.
	DataDir string `json:"data_dir"`
	// Start is the number of the newest process that registered; it only grows with one data directory.
	Start uint64 `json:"start"`
	Boot  string `json:"boot"`
	// Config is the hash of the configuration file that this process read.
	Config string `json:"config"`
	// Reads is the newest format of a command that this process reads; 0: an older program, which does not say.
	Reads int `json:"reads,omitempty"`
	// Drained: it does not become primary by itself.
	Drained bool `json:"drained,omitempty"`
	// Fence is what is known of making its machine stop; nil: nobody ever tried.
	Fence *Fence `json:"fence,omitempty"`
}

// State is the whole replicated state. Treat what State() hands out as read-only.
type State struct {
	Format        int    `json:"format"`
	ID            string `json:"id"` // 32 hex digits; empty before Init
	Name          string `json:"name"`
	Index         uint64 `json:"index"` // of the last applied entry
	ConfigVersion uint64 `json:"config_version"`
	ConfigHash    string `json:"config_hash"`
	RTOMillis     int64  `json:"rto_ms"`
	// Config is the applied configuration as the nodes read it; what is in it is none of this package's affair.
	Config []byte `json:"config,omitempty"`
	// LongestRTOMillis is the longest RTO target by which a lease may still be in force: it is as long as before when
	// the target shrinks, until a leader has waited that long (R10). Never less than RTOMillis.
	LongestRTOMillis int64 `json:"longest_rto_ms,omitempty"`
	// Maintenance: no volume goes to another node by itself.
	Maintenance bool `json:"maintenance,omitempty"`
	// Fencing is FencingRequired, or empty.
	Fencing string `json:"fencing,omitempty"`
	// Removed are the volumes that were removed last, for nodes that were away.
	Removed   []Removed         `json:"removed,omitempty"`
	Nodes     map[string]Node   `json:"nodes"`
	Volumes   map[string]Volume `json:"volumes"`
	Failovers []Failover        `json:"failovers"`
	Events    []Event           `json:"events"`
	NextEvent uint64            `json:"next_event"`
}

// The formats of State that this program writes and reads. What an older program understands is written in its format.
const (
	stateFormat  = 1
	stateResized = 2 // a volume has a numbered size
	stateModes   = 3 // the mode of a volume is being changed
	stateGroups  = 4 // there is a consistency group
	stateMixed   = 5 // a replica has a mode of its own
	stateOperate = 6 // a node is drained, or there is maintenance
	stateMembers = 7 // the replicas of a volume were changed
	stateFence   = 8 // a node was to be fenced, or fencing is required
)

// How much history the state keeps; the oldest goes first.
const (
	maxFailovers = 200
	maxRemoved   = 64
	maxEvents    = 1000
)

// NewState is the state before the first entry.
func NewState() *State {
	return &State{Format: stateFormat, Nodes: map[string]Node{}, Volumes: map[string]Volume{}}
}

// Clone is a deep copy that shares only what is never changed in place.
func (s *State) Clone() *State {
	c := *s
	c.Nodes = maps.Clone(s.Nodes)
	c.Volumes = make(map[string]Volume, len(s.Volumes))
	for k, v := range s.Volumes {
		c.Volumes[k] = v.Clone()
	}
	c.Failovers = slices.Clone(s.Failovers)
	c.Events = slices.Clone(s.Events)
	c.Removed = slices.Clone(s.Removed)
	return &c
}

// Next is a copy for the next entry: it shares the records of volumes, whose maps and lists Apply replaces and never changes in
// place, so that an entry costs what it changes and not what there is.
func (s *State) Next() *State {
	c := *s
	c.Nodes, c.Volumes = maps.Clone(s.Nodes), maps.Clone(s.Volumes)
	c.Failovers = slices.Clone(s.Failovers)
	c.Events = slices.Clip(s.Events) // only appended to
	c.Removed = slices.Clip(s.Removed)
	return &c
}

// Encode is the state as a snapshot holds it.
func (s *State) Encode() ([]byte, error) {
	out := *s
	for _, v := range s.Volumes {
		if v.Resized > 0 || v.NextResized > 0 {
			out.Format = max(out.Format, stateResized)
		}
		if v.NextMode != "" {
			out.Format = max(out.Format, stateModes)
		}
		if len(v.Parts) > 0 {
			out.Format = max(out.Format, stateGroups)
		}
		if hasOwnModes(v.Replicas) {
			out.Format = max(out.Format, stateMixed)
		}
	}
	for _, r := range s.Removed {
		if len(r.Parts) > 0 { // an older program would not set the group's devices aside
			out.Format = max(out.Format, stateGroups)
		}
	}
	if s.renumbered() {
		out.Format = max(out.Format, stateMembers)
	}
	if s.operated() {
		out.Format = max(out.Format, stateOperate)
	}
	if s.fences() {
		out.Format = max(out.Format, stateFence)
	}
	return json.Marshal(&out)
}

// Decode reads what Encode wrote. Another format is refused, naming both.
func Decode(b []byte) (*State, error) {
	s := NewState()
	if err := json.Unmarshal(b, s); err != nil {
		return nil, fmt.Errorf("decode cluster state of %d bytes: %w", len(b), err)
	}
	if s.Format < stateFormat || s.Format > stateFence {
		return nil, fmt.Errorf("cluster state has format %d, this program reads formats %d to %d: run the version that wrote it", s.Format, stateFormat, stateFence)
	}
	s.Format = stateFormat // what it has decides in which it is written
	if s.Nodes == nil || s.Volumes == nil {
		return nil, errors.New("cluster state without nodes or volumes: it is damaged")
	}
	return s, nil
}

// Removed is a volume that is no more. Its nodes set their metadata aside, or delete metadata and data.
type Removed struct {
	Name       string    `json:"name"`
	ID         string    `json:"id"`
	Replicas   []Replica `json:"replicas"`
	DeleteData bool      `json:"delete_data"`
	Parts      []Part    `json:"parts,omitempty"`
}

// Failover is one past change of primary, with its stages.
type Failover struct {
	Volume       string `json:"volume"`
	From         string `json:"from"`
	To           string `json:"to"`
	Reason       string `json:"reason"`
	Epoch        Epoch  `json:"epoch"`
	AtMillis     int64  `json:"at_ms"` // wall clock of the leader when it decided
	RTOMillis    int64  `json:"rto_ms"`
	TargetMillis int64  `json:"rto_target_ms"`
	// RPOBytes and RPOMillis are the most of what was acknowledged that may be lost: in async the bound, for the primary may
	// have gone on to there after it last spoke; by force the whole volume. RPOUnknown: nobody knew the bound.
	RPOBytes  int64 `json:"rpo_bytes"`
	RPOMillis int64 `json:"rpo_ms,omitempty"`
	// Lag is what the last primary said last, if that may be lost: the loss itself when it acknowledged nothing and sent nothing
	// afterwards. LagAgeMillis is how long before the decision that was. Nil: it had said nothing to the leader that decided.
	Lag          *Lag    `json:"lag,omitempty"`
	LagAgeMillis int64   `json:"lag_age_ms,omitempty"`
	Stages       []Stage `json:"stages"`
	// Amended: rto_ms counts to the first acknowledged write of a client; until one came, to readiness.
	Amended bool `json:"amended"`
}

// RPOUnknown stands for a loss that is not known.
const RPOUnknown = -1

// Stage is how long one step of a failover took.
type Stage struct {
	Name   string `json:"name"`
	Millis int64  `json:"ms"`
}

// Event is one line of the cluster's history.
type Event struct {
	Number   uint64 `json:"number"`
	Index    uint64 `json:"index"`
	AtMillis int64  `json:"at_ms"`
	Kind     string `json:"kind"`
	Volume   string `json:"volume,omitempty"`
	Node     string `json:"node,omitempty"`
	Epoch    Epoch  `json:"epoch,omitempty"`
	Text     string `json:"text"`
}
