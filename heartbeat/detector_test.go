package heartbeat

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

var testTimeouts = Timeouts{Suspect: 250 * time.Millisecond, LinkDown: 400 * time.Millisecond, Dead: 600 * time.Millisecond}

// script drives a detector of one peer "b" with two links. Each line is "at event", its outcome the verdict and the
// link states after it. Time is in milliseconds; through a silent stretch it steps as Next asks.
type script struct {
	t   *testing.T
	d   *Detector
	t0  time.Time
	now time.Duration
}

func newScript(t *testing.T) *script {
	t.Helper()
	s := &script{t: t, t0: time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)}
	var err error
	s.d, err = NewDetector(s.t0, testTimeouts, []Peer{{Name: "b", Links: []Link{{Address: "10.0.0.2:7401"}, {Address: "192.168.7.2:7401"}}}})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *script) step(ev ...Event) []Change { return s.d.Step(s.t0.Add(s.now), ev...) }

// until lets the time pass.
func (s *script) until(ms int) {
	for end := time.Duration(ms) * time.Millisecond; s.now < end; {
		next := s.d.Next().Sub(s.t0)
		if next <= s.now {
			s.t.Fatalf("at %v, Next is %v: time would stand still", s.now, next)
		}
		s.now = min(next, end)
		s.step()
	}
}

func (s *script) do(line string) {
	s.t.Helper()
	var at int
	var what string
	var arg string
	if _, err := fmt.Sscan(line, &at, &what); err != nil {
		s.t.Fatalf("%q: %v", line, err)
	}
	fmt.Sscan(line, &at, &what, &arg)
	if what == "sleep" { // our own process stands still: nothing happens until then
		s.now = time.Duration(at) * time.Millisecond
		s.step()
		return
	}
	s.until(at)
	switch what {
	case "link":
		s.step(s.arrival(int(arg[0] - '0')))
	case "answer":
		s.step(Answer{Peer: "b", At: s.t0.Add(s.now)})
	case "late": // noticed now, came 100 ms ago
		s.step(Answer{Peer: "b", At: s.t0.Add(s.now - 100*time.Millisecond)})
	case "gossip":
		s.step(Gossip{Peer: "b", State: map[string]State{"unknown": Unknown, "alive": Alive, "dead": Dead}[arg]})
	case "nothing":
	default:
		s.t.Fatalf("unknown event in %q", line)
	}
}

func (s *script) arrival(link int) Arrival {
	return Arrival{Peer: "b", Link: link, At: s.t0.Add(s.now), RTT: time.Millisecond}
}

func (s *script) view() string {
	p := s.d.Peers()[0]
	return fmt.Sprint(p.State, " ", p.Links[0].State, " ", p.Links[1].State)
}

func TestVerdict(t *testing.T) {
	cases := map[string][][2]string{
		"answers on both links": {
			{"0 nothing", "unknown down down"},
			{"100 link 0", "alive up down"},
			{"101 link 1", "alive up up"},
		},
		"one of two links dies: the verdict stands": {
			{"0 link 0", "alive up down"}, {"0 link 1", "alive up up"},
			{"200 link 1", "alive up up"}, {"390 link 1", "alive up up"},
			{"410 link 1", "alive down up"},
			{"500 link 0", "alive up up"},
		},
		"silence: suspected, then dead, and back with one answer": {
			{"0 link 0", "alive up down"},
			{"249 nothing", "alive up down"},
			{"250 nothing", "suspect up down"},
			{"400 nothing", "suspect down down"},
			{"599 nothing", "suspect down down"},
			{"600 nothing", "dead down down"},
			{"9000 nothing", "dead down down"},
			{"9001 link 1", "alive down up"},
		},
		"answers over links unknown keep it alive": {
			{"0 link 0", "alive up down"},
			{"200 answer", "alive up down"},
			{"440 answer", "alive down down"},
			{"689 nothing", "alive down down"},
			{"690 nothing", "suspect down down"},
		},
		"an answer counts from when it came": {
			{"200 late", "alive down down"},
			{"349 nothing", "alive down down"},
			{"350 nothing", "suspect down down"},
		},
		"an old answer does not undo a newer one": {
			{"100 answer", "alive down down"},
			{"150 late", "alive down down"},
			{"349 nothing", "alive down down"},
			{"350 nothing", "suspect down down"},
		},
		"a suspect answers": {
			{"0 link 0", "alive up down"},
			{"300 nothing", "suspect up down"},
			{"310 link 0", "alive up down"},
		},
		"never heard since the start": {
			{"599 nothing", "unknown down down"},
			{"600 nothing", "dead down down"},
		},
		"the others gave it up: dead as soon as it is silent to us too": {
			{"0 link 0", "alive up down"},
			{"200 gossip dead", "alive up down"},
			{"250 nothing", "dead up down"},
		},
		"hearsay does not bury a peer that answers (false positive of the gossip)": {
			{"0 link 0", "alive up down"},
			{"100 gossip dead", "alive up down"},
			{"200 link 0", "alive up down"},
			{"440 link 1", "alive up up"},
		},
		// faults.md X101, X102: only the path between us is cut.
		"others hear it while we do not: alive, links down": {
			{"0 link 0", "alive up down"}, {"0 gossip alive", "alive up down"},
			{"2000 nothing", "alive down down"},
			{"2100 gossip unknown", "dead down down"},
		},
		"gossip falls silent during a short silence": {
			{"0 link 0", "alive up down"}, {"0 gossip alive", "alive up down"},
			{"300 nothing", "alive up down"},
			{"310 gossip unknown", "suspect up down"},
		},
		"known by hearsay only": {
			{"10 gossip alive", "alive down down"},
			{"5000 nothing", "alive down down"},
			{"5010 gossip dead", "dead down down"},
			{"5020 gossip unknown", "dead down down"},
			{"5030 gossip alive", "alive down down"},
		},
		// faults.md T83 seen from the paused node: after 30 s of SIGSTOP it must not call everybody else dead.
		"our own pause is nobody's silence": {
			{"0 link 0", "alive up down"},
			{"100 nothing", "alive up down"},
			{"30100 sleep", "alive up down"},
			{"30200 nothing", "alive up down"},
			{"30250 nothing", "suspect up down"},
		},
		"a process that is always late still sees a death": {
			{"0 link 0", "alive up down"},
			{"500 sleep", "suspect down down"},
			{"1000 sleep", "dead down down"},
		},
		"a pause does not revive the dead": {
			{"700 nothing", "dead down down"},
			{"30000 sleep", "dead down down"},
		},
	}
	for name, lines := range cases {
		t.Run(name, func(t *testing.T) {
			s := newScript(t)
			for _, l := range lines {
				s.do(l[0])
				if got := s.view(); got != l[1] {
					t.Fatalf("after %q: %s, want %s", l[0], got, l[1])
				}
			}
		})
	}
}

func TestChangesAreReportedOnceAndCarryBothSides(t *testing.T) {
	s := newScript(t)
	got := s.step(s.arrival(0))
	if len(got) != 1 || got[0].Before.State != Unknown || got[0].After.State != Alive || got[0].After.Links[0].State != Up {
		t.Fatalf("first arrival: %+v", got)
	}
	if got := s.step(s.arrival(0)); len(got) != 0 {
		t.Fatalf("a repeated arrival is no change: %+v", got)
	}
	s.until(250)
	if got := s.step(); len(got) != 0 {
		t.Fatalf("the suspicion was already reported: %+v", got)
	}
}

func TestNobodyIsJudgedBeforeAllAnswersAreLookedAt(t *testing.T) {
	t0 := time.Now()
	d, err := NewDetector(t0, testTimeouts, []Peer{{Name: "b", Links: []Link{{}}}, {Name: "c", Links: []Link{{}}}})
	if err != nil {
		t.Fatal(err)
	}
	d.Step(t0, Answer{Peer: "b", At: t0}, Answer{Peer: "c", At: t0})
	late := t0.Add(testTimeouts.Suspect)
	if got := d.Step(late, Answer{Peer: "b", At: late}, Answer{Peer: "c", At: late}); len(got) != 0 {
		t.Errorf("both answered, yet: %+v", got)
	}
}

func TestRoundTripTimeIsSmoothed(t *testing.T) {
	s := newScript(t)
	for _, rtt := range []time.Duration{8 * time.Millisecond, 16 * time.Millisecond, -time.Second} {
		s.step(Arrival{Peer: "b", Link: 1, RTT: rtt})
	}
	// 8, then 8+(16-8)/8 = 9, then 9+(0-9)/8.
	if got, want := s.d.Peers()[0].Links[1].RTT, 9*time.Millisecond-9*time.Millisecond/8; got != want {
		t.Errorf("rtt = %v, want %v", got, want)
	}
}

func TestPeersSharesNoMemory(t *testing.T) {
	s := newScript(t)
	s.d.Peers()[0].Links[0].State = Up
	if got := s.view(); got != "unknown down down" {
		t.Errorf("a reader changed the detector: %s", got)
	}
}

func TestImpossibleTimeoutsAreAllNamed(t *testing.T) {
	_, err := NewDetector(time.Time{}, Timeouts{Suspect: 0, LinkDown: -1, Dead: -1}, nil)
	for _, want := range []string{"suspect timeout", "link-down timeout", "dead timeout"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("err = %v, want it to name the %s", err, want)
		}
	}
	if _, err := NewDetector(time.Time{}, testTimeouts, []Peer{{Name: "b"}, {Name: "b"}}); err == nil {
		t.Error("a peer listed twice was accepted")
	}
}

func TestStatesAreWordsInJSON(t *testing.T) {
	b, err := json.Marshal(Peer{Name: "b", State: Suspect, Links: []Link{{Address: "x", State: Up}, {}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"suspect"`, `"up"`, `"down"`} {
		if !strings.Contains(string(b), want) {
			t.Errorf("%s lacks %s", b, want)
		}
	}
}

// Whatever happens in whatever order: a peer that answered within the suspect timeout is alive; one that is alive was
// heard within it or is alive to the others; changes tell exactly the difference between two views.
func TestInvariantsHoldInRandomHistories(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	s := newScript(t)
	var heard time.Duration
	ever, gossip := false, Unknown
	view := s.d.Peers()[0]
	for range 20_000 {
		s.now += time.Duration(r.IntN(120)) * time.Millisecond // always below the dead timeout: no own pause
		var changes []Change
		switch r.IntN(8) {
		case 0:
			changes = s.step(s.arrival(r.IntN(2)))
			heard, ever = s.now, true
		case 2:
			changes = s.step(Answer{Peer: "b", At: s.t0.Add(s.now)})
			heard, ever = s.now, true
		case 1:
			gossip = State([]State{Unknown, Alive, Dead}[r.IntN(3)])
			changes = s.step(Gossip{Peer: "b", State: gossip})
		default:
			changes = s.step()
		}
		p := s.d.Peers()[0]
		direct := ever && s.now-heard < testTimeouts.Suspect
		if direct && p.State != Alive || p.State == Alive && !direct && gossip != Alive {
			t.Fatalf("seed %d at %v: state %v, heard %v ago, gossip %v", seed, s.now, p.State, s.now-heard, gossip)
		}
		if len(changes) > 1 || (len(changes) == 1) != (Change{Before: view, After: p}).IsChange() {
			t.Fatalf("seed %d at %v: %d changes from %+v to %+v", seed, s.now, len(changes), view, p)
		}
		view = p
	}
}

func TestEventAboutUnknownLinkPanicsWithItsValues(t *testing.T) {
	for name, ev := range map[string]Event{
		`unknown peer "x"`:            Gossip{Peer: "x"},
		`arrival from "b" on link 2`:  Arrival{Peer: "b", Link: 2},
		`arrival from "b" on link -1`: Arrival{Peer: "b", Link: -1},
	} {
		func() {
			defer func() {
				if r := recover(); r == nil || !strings.Contains(fmt.Sprint(r), name) {
					t.Errorf("%+v: recovered %v, want %q", ev, r, name)
				}
			}()
			newScript(t).step(ev)
		}()
	}
}
