package nbd

import (
	"errors"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// abandoned reports whether the connection is closed, by us or by the client, whose end may lie behind bytes that the
// reader, which waits for something else, has not read. A client that only says that it sends no more counts as well: the
// two cannot be told apart. On what is no socket, nothing is known.
func (c *conn) abandoned() bool {
	if c.raw == nil {
		return false
	}
	over := true // what is closed here is not asked
	_ = c.raw.Control(func(fd uintptr) {
		at := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
		n, err := unix.Poll(at, 0)
		for errors.Is(err, unix.EINTR) {
			n, err = unix.Poll(at, 0)
		}
		over = n > 0
	})
	return over
}

// rawOf is for questions to the kernel; nil: the connection is no socket.
func rawOf(nc net.Conn) syscall.RawConn {
	if sc, ok := nc.(syscall.Conn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			return raw
		}
	}
	return nil
}
