// Package hot takes a socket out of the runtime's poller, for conversations in which the next message comes within
// microseconds. A goroutine that waits in the runtime's poller costs a failed read, a change of goroutine, a round of
// the scheduler's search for other work and a second thread that is woken to look for it; at one small write at a time
// that was a quarter of both daemons' work, 78 microseconds of processor time per write with it and 58 without. A Conn
// waits in the kernel instead, for a moment, in the very thread that reads. If nothing comes within that moment it waits
// in the runtime's poller like any other connection, so that an idle one holds no thread.
//
// The frontend for NBD and the stream between replicas read through it. It knows nothing of what they read.
package hot

import (
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// moment is how long a reader keeps its thread: longer than a small write takes through both nodes, the client's
	// next one included, and short enough that few threads are kept however many connections there are.
	moment = 2 * time.Millisecond
	// look is how often a writer that found the socket full looks whether it was closed or its deadline is over.
	look = 100 * time.Millisecond

	// asking is how long an eager reader asks again and again before it waits: longer than a small write takes from one
	// client through both nodes and back when nobody sleeps.
	asking = 100 * time.Microsecond
	// A wait is short when it ends within short, the waking of this processor included. Asking begins after enough short
	// ones in a row, and ends with the first that is not.
	short  = 2 * asking
	enough = 8
)

// Conn is a socket outside the runtime's poller. Deadlines are kept to within moment for reads and look for writes.
type Conn struct {
	inner net.Conn // closed already, but for what it counts; asked for addresses
	fd    int
	ep    int
	ask   unix.EpollEvent // that fd is reported once
	cold  *os.File        // an epoll instance of its own, with fd in it, in the runtime's poller
	wait  syscall.RawConn // of cold
	ready func(uintptr) bool
	// Memory for the kernel's answers; on the stack, it would be an allocation each time.
	event              [1]unix.EpollEvent
	readable, writable [1]unix.PollFd
	none               unix.Timespec
	// Read's own: see Alone and Eager, and how many waits in a row were short.
	alone, eager bool
	shorts       int
	seen         uint64 // see company

	// life is held shared by all that uses fd, and exclusively to give it back.
	life       sync.RWMutex
	closed     atomic.Bool
	once       sync.Once
	readBy, by atomic.Int64 // deadlines of reads and writes, in Unix nanoseconds; 0: none
}

var (
	_ net.Conn     = (*Conn)(nil)
	_ syscall.Conn = (*Conn)(nil)
)

// descriptor is a connection that can give its descriptor back before it is closed, because closing counts.
type descriptor interface{ CloseDescriptor() error }

// Take returns a connection that speaks through c's socket and owns c. What is no socket, such as TLS, and what cannot
// be taken over because descriptors ran out, is returned as it is.
func Take(c net.Conn) net.Conn {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return c
	}
	fd, err := duplicate(sc)
	if err != nil {
		return c
	}
	h := &Conn{inner: c, fd: fd}
	if err := h.poller(); err != nil {
		unix.Close(fd)
		return c
	}
	// Only closing takes the socket out of the runtime's poller: the duplicate keeps the connection.
	if d, ok := c.(descriptor); ok {
		_ = d.CloseDescriptor()
	} else {
		_ = c.Close()
	}
	return h
}

func duplicate(sc syscall.Conn) (fd int, err error) {
	raw, err := sc.SyscallConn()
	if err != nil {
		return 0, err
	}
	ctl := raw.Control(func(s uintptr) { fd, err = unix.FcntlInt(s, unix.F_DUPFD_CLOEXEC, 0) })
	if ctl != nil {
		return 0, ctl
	}
	return fd, err
}

// poller makes the way into the runtime's poller: an epoll instance that reports fd once each time it was asked to.
func (c *Conn) poller() error {
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return os.NewSyscallError("epoll_create1", err)
	}
	err = unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, c.fd, &unix.EpollEvent{Events: unix.EPOLLONESHOT, Fd: int32(c.fd)})
	if err == nil {
		err = unix.EpollCtl(ep, unix.EPOLL_CTL_MOD, c.fd, &unix.EpollEvent{Fd: int32(c.fd)}) // silent until asked
	}
	if err == nil {
		err = unix.SetNonblock(ep, true)
	}
	if err != nil {
		unix.Close(ep)
		return os.NewSyscallError("epoll_ctl", err)
	}
	c.ep, c.ask = ep, unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLONESHOT, Fd: int32(c.fd)}
	c.cold = os.NewFile(uintptr(ep), "epoll")
	if c.wait, err = c.cold.SyscallConn(); err == nil {
		err = c.cold.SetDeadline(time.Time{}) // refused if it is not in the runtime's poller
	}
	if err != nil {
		c.cold.Close()
		return err
	}
	c.ready = func(ep uintptr) bool {
		n, err := unix.EpollWait(int(ep), c.event[:], 0)
		return n > 0 || err != nil && err != unix.EINTR
	}
	return nil
}

// Read waits for data and reads what is there. One goroutine at a time reads.
func (c *Conn) Read(p []byte) (int, error) {
	c.life.RLock()
	defer c.life.RUnlock()
	if len(p) == 0 {
		return 0, nil
	}
	for try := !c.alone || all.joins(time.Since(start), &c.seen); ; try = true {
		if err := c.over(&c.readBy); err != nil {
			return 0, err
		}
		if try || c.comes() {
			n, err := unix.Read(c.fd, p)
			switch {
			case n > 0:
				return n, nil
			case err == nil:
				return 0, c.end(io.EOF)
			case err == unix.EINTR:
				continue
			case err != unix.EAGAIN:
				return 0, c.end(c.fault("read", err))
			}
		}
		if err := c.sleep(); err != nil {
			return 0, err
		}
	}
}

// Alone tells the next Read what is going on: whether nothing but the one message that it waits for is on its way. Then
// this thread has nothing better to do than to wait for it; with more under way, a thread that waits in the kernel keeps
// its processor from the goroutines that have something to do, and writes of 4 KiB at 32 in flight lost a third of their
// rate by it. Whoever reads calls it.
func (c *Conn) Alone(alone bool) { c.alone = alone }

// Eager makes the reader ask the socket again and again, for at most a tenth of a millisecond, before it waits, as long as
// it is Alone and the messages before came that soon. A processor that went idle takes some 30 us to come back on a
// virtual machine, which is more than the rest of a small write costs; between two questions the processor is offered to
// whoever wants it. One side of a conversation is enough: asking at the standby halves the latency of one write at a time
// on two processors, asking at the primary as well loses most of that again.
func (c *Conn) Eager() { c.eager = true }

// comes waits for data in this thread, for a moment.
func (c *Conn) comes() bool {
	// What the last message made ready to run, such as a reply, runs here and now; a second thread would have to be woken
	// for it.
	runtime.Gosched()
	if c.eager && c.shorts >= enough && c.asks() {
		return true
	}
	began := time.Now()
	came := c.wakes(unix.POLLIN, moment)
	if c.shorts++; time.Since(began) > short {
		c.shorts = 0
	}
	return came
}

// asks is comes without sleep.
func (c *Conn) asks() bool {
	c.readable[0], c.none = unix.PollFd{Fd: int32(c.fd), Events: unix.POLLIN}, unix.Timespec{}
	for began := time.Now(); time.Since(began) < asking; {
		// Raw, for the runtime would take a call that may block for a reason to wake another thread.
		n, _, _ := unix.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&c.readable[0])), 1, uintptr(unsafe.Pointer(&c.none)), 0, 0, 0)
		if n > 0 {
			return true
		}
		_, _, _ = unix.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0)
	}
	return false
}

// wakes waits in this thread until the socket is ready, at most for d.
func (c *Conn) wakes(events int16, d time.Duration) bool {
	fds := &c.readable
	if events == unix.POLLOUT {
		fds = &c.writable
	}
	fds[0] = unix.PollFd{Fd: int32(c.fd), Events: events}
	n, err := unix.Poll(fds[:], int(d.Milliseconds()))
	return n > 0 || err == unix.EINTR
}

// sleep waits in the runtime's poller until the socket can be read, or the deadline passes.
func (c *Conn) sleep() error {
	err := unix.EpollCtl(c.ep, unix.EPOLL_CTL_MOD, c.fd, &c.ask)
	if err != nil {
		return c.fault("epoll_ctl", err)
	}
	if err := c.wait.Read(c.ready); err != nil {
		return c.end(err)
	}
	return nil
}
