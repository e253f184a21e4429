package cluster

import (
	"maps"
	"math"
	"time"
)

// Instant is a reading of a machine's CLOCK_BOOTTIME in nanoseconds: it counts suspend, and only means something on
// the machine that read it.
type Instant int64

// Add is the instant d later.
func (i Instant) Add(d time.Duration) Instant { return i + Instant(d) }

// Sub is the time from o to i.
func (i Instant) Sub(o Instant) time.Duration { return time.Duration(i - o) }

// LeaseRequest asks the Raft leader for the right to serve (R8). Requests of a node are ordered by (Start, Number).
type LeaseRequest struct {
	Node    string   `json:"node"`
	Start   uint64   `json:"start"`  // number of the asking process
	Number  uint64   `json:"number"` // of the request within the process, from 1
	Boot    string   `json:"boot"`
	DataDir string   `json:"data_dir"`
	Reports []Report `json:"reports"`
	// Has and HasTerm are number and term of the newest grant that the node has applied; 0: none.
	Has     uint64 `json:"has,omitempty"`
	HasTerm uint64 `json:"has_term,omitempty"`
}

// Report is a replica's own word about itself, which a promotion needs (R25).
type Report struct {
	Volume      string      `json:"volume"`
	Incarnation Incarnation `json:"incarnation"`
	Process     uint64      `json:"process"`
	Epoch       Epoch       `json:"epoch"`    // stored durably
	LastSeq     uint64      `json:"last_seq"` // prefix of the stream written in that epoch by this process
	Taken       uint64      `json:"taken"`    // last entry of that stream that this process took; LastSeq or more
	// Place is how long that prefix is in the order of clients' operations of Epoch, which is the same for all replicas; 0: it has none
	// of them, or does not know.
	Place uint64 `json:"place,omitempty"`
	// Held: the backing is open under the locks of R24, so no older process of this node can write it.
	Held bool `json:"held"`
	// Fresh: the backing was absent or wholly sparse at first start, so it equals every other fresh one.
	Fresh        bool `json:"fresh"`
	Failed       bool `json:"failed"`       // a write or flush failed; no candidate until resynced (R23)
	Inconsistent bool `json:"inconsistent"` // a resync has begun to overwrite it and has not ended
	// Point is where a forced promotion leads an inconsistent replica back to; nil: nowhere.
	Point   *Point `json:"point,omitempty"`
	Stalled bool   `json:"stalled"` // an operation is outstanding past its deadline (R26)
	// Clean is the valid clean-stop mark that this process found, nil without.
	Clean *Clean `json:"clean,omitempty"`
	// Unmarked: the replica's own maps were empty when this process started, so nothing that was written was unflushed; it
	// names who had kept them.
	Unmarked *Keeper `json:"unmarked,omitempty"`
	// Lag, of a primary that serves in async, is what it had acknowledged and another member not written; nil of any other.
	Lag *Lag `json:"lag,omitempty"`
	// Attached: programs of this node use the volume by a device that outlived the process which served it, and wait for the next.
	Attached bool `json:"attached,omitempty"`
	// Problem says why the backing cannot be used, for the operator; empty when it can.
	Problem string `json:"problem,omitempty"`
	// Doing says what the replica is at before it can take its role, for the operator; mostly empty.
	Doing string `json:"doing,omitempty"`
}

// Point is the last consistent point of a replica that is being overwritten (R18).
type Point struct {
	Epoch    Epoch `json:"epoch"`        // in which it was a member last
	AtMillis int64 `json:"at_ms"`        // until when it has every acknowledged write; 0: that is not known
	Bytes    int64 `json:"undone_bytes"` // what has been overwritten since
}

// Promotable reports whether a person may have the replica promoted: one whose disk failed, or that a resync has
// overwritten and that has a way back, may be all that is left.
func (r Report) Promotable() bool {
	r.Failed, r.Inconsistent = false, r.Inconsistent && r.Point == nil
	return r.Usable()
}

// Usable reports whether the replica may be promoted as far as its own health goes.
func (r *Report) Usable() bool {
	return r.Held && !r.Failed && !r.Inconsistent && !r.Stalled && r.Problem == ""
}

// LostKernel reports whether the replica's own word is that what member had in its kernel's memory is gone. One that could not
// open its backing does not know, unless its machine was restarted.
func (r *Report) LostKernel(m Member) bool {
	switch i := r.Incarnation; {
	case i == m.Incarnation || i.Boot == "":
		return false
	case i.Boot != m.Incarnation.Boot:
		return true
	default:
		return i.Attachment != ""
	}
}

// Grant is the leader's answer: the volumes that the node leads, at which epoch, for how long from the moment the
// request was sent (R8, R9).
type Grant struct {
	Node    string           `json:"node"`
	Start   uint64           `json:"start"`
	Number  uint64           `json:"number"`
	Term    uint64           `json:"term"`
	Length  time.Duration    `json:"length"`
	Volumes map[string]Epoch `json:"volumes"`
	// Same, in place of Volumes: they are those of the grant with this number in the same term, which the request said to have been
	// applied. 0: Volumes has them.
	Same uint64 `json:"same,omitempty"`
}

// Holder is a node's own view of its lease. It is not safe for concurrent use: its owner locks.
//
// Invariant: Valid is true only from the sending of a request until Length later, for what its answer named.
type Holder struct {
	node    string
	start   uint64
	last    uint64                // number of the last request sent
	applied uint64                // number of the request whose answer is in force
	term    uint64                // of that answer
	sent    [holderWindow]Instant // when request n was sent, at n % holderWindow
	asked   Instant               // when the request of that answer was sent
	until   Instant
	names   map[string]Epoch // of the grants with the numbers from since to applied; nobody changes it
	since   uint64
	named   map[string]Epoch  // of those, what was not given up since it was asked for
	renamed uint64            // counts changes of named
	gaveUp  map[string]uint64 // volume -> last request sent when it was given up
}

// How many unanswered requests are remembered; an answer to an older one is ignored.
const holderWindow = 64

// notSent stands for a number that no request bore.
const notSent Instant = math.MinInt64

// NewHolder is the lease of one process, which holds nothing yet.
func NewHolder(node string, start uint64) *Holder {
	return &Holder{node: node, start: start, gaveUp: map[string]uint64{}}
}

// Next numbers a request that is sent now. Call it directly before sending: the lease counts from here.
func (h *Holder) Next(now Instant) (number uint64) {
	h.last++
	h.sent[h.last%holderWindow] = now
	return h.last
}

// Answer applies a grant and reports whether it was taken. One for another process, for a request never sent or
// forgotten, or older than the last applied is ignored (R9).
func (h *Holder) Answer(g Grant) bool {
	if g.Node != h.node || g.Start != h.start || g.Number <= h.applied || g.Number > h.last || g.Number+holderWindow <= h.last {
		return false
	}
	if h.sent[g.Number%holderWindow] == notSent {
		return false
	}
	if g.Same != 0 && (g.Term != h.term || g.Same < h.since || g.Same > h.applied) {
		return false // of a grant that is not in force any more: the next request says which one is
	}
	h.applied, h.term = g.Number, g.Term
	h.asked = h.sent[g.Number%holderWindow]
	h.until = h.asked.Add(g.Length)
	if g.Same == 0 {
		h.names, h.since = g.Volumes, g.Number
	}
	if g.Same == 0 || len(h.named) != len(h.names) { // else all are named, and a newer number names no less
		h.name(g.Number)
	}
	return true
}

// name has what the grant with the number names, but for what was given up since that was asked for.
func (h *Holder) name(number uint64) {
	named := make(map[string]Epoch, len(h.names))
	for v, e := range h.names {
		if number > h.gaveUp[v] {
			named[v] = e
		}
	}
	if !maps.Equal(named, h.named) {
		h.named = named
		h.renamed++
	}
}

// Renamed counts how often a grant named something else than the one before, or less was named for a give-up.
func (h *Holder) Renamed() uint64 { return h.renamed }

// Has is number and term of the newest grant that was applied, for the next request.
func (h *Holder) Has() (number, term uint64) { return h.applied, h.term }

// Asked is when the newest grant was asked for: what the leader heard of us, and we of it, at least until then.
func (h *Holder) Asked() Instant { return h.asked }

// Term is the Raft term of the newest grant: what is sent now was sent after that term's leader was elected.
func (h *Holder) Term() uint64 { return h.term }

// GiveUp ends the right to serve the volume at once; only a grant asked for afterwards renews it (R9, R30).
// It returns the number that a give-up message bears.
func (h *Holder) GiveUp(volume string) (number uint64) {
	h.last++ // ordered after every request so far; never sent as a request, so no answer to it counts
	h.sent[h.last%holderWindow] = notSent
	h.gaveUp[volume] = h.last
	if _, ok := h.named[volume]; ok {
		delete(h.named, volume)
		h.renamed++
	}
	return h.last
}

// Valid reports whether the node may serve the volume in this epoch now.
func (h *Holder) Valid(volume string, e Epoch, now Instant) bool {
	return now < h.Until(volume, e)
}

// Until is when the right to serve the volume in this epoch ends; zero when there is none.
func (h *Holder) Until(volume string, e Epoch) Instant {
	if got, ok := h.named[volume]; !ok || got != e {
		return 0
	}
	return h.until
}

// Remaining is the time left on the lease as such, for status; negative when it has run out.
func (h *Holder) Remaining(now Instant) time.Duration { return h.until.Sub(now) }
