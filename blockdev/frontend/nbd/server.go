package nbd

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Server serves Exports on any number of listeners.
type Server struct {
	exports Exports
	cfg     Config
	log     *slog.Logger
	budget  budget
	refused throttle
	turned  atomic.Uint64 // connections refused because there were too many
	slow    atomic.Uint64 // connections closed because the client did not take its answers

	mu       sync.Mutex     // guards cfg too
	served   map[string]int // connections past their handshake, by export
	conns    int
	greeting *list.List // of *conn in the handshake, oldest first
	closed   bool
	stop     chan struct{} // closed by Close
	wg       sync.WaitGroup
}

// New returns a Server that is ready for Serve.
func New(exports Exports, cfg Config) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	return &Server{
		exports:  exports,
		cfg:      cfg,
		log:      cfg.Log,
		budget:   budget{max: cfg.MaxBytesInFlight, maxConn: cfg.MaxConnBytesInFlight, share: connShare},
		greeting: list.New(),
		stop:     make(chan struct{}),
		served:   map[string]int{},
	}, nil
}

// ErrServerClosed: Serve was called after Close.
var ErrServerClosed = errors.New("nbd: server is closed")

// Serve accepts connections on l until ctx ends or Close is called, then closes l and its connections, waits for their
// goroutines and returns nil. Another end of the listener is an error. It may be called for several listeners at once.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	if !s.begin() {
		return errors.Join(ErrServerClosed, l.Close())
	}
	defer s.wg.Done()
	ctx, cancel := context.WithCancel(ctx)
	var conns sync.WaitGroup
	defer conns.Wait()
	defer cancel()
	conns.Go(func() {
		select {
		case <-s.stop:
			cancel()
		case <-ctx.Done():
		}
		l.Close()
	})
	for {
		nc, err := s.accept(ctx, l)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		c := s.admit(nc)
		if c == nil {
			s.turned.Add(1)
			nc.Close()
			s.refused.do(func() {
				s.log.Warn("nbd connection refused: too many connections", "limit", s.Limits().MaxConnections,
					"client", nc.RemoteAddr().String())
			})
			continue
		}
		conns.Go(func() {
			defer s.leave(c)
			c.serve(ctx)
		})
	}
}

// accept waits for a client. Lack of descriptors or memory passes: it tries again, slower and slower.
func (s *Server) accept(ctx context.Context, l net.Listener) (net.Conn, error) {
	for wait := 5 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		nc, err := l.Accept()
		if err == nil || ctx.Err() != nil || errors.Is(err, net.ErrClosed) || !transient(err) {
			if err != nil {
				return nil, fmt.Errorf("nbd: accept on %v: %w", l.Addr(), err)
			}
			return nc, nil
		}
		s.refused.do(func() { s.log.Warn("nbd accept", "listener", l.Addr().String(), "error", err) })
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		}
	}
}

func transient(err error) bool {
	var t interface{ Temporary() bool }
	return errors.As(err, &t) && t.Temporary()
}

func (s *Server) begin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.wg.Add(1)
	return true
}

// Close ends every Serve and waits for all goroutines. Admitted requests stay with their volumes.
func (s *Server) Close() error {
	s.mu.Lock()
	if !s.closed {
		s.closed = true
		close(s.stop)
	}
	s.mu.Unlock()
	s.wg.Wait()
	return nil
}

// Stats is what the server holds at this moment.
type Stats struct {
	Connections   int
	BytesInFlight int64
	// Refused counts connections beyond the limit, Slow those closed because the client did not take its answers.
	Refused, Slow uint64
}

// Limits is what the server runs with, defaults filled in.
func (s *Server) Limits() Config {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cfg
}

// SetLimits changes the limits; Log and TLS stay. Connections that are open keep theirs, but for those that are counted
// over all connections.
func (s *Server) SetLimits(cfg Config) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	s.mu.Lock()
	cfg.Log, cfg.TLS = s.cfg.Log, s.cfg.TLS
	s.cfg = cfg.withDefaults()
	cfg = s.cfg
	s.mu.Unlock()
	s.budget.limit(cfg.MaxBytesInFlight, cfg.MaxConnBytesInFlight)
	return nil
}

// Clients is how many connections serve the export.
func (s *Server) Clients(export string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.served[export]
}

// serves counts a connection that has chosen its export; the function that it returns counts it off.
func (s *Server) serves(export string) (done func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.served[export]++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.served[export]--; s.served[export] == 0 {
			delete(s.served, export)
		}
	}
}

// limited is the server as one connection sees it: with the limits of the moment when it was accepted.
type limited struct {
	*Server
	cfg Config
}

// Stats returns the present numbers.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	n := s.conns
	s.mu.Unlock()
	return Stats{Connections: n, BytesInFlight: s.budget.inUse(),
		Refused: s.turned.Load(), Slow: s.slow.Load()}
}

// throttle lets something happen once in ten seconds, so that a client cannot fill the log.
type throttle struct {
	mu   sync.Mutex
	next time.Time
}

func (t *throttle) do(f func()) {
	t.mu.Lock()
	now := time.Now()
	ok := now.After(t.next)
	if ok {
		t.next = now.Add(10 * time.Second)
	}
	t.mu.Unlock()
	if ok {
		f()
	}
}
