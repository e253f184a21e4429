package identity

import (
	"container/list"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Mux is one TCP port shared by all protocols. It reads each connection's preface and hands the connection to the
// protocol's listener. A protocol whose listener is not served never holds up the others.
type Mux struct {
	cfg Config
	ln  *net.TCPListener
	log *limitedLog

	established atomic.Int64  // open connections that have shown their preface
	done        chan struct{} // closed by Close
	wg          sync.WaitGroup

	mu        sync.Mutex
	closed    bool
	owing     *list.List // of *net.TCPConn that owe their preface, oldest first
	listeners map[Proto]*listener
}

// Listen opens the node's port. The caller closes the Mux.
func (t *Transport) Listen(addr string) (*Mux, error) {
	ln, err := t.listen(addr)
	if err != nil {
		return nil, err
	}
	m := &Mux{
		cfg:       t.cfg,
		ln:        ln,
		log:       newLimitedLog(t.cfg.Logger.With("listen", ln.Addr().String()), t.cfg.LogInterval),
		done:      make(chan struct{}),
		owing:     list.New(),
		listeners: map[Proto]*listener{},
	}
	for _, p := range protos {
		m.listeners[p] = newListener(m, t.cfg.Backlog)
	}
	m.wg.Go(m.accept)
	return m, nil
}

// Addr is where the port listens.
func (m *Mux) Addr() net.Addr { return m.ln.Addr() }

// Listener is where connections of one protocol arrive, their preface consumed. Closing it refuses that protocol until
// Listener is called again. Connections that came before the first call wait in its backlog.
func (m *Mux) Listener(p Proto) net.Listener {
	if !p.known() {
		panic("identity: listener for unknown " + p.String())
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if l := m.listeners[p]; m.closed || !l.isClosed() {
		return l
	}
	m.listeners[p] = newListener(m, m.cfg.Backlog)
	return m.listeners[p]
}

// Close closes the port, every connection that no one has accepted, and all listeners, and waits for what it started.
// Accepted connections belong to those who accepted them.
func (m *Mux) Close() error {
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		m.wg.Wait()
		return nil
	}
	m.closed = true
	close(m.done)
	for e := m.owing.Front(); e != nil; e = e.Next() {
		e.Value.(*net.TCPConn).Close()
	}
	listeners := m.listeners
	m.mu.Unlock()

	err := m.ln.Close()
	for _, l := range listeners {
		l.Close()
	}
	m.wg.Wait()
	return err
}

// accept runs until Close. Running out of descriptors is a reason to wait, not to end.
func (m *Mux) accept() {
	const shortest, longest = 5 * time.Millisecond, time.Second
	wait := shortest
	for {
		c, err := m.ln.AcceptTCP()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			m.log.warn("accept failed, trying again", "err", err)
			select {
			case <-time.After(wait):
			case <-m.done:
				return
			}
			wait = min(2*wait, longest)
			continue
		}
		wait = shortest
		m.admit(c)
	}
}

// admit takes a connection into the bounded set of those that owe a preface. When it is full, the oldest goes: it has
// had the most time to send eight bytes, so silent connections cannot keep out one that speaks.
func (m *Mux) admit(c *net.TCPConn) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		c.Close()
		return
	}
	if m.owing.Len() >= m.cfg.MaxHandshakes {
		oldest := m.owing.Remove(m.owing.Front()).(*net.TCPConn)
		oldest.Close()
		m.log.warn("too many connections without a preface, closed the oldest", "remote", oldest.RemoteAddr().String(), "limit", m.cfg.MaxHandshakes)
	}
	e := m.owing.PushBack(c)
	m.wg.Go(func() { m.handshake(c, e) })
}

func (m *Mux) handshake(c *net.TCPConn, e *list.Element) {
	p, err := m.readPreface(c)
	m.mu.Lock()
	m.owing.Remove(e) // without effect when it was removed as the oldest
	m.mu.Unlock()
	if err == nil {
		err = m.route(c, p)
	}
	if err != nil {
		c.Close()
		m.refused(c, err)
	}
}

func (m *Mux) readPreface(c *net.TCPConn) (Proto, error) {
	// One absolute deadline: a byte now and then does not extend it.
	if err := c.SetReadDeadline(time.Now().Add(m.cfg.HandshakeTimeout)); err != nil {
		return 0, errVanished
	}
	var p preface
	if _, err := io.ReadFull(c, p[:]); err != nil {
		if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
			return 0, errSlow
		}
		return 0, errVanished
	}
	proto, err := p.proto()
	if err != nil {
		return 0, &foreignError{err}
	}
	if err := c.SetReadDeadline(time.Time{}); err != nil {
		return 0, errVanished
	}
	return proto, nil
}

func (m *Mux) route(c *net.TCPConn, p Proto) error {
	if m.established.Add(1) > int64(m.cfg.MaxConns) {
		m.established.Add(-1)
		return errTooMany
	}
	m.mu.Lock()
	l := m.listeners[p]
	m.mu.Unlock()
	if !l.offer(&conn{TCPConn: c, mux: m}) {
		m.established.Add(-1)
		return errUnserved
	}
	return nil
}

// Why a connection was closed. The texts are the log's messages.
var (
	errVanished = errors.New("connection ended before its preface")
	errSlow     = errors.New("connection sent no preface in time")
	errTooMany  = errors.New("too many connections, refused one")
	errUnserved = errors.New("connection for a protocol that nobody serves here, or serves too slowly")
)

type foreignError struct{ err error }

func (e *foreignError) Error() string { return e.err.Error() }

func (m *Mux) refused(c net.Conn, err error) {
	remote := c.RemoteAddr().String()
	if foreign, ok := errors.AsType[*foreignError](err); ok {
		m.log.warn("connection is not of this cluster's protocol, closed", "remote", remote, "why", foreign.Error())
		return
	}
	if errors.Is(err, errVanished) {
		// Port scans, health checks and our own Close do this all the time.
		m.cfg.Logger.Debug(err.Error(), "remote", remote)
		return
	}
	m.log.warn(err.Error(), "remote", remote)
}
