package consensus

import (
	"errors"
	"fmt"

	"github.com/hashicorp/raft"
)

// What callers decide on. Every error of Propose, Barrier and the membership calls that is not ErrUnknown guarantees
// that the call appended nothing and never will.
var (
	// ErrNotLeader: nothing was appended; ask the leader.
	ErrNotLeader = errors.New("this node is not the Raft leader")
	// ErrUnknown: the entry may be committed now, later, or never (leadership lost, time ran out, shutdown, disk
	// failure). It must be neither reported as failed nor repeated behind a newer one (R27).
	ErrUnknown = errors.New("outcome unknown")
	// ErrClosed: nothing was appended; this Raft was closed.
	ErrClosed = errors.New("raft is closed")
	// ErrFailed: nothing was appended; a store call failed or hung before, this node takes part no more.
	ErrFailed = errors.New("raft's storage failed on this node")
	// ErrCorrupt: the directory's content cannot be trusted. The node must not vote with it: remove it from the cluster
	// and let it join again as a new one.
	ErrCorrupt = errors.New("raft state is damaged")
	// ErrForeign: the directory belongs to another node.
	ErrForeign = errors.New("raft state belongs to another node")
	// ErrNotEmpty: a group can only be founded by a node that has no state.
	ErrNotEmpty = errors.New("this node has Raft state already")
	// ErrInUse: another process, or this one, has the directory open.
	ErrInUse = errors.New("raft state is in use")
)

// outcome waits for a future of raft that appends one entry and tells what is known.
//
// raft answers the same error both before and after it appended (its shutdown error, for one), so the error alone
// does not tell. The index does: dispatchLogs, the only way into the log, numbers the entry before it writes it, and
// a future answered without passing there has index 0.
func outcome(doing string, f raft.Future) (index uint64, err error) {
	err = f.Error()
	if numbered, ok := f.(raft.IndexFuture); ok {
		index = numbered.Index()
	}
	switch {
	case err == nil:
		return index, nil
	case index != 0:
		return index, fmt.Errorf("%s: %w: appended as entry %d, then: %w", doing, ErrUnknown, index, err)
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipTransferInProgress):
		return 0, fmt.Errorf("%s: %w", doing, ErrNotLeader)
	case errors.Is(err, raft.ErrRaftShutdown):
		return 0, fmt.Errorf("%s: %w", doing, ErrClosed)
	}
	return 0, fmt.Errorf("%s: nothing appended: %w", doing, err)
}
