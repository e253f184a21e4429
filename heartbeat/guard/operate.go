package guard

import (
	"context"
	"errors"
	"time"

	"hacluster/heartbeat/resource"
)

// begin takes an operation in the order in which their lines came: what it is about is settled here, so that none overtakes another.
// The function that it returns carries it out, may wait, and returns what went wrong.
func (g *guard) begin(d *Do) func() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := g.serviceLocked(d.Service)
	if d.Verb == resource.Start {
		p, err := g.reserveLocked(s, d)
		if err != nil {
			return func() string { return err.Error() }
		}
		return func() string { return text(g.start(s, p, d)) }
	}
	if p := s.starting[d.Order]; p != nil {
		if d.Verb == resource.Monitor {
			return func() string { return "it is being started" }
		}
		p.void = true // nothing of it runs, nor will
		return func() string { return "" }
	}
	h, taking := s.held[d.Order], s.taking
	return func() string { return g.do(h, taking, d) }
}

// do carries out what is not a start, on what is held.
func (g *guard) do(h *held, taking chan struct{}, d *Do) string {
	if taking != nil {
		if d.Verb == resource.Monitor {
			return "its lease ended and the guard takes it down"
		}
		select {
		case <-taking:
			return ""
		case <-time.After(d.Limit):
			return "its lease ended, and the guard has not yet taken it down"
		}
	}
	switch {
	case h == nil && d.Verb == resource.Monitor:
		return "it does not run"
	case h == nil:
		return ""
	case d.Verb == resource.Monitor:
		return text(h.do(d.Verb, d.Limit))
	case d.Verb == resource.Kill:
		ctx, cancel := context.WithTimeout(context.Background(), d.Limit)
		defer cancel()
		if err := h.kill(ctx, g.isHolder); err != nil {
			return g.unlessDown(h, err)
		}
	default:
		if err := h.do(d.Verb, d.Limit); err != nil {
			return g.unlessDown(h, err)
		}
	}
	g.setDown(h)
	h.awaitFree(d.Limit)
	g.noteAside()
	return ""
}

// unlessDown is what went wrong, but nothing when somebody else has ended it meanwhile.
func (g *guard) unlessDown(h *held, err error) string {
	g.mu.Lock()
	defer g.mu.Unlock()
	if h.down {
		return ""
	}
	return err.Error()
}

func text(err error) string {
	if err != nil {
		return err.Error()
	}
	return ""
}

var errNoLease = errors.New("this node has no lease to run it by")

// reserveLocked takes the place of what is to be started.
func (g *guard) reserveLocked(s *service, d *Do) (*starting, error) {
	switch {
	case s.taking != nil || Now() >= s.until || g.quit:
		return nil, errNoLease
	case s.held[d.Order] != nil:
		return nil, errors.New("it runs already, or is not stopped yet")
	case s.starting[d.Order] != nil:
		return nil, errors.New("it is being started already")
	}
	p := &starting{spec: d.Spec}
	s.starting[d.Order] = p
	return p, nil
}

// start notes what is started and forks its holder without the guard's lock. A holder alone does nothing: whether it is told to start is
// decided when it is there. One that is not yet known and comes up while another resource is killed without its holder may be killed
// with that: then this start fails.
func (g *guard) start(s *service, p *starting, d *Do) error {
	err := g.note()
	if err == nil {
		err = g.mayGoOn(s, p)
	}
	var h *held
	if err == nil {
		h, err = hold(d, g.cfg.Holder, g.cfg.Dir, g.lock, g.ended)
	}
	if err != nil {
		g.mu.Lock()
		delete(s.starting, d.Order)
		g.mu.Unlock()
		return err
	}
	var refused error
	err = h.doIf(func() bool { // nobody else's word gets to the holder before the start
		refused = g.enter(s, p, h)
		return refused == nil
	}, resource.Start, d.Limit)
	if refused == nil {
		return err
	}
	h.release()
	g.mu.Lock()
	delete(s.starting, d.Order)
	g.mu.Unlock()
	return refused
}

func (g *guard) mayGoOn(s *service, p *starting) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.mayGoOnLocked(s, p)
}

func (g *guard) mayGoOnLocked(s *service, p *starting) error {
	switch {
	case s.taking != nil || Now() >= s.until || g.quit:
		return errNoLease
	case p.void:
		return errors.New("it was stopped, or its lease ended, before it was started")
	}
	return nil
}

// enter makes the holder known, from when on a take-down ends it, unless one began already.
func (g *guard) enter(s *service, p *starting, h *held) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if err := g.mayGoOnLocked(s, p); err != nil {
		return err
	}
	delete(s.starting, h.order)
	s.held[h.order] = h
	return nil
}

func (g *guard) ended(e *Ended) { g.say(Reply{Ended: e}) }

// say tells the daemon that is there, if one is.
func (g *guard) say(r Reply) {
	g.mu.Lock()
	c := g.conn
	g.mu.Unlock()
	c.say(r)
}
