package membership

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"
)

// Memory is a network without sockets, whose paths can be cut: for whole clusters in one process, also in virtual
// time. Nobody waits for a node that stopped or does not read; what its queue cannot take is lost, as on a wire.
type Memory struct {
	// Latency is how long a packet travels; streams do not take it into account. Set before use.
	Latency time.Duration

	mu    sync.Mutex
	links map[netip.AddrPort]*memoryLink
	cut   map[path]bool
}

type path struct{ from, to netip.AddrPort }

var _ Network = (*Memory)(nil)

// NewMemory is a network to which nothing is connected. In a synctest bubble it is made inside.
func NewMemory() *Memory {
	return &Memory{links: map[netip.AddrPort]*memoryLink{}, cut: map[path]bool{}}
}

// Cut loses everything that goes from one address to the other, one way, and ends the streams between them.
func (n *Memory) Cut(from, to netip.AddrPort) {
	n.mu.Lock()
	n.cut[path{from, to}] = true
	var crossing []*memoryConn
	for _, end := range []netip.AddrPort{from, to} {
		if l := n.links[end]; l != nil {
			for c := range l.conns {
				if c.joins(from, to) {
					crossing = append(crossing, c)
				}
			}
		}
	}
	n.mu.Unlock()
	for _, c := range crossing {
		c.Close()
	}
}

// Heal undoes Cut.
func (n *Memory) Heal(from, to netip.AddrPort) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.cut, path{from, to})
}

// Open is part of Network.
func (n *Memory) Open(addr netip.AddrPort) (Link, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.links[addr] != nil {
		return nil, fmt.Errorf("open %s: %w", addr, syscall.EADDRINUSE)
	}
	l := &memoryLink{
		net:     n,
		addr:    addr,
		packets: make(chan memoryPacket, 256),
		accepts: make(chan net.Conn, 16),
		done:    make(chan struct{}),
		conns:   map[*memoryConn]struct{}{},
	}
	n.links[addr] = l
	return l, nil
}

type memoryPacket struct {
	data []byte
	from netip.AddrPort
	due  time.Time // when it arrives
}

type memoryLink struct {
	net     *Memory
	addr    netip.AddrPort
	packets chan memoryPacket // from senders to Receive; full: lost
	accepts chan net.Conn     // from dialers to Accept; full: refused
	done    chan struct{}     // closed by Close
	once    sync.Once

	conns map[*memoryConn]struct{} // open streams that end here; guarded by net.mu
}

func (l *memoryLink) Send(p []byte, to netip.AddrPort) error {
	select {
	case <-l.done:
		return net.ErrClosed
	default:
	}
	l.net.deliver(memoryPacket{data: append([]byte(nil), p...), from: l.addr, due: time.Now().Add(l.net.Latency)}, to)
	return nil
}

func (n *Memory) deliver(p memoryPacket, to netip.AddrPort) {
	n.mu.Lock()
	defer n.mu.Unlock()
	l := n.links[to]
	if l == nil || n.cut[path{p.from, to}] {
		return
	}
	select {
	case l.packets <- p:
	default:
	}
}

func (l *memoryLink) Receive(b []byte) (int, netip.AddrPort, error) {
	select {
	case p := <-l.packets:
		return l.receive(b, p)
	case <-l.done:
		return 0, netip.AddrPort{}, net.ErrClosed
	}
}

// receive waits until the packet has arrived. All travel equally long, so none overtakes another.
func (l *memoryLink) receive(b []byte, p memoryPacket) (int, netip.AddrPort, error) {
	if travels := time.Until(p.due); travels > 0 {
		t := time.NewTimer(travels)
		defer t.Stop()
		select {
		case <-t.C:
		case <-l.done:
			return 0, netip.AddrPort{}, net.ErrClosed
		}
	}
	return copy(b, p.data), p.from, nil
}

func (l *memoryLink) Accept() (net.Conn, error) {
	select {
	case c := <-l.accepts:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

// Dial over a cut path waits for ctx, as a real one would.
func (l *memoryLink) Dial(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	c, err := l.net.connect(l, to)
	if c == nil && err == nil {
		<-ctx.Done()
		err = ctx.Err()
	}
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: "memory", Addr: net.TCPAddrFromAddrPort(to), Err: err}
	}
	return c, nil
}

// connect returns neither connection nor error when the path is cut.
func (n *Memory) connect(from *memoryLink, to netip.AddrPort) (net.Conn, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.links[from.addr] != from {
		return nil, net.ErrClosed
	}
	if n.cut[path{from.addr, to}] || n.cut[path{to, from.addr}] {
		return nil, nil
	}
	l := n.links[to]
	if l == nil {
		return nil, syscall.ECONNREFUSED
	}
	near, far := net.Pipe()
	ours := &memoryConn{Conn: near, link: from, local: from.addr, remote: to}
	theirs := &memoryConn{Conn: far, link: l, local: to, remote: from.addr}
	select {
	case l.accepts <- theirs:
	default:
		return nil, syscall.ECONNREFUSED
	}
	from.conns[ours] = struct{}{}
	l.conns[theirs] = struct{}{}
	return ours, nil
}

func (l *memoryLink) Close() error {
	l.once.Do(func() {
		l.net.mu.Lock()
		delete(l.net.links, l.addr)
		l.net.mu.Unlock()
		close(l.done)
	})
	for {
		select {
		case c := <-l.accepts:
			c.Close()
		default:
			return nil
		}
	}
}

type memoryConn struct {
	net.Conn
	link          *memoryLink
	local, remote netip.AddrPort
}

func (c *memoryConn) LocalAddr() net.Addr  { return net.TCPAddrFromAddrPort(c.local) }
func (c *memoryConn) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(c.remote) }

func (c *memoryConn) joins(a, b netip.AddrPort) bool {
	return c.local == a && c.remote == b || c.local == b && c.remote == a
}

func (c *memoryConn) Close() error {
	c.link.net.mu.Lock()
	delete(c.link.conns, c)
	c.link.net.mu.Unlock()
	return c.Conn.Close()
}
