package node

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"hacluster/cmd/internal/config"
	"hacluster/cmd/internal/control"
	"hacluster/heartbeat/cluster"
	"hacluster/heartbeat/guard"
	"hacluster/heartbeat/resource"
	"hacluster/heartbeat/resource/effect"
)

// services run what follows the volumes that this node leads (R31). One goroutine owns their machines: others send it
// functions. What is started is started by the guard, which outlives this process.
type services struct {
	n     *Node
	inbox chan func(now cluster.Instant) // to run; bounded, senders wait
	ended chan struct{}                  // closed when run has returned

	// run's own.
	client  *guard.Client
	opening bool
	runs    map[string]*serviceRun
	promise map[string]resource.Promise // by service, also of those that are not configured here
	leases  map[string]cluster.Instant  // as last told to the guard
	leaving bool                        // this process stops: nothing is started any more

	mu    sync.Mutex
	shown []control.ServiceState // for status
}

// tenure is an epoch of a volume: one that is made anew under the name of another has another id, and its epochs begin anew.
type tenure struct {
	id    string
	epoch cluster.Epoch
}

// serviceRun is one service on this node.
type serviceRun struct {
	conf    config.Service
	specs   []effect.Spec
	machine *resource.Service
	next    *config.Service // its definition changed: nil when it did not, or was removed
	gone    bool            // it is stopped for good, or until next takes its place

	adopted bool           // it is known what an earlier process left running, and decided on
	found   []*effect.Spec // that, until then
	asked   map[string]bool
	stopped map[string]tenure // by node: of ours, the one for which it said that it stopped
	handing cluster.Epoch     // the volume is being handed over in this epoch
	moving  moving
}

func newServices(n *Node) *services {
	return &services{n: n, inbox: make(chan func(cluster.Instant), 64), ended: make(chan struct{}), runs: map[string]*serviceRun{},
		promise: map[string]resource.Promise{}, leases: map[string]cluster.Instant{}}
}

// run drives the services until ctx ends. A node without any does nothing.
func (s *services) run(ctx context.Context) error {
	defer close(s.ended)
	tick := time.NewTicker(time.Hour)
	defer tick.Stop()
	for {
		_, cfg, configured := s.n.run.watch()
		s.configure(cfg)
		if len(s.runs) > 0 || s.client != nil {
			tick.Reset(cfg.Timers.Tick)
			s.open(ctx)
		} else {
			tick.Reset(time.Hour)
		}
		s.drive(s.n.now())
		var events chan guard.Reply
		if s.client != nil {
			events = s.client.Events
		}
		select {
		case <-ctx.Done():
			if s.client != nil {
				s.client.Close()
			}
			return nil
		case f := <-s.inbox:
			f(s.n.now())
		case e, ok := <-events:
			s.heard(e, ok)
		case <-configured:
		case <-tick.C:
		}
	}
}

// do has f run by the owner; false: the owner has ended.
func (s *services) do(f func(now cluster.Instant)) bool {
	select {
	case s.inbox <- f:
		return true
	case <-s.ended:
		return false
	}
}

// configure takes the configuration over. What changed is stopped first, then started anew.
func (s *services) configure(cfg *config.Config) {
	here := slices.DeleteFunc(slices.Clone(cfg.Services), func(c config.Service) bool {
		vol, _ := cfg.Volume(c.Volumes[0])
		_, replica := vol.Replica(cfg.Self)
		return !replica
	})
	for _, c := range here {
		run := s.runs[c.Name]
		switch {
		case run == nil:
			s.runs[c.Name] = newServiceRun(c)
		case !run.conf.Same(c):
			run.next, run.gone = &c, true
		case run.gone:
			run.next, run.gone = nil, false
		}
	}
	for name, run := range s.runs {
		if !slices.ContainsFunc(here, func(c config.Service) bool { return c.Name == name }) {
			run.next, run.gone = nil, true
		}
		if run.gone && run.adopted && run.machine.Clear() {
			delete(s.runs, name)
			if run.next != nil {
				s.runs[name] = newServiceRun(*run.next)
				s.runs[name].adopted = true
			}
		}
	}
}

func newServiceRun(c config.Service) *serviceRun {
	cfg, specs := machineOf(c)
	return &serviceRun{conf: c, specs: specs, machine: resource.New(cfg), asked: map[string]bool{}, stopped: map[string]tenure{}}
}

// open connects to the guard, or starts one.
func (s *services) open(ctx context.Context) {
	if s.client != nil || s.opening {
		return
	}
	s.opening = true
	go func() {
		try, cancel := context.WithTimeout(ctx, guardPatience)
		defer cancel()
		c, err := guard.Open(try, s.n.cfg.DataDir(), s.n.env.Guard)
		if !s.do(func(cluster.Instant) { s.opened(c, err) }) && c != nil {
			c.Close()
		}
	}()
}

// guardPatience is for how long a guard is waited for before that is logged: one before it may have to end first.
const guardPatience = 10 * time.Second

func (s *services) opened(c *guard.Client, err error) {
	s.opening = false
	if err != nil {
		s.n.log.Error("services cannot be run: there is no guard", "error", err)
		return
	}
	s.client = c
	clear(s.leases)
	for name, run := range s.runs {
		if !run.adopted {
			run.found = c.Found.Running[name]
		} else if len(c.Found.Running[name]) == 0 && run.machine.Up() > 0 {
			s.act(run, run.machine.Step(s.n.now(), resource.Ended{Resource: 0, Err: "the guard ended, and all that it held"}))
		}
	}
}

// heard takes what the guard tells by itself.
func (s *services) heard(e guard.Reply, ok bool) {
	switch {
	case !ok:
		s.n.log.Error("the guard of services is gone", "what happens", "another one is started; what it held is ended")
		s.client.Close()
		s.client = nil
	case e.Ended != nil:
		if run := s.runs[e.Ended.Service]; run != nil && run.adopted {
			s.act(run, run.machine.Step(s.n.now(), resource.Ended{Resource: e.Ended.Order, Err: e.Ended.Err}))
		}
	case e.Taken != nil:
		s.taken(e.Taken)
	}
}

// taken: the guard took a service down because its lease had ended.
func (s *services) taken(t *guard.Taken) {
	run := s.runs[t.Service]
	if t.Err != "" {
		s.n.events.add("service not stopped", "", fmt.Sprintf("service %s has no lease and cannot be stopped on %s: %s", t.Service, s.n.me.Name, t.Err))
		return
	}
	s.n.events.add("service taken down", s.volumeOf(run), fmt.Sprintf("the lease of service %s ended on %s: its guard took it down in %v", t.Service, s.n.me.Name, t.Took.Round(time.Millisecond)))
	if run == nil {
		return
	}
	run.found = nil
	if run.adopted {
		s.act(run, run.machine.Step(s.n.now(), resource.End{Why: "its lease ended"}))
	}
}

// volumeOf is what the service follows: its volume, or the group of its volumes.
func (s *services) volumeOf(run *serviceRun) string {
	if run == nil {
		return ""
	}
	return s.n.follows(run.conf)
}

// follows is what a service follows, as the cluster's state names it.
func (n *Node) follows(c config.Service) string { return n.state.get().Mirrored(c.Volumes[0]) }

// drive tells each machine whether it may run, and the guard until when.
func (s *services) drive(now cluster.Instant) {
	var shown []control.ServiceState
	all, until := map[string]standing{}, map[string]cluster.Instant{}
	for name, run := range s.runs {
		all[name] = s.standing(run, now)
		if l := all[name].lease; l != 0 && l != s.leases[name] && s.client != nil {
			until[name], s.leases[name] = l, l
		}
	}
	if len(until) > 0 { // before anything is started by it
		_ = s.client.Lease(guard.Lease{Until: until, Time: s.n.conf().Timers.Guard()}) // it is gone: heard tells
	}
	for name, run := range s.runs {
		why := s.step(run, now, all[name])
		state, reason := run.machine.State()
		if reason == "" {
			reason = why
		}
		shown = append(shown, control.ServiceState{Name: name, State: string(state), Reason: reason})
	}
	s.mu.Lock()
	s.shown = shown
	s.mu.Unlock()
}

// step feeds one machine; why says what a service that is stopped waits for.
func (s *services) step(run *serviceRun, now cluster.Instant, st standing) (why string) {
	if !run.adopted && !s.adopt(run, now, st) {
		return "what an earlier process left running is looked for"
	}
	state, _ := run.machine.State()
	if !st.Serving || run.gone || s.leaving {
		s.act(run, run.machine.Step(now, resource.End{Why: st.why(run, s.leaving)}))
		return ""
	}
	s.ask(run, st)
	if may, wait := st.MayStart(now, s.promised(run.conf.Name)); !may && state == resource.Stopped {
		return wait
	} else if may && s.client != nil && s.leases[run.conf.Name] == st.lease {
		s.act(run, run.machine.Step(now, resource.Begin{}))
	}
	s.act(run, run.machine.Step(now, resource.Tick{}))
	s.moveAway(run, now, st)
	return ""
}

func (st standing) why(run *serviceRun, leaving bool) string {
	switch {
	case leaving:
		return "haclusterd stops"
	case run.gone:
		return "its definition changed, or was removed"
	case run.handing != 0:
		return "its volume is handed over"
	}
	return "this node does not serve its volume"
}

// adopt decides on what an earlier process left running: it goes on if this node serves the volume before the guard had to act,
// else it is stopped.
func (s *services) adopt(run *serviceRun, now cluster.Instant, st standing) bool {
	switch {
	case s.client == nil:
		return false
	case len(run.found) == 0:
	case st.Serving && run.sameFound() && !run.gone:
		s.act(run, run.machine.Step(now, resource.Adopt{Up: len(run.found), Go: true}))
	case st.others || run.gone || s.leaving || !run.sameFound():
		s.act(run, run.machine.Step(now, resource.Adopt{Up: min(len(run.found), len(run.specs))}))
	default:
		return false
	}
	run.adopted, run.found = true, nil
	return true
}

// sameFound reports whether what runs is a beginning of what is configured.
func (r *serviceRun) sameFound() bool {
	if len(r.found) > len(r.specs) {
		return false
	}
	for i, f := range r.found {
		if f == nil || !f.Same(r.specs[i]) {
			return false
		}
	}
	return true
}

// act carries out what a machine decided.
func (s *services) act(run *serviceRun, acts []resource.Action) {
	for _, a := range acts {
		switch a := a.(type) {
		case resource.Do:
			s.operate(run, a)
		case resource.Changed:
			s.changed(run, a)
		case resource.AskFailover:
			run.moving = moving{wanted: true, asked: run.moving.asked}
			s.n.events.add("service failover", s.volumeOf(run), fmt.Sprintf("service %s asks for another node than %s: %s", run.conf.Name, s.n.me.Name, a.Why))
		}
	}
}

// operate has the guard carry an operation out. Its answer comes as an event.
func (s *services) operate(run *serviceRun, d resource.Do) {
	c, m := s.client, run.machine
	req := guard.Do{Service: run.conf.Name, Order: d.Resource, Verb: d.Verb, Limit: d.Limit, Spec: run.specs[d.Resource]}
	go func() {
		err := error(guard.ErrGone)
		if c != nil {
			ctx, cancel := context.WithTimeout(context.Background(), d.Limit+time.Second)
			err = c.Do(ctx, req)
			cancel()
		} else {
			time.Sleep(s.n.conf().Timers.Tick)
		}
		done := resource.Done{Op: d.Op}
		if err != nil {
			done.Err = err.Error()
		}
		s.do(func(now cluster.Instant) { s.act(run, m.Step(now, done)) })
	}()
}

func (s *services) changed(run *serviceRun, c resource.Changed) {
	name, text := run.conf.Name, fmt.Sprintf("service %s is %s on %s", run.conf.Name, c.To, s.n.me.Name)
	if c.Why != "" {
		text += ": " + c.Why
	}
	s.n.log.Info("service", "service", name, "from", c.From, "to", c.To, "why", c.Why)
	switch c.To {
	case resource.Running, resource.Stopped, resource.Failed, resource.Blocked:
		s.n.events.add("service "+string(c.To), s.volumeOf(run), text)
	case resource.Starting:
		if c.From == resource.Stopping {
			s.n.events.add("service restarted", s.volumeOf(run), text)
		}
	}
}
