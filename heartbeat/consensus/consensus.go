// Package consensus keeps one small state machine identical on a group of nodes: hashicorp/raft, wired so that it can be
// trusted with the decision who may write.
//
// It gives: an elected leader, commands that are applied in one order everywhere (Propose), members that come and go,
// and a directory that survives crashes and refuses to forget. It does not know what the commands mean, holds no
// leases, and does not confirm leadership: raft's own VerifyLeader counts members without a vote and answers to
// earlier questions, so it is not offered. State gives a (leader, term) pair for those who ask the voters themselves.
// The node package is its only caller.
//
//	Propose --> raft main loop --> log on disk --> peers --> StateMachine.Apply --> result
//	               ^                  |
//	               |                  store: fail-stop, timed from outside
//	 stream --> transport
//	 (limits,    (checks each request before raft sees it)
//	  severable)
//
// What it adds to the library, and why:
//
//   - A store call that fails or exceeds its deadline ends this node's part in the group: first all connections are
//     cut, so that the others elect a leader at once, then Config.OnFail is called, once. A store that has failed
//     accepts no further write. (Left alone, a leader with a hung disk keeps its heartbeats up for ever, a follower
//     whose append failed after a truncation can be stuck, and a term that cannot be stored panics.)
//   - Heartbeats change raft's state only in its main loop. The library's shortcut changes term and role from another
//     goroutine, which can make two nodes lead one term (hashicorp/raft issue 695).
//   - The directory carries an identity and a mark of how far the log had come. State that is corrupt, belongs to
//     another node, or went back is refused with a remedy, never taken for an empty one: a voter that forgot its vote
//     may vote twice.
//   - Requests from outside are bounded and checked, because raft panics on some that are malformed.
//   - A member that was removed is told so, though the leader's only request about it was lost (see standing).
//   - Errors tell "certainly not appended" from "unknown" (see ErrUnknown).
//
// A node with an empty directory that does not call Bootstrap follows: it waits until a leader that was told of it
// sends it the log. It would grant votes while it does not know of any configuration, so whoever opens an empty
// directory under an identity that the group already knows breaks the group's memory: the caller must make sure that
// an empty directory gets a new Raft id.
package consensus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"
)

// StateMachine is what the group keeps identical. It is called from one goroutine at a time.
type StateMachine interface {
	// Apply carries out a committed command. It must be deterministic: the same commands give the same state on every
	// node. It keeps command no longer than the call. The result goes to the proposer and nowhere else.
	Apply(index, term uint64, command []byte) any
	// Snapshot encodes the whole state. No command is applied meanwhile, so it must be quick.
	Snapshot() ([]byte, error)
	// Restore replaces the state by an encoded one. An error must leave the state as it was.
	Restore([]byte) error
}

// StreamLayer carries the group's connections: plain TCP, TLS, or memory. Consensus closes it.
type StreamLayer interface {
	net.Listener
	// Dial connects to a member at the address that its Server names. It gives up when ctx ends.
	Dial(ctx context.Context, address string) (net.Conn, error)
}

// Config says who this node is and how fast the group reacts.
type Config struct {
	// ID names this node in the group for as long as its directory lives: node name and the directory's identity. An
	// empty directory needs a new ID. At most 128 bytes.
	ID string
	// Address is where the other members reach Stream.
	Address string
	// Cluster separates groups: connections of another cluster are refused, so that a wrong address does no harm.
	Cluster string
	// Dir holds log, votes and snapshots. It should not be on the mirrored disk. Ignored with Memory.
	Dir string
	// Memory, if not nil, keeps everything there instead of in Dir. For tests in virtual time.
	Memory *Memory
	// Stream is taken over by Open, also when Open fails.
	Stream StreamLayer
	// Machine is the state that the group keeps.
	Machine StateMachine

	// Heartbeat is how long a follower waits for its leader before it asks for an election (then once to twice that).
	// Shorter finds a dead leader sooner, and takes a slow one for dead sooner. Default 200 ms.
	Heartbeat time.Duration
	// Election is how long a candidate waits for votes. At least Heartbeat; default Heartbeat.
	Election time.Duration
	// LeaderLease is how long a leader goes on without hearing from a majority. At most Heartbeat; default three
	// quarters of it. It is no fencing lease.
	LeaderLease time.Duration
	// Commit is how often a follower to which nothing is sent is told how far the log is committed, and asked what it
	// lacks. Commands are told of at once. Default half of Heartbeat.
	Commit time.Duration
	// DiskDeadline bounds each call on log, votes and snapshots (default 5 s). It is counted while this process runs: a
	// process that was stopped does not find its disk guilty.
	DiskDeadline time.Duration
	// SnapshotThreshold is how many entries gather before a snapshot is taken, SnapshotInterval how often that is looked
	// at. Defaults: 1024 and 5 s.
	SnapshotThreshold uint64
	SnapshotInterval  time.Duration

	// OnFail is called at most once, when a store call failed or exceeded DiskDeadline. By then all connections are
	// closed and this node takes part no more; the process should exit. It must not call Close.
	OnFail func(error)
	// OnLeader is called for every change of this node's leadership, in order, none dropped, and raft does not wait
	// for it. Losing leadership repeats the term that was led.
	OnLeader func(term uint64, leader bool)
	// OnRemoved is called at most once, when no leader has spoken to this node for ten heartbeats and the newest
	// configuration known here no longer names it, or another member says that it was removed. (The leader stops
	// talking to a removed node, and tries only once to tell it why; so a silent node asks the others.) It goes on
	// until it is closed; nobody votes for it.
	OnRemoved func()

	// Logger gets leadership changes and failures; raft's own chatter at debug level. Nil: nothing is logged.
	Logger *slog.Logger

	wrap func(backend) backend // tests put failing and hanging stores here
}

// MaxCommand is how many bytes a command may have.
const MaxCommand = 1 << 20

// GoodCommand is how many bytes a command should have at most: an append request and its answer have half a second, and what does not
// arrive in that is sent again for ever, with all that comes behind it. It takes a line of 1 Mbit/s that long. A thousand promotions,
// compressed (cluster.Command.Encode), are less.
const GoodCommand = 64 << 10

// Limits of what one node takes from another (R28).
const (
	maxIDLen     = 128
	maxAddress   = 255
	maxCommand   = MaxCommand
	maxBatch     = 64       // entries of one append request, taken
	sentBatch    = 16       // and sent
	maxSnapshot  = 64 << 20 // bytes of one encoded state
	maxCalls     = 256      // calls waiting for an outcome; further ones wait for a place
	rpcTimeout   = 500 * time.Millisecond
	poolPerPeer  = 3
	trailingLogs = 1024
	keepSnaps    = 2
	removedAfter = 10 // heartbeats
)

func (c *Config) setDefaults() {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	def(&c.Heartbeat, 200*time.Millisecond)
	def(&c.Election, c.Heartbeat)
	def(&c.LeaderLease, c.Heartbeat*3/4)
	def(&c.Commit, c.Heartbeat/2)
	def(&c.DiskDeadline, 5*time.Second)
	def(&c.SnapshotInterval, 5*time.Second)
	if c.SnapshotThreshold == 0 {
		c.SnapshotThreshold = 1024
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
}

// validate reports all problems at once.
func (c *Config) validate() error {
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	check(c.ID != "" && len(c.ID) <= maxIDLen, "ID must have 1 to %d bytes, it has %d", maxIDLen, len(c.ID))
	check(c.Address != "" && len(c.Address) <= maxAddress, "Address must have 1 to %d bytes, it has %d", maxAddress, len(c.Address))
	check(c.Dir != "" || c.Memory != nil, "Dir is empty")
	check(c.Stream != nil, "Stream is missing")
	check(c.Machine != nil, "Machine is missing")
	check(c.LeaderLease >= 5*time.Millisecond, "LeaderLease is %v, at least 5ms is needed", c.LeaderLease)
	check(c.LeaderLease <= c.Heartbeat, "LeaderLease (%v) exceeds Heartbeat (%v)", c.LeaderLease, c.Heartbeat)
	check(c.Heartbeat <= c.Election, "Heartbeat (%v) exceeds Election (%v)", c.Heartbeat, c.Election)
	check(c.Commit >= time.Millisecond, "Commit is %v, at least 1ms is needed", c.Commit)
	check(c.DiskDeadline >= 10*time.Millisecond, "DiskDeadline is %v, at least 10ms is needed", c.DiskDeadline)
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("raft configuration: %w", err)
	}
	return nil
}
