// Package failpoint names the places where a crash is most instructive: before and after each step that stores,
// acknowledges or decides something. In a program built as usual a Hit is an empty function that the compiler leaves
// out. Built with -tags failpoints, each Hit is counted, and the process can be made to kill itself there:
//
//	HACLUSTER_FAILPOINT=raft.append.stored:3      SIGKILL to itself at the third hit of this process
//	HACLUSTER_FAILPOINT_HITS=/tmp/alpha.hits      counts of all points, kept in this file from hit to hit, so that they
//	                                              survive a kill; each process that names the file adds to them
//
// Anything that touches stable storage or takes a decision may import it; the pure packages have no points, for what
// they decide is stored or sent by others. The end-to-end tests crash real clusters at every point (make failpoints).
package failpoint

import (
	"encoding/binary"
	"fmt"
	"os"
	"slices"
)

// Point is a place in the code. A point is named here, once, and hit at one place or several of the same meaning.
type Point uint8

// The points, by the step that they surround.
const (
	// A replica's superblock: made, and changed.
	SuperblockCreate Point = iota
	SuperblockCreateWritten
	SuperblockCreateRenamed
	SuperblockCreated
	SuperblockUpdate
	SuperblockUpdateWritten
	SuperblockUpdated
	// A volume is resized: the backing of a replica holds the size, and reads as zeroes where it had been cut off; it is
	// committed; a replica's metadata follows.
	ResizeEnlarged
	ResizeCleared
	ResizeCommitted
	Resize
	ResizeMarked
	Resized
	// A node's identity and number of its process.
	IdentitySave
	IdentityWritten
	IdentityRenamed
	IdentitySaved
	Register
	Registered
	// Raft's log, votes and snapshots.
	RaftCreate
	RaftCreateRenamed
	RaftCreated
	RaftAppend
	RaftAppendStored
	RaftAppended
	RaftVote
	RaftVoteStored
	RaftVoted
	RaftTruncate
	RaftTruncated
	RaftSnapshot
	RaftSnapshotWritten
	RaftSnapshotFinished
	RaftApply
	RaftApplied
	// The leader's decisions.
	LeaderGrant
	LeaderPromote
	LeaderPromoted
	LeaderGiveUp
	LeaderGaveUp
	// A primary's writes.
	PrimaryWrite
	PrimaryWritten
	PrimaryFlush
	PrimaryFlushed
	PrimarySend
	PrimarySent
	PrimaryAnswer
	PrimaryAnswered
	PrimaryAcked
	// A primary's tenure.
	PrimaryBegin
	PrimaryBegun
	PrimaryEnd
	PrimaryEnded
	HandOver
	HandOverQuiet
	HandOverDone
	Drop
	Dropped
	Admit
	Admitted
	GiveUpFailed
	// A standby.
	EpochStore
	EpochStored
	StandbyGreet
	StandbyGreeted
	StandbyWrite
	StandbyWritten
	StandbyFlush
	StandbyFlushed
	StandbyAck
	// A resync.
	ResyncMark
	ResyncMarked
	ResyncCompare
	ResyncCopy
	ResyncClose
	ResyncClosed
	// The way back from the middle of a resync: its area, the old content in it, and a step of taking it.
	UndoMake
	UndoMade
	UndoLog
	UndoLogWritten
	UndoLogged
	UndoRemove
	UndoRemoved
	RollbackWrite
	RollbackWritten
	// A rescue image: made, closed when the resync ends, and removed by a person.
	RescueMake
	RescueMade
	RescueKeep
	RescueLabel
	RescueLabelled
	RescueRemove
	RescueRemoved
	// A clean stop, and a failed disk.
	CleanSet
	CleanIsSet
	CleanClear
	CleanIsCleared
	FailureNote
	FailureNoted

	count
)

var names = [count]string{
	SuperblockCreate: "superblock.create", SuperblockCreateWritten: "superblock.create.written",
	SuperblockCreateRenamed: "superblock.create.renamed", SuperblockCreated: "superblock.created",
	SuperblockUpdate: "superblock.update", SuperblockUpdateWritten: "superblock.update.written", SuperblockUpdated: "superblock.updated",
	ResizeEnlarged: "resize.enlarged", ResizeCleared: "resize.cleared", ResizeCommitted: "resize.committed", Resize: "resize.begin", ResizeMarked: "resize.marked", Resized: "resize.done",
	IdentitySave: "identity.save", IdentityWritten: "identity.written", IdentityRenamed: "identity.renamed", IdentitySaved: "identity.saved",
	Register: "register", Registered: "registered",
	RaftCreate: "raft.create", RaftCreateRenamed: "raft.create.renamed", RaftCreated: "raft.created",
	RaftAppend: "raft.append", RaftAppendStored: "raft.append.stored", RaftAppended: "raft.appended",
	RaftVote: "raft.vote", RaftVoteStored: "raft.vote.stored", RaftVoted: "raft.voted",
	RaftTruncate: "raft.truncate", RaftTruncated: "raft.truncated",
	RaftSnapshot: "raft.snapshot", RaftSnapshotWritten: "raft.snapshot.written", RaftSnapshotFinished: "raft.snapshot.finished",
	RaftApply: "raft.apply", RaftApplied: "raft.applied",
	LeaderGrant: "leader.grant", LeaderPromote: "leader.promote", LeaderPromoted: "leader.promoted",
	LeaderGiveUp: "leader.giveup", LeaderGaveUp: "leader.gaveup",
	PrimaryWrite: "primary.write", PrimaryWritten: "primary.written", PrimaryFlush: "primary.flush", PrimaryFlushed: "primary.flushed",
	PrimarySend: "primary.send", PrimarySent: "primary.sent", PrimaryAnswer: "primary.answer", PrimaryAnswered: "primary.answered",
	PrimaryAcked: "primary.acked", PrimaryBegin: "primary.begin", PrimaryBegun: "primary.begun",
	PrimaryEnd: "primary.end", PrimaryEnded: "primary.ended",
	HandOver: "handover", HandOverQuiet: "handover.quiet", HandOverDone: "handover.done",
	Drop: "drop", Dropped: "dropped", Admit: "admit", Admitted: "admitted", GiveUpFailed: "giveup.failed",
	EpochStore: "epoch.store", EpochStored: "epoch.stored", StandbyGreet: "standby.greet", StandbyGreeted: "standby.greeted",
	StandbyWrite: "standby.write", StandbyWritten: "standby.written", StandbyFlush: "standby.flush", StandbyFlushed: "standby.flushed",
	StandbyAck: "standby.ack", ResyncMark: "resync.mark", ResyncMarked: "resync.marked", ResyncCompare: "resync.compare",
	ResyncCopy: "resync.copy", ResyncClose: "resync.close", ResyncClosed: "resync.closed",
	UndoMake: "undo.make", UndoMade: "undo.made", UndoLog: "undo.log", UndoLogWritten: "undo.log.written", UndoLogged: "undo.logged",
	UndoRemove: "undo.remove", UndoRemoved: "undo.removed", RollbackWrite: "rollback.write", RollbackWritten: "rollback.written",
	RescueMake: "rescue.make", RescueMade: "rescue.made", RescueKeep: "rescue.keep", RescueLabel: "rescue.label", RescueLabelled: "rescue.labelled",
	RescueRemove: "rescue.remove", RescueRemoved: "rescue.removed",
	CleanSet: "clean.set", CleanIsSet: "clean.is.set", CleanClear: "clean.clear", CleanIsCleared: "clean.is.cleared",
	FailureNote: "failure.note", FailureNoted: "failure.noted",
}

func (p Point) String() string { return names[p] }

// All lists the points.
func All() (all []Point) {
	for p := range count {
		all = append(all, p)
	}
	return all
}

// Named finds a point by its name.
func Named(name string) (Point, error) {
	i := slices.Index(names[:], name)
	if i < 0 {
		return 0, fmt.Errorf("no fail point is called %q", name)
	}
	return Point(i), nil
}

// ReadHits reads a file of counts: 8 bytes for each point, little-endian, in order.
func ReadHits(path string) (map[Point]uint64, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if len(b) != 8*int(count) {
		return nil, fmt.Errorf("%s has %d bytes, not %d: another program wrote it", path, len(b), 8*int(count))
	}
	hits := map[Point]uint64{}
	for p := range count {
		hits[p] = binary.LittleEndian.Uint64(b[8*int(p):])
	}
	return hits, nil
}
