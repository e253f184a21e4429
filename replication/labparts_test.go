package replication

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"

	"hacluster/heartbeat/cluster"
)

// errFault is what injected faults wrap.
var errFault = errors.New("injected")

// superRecord is what a superblock has on its disk.
type superRecord struct {
	mu                   sync.Mutex
	epoch                cluster.Epoch
	inconsistent, failed bool
	clean                *cluster.Clean
	changes              []string
}

func (s *superRecord) health() (inconsistent, failed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.inconsistent, s.failed
}

func (s *superRecord) mark() *cluster.Clean {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.clean
}

// memSuper is one process's handle on a superRecord. hook, when set, is called before each change: it may wait, and its
// error keeps the change from being made.
type memSuper struct {
	rec  *superRecord
	mu   sync.Mutex
	dead bool
	hook func(what string) error
}

func (m *memSuper) kill() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.dead = true
}

func (m *memSuper) intercept(f func(what string) error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.hook = f
}

// holdFailure has the note of a failure wait for release; noting is closed when it does. Other changes go on: a standby may
// store an epoch for its role after a greeting has.
func (m *memSuper) holdFailure() (noting, release chan struct{}) {
	noting, release = make(chan struct{}), make(chan struct{})
	m.intercept(func(what string) error {
		if strings.HasSuffix(what, "failed true") {
			close(noting)
			<-release
		}
		return nil
	})
	return noting, release
}

func (m *memSuper) change(what string, f func(*superRecord)) error {
	m.mu.Lock()
	hook := m.hook
	m.mu.Unlock()
	if hook != nil {
		if err := hook(what); err != nil {
			return err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.dead {
		return fmt.Errorf("%w: the process is dead", errFault)
	}
	m.rec.mu.Lock()
	defer m.rec.mu.Unlock()
	m.rec.changes = append(m.rec.changes, what)
	f(m.rec)
	return nil
}

func (m *memSuper) Epoch() cluster.Epoch {
	m.rec.mu.Lock()
	defer m.rec.mu.Unlock()
	return m.rec.epoch
}

func (m *memSuper) SetEpoch(e cluster.Epoch) error {
	return m.change(fmt.Sprintf("epoch %d", e), func(s *superRecord) { s.epoch = max(s.epoch, e) })
}

func (m *memSuper) Inconsistent() bool { i, _ := m.rec.health(); return i }
func (m *memSuper) Failed() bool       { _, f := m.rec.health(); return f }

func (m *memSuper) SetHealth(inconsistent, failed bool) error {
	return m.change(fmt.Sprintf("inconsistent %t failed %t", inconsistent, failed), func(s *superRecord) { s.inconsistent, s.failed = inconsistent, failed })
}

func (m *memSuper) Clean() *cluster.Clean { return m.rec.mark() }

func (m *memSuper) SetClean(c *cluster.Clean) error {
	if c == nil && m.Clean() == nil {
		return nil
	}
	return m.change(fmt.Sprintf("clean %v", c), func(s *superRecord) { s.clean = c })
}

// cable is what a node hangs on: it can be cut, go silent, and change bytes on their way.
type cable struct {
	mu     sync.Mutex
	broken bool
	silent chan struct{} // closed when data may flow; replaced by hang
	conns  map[*cableConn]bool
	rot    int // how many more of the marked payloads are changed
}

// rotten marks payloads that rot may change.
var rotten = []byte("this payload may be changed by the cable")

func (c *cable) init() {
	c.conns, c.silent = map[*cableConn]bool{}, make(chan struct{})
	close(c.silent)
}

func (c *cable) dial(ctx context.Context, addr string, other *cable) (net.Conn, error) {
	if !c.up() || !other.up() {
		return nil, fmt.Errorf("%w: the cable is cut", errFault)
	}
	var d net.Dialer
	nc, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	conn := &cableConn{Conn: nc, cables: [2]*cable{c, other}, closed: make(chan struct{})}
	for _, k := range conn.cables {
		k.mu.Lock()
		k.conns[conn] = true
		k.mu.Unlock()
	}
	if !c.up() || !other.up() { // cut meanwhile: who cut it did not see this one
		conn.Close()
		return nil, fmt.Errorf("%w: the cable is cut", errFault)
	}
	return conn, nil
}

func (c *cable) up() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.broken
}

// snap breaks what is connected; new connections are made.
func (c *cable) snap() {
	c.mu.Lock()
	var all []*cableConn
	for k := range c.conns {
		all = append(all, k)
	}
	c.mu.Unlock()
	for _, k := range all {
		k.Close()
	}
}

func (c *cable) cut() {
	c.mu.Lock()
	c.broken = true
	c.mu.Unlock()
	c.snap()
}

// hang lets nothing through and keeps the connections open.
func (c *cable) hang() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.silent = make(chan struct{})
}

func (c *cable) mend() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.broken = false
	select {
	case <-c.silent:
	default:
		close(c.silent)
	}
}

// corrupt changes the next n marked payloads that pass.
func (c *cable) corrupt(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rot = n
}

func (c *cable) left() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.rot
}

func (c *cable) pass() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.silent
}

type cableConn struct {
	net.Conn
	cables [2]*cable
	once   sync.Once
	closed chan struct{}
}

func (c *cableConn) wait() error {
	for _, k := range c.cables {
		select {
		case <-k.pass():
		case <-c.closed:
			return net.ErrClosed
		}
	}
	return nil
}

func (c *cableConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if werr := c.wait(); werr != nil {
		return 0, werr
	}
	return n, err
}

func (c *cableConn) Write(p []byte) (int, error) {
	if err := c.wait(); err != nil {
		return 0, err
	}
	for _, k := range c.cables {
		p = k.damaged(p)
	}
	return c.Conn.Write(p)
}

func (c *cable) damaged(p []byte) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.rot == 0 {
		return p
	}
	at := bytes.Index(p, rotten)
	if at < 0 {
		return p
	}
	c.rot--
	p = bytes.Clone(p)
	p[at] ^= 1
	return p
}

func (c *cableConn) Close() error {
	c.once.Do(func() {
		close(c.closed)
		for _, k := range c.cables {
			k.mu.Lock()
			delete(k.conns, c)
			k.mu.Unlock()
		}
	})
	return c.Conn.Close()
}
