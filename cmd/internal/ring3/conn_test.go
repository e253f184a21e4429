package ring3

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// window is how much may be on its way in one direction.
const window = 256 << 10

// duplex is one connection.
type duplex struct {
	net  *network
	unix bool
	ends [2]*end

	mu      sync.Mutex
	changed chan struct{} // closed and replaced with each change
}

func (d *duplex) changeLocked() {
	close(d.changed)
	d.changed = make(chan struct{})
}

// segment is what one Write sent, or how the stream ends.
type segment struct {
	data []byte
	due  time.Time
	end  error // io.EOF, or a reset
}

// end is one side of a connection. What is under the mutex of the duplex is so for both sides.
type end struct {
	d             *duplex
	host          *host
	peer          *end
	local, remote net.Addr

	in              []segment // on its way here, or arrived
	waiting         int       // bytes of in
	err             error     // this side is over
	gone            bool      // the machine of the other side lost its power
	unacked         bool      // something was sent into a cut
	idle, armed     bool      // a time-out is under way
	readBy, writeBy time.Time // deadlines
	ended           error     // the other side's end, as it was read
}

func (e *end) way() path { return path{e.host.machine, e.peer.host.machine} }

// mute tells which cut this side suffers from; -1: its peer's machine is gone.
func (e *end) mute() int {
	if e.gone {
		return -1
	}
	if e.d.unix {
		return 0
	}
	return e.d.net.stuck(e.way())
}

// watchLocked ends this side after a time if the silence that it is in lasts.
func (e *end) watchLocked(after time.Duration, under *bool) {
	cut := e.mute()
	if cut == 0 || *under || e.err != nil {
		return
	}
	*under = true
	time.AfterFunc(after, func() {
		e.d.mu.Lock()
		defer e.d.mu.Unlock()
		*under = false
		if e.err != nil {
			return
		}
		if e.mute() == cut {
			e.overLocked(syscall.ETIMEDOUT)
			e.peer.orphanLocked()
			return
		}
		e.watchLocked(after, under)
	})
}

// orphanLocked ends this side by the first probe that gets through: the other one has given up and could not say so.
func (e *end) orphanLocked() {
	if e.err != nil {
		return
	}
	time.AfterFunc(keepAlive/2, func() {
		e.d.mu.Lock()
		defer e.d.mu.Unlock()
		if e.mute() == 0 {
			e.overLocked(syscall.ECONNRESET)
		}
		e.orphanLocked()
	})
}

// overLocked ends this side. The other one learns of it by a segment, if that gets through.
func (e *end) overLocked(err error) {
	if e.err != nil {
		return
	}
	e.err = err
	e.in, e.waiting = nil, 0
	e.d.changeLocked()
	if e.peer.err != nil {
		n := e.d.net
		n.mu.Lock()
		delete(n.open, e.d)
		n.mu.Unlock()
	}
}

func (e *end) tellLocked(how error) {
	if e.peer.err == nil {
		e.peer.in = append(e.peer.in, segment{due: e.arrivalLocked(), end: how})
	}
}

func (e *end) arrivalLocked() time.Time {
	t := 50 * time.Microsecond
	if !e.d.unix {
		t = e.d.net.travels(e.way())
	}
	at := time.Now().Add(t)
	if n := len(e.peer.in); n > 0 && e.peer.in[n-1].due.After(at) { // nothing overtakes
		at = e.peer.in[n-1].due
	}
	return at
}

func (e *end) crash(power bool) {
	e.d.mu.Lock()
	defer e.d.mu.Unlock()
	if e.err != nil {
		return
	}
	if power && !e.d.unix {
		e.peer.gone = true
		e.peer.watchLocked(keepAlive, &e.peer.idle)
	} else {
		e.tellLocked(syscall.ECONNRESET)
	}
	e.overLocked(syscall.ECONNRESET)
}

func (e *end) Close() error {
	e.d.mu.Lock()
	defer e.d.mu.Unlock()
	if e.err == nil {
		e.tellLocked(io.EOF)
	}
	e.overLocked(net.ErrClosed)
	e.err = net.ErrClosed
	return nil
}

func (e *end) Read(p []byte) (int, error) {
	for {
		e.d.mu.Lock()
		n, until, err := e.readLocked(p)
		changed := e.d.changed
		e.d.mu.Unlock()
		if n > 0 || err != nil || len(p) == 0 {
			return n, err
		}
		await(changed, until)
	}
}

func (e *end) readLocked(p []byte) (n int, until time.Time, err error) {
	now := time.Now()
	switch {
	case e.err != nil:
		return 0, until, e.fault("read", e.err)
	case e.ended != nil:
		return 0, until, e.ended
	case !e.readBy.IsZero() && !now.Before(e.readBy):
		return 0, until, e.fault("read", os.ErrDeadlineExceeded)
	}
	until = e.readBy
	if len(e.in) == 0 || !e.d.unix && e.d.net.isCut(path{e.peer.host.machine, e.host.machine}) {
		return 0, until, nil
	}
	s := &e.in[0]
	if s.due.After(now) {
		if until.IsZero() || s.due.Before(until) {
			until = s.due
		}
		return 0, until, nil
	}
	if s.end != nil {
		e.ended = s.end
		if s.end != io.EOF {
			e.ended = e.fault("read", s.end)
			e.overLocked(s.end)
		}
		return 0, until, e.ended
	}
	n = copy(p, s.data)
	s.data = s.data[n:]
	e.waiting -= n
	if len(s.data) == 0 {
		e.in = e.in[1:]
	}
	e.d.changeLocked() // there is room
	return n, until, nil
}

func (e *end) Write(p []byte) (sent int, err error) {
	for {
		e.d.mu.Lock()
		n, err := e.writeLocked(p[sent:])
		changed, until := e.d.changed, e.writeBy
		e.d.mu.Unlock()
		sent += n
		if err != nil || sent == len(p) {
			return sent, err
		}
		await(changed, until)
	}
}

func (e *end) writeLocked(p []byte) (int, error) {
	switch {
	case e.err != nil:
		return 0, e.fault("write", e.err)
	case !e.writeBy.IsZero() && !time.Now().Before(e.writeBy):
		return 0, e.fault("write", os.ErrDeadlineExceeded)
	}
	e.unacked = false
	switch {
	case e.gone && e.d.net.hasPower(e.peer.host.machine): // it has started anew and knows nothing of this connection
		e.overLocked(syscall.ECONNRESET)
		return 0, e.fault("write", syscall.ECONNRESET)
	case e.mute() != 0:
		e.unacked = true
		e.watchLocked(userTimeout, &e.armed)
	case e.peer.err != nil: // nobody is there any more
		e.overLocked(syscall.ECONNRESET)
		return 0, e.fault("write", syscall.EPIPE)
	}
	n := min(len(p), window-e.peer.waiting)
	if n <= 0 {
		return 0, nil
	}
	if e.peer.err == nil {
		e.peer.in = append(e.peer.in, segment{data: append([]byte(nil), p[:n]...), due: e.arrivalLocked()})
		e.peer.waiting += n
		e.d.changeLocked()
	}
	return n, nil
}

func (e *end) fault(op string, err error) error {
	return &net.OpError{Op: op, Net: e.local.Network(), Addr: e.remote, Err: err}
}

// await waits for a change, or until a time when there is one.
func await(changed <-chan struct{}, until time.Time) {
	if until.IsZero() {
		<-changed
		return
	}
	t := time.NewTimer(time.Until(until))
	defer t.Stop()
	select {
	case <-changed:
	case <-t.C:
	}
}

func (e *end) LocalAddr() net.Addr  { return e.local }
func (e *end) RemoteAddr() net.Addr { return e.remote }

func (e *end) SetDeadline(t time.Time) error { return e.deadlines(&t, &t) }

func (e *end) SetReadDeadline(t time.Time) error { return e.deadlines(&t, nil) }

func (e *end) SetWriteDeadline(t time.Time) error { return e.deadlines(nil, &t) }

func (e *end) deadlines(read, write *time.Time) error {
	e.d.mu.Lock()
	defer e.d.mu.Unlock()
	if e.err != nil {
		return e.fault("set", e.err)
	}
	if read != nil {
		e.readBy = *read
	}
	if write != nil {
		e.writeBy = *write
	}
	e.d.changeLocked()
	return nil
}
