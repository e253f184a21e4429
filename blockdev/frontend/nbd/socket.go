package nbd

import (
	"net"
	"sync"

	"hacluster/blockdev/hot"
)

// socket is what a client is spoken with, and how it is cut off from any goroutine.
type socket struct {
	mu   sync.Mutex
	conn net.Conn
	cut  bool
}

// hangUp closes the connection; closing it ends everything.
func (s *socket) hangUp() {
	s.mu.Lock()
	s.cut = true
	conn := s.conn
	s.mu.Unlock()
	conn.Close()
}

// heat takes the socket out of the runtime's poller and returns how it is spoken with from now on.
func (s *socket) heat() net.Conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.cut {
		s.conn = hot.Take(s.conn)
	}
	return s.conn
}
