package link

import (
	"container/list"
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"
)

// Handler is what a standby does with a stream. Replicate answers the greeting, receives and acknowledges until the
// stream ends, and returns when all that it took in has ended; ctx ends with the stream, as far as this side knows of
// it: a primary that has left is noticed by Recv and Send. It is called for each stream in a goroutine of its own.
type Handler interface {
	Replicate(ctx context.Context, s *Session) error
}

// What a Server holds at most (R28).
const (
	// helloTime is what a new connection may take until its greeting is there.
	helloTime = 5 * time.Second
	// maxOwing is how many connections may owe their greeting. One more closes the oldest: it has had the most time to
	// send a few hundred bytes, so silent connections cannot keep out one that speaks.
	maxOwing = 128
	// maxStreams is how many streams may be open: a thousand volumes, each while it reconnects. One more is closed.
	maxStreams = 4096
)

// Server receives the streams of primaries.
type Server struct {
	handler   Handler
	log       *slog.Logger
	helloTime time.Duration
	owing     int // maxOwing
	streams   int // maxStreams
	goes      sync.WaitGroup

	mu       sync.Mutex
	closed   bool
	greeting *list.List // of *Session that owe their greeting, oldest first
	open     map[*Session]struct{}
}

// NewServer makes a Server that hands streams to h. The caller closes it.
func NewServer(h Handler, log *slog.Logger) *Server {
	return &Server{handler: h, log: log, helloTime: helloTime, owing: maxOwing, streams: maxStreams,
		greeting: list.New(), open: map[*Session]struct{}{}}
}

// Serve takes connections from l until l is closed, which is no error, or Close is called.
func (s *Server) Serve(l net.Listener) error {
	for {
		conn, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		s.admit(conn)
	}
}

// Close ends every stream and returns when no Replicate runs any more.
func (s *Server) Close() {
	s.mu.Lock()
	s.closed = true
	for sess := range s.open {
		sess.abort()
	}
	s.mu.Unlock()
	s.goes.Wait()
}

// abort closes a session of a server that ends: nobody waits for a last word.
func (s *Session) abort() {
	s.Close()
	_ = s.conn.Close()
}

func (s *Server) admit(conn net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || len(s.open) >= s.streams {
		if !s.closed {
			s.log.Warn("too many replication streams, refused one", "remote", conn.RemoteAddr().String(), "limit", s.streams)
		}
		conn.Close()
		return
	}
	if s.greeting.Len() >= s.owing {
		s.greeting.Remove(s.greeting.Front()).(*Session).abort()
	}
	sess := newSession(conn)
	e := s.greeting.PushBack(sess)
	s.open[sess] = struct{}{}
	s.goes.Go(func() { s.serve(sess, e) })
}

// serve is one stream.
func (s *Server) serve(sess *Session, e *list.Element) {
	err := s.greet(sess)
	s.mu.Lock()
	s.greeting.Remove(e) // without effect when it was removed as the oldest
	s.mu.Unlock()
	if err == nil {
		err = s.handler.Replicate(sess.ctx, sess)
	}
	sess.farewell(err)
	sess.in.close()
	s.mu.Lock()
	delete(s.open, sess)
	s.mu.Unlock()
}

func (s *Server) greet(sess *Session) error {
	if err := sess.conn.SetReadDeadline(time.Now().Add(s.helloTime)); err != nil {
		return err
	}
	if err := sess.readHello(); err != nil {
		return err
	}
	err := sess.conn.SetReadDeadline(time.Time{})
	if sess.closed.Load() {
		return ErrClosed // its deadline may be the one that was just removed
	}
	return err
}
