package identity

import (
	"io"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// socket is a TCP connection that reads and writes without telling the runtime. Go's own calls count as calls that may
// block, so that each burst of an idle daemon, a heartbeat or a lease, also wakes the thread that watches over blocking
// calls: a fifth of what an idle daemon did. On a socket that never blocks they take some microseconds.
type socket struct {
	*net.TCPConn
	raw syscall.RawConn
}

// maxTransfer bounds one call, so that it is short.
const maxTransfer = 64 << 10

// newSocket returns c as a socket, or c itself if it is none of the kernel's.
func newSocket(c net.Conn) net.Conn {
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return c
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return c
	}
	return &socket{tcp, raw}
}

func (s *socket) Read(p []byte) (n int, err error) {
	if len(p) == 0 {
		return 0, nil
	}
	var errno syscall.Errno
	err = s.raw.Read(func(fd uintptr) bool {
		n, errno = transfer(unix.SYS_READ, fd, p)
		return errno != unix.EAGAIN
	})
	switch {
	case err != nil:
		return 0, err
	case errno != 0:
		return 0, s.fault("read", errno)
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}

func (s *socket) Write(p []byte) (n int, err error) {
	var errno syscall.Errno
	err = s.raw.Write(func(fd uintptr) bool {
		for n < len(p) {
			var k int
			if k, errno = transfer(unix.SYS_WRITE, fd, p[n:]); errno != 0 {
				return errno != unix.EAGAIN
			}
			n += k
		}
		return true
	})
	if err == nil && n < len(p) {
		err = s.fault("write", errno)
	}
	return n, err
}

// transfer is read(2) or write(2) of at most maxTransfer bytes of p, which is not empty.
func transfer(call, fd uintptr, p []byte) (int, syscall.Errno) {
	for {
		n, _, errno := rawTransfer(call, fd, p[:min(len(p), maxTransfer)])
		switch errno {
		case 0:
			return int(n), 0
		case unix.EINTR:
		default:
			return 0, errno
		}
	}
}

func (s *socket) fault(op string, errno syscall.Errno) error {
	return &net.OpError{Op: op, Net: "tcp", Source: s.LocalAddr(), Addr: s.RemoteAddr(), Err: os.NewSyscallError(op, errno)}
}
