package link

import (
	"errors"
	"net"
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// output hands messages to a connection, one after the other, each in pieces that lie where they are. One goroutine at
// a time uses it.
type output interface {
	// begin takes the next message; the one before is through. The pieces stay as they are until this one is.
	begin(pieces [][]byte)
	// canTry reports whether try can send at all.
	canTry() bool
	// try sends what can be sent without waiting; done: the message is through.
	try() (done bool, err error)
	// finish sends the rest, and waits while the peer does not read.
	finish() error
}

func newOutput(conn net.Conn) output {
	if sc, ok := conn.(syscall.Conn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			o := &rawOutput{raw: raw}
			o.fn = o.attempt
			return o
		}
	}
	return newStreamOutput(conn)
}

// maxPieces is how many go into one call; the kernel takes no more than 1024.
const maxPieces = 256

// rawOutput writes to a socket with writev.
type rawOutput struct {
	raw syscall.RawConn
	fn  func(uintptr) bool // attempt, made once: a method value made for each call would be an allocation

	pieces [][]byte // what is left
	wait   bool
	err    error
	iov    [maxPieces]unix.Iovec
}

func (o *rawOutput) begin(pieces [][]byte) { o.pieces = pieces }
func (o *rawOutput) canTry() bool          { return true }
func (o *rawOutput) finish() error         { return o.run(true) }

func (o *rawOutput) try() (done bool, err error) {
	err = o.run(false)
	return len(o.pieces) == 0, err
}

func (o *rawOutput) run(wait bool) error {
	if len(o.pieces) == 0 {
		return nil
	}
	o.wait, o.err = wait, nil
	return errors.Join(o.raw.Write(o.fn), o.err)
}

// attempt is called by the runtime; false means: call again when the socket can be written.
func (o *rawOutput) attempt(fd uintptr) bool {
	for len(o.pieces) > 0 {
		n, errno := o.writev(fd)
		switch errno {
		case 0:
			o.advance(n)
		case unix.EINTR:
		case unix.EAGAIN:
			return !o.wait
		default:
			o.err = os.NewSyscallError("writev", errno)
			return true
		}
	}
	return true
}

func (o *rawOutput) writev(fd uintptr) (int, syscall.Errno) {
	k := 0
	for _, p := range o.pieces[:min(len(o.pieces), maxPieces)] {
		o.iov[k].Base = unsafe.SliceData(p)
		o.iov[k].SetLen(len(p))
		k++
	}
	n, _, errno := unix.Syscall(unix.SYS_WRITEV, fd, uintptr(unsafe.Pointer(&o.iov[0])), uintptr(k))
	runtime.KeepAlive(o.pieces)
	clear(o.iov[:k])
	return int(n), errno
}

func (o *rawOutput) advance(n int) {
	for n > 0 {
		if p := o.pieces[0]; n < len(p) {
			o.pieces[0] = p[n:]
			return
		}
		n -= len(o.pieces[0])
		o.pieces = o.pieces[1:]
	}
}
