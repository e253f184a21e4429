package resource

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

const second = Instant(time.Second)

func limits() Limits {
	return Limits{Start: 10 * time.Second, Stop: 5 * time.Second, Monitor: 3 * time.Second, Kill: 2 * time.Second}
}

// two is a service of a resource a that is not watched, and b that is every 10 s.
func two() Config {
	return Config{Name: "web", Restarts: 2, Window: 10 * time.Minute, Resources: []Resource{
		{Kind: "address", Name: "a", Limits: limits()},
		{Kind: "exec", Name: "b", Limits: limits(), Interval: 10 * time.Second}}}
}

// text shows actions: "start 0", "running", "ask".
func text(acts []Action) string {
	var out []string
	for _, a := range acts {
		switch a := a.(type) {
		case Do:
			out = append(out, fmt.Sprintf("%s %d", a.Verb, a.Resource))
		case Changed:
			out = append(out, string(a.To))
		case AskFailover:
			out = append(out, "ask")
		}
	}
	return strings.Join(out, ", ")
}

// script drives a Service: each step is "EVENT" at a time in seconds and what is expected of it. "ok" and "err" answer the newest
// operation, "ok N" the one with that number.
type step struct {
	at    int
	event string
	want  string
}

func play(t *testing.T, s *Service, steps []step) {
	t.Helper()
	last := uint64(0)
	for i, st := range steps {
		word, arg, _ := strings.Cut(st.event, " ")
		number := 0
		_, _ = fmt.Sscan(arg, &number)
		op := last
		if arg != "" {
			op = uint64(number)
		}
		var ev Event
		switch word {
		case "begin":
			ev = Begin{}
		case "end":
			ev = End{Why: "told"}
		case "adopt":
			ev = Adopt{Up: number, Go: true}
		case "clean":
			ev = Adopt{Up: number}
		case "ok":
			ev = Done{Op: op}
		case "err":
			ev = Done{Op: op, Err: "no"}
		case "ended":
			ev = Ended{Resource: number, Err: "exit status 1"}
		case "forget":
			ev = Forget{}
		case "tick":
			ev = Tick{}
		default:
			t.Fatalf("unknown event %q", st.event)
		}
		acts := s.Step(Instant(st.at)*second, ev)
		if got := text(acts); got != st.want {
			t.Fatalf("step %d, %q at %d s: %q, want %q", i, st.event, st.at, got, st.want)
		}
		for _, a := range acts {
			if d, ok := a.(Do); ok {
				last = d.Op
			}
		}
	}
}

// started are the steps to running.
var started = []step{{0, "begin", "starting, start 0"}, {1, "ok", "start 1"}, {2, "ok", "running"}}

func TestTransitions(t *testing.T) {
	for name, c := range map[string]struct {
		steps []step
		state State
	}{
		"starts in order": {started, Running},
		"stops in reverse": {append(started, []step{
			{3, "end", "stopping, stop 1"}, {4, "ok", "stop 0"}, {5, "ok", "stopped"}}...), Stopped},
		"a second begin changes nothing":       {append(started, step{3, "begin", ""}), Running},
		"an end while stopped changes nothing": {[]step{{0, "end", ""}}, Stopped},
		"an end during the start stops what may have begun": {[]step{
			{0, "begin", "starting, start 0"}, {1, "ok", "start 1"}, {2, "end", "stopping, stop 1"}, {3, "ok 2", ""}, {3, "ok", "stop 0"}, {4, "ok", "stopped"}}, Stopped},
		"a begin during the stop starts anew when all is stopped": {append(started, []step{
			{3, "end", "stopping, stop 1"}, {3, "begin", ""}, {4, "ok", "stop 0"}, {5, "ok", "starting, start 0"}}...), Starting},
		"a failed start is stopped and tried again, the one before stays": {[]step{
			{0, "begin", "starting, start 0"}, {1, "ok", "start 1"}, {2, "err", "stopping, stop 1"}, {3, "ok", "starting, start 1"}, {4, "ok", "running"}}, Running},
		"a start that takes too long failed": {[]step{
			{0, "begin", "starting, start 0"}, {9, "tick", ""}, {10, "tick", "stopping, stop 0"}, {11, "ok 1", ""}, {11, "ok", "starting, start 0"}}, Starting},
		"a monitor that fails restarts its resource and those after": {append(started, []step{
			{11, "tick", ""}, {12, "tick", "monitor 1"}, {13, "err", "stopping, stop 1"}, {14, "ok", "starting, start 1"}, {15, "ok", "running"}}...), Running},
		"a monitor that is content is asked again an interval later": {append(started, []step{
			{12, "tick", "monitor 1"}, {13, "ok", ""}, {22, "tick", ""}, {23, "tick", "monitor 1"}}...), Running},
		"a monitor that takes too long failed": {append(started, []step{
			{12, "tick", "monitor 1"}, {14, "tick", ""}, {15, "tick", "stopping, stop 1"}, {16, "ok 3", ""}}...), Stopping},
		"what ends by itself failed, with all after it": {append(started, []step{
			{3, "ended 0", "stopping, stop 1"}, {4, "ok", "stop 0"}, {5, "ok", "starting, start 0"}}...), Starting},
		"too many failures ask for another node": {append(started, []step{
			{3, "ended 1", "stopping, stop 1"}, {4, "ok", "starting, start 1"}, {5, "ok", "running"},
			{6, "ended 1", "stopping, stop 1"}, {7, "ok", "starting, start 1"}, {8, "ok", "running"},
			{9, "ended 1", "stopping, stop 1"}, {10, "ok", "stop 0"}, {11, "ok", "failed, ask"}}...), Failed},
		"a stop that fails is a kill": {append(started, []step{
			{3, "end", "stopping, stop 1"}, {4, "err", "kill 1"}, {5, "ok", "stop 0"}, {6, "ok", "stopped"}}...), Stopped},
		"a stop that hangs is a kill": {append(started, []step{
			{3, "end", "stopping, stop 1"}, {8, "tick", "kill 1"}, {8, "ok 3", ""}, {9, "ok", "stop 0"}}...), Stopping},
		"what cannot be killed blocks, and is tried again": {append(started, []step{
			{3, "end", "stopping, stop 1"}, {4, "err", "kill 1"}, {5, "err", "blocked"}, {6, "tick", ""}, {7, "tick", "kill 1"}, {8, "err", ""},
			{8, "tick", ""}, {10, "tick", "kill 1"}, {11, "ok", "stopping, stop 0"}, {12, "ok", "stopped"}}...), Stopped},
		"a kill that hangs blocks": {append(started, []step{
			{3, "end", "stopping, stop 1"}, {4, "err", "kill 1"}, {6, "tick", "blocked"}, {7, "begin", ""}, {7, "end", ""}}...), Blocked},
		"what a process before left running goes on": {[]step{{0, "adopt 2", "starting, running"}}, Running},
		"the rest of it is started":                  {[]step{{0, "adopt 1", "starting, start 1"}, {1, "ok", "running"}}, Running},
		"or all is stopped":                          {[]step{{0, "clean 2", "stopping, stop 1"}, {1, "ok", "stop 0"}, {2, "ok", "stopped"}}, Stopped},
		"nothing left is nothing to stop":            {[]step{{0, "clean 0", ""}}, Stopped},
	} {
		t.Run(name, func(t *testing.T) {
			s := New(two())
			play(t, s, c.steps)
			if got, why := s.State(); got != c.state {
				t.Fatalf("%s (%s), want %s", got, why, c.state)
			}
		})
	}
}

// exhausted is a service that failed once too often; the last failure was at 9 s.
func exhausted(t *testing.T) *Service {
	cfg := two()
	cfg.Restarts = 0
	s := New(cfg)
	play(t, s, append(started, []step{{9, "ended 1", "stopping, stop 1"}, {10, "ok", "stop 0"}, {11, "ok", "failed, ask"}}...))
	return s
}

func TestFailuresAreForgottenAfterTheWindow(t *testing.T) {
	s := exhausted(t)
	if next := s.Next(); next != (9+600)*second {
		t.Fatalf("time acts at %v", time.Duration(next))
	}
	play(t, s, []step{{608, "tick", ""}, {609, "tick", "starting, start 0"}})
}

func TestPersonMayHaveAFailedServiceTriedAgain(t *testing.T) {
	s := exhausted(t)
	play(t, s, []step{{20, "forget", "starting, start 0"}})
}

// Two nodes on which it fails must not send it to and fro for ever: within the window a node asks once.
func TestAnotherNodeIsAskedForOnceInAWindow(t *testing.T) {
	s := exhausted(t)
	play(t, s, []step{{12, "end", "stopped"}, {20, "begin", "starting, start 0"}, {21, "err", "stopping, stop 0"}, {22, "ok", "failed"}})
	play(t, s, []step{{622, "tick", "starting, start 0"}, {623, "err", "stopping, stop 0"}, {624, "ok", "failed, ask"}})
}

func TestReasonsNameWhatFailed(t *testing.T) {
	s := exhausted(t)
	if _, why := s.State(); why != "failed 1 times within 10m0s, last: exec b: ended by itself: exit status 1" {
		t.Error(why)
	}
	s = New(two())
	play(t, s, append(started, []step{{3, "end", "stopping, stop 1"}, {8, "tick", "kill 1"}, {10, "tick", "blocked"}}...))
	if _, why := s.State(); why != "exec b: cannot be stopped: took longer than 2s" {
		t.Error(why)
	}
}

// machine checks the invariants of the package comment from outside, by what is done.
type machine struct {
	up      int // resources that may run
	op      Do
	stopped bool // the stop of op.Resource failed, a kill has to follow
}

func (m *machine) take(t *testing.T, s *Service, d Do) {
	t.Helper()
	switch {
	case d.Verb == Monitor:
		if d.Resource >= m.up || m.op.Op != 0 {
			t.Fatalf("monitor %d while %d run and %v is outstanding", d.Resource, m.up, m.op)
		}
		return
	case m.op.Op != 0 && !(m.op.Verb == Start && d.Verb == Stop && d.Resource == m.op.Resource):
		t.Fatalf("%v while %v is outstanding", d, m.op)
	case d.Verb == Start && (d.Resource != m.up || !s.wanted):
		t.Fatalf("start %d while %d may run, wanted %t", d.Resource, m.up, s.wanted)
	case d.Verb == Start:
		m.up++
	case d.Resource != m.up-1:
		t.Fatalf("%s %d while %d may run", d.Verb, d.Resource, m.up)
	case m.stopped && d.Verb != Kill:
		t.Fatalf("%s %d after its stop failed", d.Verb, d.Resource)
	}
	m.op = d
}

// end is the end of the operation as the Service sees it.
func (m *machine) end(bad bool) {
	d := m.op
	m.op = Do{}
	switch {
	case d.Verb == Start:
	case bad:
		m.stopped = true
	default:
		m.up--
		m.stopped = false
	}
}

func TestRandomSchedulesKeepTheInvariants(t *testing.T) {
	for seed := range uint64(3000) {
		r := rand.New(rand.NewPCG(seed, 1))
		s, m := New(two()), &machine{}
		now, monitor := Instant(1), uint64(0)
		for range 200 {
			var ev Event = Tick{}
			switch r.IntN(9) {
			case 0:
				ev = Begin{}
			case 1:
				ev = End{}
			case 2:
				ev = Ended{Resource: r.IntN(2)}
			case 3:
				now += Instant(r.Int64N(int64(12 * time.Second)))
			case 4:
				ev = Done{Op: monitor, Err: strings.Repeat("x", r.IntN(2))}
			case 5:
				ev = Done{Op: r.Uint64N(s.last + 2)}
			default:
				ev = Done{Op: m.op.Op, Err: strings.Repeat("x", r.IntN(5)/4)}
			}
			late := m.op.Op != 0 && now >= s.op.until
			switch e := ev.(type) {
			case Done:
				if e.Op == m.op.Op && m.op.Op != 0 {
					m.end(e.Err != "")
				}
			case Tick:
				if late {
					m.end(true)
				}
			}
			for _, a := range s.Step(now, ev) {
				if d, ok := a.(Do); ok {
					m.take(t, s, d)
					if d.Verb == Monitor {
						monitor = d.Op
					}
				}
			}
			if s.Clear() != (m.up == 0 && m.op.Op == 0) || s.Up() != m.up {
				t.Fatalf("seed %d: clear %t, up %d, but %d may run and %v is outstanding", seed, s.Clear(), s.Up(), m.up, m.op)
			}
			if (s.state == Stopped || s.state == Failed) && !s.Clear() {
				t.Fatalf("seed %d: %s, and %d may run", seed, s.state, m.up)
			}
			if next := s.Next(); next == 0 && m.op.Op != 0 {
				t.Fatalf("seed %d: nothing ends %v if it hangs", seed, m.op)
			}
		}
	}
}
