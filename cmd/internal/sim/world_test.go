package sim

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"time"

	"hacluster/heartbeat/cluster"
	"hacluster/replication/primary"
)

// world is one run: true time, the events to come, the machines and what is known to be true of them. Everything
// happens in one goroutine; the only source of chance is rng, so a seed replays exactly.
type world struct {
	seed   uint64
	rng    *rand.Rand
	now    int64 // true time in nanoseconds, which no machine can read
	seq    uint64
	events []event
	steps  int

	shape      shape
	nodes      []*node
	links      [maxNodes][maxNodes]link
	calm       bool // the faults are over
	faults     faultRates
	oracle     *oracle
	bound      primary.Bound // of a volume in async
	spoolCalls int
	truth      truth
	badDisk    bool              // an operation on a disk failed or hung
	numbers    []uint32          // of replicas, ever given
	changing   bool              // replicas come and go in this run
	served     int64             // when a client was last answered
	helped     int64             // when a person last acted
	moving     bool              // by naming a replica at another site
	healed     int64             // when the faults ended
	lied       map[string]uint64 // by node: the newest process of which an agent lied

	clients []*client
	conns   []*conn // of the data path, for the fault that breaks one
	counts  counts
	tracing bool
	lines   []string
}

// counts tell after a run how much of the interesting was reached.
type counts struct {
	Acked, Reads, Flushes, FailedOps, Serves, Failovers, HandOvers, Forced, LastPrimary, AllLost, Clean, Drops, Admits, Rescued, Rejoins, Ahead, Behind, BehindBlocks, Longer, Moved                                                    int
	NoWayBack, RolledBack, Unread, Mended, Reread, Grown, Shrunk, Modes, Compared, Resyncs, Copied, Elections, Kills, Reboots, Pauses, Cuts, DiskErrors, Helped, Spooled, Loaded, Unspooled, Joined, Parted, Fenced, Refuted, Confirmed int
}

func (c *counts) add(o *counts) {
	a, b := reflect.ValueOf(c).Elem(), reflect.ValueOf(o).Elem()
	for i := range a.NumField() {
		a.Field(i).SetInt(a.Field(i).Int() + b.Field(i).Int())
	}
}

type event struct {
	at   int64
	seq  uint64
	proc *proc // whose process has to be alive and awake; nil: the world's own
	fn   func()
}

// violation is a broken rule.
type violation struct{ text string }

func (w *world) violate(format string, args ...any) {
	panic(violation{fmt.Sprintf(format, args...)})
}

func (w *world) tracef(format string, args ...any) {
	if w.tracing {
		w.lines = append(w.lines, fmt.Sprintf("%10.3fms ", float64(w.now)/1e6)+fmt.Sprintf(format, args...))
	}
}

// after has the world do fn in d of true time.
func (w *world) after(d time.Duration, fn func()) { w.push(event{at: w.now + int64(d), fn: fn}) }

// push adds an event. Events of one instant run in the order in which they were added.
func (w *world) push(e event) {
	w.seq++
	e.seq = w.seq
	w.insert(e)
}

func (w *world) insert(e event) {
	h := append(w.events, e)
	i := len(h) - 1
	for i > 0 {
		up := (i - 1) / 2
		if !h[i].before(&h[up]) {
			break
		}
		h[i], h[up] = h[up], h[i]
		i = up
	}
	w.events = h
}

func (e *event) before(o *event) bool { return e.at < o.at || e.at == o.at && e.seq < o.seq }

func (w *world) pop() event {
	h := w.events
	first := h[0]
	last := len(h) - 1
	h[0] = h[last]
	h[last] = event{}
	h = h[:last]
	for i := 0; ; {
		c := 2*i + 1
		if c >= last {
			break
		}
		if c+1 < last && h[c+1].before(&h[c]) {
			c++
		}
		if !h[c].before(&h[i]) {
			break
		}
		h[i], h[c] = h[c], h[i]
		i = c
	}
	w.events = h
	return first
}

// maxSteps stops a run that does not end by itself.
const maxSteps = 2_000_000

// run lets everything happen until true time end, or until done says so.
func (w *world) run(end int64, done func() bool) bool {
	for len(w.events) > 0 && w.events[0].at <= end {
		e := w.pop()
		w.now = e.at
		if p := e.proc; p != nil {
			if p.dead {
				continue
			}
			if w.now < p.pausedUntil {
				e.at = p.pausedUntil // it keeps its place among the events that waited
				w.insert(e)
				continue
			}
		}
		if w.steps++; w.steps > maxSteps {
			w.violate("the run does not come to rest: %d events", w.steps)
		}
		e.fn()
		if done != nil && done() {
			return true
		}
	}
	w.now = max(w.now, end)
	return false
}

// between draws a duration, mostly near the lower end.
func (w *world) between(lo, hi time.Duration) time.Duration {
	f := w.rng.Float64()
	return lo + time.Duration(f*f*float64(hi-lo))
}

func (w *world) chance(p float64) bool { return w.rng.Float64() < p }

// truth is what Raft has committed, known to nobody inside the world.
type truth struct {
	log   []logEntry // as committed, index 1 first
	state *cluster.State
}

// committed notes that a leader counted entry index as committed, and checks the set and epochs as they move.
func (w *world) committed(index uint64, e logEntry) {
	if index <= uint64(len(w.truth.log)) {
		if got := w.truth.log[index-1]; got.id != e.id {
			w.violate("raft: index %d was committed with entry %d and again with entry %d", index, got.id, e.id)
		}
		return
	}
	if index != uint64(len(w.truth.log))+1 {
		w.violate("raft: index %d committed after %d", index, len(w.truth.log))
	}
	w.truth.log = append(w.truth.log, e)
	if e.cmd == nil {
		return
	}
	before := w.truth.state.Volumes[volumeName]
	res := w.truth.state.Apply(index, e.term, *e.cmd)
	after := w.truth.state.Volumes[volumeName]
	w.tracef("COMMIT %d term %d %s -> %s", index, e.term, describe(e.cmd), outcome(res, &after))
	if res.Void == "" && e.cmd.FenceNode != nil {
		w.oracle.fencing(e.cmd.FenceNode)
	}
	if res.Void == "" {
		w.moved(e.cmd, &before, &after)
	}
}

// moved checks one change of the volume's record (R1, R6, R7).
func (w *world) moved(c *cluster.Command, before, after *cluster.Volume) {
	switch {
	case after.Epoch < before.Epoch || after.Epoch > before.Epoch+1:
		w.violate("R1: epoch went from %d to %d", before.Epoch, after.Epoch)
	case after.Epoch == before.Epoch && before.Epoch != 0 && (after.Primary != before.Primary || after.Process != before.Process):
		w.violate("R1: epoch %d changed its primary from %s to %s", after.Epoch, before.Primary, after.Primary)
	case after.Version < before.Version:
		w.violate("R7: version went from %d to %d", before.Version, after.Version)
	case after.Epoch > 0 && !after.IsMember(after.Primary):
		w.violate("the primary %s is no member: %v", after.Primary, after.MemberNames())
	}
	w.replicasMoved(before, after)
	w.sized(c, before, after)
	w.moded(c, before, after)
	switch {
	case c.Promote != nil:
		w.counts.Failovers++
		w.oracle.promoted(c.Promote, before)
		w.oracle.replaces(c.Promote, before)
		switch c.Promote.Basis {
		case cluster.BasisHandOver:
			w.counts.HandOvers++
		case cluster.BasisAllLost:
			w.counts.AllLost++
			w.allLost(before)
		case cluster.BasisLastPrimary:
			w.counts.LastPrimary++
			w.allLost(before)
		case cluster.BasisClean:
			w.counts.Clean++
		case cluster.BasisForced:
			w.counts.Forced++
			w.oracle.forced = true
		}
	case c.Drop != nil:
		w.counts.Drops++
	case c.Admit != nil:
		w.counts.Admits++
		w.oracle.admitted(before, c.Admit.Node)
	case c.Rejoin != nil:
		w.counts.Rejoins++
	}
}

// allLost checks a promotion for which unflushed writes may be gone: no member has the memory that the set names (R25).
func (w *world) allLost(before *cluster.Volume) {
	for name, m := range before.Members {
		if w.node(name).incarnation() == m.Incarnation {
			w.violate("R25: the promotion rests on that all lost their memory, and %s has not", name)
		}
	}
	w.oracle.lostMemory = true
}

func describe(c *cluster.Command) string {
	switch {
	case c == nil:
		return "barrier"
	case c.Promote != nil:
		p := c.Promote
		return fmt.Sprintf("promote %s process %d on %d/%d, %s, leave %v, because %s", p.Candidate, p.Member.Process, p.Epoch, p.Version, p.Basis, p.Leave, p.Reason)
	case c.Drop != nil:
		return fmt.Sprintf("drop %s by %s on %d/%d, %s", c.Drop.Node, c.By, c.Drop.Epoch, c.Drop.Version, c.Drop.Reason)
	case c.Admit != nil:
		return fmt.Sprintf("admit %s %v on %d/%d", c.Admit.Node, c.Admit.Member, c.Admit.Epoch, c.Admit.Version)
	case c.Rejoin != nil:
		return fmt.Sprintf("rejoin %s %v on %d/%d", c.Rejoin.Node, c.Rejoin.Member, c.Rejoin.Epoch, c.Rejoin.Version)
	case c.StartNode != nil:
		return fmt.Sprintf("start %s process %d", c.StartNode.Node, c.StartNode.Start)
	case c.FenceNode != nil:
		return fmt.Sprintf("fence %+v", *c.FenceNode)
	case c.Form != nil:
		return fmt.Sprintf("form %v", c.Form.Members)
	case c.AllowResync != nil:
		return "allow resync of " + c.AllowResync.Node
	case c.PauseResync != nil:
		return fmt.Sprintf("pause the resync of %v: %t", c.PauseResync.Nodes, c.PauseResync.Paused)
	case c.SetMode != nil:
		return fmt.Sprintf("set mode %s by %s on %d/%d, members %v", c.SetMode.Mode, c.By, c.SetMode.Epoch, c.SetMode.Version, c.SetMode.Members)
	case c.Configure != nil && len(c.Configure.Modes) > 0:
		return fmt.Sprintf("change mode %+v", c.Configure.Modes)
	case c.Configure != nil && len(c.Configure.Replicas) > 0:
		return fmt.Sprintf("change replicas %+v", c.Configure.Replicas)
	case c.Configure != nil:
		return fmt.Sprintf("resize %+v", c.Configure.Resize)
	case c.Init != nil:
		return "init"
	}
	return "?"
}

func outcome(r cluster.Result, v *cluster.Volume) string {
	if r.Void != "" {
		return "VOID: " + r.Void
	}
	return fmt.Sprintf("epoch %d version %d primary %s/%d members [%s] previous %q held %v", v.Epoch, v.Version, v.Primary, v.Process,
		strings.Join(v.MemberNames(), " "), v.Previous, v.Held)
}
