package consensus

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

const (
	maxInbound    = 64          // connections accepted and open at once; further ones are closed
	maxGreetings  = 16          // accepted connections that have not greeted yet; further ones wait in the kernel
	maxUnanswered = 96 << 20    // bytes read from a connection without an answer: one snapshot, or a few appends
	greetingTime  = time.Second // from accept to the whole greeting
	greetingLen   = 16
)

// greeting opens every connection, dialer to acceptor: 7 bytes of magic, the version of what follows, and 8 bytes of
// the cluster name's hash. It keeps strangers and other clusters away from raft's decoder.
func greeting(cluster string) (g [greetingLen]byte) {
	copy(g[:], "hacraft\x01")
	sum := sha256.Sum256([]byte(cluster))
	copy(g[8:], sum[:])
	return g
}

// stream is the layer under raft's transport: it limits what strangers can use up, and can be severed for good.
// Invariant: once severed, no byte leaves or enters this node's Raft any more.
type stream struct {
	under    StreamLayer
	address  string
	greeting [greetingLen]byte
	log      *slog.Logger

	ctx    context.Context // ends when severed
	cancel context.CancelFunc
	ready  chan net.Conn // sent by greet, received by Accept, never closed, no buffer
	closed chan struct{} // closed by Close

	once sync.Once      // of Close
	wg   sync.WaitGroup // acceptor and greetings

	mu      sync.Mutex
	severed bool
	inbound int
	conns   map[*conn]struct{}
}

var _ raft.StreamLayer = (*stream)(nil)

func newStream(under StreamLayer, address, cluster string, log *slog.Logger) *stream {
	s := &stream{
		under: under, address: address, greeting: greeting(cluster), log: log,
		ready: make(chan net.Conn), closed: make(chan struct{}), conns: map[*conn]struct{}{},
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.wg.Add(1)
	go s.acceptAll()
	return s
}

// sever closes everything and lets nothing new through. It does not wait.
func (s *stream) sever() {
	s.mu.Lock()
	s.severed = true
	open := s.conns
	s.conns = map[*conn]struct{}{}
	s.mu.Unlock()
	s.cancel()
	_ = s.under.Close()
	for c := range open {
		_ = c.Conn.Close()
	}
}

// Close is called by raft's transport. The acceptor and all greetings have ended when it returns.
func (s *stream) Close() error {
	s.sever()
	s.once.Do(func() { close(s.closed) })
	s.wg.Wait()
	return nil
}

// Accept gives raft's transport the next connection that greeted. A severed stream has none, but no error either
// before Close, so that the transport does not spin.
func (s *stream) Accept() (net.Conn, error) {
	select {
	case c := <-s.ready:
		return c, nil
	case <-s.closed:
		return nil, net.ErrClosed
	}
}

func (s *stream) Addr() net.Addr { return address(s.address) }

// Dial connects and greets.
func (s *stream) Dial(to raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(s.ctx, timeout)
	defer cancel()
	under, err := s.under.Dial(ctx, string(to))
	if err != nil {
		return nil, err
	}
	c, err := s.register(under, false)
	if err != nil {
		return nil, err
	}
	_ = c.SetWriteDeadline(time.Now().Add(timeout))
	if _, err := c.Write(s.greeting[:]); err != nil {
		_ = c.Close()
		return nil, fmt.Errorf("greet %s: %w", to, err)
	}
	_ = c.SetWriteDeadline(time.Time{})
	return c, nil
}

func (s *stream) acceptAll() {
	defer s.wg.Done()
	places := make(chan struct{}, maxGreetings)
	for {
		under, err := s.under.Accept()
		if s.ctx.Err() != nil {
			if err == nil {
				_ = under.Close()
			}
			return
		}
		if err != nil {
			s.log.Warn("cannot accept a Raft connection", "error", err)
			select {
			case <-time.After(100 * time.Millisecond):
			case <-s.ctx.Done():
			}
			continue
		}
		places <- struct{}{} // a greeting ends after greetingTime at the latest
		s.wg.Add(1)
		go func() {
			defer s.wg.Done()
			defer func() { <-places }()
			s.greet(under)
		}()
	}
}

// greet admits an accepted connection.
func (s *stream) greet(under net.Conn) {
	c, err := s.register(under, true)
	if err != nil {
		s.log.Debug("Raft connection refused", "from", under.RemoteAddr(), "error", err)
		return
	}
	var got [greetingLen]byte
	_ = c.SetReadDeadline(time.Now().Add(greetingTime))
	if _, err := io.ReadFull(c, got[:]); err != nil || got != s.greeting {
		s.log.Debug("Raft connection refused: it does not belong to this cluster, or is no Raft of this version",
			"from", under.RemoteAddr(), "error", err)
		_ = c.Close()
		return
	}
	_ = c.SetReadDeadline(time.Time{})
	select {
	case s.ready <- c:
	case <-s.ctx.Done():
		_ = c.Close()
	}
}

var errTooMany = errors.New("too many connections")

// register takes over a connection. It closes it on error.
func (s *stream) register(under net.Conn, inbound bool) (*conn, error) {
	c := &conn{Conn: under, stream: s, inbound: inbound}
	c.budget.Store(maxUnanswered)
	s.mu.Lock()
	var err error
	switch {
	case s.severed:
		err = net.ErrClosed
	case inbound && s.inbound >= maxInbound:
		err = errTooMany
	default:
		s.conns[c] = struct{}{}
		if inbound {
			s.inbound++
		}
	}
	s.mu.Unlock()
	if err != nil {
		_ = under.Close()
		return nil, err
	}
	return c, nil
}

// address is a member's advertised address, which need not be the one that it listens on.
type address string

func (a address) Network() string { return "raft" }
func (a address) String() string  { return string(a) }
