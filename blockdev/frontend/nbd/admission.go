package nbd

import (
	"errors"
	"net"
)

// errCrowded: the client had not chosen an export when its place was needed.
var errCrowded = errors.New("closed in the handshake to make room for another client")

// admit gives a client a place, nil when there is none: when all are taken and somebody is still in the handshake, of
// the address that has most such connections the oldest goes, so that silent connections keep nobody out for long.
// Clients that have chosen an export stay.
func (s *Server) admit(nc net.Conn) *conn {
	c := newConn(s, nc)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conns >= s.cfg.MaxConnections {
		crowded := s.crowdedLocked()
		if crowded == nil {
			return nil
		}
		crowded.crowdedOut = true
		s.outLocked(crowded)
		s.conns--
		s.turned.Add(1)
		crowded.hangUp()
	}
	s.conns++
	c.place = s.greeting.PushBack(c)
	return c
}

func (s *Server) crowdedLocked() (c *conn) {
	count, most := map[string]int{}, 0
	for e := s.greeting.Front(); e != nil; e = e.Next() {
		from := e.Value.(*conn).from()
		count[from]++
		most = max(most, count[from])
	}
	for e := s.greeting.Front(); e != nil; e = e.Next() {
		if c := e.Value.(*conn); count[c.from()] == most {
			return c
		}
	}
	return nil
}

// from is the client's machine; all clients of a unix socket are one.
func (c *conn) from() string {
	if t, ok := c.base.RemoteAddr().(*net.TCPAddr); ok {
		return t.IP.String()
	}
	return ""
}

func (s *Server) outLocked(c *conn) {
	if c.place != nil {
		s.greeting.Remove(c.place)
		c.place = nil
	}
}

// settle keeps the place of a client that has chosen an export. It is called before the client is told.
func (s *Server) settle(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.outLocked(c)
}

// leave gives a place back.
func (s *Server) leave(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.outLocked(c)
	if !c.crowdedOut {
		s.conns--
	}
}

func (c *conn) wasCrowdedOut() bool {
	c.srv.mu.Lock()
	defer c.srv.mu.Unlock()
	return c.crowdedOut
}
