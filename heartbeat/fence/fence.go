// Package fence decides how a node's machine is made to stop (STONITH): which agent is asked next, when, and what its answer is worth.
// It is pure: an Attempt is told what happened and what time it is, and answers with Actions; who drives it runs the agents (package
// agent) and has the cluster note what came of it (heartbeat/cluster). Whether a node is to be fenced at all is decided elsewhere
// (heartbeat/failover, or a person).
//
//	idle --Begin--> noting --Noted--> waiting --delay--> asking off --done--> asking status --is off--> next agent of the level
//	                  ^                                   |  ^                      |                        |none
//	                  |                             failed|  |again, or the next    |is on: it lied          v
//	                  |                                   v  |agent, or level       v                     noting --Noted--> fenced
//	               resting <----Noted---- noting <-----no level is left-------------+
//
//	End, from any state: what is asked is killed, and that the attempt ended is noted.
//
// Levels are tried in order. All agents of a level must have the node off, one after the other, as with two power supplies; one that
// cannot makes the level fail as a whole. An agent is believed only if its own status says afterwards that the node is off, where it has
// one: of one that has none its word counts, and that is noted.
//
// Invariants:
//   - Nothing is asked before the cluster has noted that the attempt has begun: who cannot have that noted fences nobody.
//   - At most one agent is asked at a time.
//   - Fenced is said only of an attempt in which each agent of one level had the node off since it began.
package fence

import (
	"fmt"
	"slices"
	"time"

	"hacluster/heartbeat/cluster"
)

// Instant is the machine's CLOCK_BOOTTIME.
type Instant = cluster.Instant

// Agent is one program that can turn the node off.
type Agent struct {
	Name  string
	Level int // those of the lowest are asked first
	// Timeout is for each call. One that takes longer is killed and has failed.
	Timeout time.Duration
	// Retries is how often an off that failed is asked for again before the level has failed.
	Retries int
	// Delay and up to RandomDelay more are waited before the agent is first asked in an attempt, so that two nodes which are to turn each
	// other off do not both succeed.
	Delay, RandomDelay time.Duration
}

// Config is what an Attempt is made with.
type Config struct {
	Node   string
	Agents []Agent
	// Tries is how often all levels are tried; 0: until End.
	Tries int
	// Pause is waited before the second try, twice as long before each further one, up to MaxPause.
	Pause, MaxPause time.Duration
}

// How often and how far apart an agent is asked for the status of a node that it says is off: a power supply may take a moment.
const (
	maxLooks   = 5
	lookPause  = time.Second
	retryPause = time.Second // before an off that failed is asked for again
)

// MaxText bounds what is kept of the reasons of one try.
const MaxText = 1 << 10

// Op is what an agent is asked.
type Op string

// The operations of an attempt, as the FenceAgentAPI names them.
const (
	OpOff    Op = "off"
	OpStatus Op = "status"
)

// Answer is what an agent said.
type Answer string

// The answers. Hanging, being killed and not being there are failures like any other.
const (
	Done     Answer = "done"      // of off
	IsOff    Answer = "is off"    // of status
	IsOn     Answer = "is on"     // of status
	NoStatus Answer = "no status" // the agent has none
	Failed   Answer = "failed"
)

// Events.
type (
	// Begin starts the attempt. Random, from 0 to 1, is drawn for it: the share of the random delay that is waited.
	Begin struct{ Random float64 }
	// Noted: the cluster has noted what Note said; not OK: it never will, for the note is void or this node leads no more.
	Noted struct{ OK bool }
	// Answered: the agent has ended, with all that it started. Text says why it failed.
	Answered struct {
		Call   uint64
		Answer Answer
		Text   string
	}
	// End: the node is not to be fenced any more, or not by us.
	End struct{ Why string }
	// Tick lets time act.
	Tick struct{}
)

// Event is one of Begin, Noted, Answered, End, Tick.
type Event any

// Word is what is noted of a try.
type Word string

// The words.
const (
	Begun    Word = "begun"
	Fenced   Word = "fenced"
	NotOff   Word = "failed"
	GivenEnd Word = "ended"
)

// Actions. Who drives the attempt carries them out in order.
type (
	// Note has the cluster note it, and answers with Noted.
	Note struct {
		Word  Word
		Level int // of Fenced
		// Unverified: the word of one of the agents was all that there was.
		Unverified bool
		Text       string
	}
	// Ask runs an agent, and answers with Answered when it has ended, after Limit at the latest.
	Ask struct {
		Call  uint64
		Agent int // of Config.Agents as New sorted them
		Op    Op
		Limit time.Duration
	}
	// Kill ends an agent that runs, with all that it started. It is not answered.
	Kill struct{ Call uint64 }
	// Over: nothing happens any more.
	Over struct{ Fenced bool }
)

// Action is one of Note, Ask, Kill, Over.
type Action any

type state string

const (
	idle    state = "idle"
	noting  state = "noting"
	waiting state = "waiting" // until due
	asking  state = "asking"
	resting state = "resting" // until due
	over    state = "over"
)

// Attempt is one time that a node is to be fenced. Not safe for concurrent use.
type Attempt struct {
	cfg    Config
	state  state
	said   Word // noting: what
	due    Instant
	op     Op     // waiting, asking: what is asked
	call   uint64 // the newest
	random float64

	try        int
	agent      int // whose turn it is
	failures   int // of this agent in this try
	looks      int // at the status, since it said that it was done
	waited     []bool
	unverified bool
	why        string // this try fails, if it does
}

// New is an attempt that has not begun. The agents are sorted by their levels; those of one keep their order.
func New(cfg Config) *Attempt {
	if len(cfg.Agents) == 0 {
		panic(fmt.Sprintf("fence: no agent for %s", cfg.Node))
	}
	cfg.Agents = slices.Clone(cfg.Agents)
	slices.SortStableFunc(cfg.Agents, func(a, b Agent) int { return a.Level - b.Level })
	return &Attempt{cfg: cfg, state: idle, waited: make([]bool, len(cfg.Agents))}
}

// Agents are those of the attempt, as Ask numbers them.
func (a *Attempt) Agents() []Agent { return a.cfg.Agents }

// Due is when time is to act; not ok: only an event can.
func (a *Attempt) Due() (at Instant, ok bool) {
	return a.due, a.state == waiting || a.state == resting
}

// Asks reports whether an agent runs now, or has run in this attempt: from the first on the node may be off at any moment.
func (a *Attempt) Asks() bool { return a.call > 0 }
