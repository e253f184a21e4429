// Package guard keeps a daemon that is stopped, hung or cut off from leaving its application serving (R31). It is two small
// processes of the same program, which people do not start:
//
//	haclusterd --Unix socket--> guard --pipe--> holder of a resource --> its processes
//
// The guard outlives the daemon. It is told by each lease until when a service may run (CLOCK_BOOTTIME), and starts and stops
// resources on the daemon's word, never after that instant. When it comes without another lease, the guard takes the service's
// addresses down, then stops the rest, and kills what has not stopped in half of the guard's time. That time counts from the lease's
// end, not from when the guard sees it: after a suspend there may be none left to ask, and all is killed at once. Meanwhile the guard
// waits for no disk and no log: either may hang with the daemon.
//
// Each started resource has a holder, which is the subreaper of its processes: however they daemonize, they stay below it. When the
// guard ends, its holders read the end of their pipe and kill what they hold. When a holder ends, the guard inherits its processes, and
// kills them. So it takes the loss of daemon, guard and holder at once to leave something running; then the next guard ends what it
// finds, and until then a watchdog is the only help.
//
// A lock file is held by the guard and all of its holders: a second guard waits until everything of the first has ended.
//
// What it does not do: it decides nothing about services (package resource), and keeps nothing across a restart of the machine.
package guard

import (
	"time"

	"hacluster/heartbeat/cluster"
	"hacluster/heartbeat/resource"
	"hacluster/heartbeat/resource/effect"
)

// Instant is the machine's CLOCK_BOOTTIME.
type Instant = cluster.Instant

// Protocol is the version of the messages. A daemon that finds a guard of another one has it stop everything and end.
const Protocol = 1

// maxMessage bounds a message: a service's configuration is far smaller.
const maxMessage = 1 << 20

// Request is what the daemon says: one of the fields, a message a line.
type Request struct {
	Lease *Lease `json:"lease,omitempty"`
	Do    *Do    `json:"do,omitempty"`
	// Quit: take everything down and end.
	Quit bool `json:"quit,omitempty"`
}

// Lease says until when services may run. One that is not named keeps what it had.
type Lease struct {
	Until map[string]Instant `json:"until"`
	// Time is the guard's time, within which everything is down after a lease has ended.
	Time time.Duration `json:"time"`
}

// Do is an operation on a resource, answered by Done.
type Do struct {
	ID      uint64        `json:"id"`
	Service string        `json:"service"`
	Order   int           `json:"order"` // of the resource within its service
	Verb    resource.Verb `json:"verb"`
	Limit   time.Duration `json:"limit"`
	Spec    effect.Spec   `json:"spec"`
}

// Reply is what the guard says: one of the fields, a message a line.
type Reply struct {
	Hello *Hello `json:"hello,omitempty"`
	Done  *Done  `json:"done,omitempty"`
	Ended *Ended `json:"ended,omitempty"`
	Taken *Taken `json:"taken,omitempty"`
}

// Hello comes first on each connection.
type Hello struct {
	Protocol int                       `json:"protocol"`
	Running  map[string][]*effect.Spec `json:"running"` // by service, in order; nil: that one does not run
}

// Done is how an operation ended; Err is empty when it did what it should.
type Done struct {
	ID  uint64 `json:"id"`
	Err string `json:"err,omitempty"`
}

// Ended: a resource that was started has ended by itself.
type Ended struct {
	Service string `json:"service"`
	Order   int    `json:"order"`
	Err     string `json:"err"`
}

// Taken: the lease of a service ended and the guard has taken it down, or cannot (Err) and goes on trying.
type Taken struct {
	Service string        `json:"service"`
	Took    time.Duration `json:"took"`
	Err     string        `json:"err,omitempty"`
}
