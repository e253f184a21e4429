// Package resource decides what happens to a service: the ordered resources that follow the primary of its volumes (R31).
// It is pure: a Service is told what happened and what time it is, and answers with Actions; who drives it carries them out
// (package effect knows how). It never asks whether this node is primary: it is told Begin and End, and Standing says when
// Begin may be said.
//
//	stopped --Begin--> starting --all started--> running
//	   ^                  |  ^                      |
//	   |    a start failed|  |failures left         |a monitor failed, or a resource ended by itself
//	   |                  v  |                      v
//	   +--nothing left-- stopping <-----------------+----- End, from any state
//	   |                  |  ^
//	   |        kill failed|  |kill succeeded at last
//	   |                  v  |
//	   |                 blocked       it cannot be stopped: the node must not hand over
//	   +----- End ------ failed        too many failures: nothing runs, another node is asked for
//
// Invariants:
//   - What may run is a prefix of the resources: all before the one that is being started or stopped, and that one.
//   - At most one start, stop or kill is outstanding; a later one on a resource supersedes the earlier, which is to be ended.
//   - A stop that failed or took too long is followed by a kill of the same resource, never by the stop of the next.
//   - In the states stopped and failed nothing runs and nothing is outstanding.
package resource

import (
	"fmt"
	"time"

	"hacluster/heartbeat/cluster"
)

// Instant is the machine's CLOCK_BOOTTIME.
type Instant = cluster.Instant

// State of a service on this node.
type State string

// The states.
const (
	Stopped  State = "stopped"
	Starting State = "starting"
	Running  State = "running"
	Stopping State = "stopping"
	Failed   State = "failed"
	Blocked  State = "blocked"
)

// Verb is what is done to a resource.
type Verb string

// The verbs. Kill is what is left when a stop does not work: it asks nobody.
const (
	Start   Verb = "start"
	Stop    Verb = "stop"
	Monitor Verb = "monitor"
	Kill    Verb = "kill"
)

// Resource is one step of a service.
type Resource struct {
	Kind, Name string
	Limits     Limits
	// Interval is between the end of one monitor and the next; 0: it is not watched.
	Interval time.Duration
}

func (r Resource) String() string { return r.Kind + " " + r.Name }

// Limits are how long each operation may take. What takes longer has failed.
type Limits struct{ Start, Stop, Monitor, Kill time.Duration }

func (l Limits) of(v Verb) time.Duration {
	switch v {
	case Start:
		return l.Start
	case Stop:
		return l.Stop
	case Monitor:
		return l.Monitor
	default:
		return l.Kill
	}
}

// Config is what a Service is made with.
type Config struct {
	Name      string
	Resources []Resource
	// Restarts is how many failures within Window are answered by a restart in place. One more, and another node is asked for.
	Restarts int
	Window   time.Duration
}

// Events.
type (
	// Begin: this node may run the service (Standing).
	Begin struct{}
	// End: it may not any more, or it is not to. Why is shown.
	End struct{ Why string }
	// Adopt: a process before this one has left the first Up resources running, and nothing else. Only in Stopped. They go on running
	// and the rest is started, if Go; else they are stopped.
	Adopt struct {
		Up int
		Go bool
	}
	// Done: the operation ended; Err is empty when it did what it should.
	Done struct {
		Op  uint64
		Err string
	}
	// Ended: a resource that was started has ended by itself.
	Ended struct {
		Resource int
		Err      string
	}
	// Forget: a person mended what failed.
	Forget struct{}
	// Tick lets time act.
	Tick struct{}
)

// Event is one of Begin, End, Adopt, Done, Ended, Forget, Tick.
type Event any

// Actions.
type (
	// Do begins an operation, to be answered by Done with its number. An earlier one on the same resource is ended first.
	Do struct {
		Op       uint64
		Resource int
		Verb     Verb
		Limit    time.Duration
	}
	// Changed tells that the state is another, or was left and entered anew.
	Changed struct {
		From, To State
		Why      string
	}
	// AskFailover: the service does not run here; another node may do better.
	AskFailover struct{ Why string }
)

// Action is one of Do, Changed, AskFailover.
type Action any

// Service is one service on one node. Not safe for concurrent use.
type Service struct {
	cfg    Config
	state  State
	why    string
	wanted bool
	up     int // resources that may run: those before are started, the last may be half so
	keep   int // stopping: how many are left as they are
	last   uint64
	op     call   // the start, stop or kill that is outstanding
	checks []call // the monitor of each resource: outstanding, or due
	retry  Instant

	failures []Instant // within the window
	asked    Instant   // when another node was asked for last
}

// call is an operation; op 0: none is outstanding.
type call struct {
	op    uint64
	verb  Verb
	until Instant // outstanding: when it has taken too long; a monitor that is not: when it is due
}

// New is a service that is stopped.
func New(cfg Config) *Service {
	return &Service{cfg: cfg, state: Stopped, checks: make([]call, len(cfg.Resources))}
}

// State is where it is, and why.
func (s *Service) State() (State, string) { return s.state, s.why }

// Clear reports whether nothing of it runs here for certain.
func (s *Service) Clear() bool { return s.up == 0 && s.op.op == 0 }

// Up is how many resources may run.
func (s *Service) Up() int { return s.up }

// Next is when time acts, if nothing else happens first; 0: never.
func (s *Service) Next() (next Instant) {
	add := func(at Instant) {
		if at != 0 && (next == 0 || at < next) {
			next = at
		}
	}
	switch s.state {
	case Blocked:
		add(s.retry)
	case Failed:
		if s.wanted && len(s.failures) > 0 {
			add(s.failures[0].Add(s.cfg.Window))
		}
	case Running:
		for _, c := range s.checks {
			add(c.until)
		}
	}
	if s.op.op != 0 {
		add(s.op.until)
	}
	return next
}

func (s *Service) to(state State, why string) Action {
	c := Changed{From: s.state, To: state, Why: why}
	s.state, s.why = state, why
	return c
}

func (s *Service) do(now Instant, i int, v Verb) Action {
	s.last++
	limit := s.cfg.Resources[i].Limits.of(v)
	c := call{op: s.last, verb: v, until: now.Add(limit)}
	if v == Monitor {
		s.checks[i] = c
	} else {
		s.op = c
	}
	return Do{Op: s.last, Resource: i, Verb: v, Limit: limit}
}

func (s *Service) named(i int, err string) string {
	return fmt.Sprintf("%s: %s", s.cfg.Resources[i], err)
}
