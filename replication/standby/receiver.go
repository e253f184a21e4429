// Package standby decides what one replica accepts from a primary: which stream, which epoch, which entry. It is pure;
// package replication carries out the writes and tells when they returned.
//
//	Hello --epoch known to Raft, stored, older work ended--> Accept --> Begin --> Take ... Returned --> ack the prefix
//	   \-- older epoch, older stream, another primary: refused for good
//	   \-- newer epoch than Raft has shown: refused for now
//
// Invariants (R2):
//   - an entry is taken only from the newest accepted stream of the stored epoch
//   - nothing is answered in a stream before everything taken in earlier ones has returned from the device
//   - written is a gapless prefix of what returned; it never passes an entry that failed
//   - once Raft has shown an epoch (Fence), nothing is taken in an older one
//   - what waited for an entry that failed is not carried out (Follows, R13)
package standby

import (
	"fmt"

	"hacluster/heartbeat/cluster"
)

// Hello is how a primary opens a stream.
type Hello struct {
	Epoch   cluster.Epoch
	Primary string
	Process uint64
	Stream  uint64
}

// Verdict is what is to be done about a Hello.
type Verdict uint8

// The verdicts. Store and Wait are to be followed by another call with the same Hello.
const (
	Accept      Verdict = iota + 1
	Store               // store the Hello's epoch durably, call Stored
	Wait                // older work is still on the device
	RefuseOlder         // an older epoch, or an older stream: for good
	RefuseNewer         // Raft has not shown this epoch here yet: try again
	RefuseOther         // the epoch has another primary or process: an impossible state, raise an alarm
)

// Receiver is the state of one replica while it is not primary. Not safe for concurrent use.
type Receiver struct {
	epoch cluster.Epoch // stored durably
	fence cluster.Epoch // shown by Raft

	primary string // of the session
	process uint64
	stream  uint64 // newest accepted in (epoch, process)
	open    bool   // entries are taken
	begun   bool

	known    bool // received and written count for this epoch
	received uint64
	written  uint64
	place    uint64  // of the newest written entry that has one
	taken    []taken // taken[i] is entry written+1+i
	pending  int     // entries taken that have neither returned nor failed
	broken   bool    // an entry failed on the device
	failed   uint64  // the first that did

	resync       bool // the session overwrites: the replica must be marked before the first change
	inconsistent bool // durably marked
	rewinds      bool // what the resync overwrites is logged before, so that there is a way back
}

// taken is an entry that was taken and is not in the written prefix.
type taken struct {
	returned bool
	place    uint64
}

// New is a receiver that starts with what its superblock says.
func New(stored cluster.Epoch, inconsistent bool) *Receiver {
	return &Receiver{epoch: stored, fence: stored, inconsistent: inconsistent}
}

// Hello judges a stream. applied is the volume as our own Raft log shows it; busy counts operations on the device that
// this receiver does not know of (our own writes as a former primary).
func (r *Receiver) Hello(applied *cluster.Volume, h Hello, busy int) Verdict {
	switch {
	case mutateOldStreams && h.Epoch < applied.Epoch:
		r.stream, r.open, r.begun = h.Stream, true, false
		return Accept
	case h.Epoch < applied.Epoch || h.Epoch < r.fence:
		return RefuseOlder
	case h.Epoch > applied.Epoch:
		return RefuseNewer
	case h.Primary != applied.Primary || h.Process != applied.Process:
		return RefuseOther
	case h.Epoch == r.epoch && h.Primary == r.primary && h.Process == r.process && h.Stream <= r.stream:
		return RefuseOlder
	}
	r.open = false // whatever was open is superseded: nothing more is taken from it
	if busy > 0 || r.Outstanding() > 0 {
		return Wait
	}
	if h.Epoch > r.epoch {
		return Store
	}
	r.primary, r.process, r.stream, r.open, r.begun = h.Primary, h.Process, h.Stream, true, false
	return Accept
}

// Stored tells that the epoch is on stable storage. What was received in older ones counts no more. Before it is
// stored, Fence has been called with it and nothing is outstanding any more.
func (r *Receiver) Stored(e cluster.Epoch) {
	if e <= r.epoch {
		return
	}
	if r.pending > 0 {
		panic(fmt.Sprintf("standby: epoch %d stored while %d entries of epoch %d are on the device", e, r.pending, r.epoch))
	}
	r.epoch, r.fence, r.primary, r.process, r.stream = e, max(r.fence, e), "", 0, 0
	r.open, r.known, r.resync = false, false, false
	r.received, r.written, r.place, r.taken = 0, 0, 0, r.taken[:0]
}

// Fence ends every stream of an epoch below e, and lets none begin: Raft has shown e.
func (r *Receiver) Fence(e cluster.Epoch) {
	r.fence = max(r.fence, e)
	if r.epoch < e {
		r.open = false
	}
}

// Close ends the stream, if it is the one that is open.
func (r *Receiver) Close(stream uint64) {
	if stream == r.stream {
		r.open = false
	}
}

// LastNum is the written prefix that a greeting names; 0 when this process knows of none in this epoch.
func (r *Receiver) LastNum() uint64 {
	if !r.known {
		return 0
	}
	return r.written
}

// Epoch is the one stored.
func (r *Receiver) Epoch() cluster.Epoch { return r.epoch }

// Taken is the last entry that this process took in this epoch; 0: it took none.
func (r *Receiver) Taken() uint64 {
	if !r.known {
		return 0
	}
	return r.received
}

// Place is how long the written prefix of this epoch is in the primary's order of clients' operations, which all replicas share; 0:
// it has none of them, or this process does not know.
func (r *Receiver) Place() uint64 {
	if !r.known {
		return 0
	}
	return r.place
}

// Outstanding is how many taken entries are still on the device.
func (r *Receiver) Outstanding() int { return r.pending }

// Begin opens the sequence of an accepted stream at entry num, as a member's replay or as a resync.
func (r *Receiver) Begin(stream, num uint64, resync bool) error {
	switch {
	case !r.open || stream != r.stream:
		return ErrStale
	case r.begun:
		return fmt.Errorf("stream %d began twice", stream)
	case num == 0:
		return fmt.Errorf("stream %d begins at entry 0, entries count from 1", stream)
	case !resync && r.broken:
		return fmt.Errorf("stream %d replays to a replica on which a write or flush has failed: it has to be resynced", stream)
	case !resync && r.known && num > r.received+1:
		return &GapError{Want: r.received + 1, Got: num}
	}
	r.begun, r.resync, r.broken, r.failed = true, resync, false, 0
	if resync || !r.known {
		r.received, r.written, r.place, r.taken = num-1, num-1, 0, r.taken[:0]
	}
	r.known = true
	return nil
}

// Take judges entry num of stream, which has that place in the order of clients' operations, or 0. dup: it was written already and is
// only to be acknowledged.
func (r *Receiver) Take(stream, num, place uint64) (dup bool, err error) {
	switch {
	case !r.open || !r.begun || stream != r.stream:
		return false, ErrStale
	case num <= r.received:
		return true, nil
	case num != r.received+1:
		return false, &GapError{Want: r.received + 1, Got: num}
	}
	r.received = num
	r.taken = append(r.taken, taken{place: place})
	r.pending++
	return false, nil
}

// NeedsMark reports whether the replica must be marked inconsistent, durably, before the entry just taken changes it.
func (r *Receiver) NeedsMark() bool { return r.resync && !r.inconsistent }

// Marked tells that the mark was stored or, by the closing entry of a resync, removed.
func (r *Receiver) Marked(inconsistent bool) {
	r.inconsistent = inconsistent
	if !inconsistent {
		r.resync, r.rewinds = false, false
	}
}

// Rewinds tells whether an undo area leads a replica in pieces back to its last consistent point.
func (r *Receiver) Rewinds(yes bool) { r.rewinds = yes }

// NeedsUndo reports whether the old content of what the entry just taken changes must be durable before (R18).
func (r *Receiver) NeedsUndo() bool { return r.resync && r.inconsistent && r.rewinds }

// MayLog reports whether the old content of what the session overwrites is of use: it is logged, or may be from the first
// change on.
func (r *Receiver) MayLog() bool { return r.resync && (!r.inconsistent || r.rewinds) }

// Inconsistent reports whether the replica is in pieces.
func (r *Receiver) Inconsistent() bool { return r.inconsistent }

// Returned tells that entry num is on the device (and durable, if it asked for that). The new prefix may be
// acknowledged in the stream in which it is still open.
func (r *Receiver) Returned(num uint64) (prefix uint64) {
	r.ended(num)
	r.taken[num-r.written-1].returned = true
	n := 0
	for n < len(r.taken) && r.taken[n].returned {
		r.place = max(r.place, r.taken[n].place)
		n++
	}
	r.written += uint64(n)
	r.taken = r.taken[:copy(r.taken, r.taken[n:])]
	return r.written
}

// Failed tells that entry num ended on the device with an error. The stream is closed, the written prefix never passes
// the entry, and only a resync begins anew (R23).
func (r *Receiver) Failed(num uint64) {
	r.ended(num)
	if !r.broken || num < r.failed {
		r.failed = num
	}
	r.broken, r.open = true, false
}

// Follows reports whether entry num comes after one that failed: no fence holds it back any more, so it must not be carried out (R13).
func (r *Receiver) Follows(num uint64) bool { return r.broken && num > r.failed }

// Broken reports whether an entry has failed since the newest stream began: then no resync is closed any more.
func (r *Receiver) Broken() bool { return r.broken }

func (r *Receiver) ended(num uint64) {
	if num <= r.written || num > r.received || r.taken[num-r.written-1].returned || r.pending == 0 {
		panic(fmt.Sprintf("standby: entry %d ended, %d to %d were taken and %d are outstanding", num, r.written+1, r.received, r.pending))
	}
	r.pending--
}

// MayRead reports whether what the replica holds may be told to the primary on stream: it has all that a member has.
func (r *Receiver) MayRead(stream uint64) bool {
	return r.MayAck(stream) && r.begun && !r.resync && !r.inconsistent && !r.broken
}

// MayAck reports whether acknowledgements may still go out on stream.
func (r *Receiver) MayAck(stream uint64) bool { return r.open && stream == r.stream }
