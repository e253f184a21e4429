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
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

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

	mu       sync.Mutex // never held across I/O, a fork or a wait: the data directory's disk may hang
	conn     *conn      // the daemon's; the newest one counts
	services map[string]*service
	time     time.Duration
	idle     Instant // since when nobody speaks with us and nothing is held
	quit     bool

	noting  sync.Mutex  // the list's; taken before mu
	toNote  atomic.Bool // somebody waits to write it
	logging atomic.Bool // somebody writes to the log aside
}

// service is what the guard knows of one. Invariant: nothing is started while until has passed or taking is not nil.
type service struct {
	until    Instant
	ended    Instant // when the right to run ends or ended: until, or when the daemon gave it up
	held     map[int]*held
	starting map[int]*starting
	taking   chan struct{} // closed when what is being taken down is down
}

// starting is a place that is taken by a start, from the start's line until there is a holder.
type starting struct {
	spec effect.Spec
	void bool // it must not go on: a stop came, or the lease ended
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
			carry := g.begin(r.Do)
			go func() { c.say(Reply{Done: &Done{ID: r.Do.ID, Err: carry()}}) }()
		case r.Quit:
			g.mu.Lock()
			g.quit = true
			g.mu.Unlock()
		}
	}
}

func (s *service) list() (out []*effect.Spec) {
	for order, h := range s.held {
		if h.down {
			continue
		}
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
		s = &service{held: map[int]*held{}, starting: map[int]*starting{}}
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
		g.serviceLocked(name).lease(until, Now())
	}
}

// lease: of a right that is given up the guard's time counts from now, but never from later than the end of what was given before.
func (s *service) lease(until, now Instant) {
	switch {
	case until > s.until:
		s.ended = until
	case until < s.until:
		s.ended = min(s.ended, max(until, now))
	}
	s.until = until
}

// up are the resources of which something may run.
func (s *service) up() (all []*held) {
	for _, h := range s.held {
		if !h.down {
			all = append(all, h)
		}
	}
	return all
}

// tick takes down what has no lease any more, and reports whether the guard is still needed.
func (g *guard) tick() bool {
	now := Now()
	g.mu.Lock()
	defer g.mu.Unlock()
	needed := g.conn != nil && !g.quit
	for name, s := range g.services {
		over := now >= s.until || g.quit
		for _, p := range s.starting {
			p.void = p.void || over
			needed = needed || !p.void
		}
		if len(s.held) == 0 && s.taking == nil {
			continue
		}
		needed = true
		if s.taking == nil && over && len(s.up()) > 0 {
			began := now
			if now >= s.until {
				began = s.ended // not when we saw it: the machine, or we, may have been suspended
			}
			s.taking = make(chan struct{})
			go g.takeDown(name, s, began)
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
