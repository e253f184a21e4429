package fence

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

const second = Instant(time.Second)

// rig drives one attempt: what it asks for is told as words, in order.
type rig struct {
	t    *testing.T
	a    *Attempt
	now  Instant
	said []string
	call uint64
	note *Note
	text string // of failures
}

func newRig(t *testing.T, cfg Config) *rig {
	t.Helper()
	cfg.Node = "alpha"
	if cfg.Pause == 0 {
		cfg.Pause, cfg.MaxPause = 10*time.Second, time.Minute
	}
	return &rig{t: t, a: New(cfg), now: 1000 * second}
}

func (g *rig) step(ev Event) {
	for _, act := range g.a.Step(g.now, ev) {
		switch act := act.(type) {
		case Note:
			g.note = &act
			word := string(act.Word)
			if act.Unverified {
				word += " unverified"
			}
			if act.Level > 0 {
				word += fmt.Sprintf(" at level %d", act.Level)
			}
			g.said = append(g.said, word)
		case Ask:
			g.call = act.Call
			g.said = append(g.said, fmt.Sprintf("%s %s", g.a.Agents()[act.Agent].Name, act.Op))
		case Kill:
			g.said = append(g.said, "kill")
		case Over:
			g.said = append(g.said, fmt.Sprintf("over %t", act.Fenced))
		}
	}
}

// play takes one word: an answer, or what time or a person does.
func (g *rig) play(word string) {
	switch word {
	case "begin":
		g.step(Begin{})
	case "noted":
		g.step(Noted{OK: true})
	case "void":
		g.step(Noted{})
	case "end":
		g.step(End{Why: "it answers"})
	case "wait": // until time acts
		at, ok := g.a.Due()
		if !ok {
			g.t.Fatalf("nothing waits: %v", g.said)
		}
		g.now = at - 1
		n := len(g.said)
		if g.step(Tick{}); len(g.said) != n {
			g.t.Fatalf("it does not wait: %v", g.said)
		}
		g.now = at
		g.step(Tick{})
	default:
		g.step(Answered{Call: g.call, Answer: Answer(word), Text: g.text})
	}
}

func agent(name string, level int) Agent {
	return Agent{Name: name, Level: level, Timeout: time.Minute}
}

func TestAttempts(t *testing.T) {
	again := agent("a", 1)
	again.Retries = 1
	slow := agent("a", 1)
	slow.Delay = 5 * time.Second
	one, two, next := agent("a", 1), agent("b", 1), agent("c", 2)
	for name, c := range map[string]struct {
		agents []Agent
		tries  int
		play   string
		want   string
	}{
		"off, and its status says so": {[]Agent{one}, 0, "begin noted done is_off noted", "begun|a off|a status|fenced at level 1|over true"},
		"all of a level":              {[]Agent{one, two, next}, 0, "begin noted done is_off done is_off noted", "begun|a off|a status|b off|b status|fenced at level 1|over true"},
		"one of a level fails, the next level counts": {[]Agent{one, two, next}, 0, "begin noted done is_off failed done is_off noted",
			"begun|a off|a status|b off|c off|c status|fenced at level 2|over true"},
		"the first of a level fails: the others are not asked": {[]Agent{one, two, next}, 0, "begin noted failed done is_off noted",
			"begun|a off|c off|c status|fenced at level 2|over true"},
		"levels in order, whatever that of the file": {[]Agent{next, two, one}, 0, "begin noted failed failed", "begun|b off|c off|failed"},
		"asked again":              {[]Agent{again}, 0, "begin noted failed wait done is_off noted", "begun|a off|a off|a status|fenced at level 1|over true"},
		"asked again, and no more": {[]Agent{again}, 0, "begin noted failed wait failed", "begun|a off|a off|failed"},
		"it has no status":         {[]Agent{one}, 0, "begin noted done no_status noted", "begun|a off|a status|fenced unverified at level 1|over true"},
		"of a level that failed its word does not count": {[]Agent{one, two, next}, 0, "begin noted done no_status failed done is_off noted",
			"begun|a off|a status|b off|c off|c status|fenced at level 2|over true"},
		"it takes a moment": {[]Agent{one}, 0, "begin noted done is_on wait is_on wait is_off noted",
			"begun|a off|a status|a status|a status|fenced at level 1|over true"},
		"it lies": {[]Agent{one}, 0, "begin noted done is_on wait is_on wait is_on wait is_on wait is_on",
			"begun|a off|a status|a status|a status|a status|a status|failed"},
		"its status cannot be read": {[]Agent{one}, 0, "begin noted done failed wait failed wait failed wait failed wait failed",
			"begun|a off|a status|a status|a status|a status|a status|failed"},
		"what it may not say":                {[]Agent{one}, 0, "begin noted is_off", "begun|a off|failed"},
		"nobody notes that it begins":        {[]Agent{one}, 0, "begin void", "begun|over false"},
		"nobody notes that it is off":        {[]Agent{one}, 0, "begin noted done is_off void", "begun|a off|a status|fenced at level 1|over false"},
		"tried again after a pause":          {[]Agent{one}, 0, "begin noted failed noted wait noted done is_off noted", "begun|a off|failed|begun|a off|a status|fenced at level 1|over true"},
		"tried as often as it is to be":      {[]Agent{one}, 2, "begin noted failed noted wait noted failed noted", "begun|a off|failed|begun|a off|failed|over false"},
		"a delay, waited once":               {[]Agent{slow}, 0, "begin noted wait failed noted wait noted", "begun|a off|failed|begun|a off"},
		"ended before anything":              {[]Agent{one}, 0, "end", "over false"},
		"ended while it is being noted":      {[]Agent{one}, 0, "begin end noted noted", "begun|ended|over false"},
		"ended while it waits":               {[]Agent{slow}, 0, "begin noted end noted", "begun|ended|over false"},
		"ended while it asks":                {[]Agent{one}, 0, "begin noted end noted", "begun|a off|kill|ended|over false"},
		"an answer that comes after the end": {[]Agent{one}, 0, "begin noted end done noted", "begun|a off|kill|ended|over false"},
		"ended while it rests":               {[]Agent{one}, 0, "begin noted failed noted end", "begun|a off|failed|over false"},
		"off before it was ended":            {[]Agent{one}, 0, "begin noted done is_off end noted", "begun|a off|a status|fenced at level 1|over true"},
	} {
		g := newRig(t, Config{Agents: c.agents, Tries: c.tries})
		for w := range strings.FieldsSeq(c.play) {
			g.play(strings.ReplaceAll(w, "_", " "))
		}
		if got := strings.Join(g.said, "|"); got != c.want {
			t.Errorf("%s:\n got %s\nwant %s", name, got, c.want)
		}
	}
}

func TestDelaysAreStaticAndRandom(t *testing.T) {
	a := agent("a", 1)
	a.Delay, a.RandomDelay = 5*time.Second, 10*time.Second
	for random, want := range map[float64]time.Duration{0: 5 * time.Second, 0.5: 10 * time.Second, 1: 15 * time.Second, 7: 15 * time.Second} {
		g := newRig(t, Config{Agents: []Agent{a}})
		g.step(Begin{Random: random})
		g.play("noted")
		if at, ok := g.a.Due(); !ok || at != g.now.Add(want) {
			t.Errorf("%v of the random delay: due in %v, want %v", random, at.Sub(g.now), want)
		}
		if g.a.Asks() {
			t.Error("somebody is asked before the delay")
		}
	}
}

// Two nodes that are to turn each other off: whoever waits is gone before it asks.
func TestDelayDecidesWhoOfTwoSurvives(t *testing.T) {
	late := agent("of beta", 1)
	late.Delay = 3 * time.Second
	alpha, beta := newRig(t, Config{Agents: []Agent{agent("of alpha", 1)}}), newRig(t, Config{Agents: []Agent{late}})
	for _, g := range []*rig{alpha, beta} {
		g.play("begin")
		g.play("noted")
	}
	if !alpha.a.Asks() || beta.a.Asks() {
		t.Fatalf("one %v, the other %v", alpha.said, beta.said)
	}
}

func TestPausesGrowToABound(t *testing.T) {
	g := newRig(t, Config{Agents: []Agent{agent("a", 1)}})
	g.play("begin")
	for _, want := range []time.Duration{10, 20, 40, 60, 60} {
		for _, w := range []string{"noted", "failed", "noted"} {
			g.play(w)
		}
		if at, _ := g.a.Due(); at != g.now.Add(want*time.Second) {
			t.Fatalf("due in %v, want %v s", at.Sub(g.now), want)
		}
		g.play("wait")
	}
}

func TestWhatAgentsSaidIsKeptAndBounded(t *testing.T) {
	g := newRig(t, Config{Agents: []Agent{agent("a", 1), agent("c", 2)}})
	g.text = strings.Repeat("ü", 4*MaxText)
	for _, w := range []string{"begin", "noted", "failed", "failed"} {
		g.play(w)
	}
	text := g.note.Text
	if g.note.Word != NotOff || len(text) > MaxText || !strings.HasPrefix(text, "level 1: a: ü") || !strings.Contains(text, "level 2: c: ü") || strings.ToValidUTF8(text, "") != text {
		t.Errorf("%s %d bytes: %.40q", g.note.Word, len(text), text)
	}
}

// Whatever happens: nobody is asked before it was noted that a try began, one agent at a time, and what is said to be fenced was turned
// off by every agent of one level since.
func TestRandomAttempts(t *testing.T) {
	for seed := range uint64(3000) {
		rng := rand.New(rand.NewPCG(seed, 1))
		var agents []Agent
		for i := range 1 + rng.IntN(4) {
			agents = append(agents, Agent{Name: fmt.Sprint(i), Level: 1 + rng.IntN(3), Timeout: time.Second, Retries: rng.IntN(2), Delay: time.Duration(rng.IntN(2)) * time.Second})
		}
		a := New(Config{Node: "n", Agents: agents, Tries: rng.IntN(3), Pause: time.Second, MaxPause: time.Minute})
		now, begun, noting, asked, isOver := Instant(1), false, false, (*Ask)(nil), false
		off := map[int]bool{}
		do := func(ev Event) {
			for _, act := range a.Step(now, ev) {
				switch act := act.(type) {
				case Note:
					noting = true
					if act.Word == Begun {
						begun, off = false, map[int]bool{}
					}
					if act.Word != Fenced {
						continue
					}
					for i, g := range a.Agents() {
						if g.Level == act.Level && !off[i] {
							t.Fatalf("seed %d: fenced at level %d, and agent %d has not turned it off", seed, act.Level, i)
						}
					}
					if !slices.ContainsFunc(a.Agents(), func(g Agent) bool { return g.Level == act.Level }) {
						t.Fatalf("seed %d: fenced at level %d, which there is not", seed, act.Level)
					}
				case Ask:
					if !begun || asked != nil || isOver {
						t.Fatalf("seed %d: asks, begun %t, asked %v, over %t", seed, begun, asked, isOver)
					}
					asked = &act
					if act.Op == OpOff {
						delete(off, act.Agent)
					}
				case Kill:
					asked = nil
				case Over:
					isOver = true
				}
			}
		}
		do(Begin{Random: rng.Float64()})
		for range 60 {
			now = now.Add(time.Duration(rng.IntN(3000)) * time.Millisecond)
			switch n := rng.IntN(20); {
			case n == 0:
				do(End{Why: "x"})
			case n < 8 && noting:
				ok := rng.IntN(5) > 0
				begun, noting = ok, false
				do(Noted{OK: ok})
			case n < 16 && asked != nil:
				q := *asked
				said := []Answer{Failed, Done}[rng.IntN(2)]
				if q.Op == OpStatus {
					said = []Answer{Failed, IsOn, IsOff, IsOff, NoStatus}[rng.IntN(5)]
					if said == IsOff || said == NoStatus {
						off[q.Agent] = true
					}
				}
				asked = nil
				do(Answered{Call: q.Call, Answer: said})
			default:
				do(Tick{})
			}
		}
	}
}
