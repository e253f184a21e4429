package consensustest

import (
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// maxUnread is how much one direction of a connection holds before its writer waits.
const maxUnread = 1 << 20

// conn is one end of a connection: it reads from one pipe and writes to the other.
type conn struct {
	in, out       *pipe
	local, remote addr
	read, write   deadline
}

func (n *Network) connect(a, b string) (near, far net.Conn) {
	ab, ba := newPipe(n, link{a, b}), newPipe(n, link{b, a})
	return &conn{in: ba, out: ab, local: addr(a), remote: addr(b)},
		&conn{in: ab, out: ba, local: addr(b), remote: addr(a)}
}

func (c *conn) Read(p []byte) (int, error)  { return c.in.read(p, &c.read) }
func (c *conn) Write(p []byte) (int, error) { return c.out.write(p, &c.write) }

// Close ends both directions. The other end reads what was sent, once the link lets it, then the end.
func (c *conn) Close() error {
	c.out.close(false)
	c.in.close(true)
	return nil
}

func (c *conn) LocalAddr() net.Addr  { return c.local }
func (c *conn) RemoteAddr() net.Addr { return c.remote }

func (c *conn) SetDeadline(t time.Time) error {
	c.read.set(t)
	c.write.set(t)
	return nil
}
func (c *conn) SetReadDeadline(t time.Time) error  { c.read.set(t); return nil }
func (c *conn) SetWriteDeadline(t time.Time) error { c.write.set(t); return nil }

// pipe is one direction.
type pipe struct {
	network *Network
	link    link

	mu       sync.Mutex
	data     []byte
	ended    bool          // by the writer
	deserted bool          // by the reader
	changed  chan struct{} // closed and replaced at each change of the above
}

func newPipe(n *Network, l link) *pipe {
	return &pipe{network: n, link: l, changed: make(chan struct{})}
}

func (p *pipe) read(into []byte, d *deadline) (int, error) {
	for {
		late, moved := d.wait()
		passable, healed := p.network.passable(p.link)
		n, changed, err := p.take(into, passable)
		if n > 0 || err != nil {
			return n, err
		}
		select {
		case <-changed:
		case <-healed:
		case <-moved:
		case <-late:
			return 0, os.ErrDeadlineExceeded
		}
	}
}

func (p *pipe) take(into []byte, passable bool) (n int, changed <-chan struct{}, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.deserted:
		return 0, nil, net.ErrClosed
	case !passable:
		return 0, p.changed, nil
	case len(p.data) > 0:
		n = copy(into, p.data)
		p.data = p.data[n:]
		p.changeLocked()
		return n, nil, nil
	case p.ended:
		return 0, nil, io.EOF
	}
	return 0, p.changed, nil
}

func (p *pipe) write(from []byte, d *deadline) (written int, err error) {
	for {
		late, moved := d.wait()
		n, changed, err := p.put(from[written:])
		written += n
		if err != nil || written == len(from) {
			return written, err
		}
		select {
		case <-changed:
		case <-moved:
		case <-late:
			return written, os.ErrDeadlineExceeded
		}
	}
}

func (p *pipe) put(from []byte) (n int, changed <-chan struct{}, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		return 0, nil, net.ErrClosed
	}
	if p.deserted {
		return 0, nil, io.ErrClosedPipe
	}
	if n = min(len(from), maxUnread-len(p.data)); n > 0 {
		p.data = append(p.data, from[:n]...)
		p.changeLocked()
	}
	return n, p.changed, nil
}

func (p *pipe) close(byReader bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if byReader {
		p.deserted = true
	} else {
		p.ended = true
	}
	p.changeLocked()
}

func (p *pipe) changeLocked() {
	close(p.changed)
	p.changed = make(chan struct{})
}

// deadline is a point in time that can be moved while someone waits for it.
type deadline struct {
	mu    sync.Mutex
	timer *time.Timer
	late  chan struct{} // closed when the deadline has passed
	moved chan struct{} // closed and replaced when it is set
}

func (d *deadline) wait() (late, moved <-chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.initLocked()
	return d.late, d.moved
}

func (d *deadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.initLocked()
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	close(d.moved)
	d.moved, d.late = make(chan struct{}), make(chan struct{})
	if t.IsZero() {
		return
	}
	late := d.late
	if wait := time.Until(t); wait > 0 {
		d.timer = time.AfterFunc(wait, func() { close(late) })
	} else {
		close(late)
	}
}

func (d *deadline) initLocked() {
	if d.moved == nil {
		d.moved, d.late = make(chan struct{}), make(chan struct{})
	}
}
