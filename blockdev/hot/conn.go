package hot

import (
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Write writes all of p.
func (c *Conn) Write(p []byte) (n int, err error) {
	done := c.rawWrite(func(fd uintptr) bool {
		for n < len(p) {
			k, e := unix.Write(int(fd), p[n:])
			switch {
			case e == unix.EINTR:
			case e == unix.EAGAIN:
				return false
			case e != nil:
				err = c.end(c.fault("write", e))
				return true
			default:
				n += k
			}
		}
		return true
	})
	if err == nil {
		err = done
	}
	return n, err
}

// rawWrite calls f at once, and then whenever the socket may be written, until f is content.
func (c *Conn) rawWrite(f func(fd uintptr) bool) error {
	c.life.RLock()
	defer c.life.RUnlock()
	for {
		if err := c.over(&c.by); err != nil {
			return err
		}
		if f(uintptr(c.fd)) {
			return nil
		}
		for !c.wakes(unix.POLLOUT, look) {
			if err := c.over(&c.by); err != nil {
				return err
			}
		}
	}
}

// over says why nothing is done any more.
func (c *Conn) over(deadline *atomic.Int64) error {
	if c.closed.Load() {
		return c.fault("use", net.ErrClosed)
	}
	if at := deadline.Load(); at != 0 && int64(time.Since(start)) >= at {
		return c.fault("wait", os.ErrDeadlineExceeded)
	}
	return nil
}

// end is err, or that the connection was closed here.
func (c *Conn) end(err error) error {
	if c.closed.Load() {
		return c.fault("use", net.ErrClosed)
	}
	return err
}

func (c *Conn) fault(op string, err error) error {
	if e, ok := err.(syscall.Errno); ok {
		err = os.NewSyscallError(op, e)
	}
	return &net.OpError{Op: op, Net: c.LocalAddr().Network(), Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: err}
}

// Close ends the connection. Calls that wait return net.ErrClosed.
func (c *Conn) Close() error {
	c.once.Do(func() {
		c.closed.Store(true)
		_ = unix.Shutdown(c.fd, unix.SHUT_RDWR) // wakes who waits for the socket itself
		_ = c.cold.SetDeadline(time.Unix(1, 0)) // wakes who sleeps
		c.life.Lock()
		defer c.life.Unlock()
		_ = c.cold.Close()
		_ = unix.Close(c.fd)
		_ = c.inner.Close()
	})
	return nil
}

// CloseWrite tells the peer that nothing follows.
func (c *Conn) CloseWrite() error {
	c.life.RLock()
	defer c.life.RUnlock()
	if c.closed.Load() {
		return c.fault("shutdown", net.ErrClosed)
	}
	if err := unix.Shutdown(c.fd, unix.SHUT_WR); err != nil {
		return c.fault("shutdown", err)
	}
	return nil
}

// LocalAddr and RemoteAddr are those of the connection that was taken.
func (c *Conn) LocalAddr() net.Addr  { return c.inner.LocalAddr() }
func (c *Conn) RemoteAddr() net.Addr { return c.inner.RemoteAddr() }

// SetDeadline sets both.
func (c *Conn) SetDeadline(t time.Time) error {
	_ = c.SetWriteDeadline(t)
	return c.SetReadDeadline(t)
}

// SetReadDeadline also reaches a Read that waits.
func (c *Conn) SetReadDeadline(t time.Time) error {
	c.life.RLock()
	defer c.life.RUnlock()
	if c.closed.Load() {
		return c.fault("set", net.ErrClosed)
	}
	c.readBy.Store(nanos(t))
	if err := c.cold.SetReadDeadline(t); err != nil {
		return c.fault("set", err)
	}
	if c.closed.Load() {
		_ = c.cold.SetDeadline(time.Unix(1, 0)) // Close may have set its own before
	}
	return nil
}

// SetWriteDeadline also reaches a Write that waits.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	c.by.Store(nanos(t))
	return nil
}

// start is what deadlines are counted from: by the monotonic clock, which nobody sets.
var start = time.Now()

func nanos(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return max(1, int64(t.Sub(start)))
}

// SyscallConn gives access to the socket, which does not block.
func (c *Conn) SyscallConn() (syscall.RawConn, error) { return rawConn{c}, nil }

type rawConn struct{ c *Conn }

func (r rawConn) Control(f func(fd uintptr)) error {
	r.c.life.RLock()
	defer r.c.life.RUnlock()
	if r.c.closed.Load() {
		return r.c.fault("control", net.ErrClosed)
	}
	f(uintptr(r.c.fd))
	return nil
}

func (r rawConn) Read(f func(fd uintptr) bool) error {
	c := r.c
	c.life.RLock()
	defer c.life.RUnlock()
	for {
		if err := c.over(&c.readBy); err != nil {
			return err
		}
		if f(uintptr(c.fd)) {
			return nil
		}
		if c.wakes(unix.POLLIN, moment) {
			continue
		}
		if err := c.sleep(); err != nil {
			return err
		}
	}
}

func (r rawConn) Write(f func(fd uintptr) bool) error { return r.c.rawWrite(f) }
