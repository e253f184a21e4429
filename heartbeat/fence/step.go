package fence

import (
	"fmt"
	"strings"
	"time"
)

// Step takes an event. Times must not go backwards.
func (a *Attempt) Step(now Instant, ev Event) []Action {
	switch ev := ev.(type) {
	case Begin:
		if a.state != idle {
			panic(fmt.Sprintf("fence: %s begins to be fenced while the attempt is %s", a.cfg.Node, a.state))
		}
		a.random = min(max(ev.Random, 0), 1)
		return a.begin()
	case Noted:
		if a.state != noting {
			return nil // it ended meanwhile
		}
		return a.noted(now, ev.OK)
	case Answered:
		if a.state != asking || ev.Call != a.call {
			return nil // it was killed
		}
		return a.answered(now, ev.Answer, clip(ev.Text, MaxText/2))
	case End:
		return a.end(ev.Why)
	case Tick:
		return a.tick(now)
	}
	panic(fmt.Sprintf("fence: unknown event %#v", ev))
}

// clip bounds what is kept of a text.
func clip(s string, most int) string {
	if len(s) > most {
		return strings.ToValidUTF8(s[:most-3], "") + "..."
	}
	return s
}

func (a *Attempt) note(n Note) []Action {
	a.state, a.said = noting, n.Word
	return []Action{n}
}

// begin is the start of a try.
func (a *Attempt) begin() []Action {
	a.try++
	a.agent, a.failures, a.unverified, a.why = 0, 0, false, ""
	return a.note(Note{Word: Begun})
}

func (a *Attempt) noted(now Instant, ok bool) []Action {
	switch {
	case !ok:
		a.state = over // nothing was asked since the last note that counted
		return []Action{Over{}}
	case a.said == Begun:
		return a.turn(now)
	case a.said == Fenced:
		a.state = over
		return []Action{Over{Fenced: true}}
	case a.cfg.Tries > 0 && a.try >= a.cfg.Tries:
		a.state = over
		return []Action{Over{}}
	}
	a.state, a.due = resting, now.Add(a.pause())
	return nil
}

// pause is how long is waited after so many tries.
func (a *Attempt) pause() time.Duration {
	p := a.cfg.Pause
	for range a.try - 1 {
		if p >= a.cfg.MaxPause {
			break
		}
		p *= 2
	}
	return min(p, a.cfg.MaxPause)
}

// turn is the next agent's: after its delay, if it was not waited for yet.
func (a *Attempt) turn(now Instant) []Action {
	g := a.cfg.Agents[a.agent]
	a.op, a.looks = OpOff, 0
	d := g.Delay + time.Duration(a.random*float64(g.RandomDelay))
	if a.waited[a.agent] || d <= 0 {
		return a.ask()
	}
	a.waited[a.agent] = true
	return a.wait(now, d)
}

func (a *Attempt) wait(now Instant, d time.Duration) []Action {
	a.state, a.due = waiting, now.Add(d)
	return nil
}

func (a *Attempt) ask() []Action {
	a.call++
	a.state = asking
	return []Action{Ask{Call: a.call, Agent: a.agent, Op: a.op, Limit: a.cfg.Agents[a.agent].Timeout}}
}

func (a *Attempt) tick(now Instant) []Action {
	switch {
	case a.state == waiting && now >= a.due:
		return a.ask()
	case a.state == resting && now >= a.due:
		return a.begin()
	}
	return nil
}

// answered weighs what the agent said. Only an off that was done is followed by a look at the status.
func (a *Attempt) answered(now Instant, said Answer, text string) []Action {
	switch {
	case a.op == OpOff && said == Done:
		a.op = OpStatus
		return a.ask()
	case a.op == OpOff:
		return a.failed(now, text)
	case said == IsOff:
		return a.next(now)
	case said == NoStatus:
		a.unverified = true
		return a.next(now)
	}
	if a.looks++; a.looks < maxLooks {
		return a.wait(now, lookPause)
	}
	if said == IsOn {
		return a.failed(now, "it says that the node was turned off, and its status says that it is on")
	}
	return a.failed(now, "it says that the node was turned off, and its status cannot be read: "+text)
}

// next: the agent has the node off. When all of the level have, it is fenced.
func (a *Attempt) next(now Instant) []Action {
	level := a.cfg.Agents[a.agent].Level
	if a.agent+1 < len(a.cfg.Agents) && a.cfg.Agents[a.agent+1].Level == level {
		a.agent, a.failures = a.agent+1, 0
		return a.turn(now)
	}
	return a.note(Note{Word: Fenced, Level: level, Unverified: a.unverified, Text: a.why})
}

// failed: the agent is asked again, or its level has failed.
func (a *Attempt) failed(now Instant, text string) []Action {
	g := a.cfg.Agents[a.agent]
	if a.failures++; a.failures <= g.Retries {
		a.op, a.looks = OpOff, 0
		return a.wait(now, retryPause)
	}
	if text == "" {
		text = "it failed and said nothing"
	}
	if a.why != "" {
		a.why += "; "
	}
	a.why = clip(a.why+fmt.Sprintf("level %d: %s: %s", g.Level, g.Name, text), MaxText)
	for i := a.agent + 1; i < len(a.cfg.Agents); i++ {
		if a.cfg.Agents[i].Level > g.Level {
			a.agent, a.failures, a.unverified = i, 0, false
			return a.turn(now)
		}
	}
	return a.note(Note{Word: NotOff, Text: a.why})
}

// end: nobody is asked any more. That is noted only of a try that was noted to have begun; a success that is being noted stays one.
func (a *Attempt) end(why string) []Action {
	switch a.state {
	case over:
		return nil
	case idle, resting:
		a.state = over
		return []Action{Over{}}
	case noting:
		if a.said == Fenced || a.said == GivenEnd {
			return nil
		}
		if a.said == NotOff {
			a.state = over
			return []Action{Over{}}
		}
	}
	var out []Action
	if a.state == asking {
		out = append(out, Kill{Call: a.call})
	}
	a.cfg.Tries = a.try // no further one
	return append(out, a.note(Note{Word: GivenEnd, Text: why})...)
}
