// Package scenario breaks a lab on purpose and judges what the cluster made of it. A scenario names a fault, a phase in
// which it strikes, and what must become of the service: go on, move, or suspend. A run of it:
//
//	start -> healthy -> load -> fault, proven to bite -> as expected? -> mend -> healthy -> load -> stop -> compare
//
// A run passes only if all of this holds: the fault was seen to bite; the service behaved as expected, and the role moved
// no more often than allowed; every block's history is linearizable, so that nothing acknowledged is lost and no answer is
// stale; one primary at most answered at any instant; no client saw an error; the cluster became healthy by itself; the
// replicas are equal byte for byte; no daemon panicked. A fault that did not bite makes the run broken, not passed.
//
// What a run looks at: the client's record (package client), the status of each node over its local socket, which no cut
// of the network concerns, ten times a second, and the list of failovers. All times are CLOCK_BOOTTIME.
//
// Run is called in the network namespace of the clients' host, by program lab; it runs one scenario in one lab.
package scenario

import (
	"context"
	"time"
)

// Service is what must become of the service while the fault lasts.
type Service string

// What may be expected. The names are what the report shows.
const (
	GoesOn   Service = "goes on"  // at the same primary
	Moves    Service = "moves"    // to the other data node
	Survives Service = "survives" // at one of the two, whichever
	Suspends Service = "suspends" // nobody is answered until the fault is mended
	Waits    Service = "waits"    // a short while, and goes on at the same primary
	Unseen   Service = "unseen"   // the clients are cut off: only the cluster is judged
)

// Expect is what a scenario demands beside what holds for all.
type Expect struct {
	Service Service
	// Changes is how often the role may move at most, over the whole run: a change too many is a false failover.
	Changes int
	// Within bounds how long clients go without an acknowledgement; default 15 s.
	Within time.Duration
	// Errors allows answers with an error number.
	Errors bool
	// Loss, in async, is how many bytes of acknowledged writes may be lost: then what is read may go back once, by no more.
	Loss int64
}

// Scenario is one cell of the matrix.
type Scenario struct {
	Name   string
	Covers string // numbers of faults.md
	What   string
	RTO    string // of the cluster; default "2s"
	Mode   string // of the volume; default "sync"
	Copies int    // of the volume; default 2, beside which there is a witness
	Extra  string // more lines of the volume block
	Link   string // the link block of the two nodes with replicas
	FUA    bool   // each write is durable before it counts: what must survive when all nodes lose power
	Disks  bool   // the nodes' files lie on disks that can lose power, fail and hang
	Clocks bool   // the daemons have clocks of their own that can be stepped
	CI     bool   // among the most telling: part of matrix-ci
	// Alone: never part of a soak, where the standby may have been dropped a moment before: without a member beside the
	// primary, this fault costs data whatever the cluster does.
	Alone bool
	Phase Phase
	// Lasts is how long the phase does. One of more than a few minutes has its run left out of the matrix.
	Lasts  time.Duration
	Fault  Fault
	Hold   time.Duration // how long the fault lasts at least
	Expect Expect
	// Series, instead of Phase, Fault, Hold and Expect: faults that strike one after the other in one cluster, each when
	// the one before was mended and the volume is healthy again, until next says that it was enough.
	Series func(r *Run) (next func() (Scenario, bool))
	// Claims: before, within and after each fault, what status says of the replicas is held against the bytes on the disks.
	Claims bool
	// Lies: while the fault lasts, a disk has lost what it said that it kept, and no status can know.
	Lies  bool
	Think time.Duration // how long a worker rests after each answer; default that of the client
}

// Phase prepares the state in which the fault strikes, under load. Nil: nothing but the load.
type Phase func(ctx context.Context, r *Run) error

// Fault injects something.
type Fault func(ctx context.Context, r *Run) (Injected, error)

// Injected is a fault in force.
type Injected struct {
	// Bites proves that the fault has an effect; it is asked until it says so, for a few seconds.
	Bites func() (proof string, ok bool, err error)
	// Mend undoes it; nil: nothing to undo.
	Mend func(ctx context.Context) error
}

// Find looks a scenario up.
func Find(name string) (Scenario, bool) {
	for _, s := range Table() {
		if s.Name == name {
			return s, true
		}
	}
	return Scenario{}, false
}
