package guard

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"hacluster/heartbeat/resource"
	"hacluster/heartbeat/resource/effect"
)

// Socket is where the guard of a data directory listens.
func Socket(dir string) string { return filepath.Join(dir, "guard.sock") }

// Config is what a guard is made with.
type Config struct {
	Dir    string   // the daemon's data directory
	Holder []string // the command that runs Hold on its standard input and output
	Log    *slog.Logger
}

// How long a guard that nobody speaks with and that holds nothing waits for a daemon, and how often it looks at the clock: a timer of
// Go's does not count suspend.
const (
	idleTime  = 2 * time.Second
	tickPause = 20 * time.Millisecond
	reapEvery = 100 // looks at the clock: what a holder that was killed left behind
)

type guard struct {
	cfg  Config
	lock *os.File

	mu       sync.Mutex
	conn     *conn // the daemon's; the newest one counts
	services map[string]*service
	time     time.Duration
	idle     Instant // since when nobody speaks with us and nothing is held
	quit     bool
}

// service is what the guard knows of one. Invariant: nothing is started while until has passed or taking is not nil.
type service struct {
	until  Instant
	held   map[int]*held
	taking chan struct{} // closed when what is being taken down is down
}

// conn is a daemon's connection.
type conn struct {
	mu sync.Mutex
	c  net.Conn
}

// say never waits for a daemon that hangs: what does not fit its socket in time ends the connection.
func (c *conn) say(r Reply) {
	if c == nil {
		return
	}
	b, err := json.Marshal(r)
	if err != nil {
		panic(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	_ = c.c.SetWriteDeadline(time.Now().Add(10 * time.Millisecond))
	if _, err := c.c.Write(append(b, '\n')); err != nil {
		_ = c.c.Close()
	}
}

// Serve is a guard's whole life. It returns when nothing runs and nobody speaks with it for a while.
func Serve(cfg Config) error {
	if err := effect.Subreaper(); err != nil {
		return err
	}
	lock, err := takeLock(cfg.Dir)
	if err != nil {
		return err
	}
	defer lock.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := clean(ctx, cfg.Dir, cfg.Log); err != nil {
		return err
	}
	_ = os.Remove(Socket(cfg.Dir))
	l, err := net.Listen("unix", Socket(cfg.Dir))
	if err != nil {
		return fmt.Errorf("the guard's socket: %w", err)
	}
	defer l.Close()
	if err := os.Chmod(Socket(cfg.Dir), 0o600); err != nil {
		return err
	}
	g := &guard{cfg: cfg, lock: lock, services: map[string]*service{}, idle: Now(), time: time.Second}
	go g.accept(l)
	for n := 0; g.tick(); n++ {
		if n%reapEvery == 0 {
			effect.Reap(g.isHolder)
		}
		time.Sleep(tickPause)
	}
	return nil
}

// takeLock waits for the guard before this one and for all that it held.
func takeLock(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "guard.lock"), os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("the guard's lock: %w", err)
	}
	for until := time.Now().Add(time.Minute); ; time.Sleep(tickPause) {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) || time.Now().After(until) {
			return nil, fmt.Errorf("another guard of %s, or what it holds, has not ended: %w", dir, err)
		}
	}
}

func (g *guard) accept(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go g.serve(&conn{c: c})
	}
}

// serve takes a daemon's word. A newer connection takes the place of an older: there is one daemon.
func (g *guard) serve(c *conn) {
	g.mu.Lock()
	if g.conn != nil {
		_ = g.conn.c.Close()
	}
	g.conn = c
	hello := Hello{Protocol: Protocol, Running: map[string][]*effect.Spec{}}
	for name, s := range g.services {
		if list := s.list(); len(list) > 0 {
			hello.Running[name] = list
		}
	}
	g.mu.Unlock()
	c.say(Reply{Hello: &hello})
	defer func() {
		_ = c.c.Close()
		g.mu.Lock()
		if g.conn == c {
			g.conn = nil
		}
		g.mu.Unlock()
	}()
	lines := bufio.NewScanner(c.c)
	lines.Buffer(nil, maxMessage)
	for lines.Scan() {
		var r Request
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			g.cfg.Log.Error("the daemon says what the guard does not understand", "error", err)
			return
		}
		switch {
		case r.Lease != nil:
			g.lease(r.Lease)
		case r.Do != nil:
			go func() { c.say(Reply{Done: &Done{ID: r.Do.ID, Err: g.do(r.Do)}}) }()
		case r.Quit:
			g.mu.Lock()
			g.quit = true
			g.mu.Unlock()
		}
	}
}

func (s *service) list() (out []*effect.Spec) {
	for order, h := range s.held {
		for len(out) <= order {
			out = append(out, nil)
		}
		out[order] = &h.spec
	}
	return out
}

func (g *guard) serviceLocked(name string) *service {
	s := g.services[name]
	if s == nil {
		s = &service{held: map[int]*held{}}
		g.services[name] = s
	}
	return s
}

// lease takes a newer end of the right to run. It may be an earlier one: the daemon gave the right up.
func (g *guard) lease(l *Lease) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if l.Time > 0 {
		g.time = l.Time
	}
	for name, until := range l.Until {
		g.serviceLocked(name).until = until
	}
}

// tick takes down what has no lease any more, and reports whether the guard is still needed.
func (g *guard) tick() bool {
	now := Now()
	g.mu.Lock()
	defer g.mu.Unlock()
	needed := g.conn != nil && !g.quit
	for name, s := range g.services {
		if len(s.held) == 0 && s.taking == nil {
			continue
		}
		needed = true
		if s.taking == nil && (now >= s.until || g.quit) {
			s.taking = make(chan struct{})
			go g.takeDown(name, s)
		}
	}
	if needed {
		g.idle = now
	}
	return now.Sub(g.idle) < idleTime && !(g.quit && !needed)
}

// isHolder reports whether the process is a holder, which has its own processes below it.
func (g *guard) isHolder(pid int) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, s := range g.services {
		for _, h := range s.held {
			if h.pid() == pid {
				return true
			}
		}
	}
	return false
}

// do carries an operation out and returns what went wrong.
func (g *guard) do(d *Do) string {
	if d.Verb == resource.Start {
		return text(g.start(d))
	}
	g.mu.Lock()
	s := g.serviceLocked(d.Service)
	h, taking := s.held[d.Order], s.taking
	g.mu.Unlock()
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
			return err.Error()
		}
	default:
		if err := h.do(d.Verb, d.Limit); err != nil {
			return err.Error()
		}
	}
	return text(g.released(s, h))
}

func text(err error) string {
	if err != nil {
		return err.Error()
	}
	return ""
}

func (g *guard) start(d *Do) error {
	g.mu.Lock()
	s := g.serviceLocked(d.Service)
	h := s.held[d.Order]
	switch {
	case s.taking != nil || Now() >= s.until || g.quit:
		g.mu.Unlock()
		return errors.New("this node has no lease to run it by")
	case h != nil:
		g.mu.Unlock()
		return errors.New("it runs already, or is not stopped yet")
	}
	err := g.noteLocked(d.Spec)
	if err == nil {
		h, err = hold(d, g.cfg.Holder, g.cfg.Dir, g.lock, g.ended)
	}
	if err != nil {
		g.mu.Unlock()
		return err
	}
	s.held[d.Order] = h
	g.mu.Unlock()
	return h.do(resource.Start, d.Limit)
}

// noteLocked keeps the list of what runs, with one more.
func (g *guard) noteLocked(more ...effect.Spec) error {
	for _, s := range g.services {
		for _, h := range s.held {
			more = append(more, h.spec)
		}
	}
	return writeList(g.cfg.Dir, more)
}

func (g *guard) ended(e *Ended) { g.say(Reply{Ended: e}) }

// say tells the daemon that is there, if one is.
func (g *guard) say(r Reply) {
	g.mu.Lock()
	c := g.conn
	g.mu.Unlock()
	c.say(r)
}

// released forgets a resource of which nothing runs any more.
func (g *guard) released(s *service, h *held) error {
	h.release()
	g.mu.Lock()
	defer g.mu.Unlock()
	if s.held[h.order] == h {
		delete(s.held, h.order)
	}
	return g.noteLocked()
}

// takeDown ends all of a service whose lease has ended: addresses first, so that nobody is answered, then the rest in reverse order for
// half of the guard's time, then whatever it takes.
func (g *guard) takeDown(name string, s *service) {
	began := Now()
	g.mu.Lock()
	var all []*held
	for _, h := range s.held {
		all = append(all, h)
	}
	limit := g.time
	g.mu.Unlock()
	slices.SortFunc(all, func(a, b *held) int { return b.order - a.order })
	g.cfg.Log.Warn("the lease of a service ended: it is taken down", "service", name, "resources", len(all))
	ctx, cancel := context.WithTimeout(context.Background(), limit/2)
	var rest []*held
	for _, h := range all {
		if h.spec.Kind != "address" || h.kill(ctx, g.isHolder) != nil {
			rest = append(rest, h)
		} else {
			_ = g.released(s, h)
		}
	}
	for _, h := range rest {
		if left := limit/2 - Now().Sub(began); left > 0 && h.do(resource.Stop, left) == nil {
			_ = g.released(s, h)
		}
	}
	cancel()
	for {
		err := g.killAll(s, limit/4)
		took := Now().Sub(began)
		g.say(Reply{Taken: &Taken{Service: name, Took: took, Err: text(err)}})
		if err == nil {
			g.cfg.Log.Warn("a service without a lease is down", "service", name, "took", took)
			break
		}
		g.cfg.Log.Error("a service without a lease cannot be taken down", "service", name, "error", err)
		time.Sleep(tickPause)
	}
	g.mu.Lock()
	close(s.taking)
	s.taking = nil
	g.mu.Unlock()
}

// killAll kills what is left of a service, all at the same time.
func (g *guard) killAll(s *service, limit time.Duration) error {
	g.mu.Lock()
	var all []*held
	for _, h := range s.held {
		all = append(all, h)
	}
	g.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	errs := make([]error, len(all))
	var goes sync.WaitGroup
	for i, h := range all {
		goes.Go(func() {
			if errs[i] = h.kill(ctx, g.isHolder); errs[i] == nil {
				errs[i] = g.released(s, h)
			}
		})
	}
	goes.Wait()
	return errors.Join(errs...)
}
