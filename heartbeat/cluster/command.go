package cluster

import (
	"encoding/json"
	"fmt"
	"slices"
)

// Command is one entry of the Raft log. Exactly one of the pointers is set, or Batch. Commands on a volume are compare-and-set:
// they name the epoch and version that they were decided on and are void on any other (R7), so repeating one is
// harmless (R27).
type Command struct {
	Format   int    `json:"format"`
	By       string `json:"by"`    // the node that decided it
	AtMillis int64  `json:"at_ms"` // its wall clock, for people only

	Init         *Init         `json:"init,omitempty"`
	StartNode    *StartNode    `json:"start_node,omitempty"`
	AddNode      *Node         `json:"add_node,omitempty"`
	RemoveNode   *RemoveNode   `json:"remove_node,omitempty"`
	CreateVolume *CreateVolume `json:"create_volume,omitempty"`
	Form         *Form         `json:"form,omitempty"`
	Promote      *Promote      `json:"promote,omitempty"`
	Drop         *Drop         `json:"drop,omitempty"`
	Admit        *Admit        `json:"admit,omitempty"`
	Rejoin       *Rejoin       `json:"rejoin,omitempty"`
	AllowResync  *AllowResync  `json:"allow_resync,omitempty"`
	PauseResync  *PauseResync  `json:"pause_resync,omitempty"`
	FullResync   *FullResync   `json:"full_resync,omitempty"`
	Failover     *Failover     `json:"failover,omitempty"`
	Configure    *Configure    `json:"configure,omitempty"`
	SettleLeases *SettleLeases `json:"settle_leases,omitempty"`
	SetMode      *SetMode      `json:"set_mode,omitempty"`
	SetDrained   *SetDrained   `json:"set_drained,omitempty"`

	SetMaintenance *SetMaintenance `json:"set_maintenance,omitempty"`
	FenceNode      *FenceNode      `json:"fence_node,omitempty"`

	// Batch has commands on volumes that one entry carries (batch.go).
	Batch []Command `json:"batch,omitempty"`
	// Packed is a whole command, compressed (packed.go): nothing else is set in one that has it. Only Encode and DecodeCommand see it.
	Packed []byte `json:"packed,omitempty"`
}

// On is what a command on a volume was decided on.
type On struct {
	Volume  string `json:"volume"`
	Epoch   Epoch  `json:"epoch"`
	Version uint64 `json:"version"`
}

// Init makes the cluster: once.
type Init struct {
	ID         string         `json:"id"`
	Name       string         `json:"name"`
	RTOMillis  int64          `json:"rto_ms"`
	ConfigHash string         `json:"config_hash"`
	Config     []byte         `json:"config,omitempty"`
	Fencing    string         `json:"fencing,omitempty"`
	Nodes      []Node         `json:"nodes"`
	Volumes    []CreateVolume `json:"volumes"`
}

// StartNode registers a new process of a node.
type StartNode struct {
	Node    string `json:"node"`
	DataDir string `json:"data_dir"`
	Start   uint64 `json:"start"`
	Boot    string `json:"boot"`
	Config  string `json:"config"`
	// Reads is the newest format of a command that the process reads (Reads); 0: an older program, which does not say.
	Reads int `json:"reads,omitempty"`
}

// RemoveNode forgets a node; its replicas leave every set.
type RemoveNode struct {
	Node string `json:"node"`
}

// CreateVolume adds a volume without members; Form gives it its first.
type CreateVolume struct {
	Name     string    `json:"name"`
	ID       string    `json:"id"`
	Size     int64     `json:"size"`
	Mode     string    `json:"mode"`
	Replicas []Replica `json:"replicas"`
	Parts    []Part    `json:"parts,omitempty"` // of a consistency group
}

// Form gives a volume that was never promoted its first in-sync set: all replicas when all are fresh, or the one
// whose data a person chose to keep.
type Form struct {
	On
	Members     map[string]Member `json:"members"`
	InitialFrom string            `json:"initial_from,omitempty"`
}

// Basis is why a candidate may be promoted.
type Basis string

// The reasons, in the order in which they are preferred.
const (
	BasisFirst       Basis = "first start"
	BasisHandOver    Basis = "hand-over"
	BasisUnchanged   Basis = "unchanged incarnation"
	BasisClean       Basis = "clean-stop mark"
	BasisUnmarked    Basis = "nothing was unflushed"
	BasisLastPrimary Basis = "last primary, every member lost its memory"
	BasisAllLost     Basis = "every member lost its memory, and the last primary cannot be used"
	BasisForced      Basis = "forced by a person"
)

// Bases are all reasons.
func Bases() []Basis {
	return []Basis{BasisFirst, BasisHandOver, BasisUnchanged, BasisClean, BasisUnmarked, BasisLastPrimary, BasisAllLost, BasisForced}
}

// Promote makes Candidate the primary of the next epoch.
type Promote struct {
	On
	// Term is the Raft term in which the leader waited for the old lease; in an entry of another term it is void.
	Term      uint64   `json:"term"`
	Candidate string   `json:"candidate"`
	Member    Member   `json:"member"` // the candidate's incarnation and process
	Basis     Basis    `json:"basis"`
	Clean     *Clean   `json:"clean,omitempty"`
	Unmarked  *Keeper  `json:"unmarked,omitempty"`
	Leave     []string `json:"leave,omitempty"` // members that leave in the same entry
	// Stay are the members that stay beside the candidate, for it to settle with them (R29), as what: of all that lost their
	// memory alike, the incarnation and process that follow (R25). The old primary stays until the new one has it removed
	// (R6); any other that is not named leaves. At a first start and a hand-over all stay.
	Stay   map[string]Member `json:"stay,omitempty"`
	Reason string            `json:"reason"`
	// Ordered: a person asked for a failover, or named the candidate; else it is void when an operator said meanwhile that the candidate
	// takes nothing by itself.
	Ordered bool `json:"ordered,omitempty"`
	// GaveUp: the old primary itself said that it serves no more. Set where fencing is required.
	GaveUp bool `json:"gave_up,omitempty"`
	// SilentMillis is how long the leader had not heard the old primary, for the record of the failover.
	SilentMillis int64 `json:"silent_ms,omitempty"`
	// Lag is what the last primary said last of what others lacked, and LagAgeMillis how long ago; Bound is the one that is
	// configured. In async, for the record too; nil: not known to the leader.
	Lag          *Lag  `json:"lag,omitempty"`
	LagAgeMillis int64 `json:"lag_age_ms,omitempty"`
	Bound        *Lag  `json:"bound,omitempty"`
}

// Clean is a clean-stop mark: everything this incarnation and process had written was flushed before it ended.
type Clean struct {
	Incarnation Incarnation `json:"incarnation"`
	Process     uint64      `json:"process"`
}

// Matches reports whether the mark is that of the member which the set names.
func (c *Clean) Matches(m Member) bool {
	return c != nil && c.Incarnation == m.Incarnation && c.Process == m.Process
}

// Keeper is the process of a node that kept the maps of its replica, until it ended.
type Keeper struct {
	Boot    string `json:"boot"`
	Process uint64 `json:"process"`
}

// Matches reports whether it is the process of the member which the set names. Maps that were kept last by an older one were
// put back to an earlier state, or their member's process never kept any: they say nothing (R16).
func (k *Keeper) Matches(m Member) bool {
	return k != nil && k.Boot == m.Incarnation.Boot && k.Process == m.Process
}

// Drop removes a member.
type Drop struct {
	On
	Node   string `json:"node"`
	Reason string `json:"reason"`
}

// Admit adds a member under the incarnation in which it was resynced.
type Admit struct {
	On
	Node   string `json:"node"`
	Member Member `json:"member"`
	// Full: all of it was compared, as an operator had asked.
	Full bool `json:"full,omitempty"`
	// Rescued: it is held, and what the resync overwrote was kept aside before (R19).
	Rescued bool `json:"rescued,omitempty"`
}

// Rejoin says that a new process of a member continues its membership: the same incarnation, a clean stop, or maps that
// were empty.
type Rejoin struct {
	On
	Node   string `json:"node"`
	Member Member `json:"member"`
	Clean  *Clean `json:"clean,omitempty"`
	// Unmarked: its own maps were empty at its start, and this process had kept them until then.
	Unmarked *Keeper `json:"unmarked,omitempty"`
}

// AllowResync is a person's word that what a held replica has of its own may be overwritten without being kept aside.
type AllowResync struct {
	On
	Node string `json:"node"`
}

// Configure replaces the applied configuration, with the volumes that come and go by it, all or nothing.
type Configure struct {
	Version   uint64         `json:"version"` // of the configuration that it was decided on (R7)
	Hash      string         `json:"hash"`
	Config    []byte         `json:"config"`
	RTOMillis int64          `json:"rto_ms"`
	Create    []CreateVolume `json:"create,omitempty"`
	Remove    []RemoveVolume `json:"remove,omitempty"`
	Resize    []ResizeVolume `json:"grow,omitempty"`
	Modes     []ChangeMode   `json:"modes,omitempty"`
	// Replicas are the volumes whose replicas change.
	Replicas []ChangeReplicas `json:"replicas,omitempty"`
	Fencing  string           `json:"fencing,omitempty"`
}

// ChangeMode gives a volume another mode, which its primary puts in force (SetMode). The present one takes a change back that is not
// in force.
type ChangeMode struct {
	Name    string `json:"name"`
	ID      string `json:"id"`
	Epoch   Epoch  `json:"epoch"`
	Version uint64 `json:"version"`
	Mode    string `json:"mode"`
	// Replicas are the modes of those that have another one.
	Replicas map[string]string `json:"replicas,omitempty"`
}

// SetMode is the primary's word that every member has all that was acknowledged, and that since then it has acknowledged by the
// stronger of both modes: the next mode is in force.
type SetMode struct {
	On
	Mode string `json:"mode"`
	// Members are all others, each with its incarnation and the process that this primary has greeted.
	Members map[string]Member `json:"members,omitempty"`
}

// ResizeVolume gives a volume another size from its next promotion on at which every replica is a member. When the volume had
// this epoch and version, every replica was a member, had the present size, and its backing was found to hold the new one.
type ResizeVolume struct {
	Name    string `json:"name"`
	ID      string `json:"id"`
	Epoch   Epoch  `json:"epoch"`
	Version uint64 `json:"version"`
	Size    int64  `json:"size"`
	// Number is that of the size: one more than the present one's. 0: it was decided by a program that did not number, and grows.
	Number uint64 `json:"number,omitempty"`
	// Loses is a person's consent to a smaller size: how many bytes behind the new end are lost.
	Loses int64 `json:"loses,omitempty"`
}

// RemoveVolume ends a volume: from this entry on nobody is granted it.
type RemoveVolume struct {
	Name       string `json:"name"`
	ID         string `json:"id"`
	DeleteData bool   `json:"delete_data"`
}

// SettleLeases says that no lease of an earlier, longer RTO target is in force any more.
type SettleLeases struct {
	Version uint64 `json:"version"` // of the configuration under which the leader has waited
}

// The formats of Command that this program writes and reads. What an older program understands is written in its format.
const (
	commandFormat  = 1
	commandResized = 2  // a size has a number
	commandModes   = 3  // a mode changes
	commandGroups  = 4  // a consistency group is created
	commandBatch   = 5  // several commands in one entry
	commandMixed   = 6  // a replica has a mode of its own
	commandPacked  = 7  // a batch is compressed
	commandOperate = 8  // a node is drained, or there is maintenance
	commandMembers = 9  // replicas of a volume change
	commandFence   = 10 // a node is fenced, or fencing is required
)

// Reads is the newest format of a command that this program reads.
const Reads = commandFence

// Readable reports whether every node reads what Encode makes of the command. A node for which an entry is of no known format would
// go on without it, with another state than the others.
func (s *State) Readable(b []byte) bool {
	var c struct {
		Format int `json:"format"`
	}
	if err := json.Unmarshal(b, &c); err != nil {
		return false
	}
	for _, n := range s.Nodes {
		if c.Format >= commandPacked && n.Reads < c.Format {
			return false
		}
	}
	return true
}

// Encode is the command as the log holds it.
func (c Command) Encode() []byte {
	b := c.Plain()
	if p := packed(&c, b); p != nil {
		return p
	}
	return b
}

// Plain is Encode without packing, for nodes that cannot unpack.
func (c Command) Plain() []byte {
	c.Format = commandFormat
	if c.Configure != nil && slices.ContainsFunc(c.Configure.Resize, func(r ResizeVolume) bool { return r.Number > 0 }) {
		c.Format = commandResized
	}
	if c.SetMode != nil || c.Configure != nil && len(c.Configure.Modes) > 0 {
		c.Format = commandModes
	}
	if c.createsGroup() {
		c.Format = commandGroups
	}
	if len(c.Batch) > 0 {
		c.Format = commandBatch
	}
	if c.mixes() {
		c.Format = commandMixed
	}
	if c.SetDrained != nil || c.SetMaintenance != nil {
		c.Format = commandOperate
	}
	if c.Configure != nil && len(c.Configure.Replicas) > 0 {
		c.Format = commandMembers
	}
	if c.FenceNode != nil || c.Init != nil && c.Init.Fencing != "" || c.Configure != nil && c.Configure.Fencing != "" {
		c.Format = commandFence
	}
	b, err := json.Marshal(c)
	if err != nil {
		panic(fmt.Sprintf("cluster: encode command %+v: %v", c, err)) // plain data: cannot happen
	}
	return b
}

// mixes reports whether a replica is to have a mode of its own, or its volume may: what takes that back is understood by those who
// understood it.
func (c Command) mixes() bool {
	owns := func(v CreateVolume) bool { return hasOwnModes(v.Replicas) }
	switch {
	case c.Init != nil:
		return slices.ContainsFunc(c.Init.Volumes, owns)
	case c.CreateVolume != nil:
		return owns(*c.CreateVolume)
	case c.Configure != nil:
		return slices.ContainsFunc(c.Configure.Create, owns) || slices.ContainsFunc(c.Configure.Modes, func(m ChangeMode) bool { return len(m.Replicas) > 0 })
	}
	return false
}

func hasOwnModes(all []Replica) bool {
	return slices.ContainsFunc(all, func(r Replica) bool { return r.Mode != "" || r.NextMode != "" })
}

// DecodeCommand reads what Encode wrote.
func DecodeCommand(b []byte) (Command, error) {
	c, err := decodeCommand(b)
	if err != nil || c.Format != commandPacked {
		return c, err
	}
	if b, err = unpacked(c.Packed); err != nil {
		return c, err
	}
	if c, err = decodeCommand(b); err == nil && c.Format == commandPacked {
		err = fmt.Errorf("unpack a command: it has format %d again", c.Format)
	}
	return c, err
}

// maxObjects bounds what a command of few bytes decodes to (R28): a promotion has a dozen parts.
const maxObjects = 64 * MaxBatch

func decodeCommand(b []byte) (Command, error) {
	var c Command
	if n := objects(b); n > maxObjects {
		return c, fmt.Errorf("decode command of %d bytes: %d parts, at most %d are taken", len(b), n, maxObjects)
	}
	if err := json.Unmarshal(b, &c); err != nil {
		return c, fmt.Errorf("decode command of %d bytes: %w", len(b), err)
	}
	if c.Format < commandFormat || c.Format > commandFence {
		return c, fmt.Errorf("command has format %d, this program reads formats %d to %d: update this node", c.Format, commandFormat, commandFence)
	}
	return c, nil
}

// Result is what became of a command.
type Result struct {
	// Void says why the command changed nothing; empty when it was applied.
	Void string `json:"void,omitempty"`
	// Volume is the volume's record afterwards, nil when the command named none that exists.
	Volume *Volume `json:"volume,omitempty"`
	Index  uint64  `json:"index"`
	// Items are what became of the commands of a batch, in its order.
	Items []Result `json:"items,omitempty"`
}
