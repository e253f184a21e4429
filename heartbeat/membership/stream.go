package membership

import (
	"fmt"
	"io"
	"net"
	"time"
)

// accepted hands a peer's connection to memberlist, or closes it. It does not wait for the peer's greeting.
func (t *transport) accepted(c net.Conn) {
	s, err := t.track(c, true)
	if err != nil {
		t.m.counters.dropped.Add(1)
		return
	}
	t.wg.Go(func() {
		if err := t.greeted(s); err != nil {
			t.m.strange(err, s.RemoteAddr().String())
			s.Close()
			return
		}
		t.mu.Lock()
		s.silent = false
		t.mu.Unlock()
		select {
		case t.streams <- s:
		default:
			s.Close()
			t.m.counters.dropped.Add(1)
		}
	})
}

func (t *transport) greeted(s net.Conn) error {
	if err := s.SetDeadline(time.Now().Add(t.m.timing.stream)); err != nil {
		return errGarbage
	}
	b := make([]byte, t.m.codec.probeLen())
	if _, err := io.ReadFull(s, b); err != nil {
		return errGarbage
	}
	kind, err := t.m.codec.check(b)
	if err == nil && kind != frameStream {
		err = errGarbage
	}
	if err == nil {
		_, _, err = t.m.fromPeer(b)
	}
	return err
}

// stream is a connection that Shutdown can end: memberlist does not end its own.
type stream struct {
	net.Conn
	t      *transport
	silent bool // it called and has yet to greet; guarded by t.mu
}

func (t *transport) track(c net.Conn, silent bool) (*stream, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		c.Close()
		return nil, errShutdown
	}
	if len(t.open) >= maxStreams && !t.evictLocked() {
		c.Close()
		return nil, fmt.Errorf("%d heartbeat streams are open already", len(t.open))
	}
	s := &stream{Conn: c, t: t, silent: silent}
	t.open[s] = struct{}{}
	return s, nil
}

func (t *transport) evictLocked() bool {
	for s := range t.open {
		if s.silent {
			delete(t.open, s)
			s.Conn.Close()
			return true
		}
	}
	return false
}

func (s *stream) Close() error {
	s.t.mu.Lock()
	delete(s.t.open, s)
	s.t.mu.Unlock()
	return s.Conn.Close()
}
