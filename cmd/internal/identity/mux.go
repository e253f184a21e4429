package identity

import (
	"container/list"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Mux is one TCP port shared by all protocols. It does each connection's TLS handshake, or reads its preface, and hands
// the connection to the protocol's listener. A protocol whose listener is not served never holds up the others.
type Mux struct {
	cfg Config
	t   *Transport
	tls *tls.Config // nil: prefaces
	ln  net.Listener
	log *limitedLog

	established atomic.Int64  // open connections beyond the handshake
	done        chan struct{} // closed by Close
	wg          sync.WaitGroup

	mu        sync.Mutex
	closed    bool
	owing     *list.List // of net.Conn in the handshake, oldest first
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
		t:         t,
		ln:        ln,
		log:       t.log,
		done:      make(chan struct{}),
		owing:     list.New(),
		listeners: map[Proto]*listener{},
	}
	if !t.cfg.Insecure {
		m.tls = t.portConfig()
	}
	for _, p := range protos {
		m.listeners[p] = newListener(m, t.cfg.Backlog)
	}
	m.wg.Go(m.accept)
	return m, nil
}

// Addr is where the port listens.
func (m *Mux) Addr() net.Addr { return m.ln.Addr() }

// Listener is where connections of one protocol arrive, handshake done or preface consumed. Closing it refuses that protocol until
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
		e.Value.(net.Conn).Close()
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
		c, err := m.ln.Accept()
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
		m.admit(newSocket(c))
	}
}

// admit takes a connection into the bounded set of those in the handshake. When it is full, one goes: of the address
// that has most of them the oldest, which has had the most time. So neither silent connections nor many of one stranger
// keep out one that speaks.
func (m *Mux) admit(c net.Conn) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		c.Close()
		return
	}
	if m.owing.Len() >= m.cfg.MaxHandshakes {
		oldest := m.owing.Remove(m.crowdedLocked()).(net.Conn)
		oldest.Close()
		m.log.warn("too many connections in the handshake, closed the oldest", "remote", oldest.RemoteAddr().String(), "limit", m.cfg.MaxHandshakes)
	}
	e := m.owing.PushBack(c)
	m.wg.Go(func() { m.handshake(c, e) })
}

// crowdedLocked is the oldest of the address that has most connections in the handshake.
func (m *Mux) crowdedLocked() *list.Element {
	count := map[netip.Addr]int{}
	most := 0
	for e := m.owing.Front(); e != nil; e = e.Next() {
		a := remoteIP(e)
		count[a]++
		most = max(most, count[a])
	}
	e := m.owing.Front()
	for count[remoteIP(e)] < most {
		e = e.Next()
	}
	return e
}

func remoteIP(e *list.Element) netip.Addr {
	return e.Value.(net.Conn).RemoteAddr().(*net.TCPAddr).AddrPort().Addr()
}

// handshake learns what the connection is for and hands it on, or closes it.
func (m *Mux) handshake(c net.Conn, e *list.Element) {
	var secured *tls.Conn
	var p Proto
	var err error
	if m.tls != nil {
		secured, p, err = m.negotiate(c)
	} else {
		p, err = m.readPreface(c)
	}
	m.mu.Lock()
	m.owing.Remove(e) // without effect when it was removed as the oldest
	m.mu.Unlock()
	if err == nil {
		err = m.route(c, secured, p)
	}
	if err != nil {
		c.Close()
		m.refused(c, err)
	}
}

// negotiate is the accepting side's TLS handshake.
func (m *Mux) negotiate(c net.Conn) (*tls.Conn, Proto, error) {
	if err := c.SetDeadline(time.Now().Add(m.cfg.HandshakeTimeout)); err != nil { // one for all of it, not for each byte
		return nil, 0, errVanished
	}
	tc := tls.Server(c, m.tls)
	if err := tc.Handshake(); err != nil {
		return nil, 0, failedHandshake(err)
	}
	p, _ := protoOf(tc.ConnectionState().NegotiatedProtocol) // verified with the certificate
	if err := c.SetDeadline(time.Time{}); err != nil {
		return nil, 0, errVanished
	}
	return tc, p, nil
}

// failedHandshake sorts what the library says of a handshake into reasons.
func failedHandshake(err error) error {
	if _, ok := errors.AsType[*refusal](err); ok {
		return err
	}
	if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
		return errSlow
	}
	if plain, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return &refusal{reasonPlain, fmt.Sprintf("it began with %q", plain.RecordHeader[:])}
	}
	if alert, ok := errors.AsType[*net.OpError](err); ok && alert.Op == "remote error" {
		return &refusal{reasonAlert, alert.Err.Error()}
	}
	if errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, net.ErrClosed) {
		return errVanished
	}
	return &refusal{reasonHandshake, err.Error()}
}

// Why a handshake failed for which no certificate is to blame.
const (
	reasonPlain     = "refused: no TLS spoken to a port that demands it"
	reasonAlert     = "the other side refused this node's certificate or offer"
	reasonHandshake = "refused: TLS handshake failed"
)

func (m *Mux) readPreface(c net.Conn) (Proto, error) {
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

func (m *Mux) route(c net.Conn, secured *tls.Conn, p Proto) error {
	if m.established.Add(1) > int64(m.cfg.MaxConns) {
		m.established.Add(-1)
		return errTooMany
	}
	m.mu.Lock()
	l := m.listeners[p]
	m.mu.Unlock()
	out := m.counted(c)
	if secured != nil {
		out = m.t.wrap(secured, c, func() { m.established.Add(-1) })
	}
	if !l.offer(out) {
		out.Close()
		return errUnserved
	}
	return nil
}

// Why a connection was closed. The texts are the log's messages.
var (
	errVanished = errors.New("connection ended in the handshake")
	errSlow     = errors.New("connection did not finish the handshake in time")
	errTooMany  = errors.New("too many connections, refused one")
	errUnserved = errors.New("connection for a protocol that nobody serves here, or serves too slowly")
)

type foreignError struct{ err error }

func (e *foreignError) Error() string { return e.err.Error() }

func (m *Mux) refused(c net.Conn, err error) {
	remote, listen := c.RemoteAddr().String(), m.ln.Addr().String()
	if r, ok := errors.AsType[*refusal](err); ok {
		m.log.warn(r.reason, "remote", remote, "listen", listen, "why", r.detail)
		return
	}
	if foreign, ok := errors.AsType[*foreignError](err); ok {
		m.log.warn("connection is not of this cluster's protocol, closed", "remote", remote, "listen", listen, "why", foreign.Error())
		return
	}
	if errors.Is(err, errVanished) {
		// Port scans, health checks and our own Close do this all the time.
		m.cfg.Logger.Debug(err.Error(), "remote", remote)
		return
	}
	m.log.warn(err.Error(), "remote", remote, "listen", listen)
}
