package resource

import (
	"fmt"
	"time"
)

// Step takes an event. Times must not go backwards.
func (s *Service) Step(now Instant, ev Event) []Action {
	s.expire(now)
	switch ev := ev.(type) {
	case Begin:
		return s.begin(now)
	case End:
		return s.end(now, ev.Why)
	case Adopt:
		return s.adopt(now, ev)
	case Done:
		return s.done(now, ev)
	case Ended:
		if ev.Resource < s.up && (s.state == Running || s.state == Starting && ev.Resource < s.up-1) {
			return s.fail(now, ev.Resource, "ended by itself: "+ev.Err)
		}
		return nil
	case Forget:
		s.failures, s.asked = nil, 0
		return s.tick(now)
	case Tick:
		return s.tick(now)
	}
	panic(fmt.Sprintf("resource: unknown event %#v", ev))
}

// expire forgets failures that are older than the window.
func (s *Service) expire(now Instant) {
	for len(s.failures) > 0 && now.Sub(s.failures[0]) >= s.cfg.Window {
		s.failures = s.failures[1:]
	}
}

func (s *Service) exhausted() bool { return len(s.failures) > s.cfg.Restarts }

func (s *Service) begin(now Instant) []Action {
	s.wanted = true
	if s.state != Stopped {
		return nil // it runs, or what is being stopped is started when that is done
	}
	return append([]Action{s.to(Starting, "")}, s.proceed(now)...)
}

func (s *Service) end(now Instant, why string) []Action {
	s.wanted = false
	switch s.state {
	case Starting, Running:
		return s.stopTo(now, 0, why)
	case Stopping, Blocked:
		s.keep = 0
	case Failed:
		return []Action{s.to(Stopped, why)}
	}
	return nil
}

func (s *Service) adopt(now Instant, ev Adopt) []Action {
	if s.state != Stopped || ev.Up < 0 || ev.Up > len(s.cfg.Resources) {
		panic(fmt.Sprintf("resource: adopt %d of %d resources of %q, which is %s", ev.Up, len(s.cfg.Resources), s.cfg.Name, s.state))
	}
	s.up, s.wanted = ev.Up, ev.Go
	if ev.Go {
		return append([]Action{s.to(Starting, "left running by the process before")}, s.proceed(now)...)
	}
	if ev.Up == 0 {
		return nil
	}
	return s.stopTo(now, 0, "left running by the process before")
}

// stopTo stops all resources but the first keep. A start that is outstanding is superseded by the stop of what it started.
func (s *Service) stopTo(now Instant, keep int, why string) []Action {
	s.keep, s.op = keep, call{}
	clear(s.checks)
	return append([]Action{s.to(Stopping, why)}, s.proceed(now)...)
}

// proceed does the next thing; nothing is outstanding.
func (s *Service) proceed(now Instant) []Action {
	switch {
	case s.state == Starting && s.up < len(s.cfg.Resources):
		s.up++
		return []Action{s.do(now, s.up-1, Start)}
	case s.state == Starting:
		for i, r := range s.cfg.Resources {
			if r.Interval > 0 {
				s.checks[i] = call{until: now.Add(r.Interval)}
			}
		}
		return []Action{s.to(Running, "")}
	case s.up > s.keep:
		return []Action{s.do(now, s.up-1, Stop)}
	}
	return s.arrived(now)
}

// arrived: all is stopped that was to be.
func (s *Service) arrived(now Instant) []Action {
	switch {
	case !s.wanted:
		return []Action{s.to(Stopped, s.why)}
	case !s.exhausted():
		return append([]Action{s.to(Starting, s.why)}, s.proceed(now)...)
	case s.keep > 0:
		s.keep = 0
		return s.proceed(now)
	}
	why := fmt.Sprintf("failed %d times within %v, last: %s", len(s.failures), s.cfg.Window, s.why)
	out := []Action{s.to(Failed, why)}
	if s.asked == 0 || now.Sub(s.asked) >= s.cfg.Window { // once, or two nodes would send it to and fro
		s.asked = now
		out = append(out, AskFailover{Why: why})
	}
	return out
}

// fail counts a failure of resource i and stops it, and what was started after it.
func (s *Service) fail(now Instant, i int, err string) []Action {
	s.failures = append(s.failures, now)
	if n := len(s.failures) - (s.cfg.Restarts + 1); n > 0 {
		s.failures = s.failures[n:]
	}
	keep := i
	if s.exhausted() {
		keep = 0
	}
	return s.stopTo(now, keep, s.named(i, err))
}

func (s *Service) done(now Instant, d Done) []Action {
	for i, c := range s.checks {
		if c.op != 0 && c.op == d.Op {
			if d.Err != "" {
				return s.fail(now, i, "monitor: "+d.Err)
			}
			s.checks[i] = call{until: now.Add(s.cfg.Resources[i].Interval)}
			return nil
		}
	}
	if d.Op == 0 || d.Op != s.op.op {
		return nil // superseded
	}
	return s.ended(now, d.Err)
}

// ended: the start, stop or kill that was outstanding has ended.
func (s *Service) ended(now Instant, err string) []Action {
	verb, i := s.op.verb, s.up-1
	s.op = call{}
	switch {
	case verb == Start && err == "":
		return s.proceed(now)
	case verb == Start:
		return s.fail(now, i, "start: "+err)
	case err == "":
		s.up--
		var out []Action
		if s.state == Blocked {
			out = append(out, s.to(Stopping, "what could not be stopped has ended"))
		}
		return append(out, s.proceed(now)...)
	case verb == Stop:
		s.why = s.named(i, "stop: "+err+"; it is killed")
		return []Action{s.do(now, i, Kill)}
	}
	s.retry = now.Add(max(s.cfg.Resources[i].Limits.Kill, time.Second))
	why := s.named(i, "cannot be stopped: "+err)
	if s.state == Blocked {
		s.why = why
		return nil
	}
	return []Action{s.to(Blocked, why)}
}

func (s *Service) tick(now Instant) []Action {
	if s.op.op != 0 && now >= s.op.until {
		return s.ended(now, tooLong(s.cfg.Resources[s.up-1].Limits.of(s.op.verb)))
	}
	switch s.state {
	case Blocked:
		if s.op.op == 0 && now >= s.retry {
			return []Action{s.do(now, s.up-1, Kill)}
		}
	case Failed:
		if s.wanted && !s.exhausted() {
			return append([]Action{s.to(Starting, "tried again")}, s.proceed(now)...)
		}
	case Running:
		return s.check(now)
	}
	return nil
}

// check begins the monitors that are due, and counts one that takes too long as failed.
func (s *Service) check(now Instant) (out []Action) {
	for i, c := range s.checks {
		switch {
		case c.until == 0 || now < c.until:
		case c.op != 0:
			return append(out, s.fail(now, i, "monitor: "+tooLong(s.cfg.Resources[i].Limits.Monitor))...)
		default:
			out = append(out, s.do(now, i, Monitor))
		}
	}
	return out
}

func tooLong(limit time.Duration) string { return fmt.Sprintf("took longer than %v", limit) }
