package identity

import (
	"net"
	"sync"
)

// listener is one protocol's share of a Mux.
type listener struct {
	mux   *Mux
	queue chan net.Conn // sent by the Mux under mu, received by Accept and Close; never closed; full: the newest is refused
	done  chan struct{} // closed by Close

	mu     sync.Mutex
	closed bool
}

var _ net.Listener = (*listener)(nil)

func newListener(m *Mux, backlog int) *listener {
	return &listener{mux: m, queue: make(chan net.Conn, backlog), done: make(chan struct{})}
}

// offer reports whether the listener took the connection. It does not wait.
func (l *listener) offer(c net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	select {
	case l.queue <- c:
		return true
	default:
		return false
	}
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case <-l.done:
		return nil, l.closedError()
	default:
	}
	select {
	case c := <-l.queue:
		return c, nil
	case <-l.done:
		return nil, l.closedError()
	}
}

func (l *listener) closedError() error {
	return &net.OpError{Op: "accept", Net: "tcp", Addr: l.Addr(), Err: net.ErrClosed}
}

// Close refuses the protocol from now on and closes what waits to be accepted. The Mux and its other listeners stay.
func (l *listener) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil
	}
	l.closed = true
	close(l.done)
	for {
		select {
		case c := <-l.queue:
			c.Close()
		default:
			return nil
		}
	}
}

func (l *listener) isClosed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.closed
}

func (l *listener) Addr() net.Addr { return l.mux.Addr() }

// counted gives a connection its place in the Mux.
func (m *Mux) counted(c net.Conn) net.Conn {
	if s, ok := c.(*socket); ok {
		return &conn{socket: s, mux: m}
	}
	return &otherConn{Conn: c, mux: m}
}

// conn gives its place back to the Mux when it is closed. It embeds *socket, not net.Conn, so that writev and
// socket options stay reachable.
type conn struct {
	*socket
	mux  *Mux
	once sync.Once
}

func (c *conn) Close() error {
	err := c.TCPConn.Close()
	c.once.Do(func() { c.mux.established.Add(-1) })
	return err
}

// CloseDescriptor gives the socket back and keeps the place: whoever speaks through a duplicate of it closes conn later.
func (c *conn) CloseDescriptor() error { return c.TCPConn.Close() }

// otherConn is conn for a Network of its own.
type otherConn struct {
	net.Conn
	mux  *Mux
	once sync.Once
}

func (c *otherConn) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() { c.mux.established.Add(-1) })
	return err
}
