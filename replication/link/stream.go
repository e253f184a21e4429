package link

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// streamOutput writes to anything but a socket, such as TLS, which can neither gather nor write as much as there is room
// for. So it puts small pieces together, and tries only what the socket below has room for as a whole.
type streamOutput struct {
	conn   net.Conn
	raw    syscall.RawConn // of the socket below; nil: not known
	look   func(fd uintptr)
	free   int // room that look found
	pieces [][]byte
	size   int // of pieces, at begin
	buf    []byte
}

const (
	// gatherLimit: up to here pieces are copied together, for a record of TLS for each would cost more.
	gatherLimit = 32 << 10
	// tryLimit is the largest message that is tried: encrypting a larger one is worth a goroutine of its own.
	tryLimit = 64 << 10
)

func newStreamOutput(conn net.Conn) *streamOutput {
	o := &streamOutput{conn: conn}
	o.look = o.room
	if sc, ok := socket(conn).(syscall.Conn); ok && socket(conn) != conn {
		if raw, err := sc.SyscallConn(); err == nil {
			o.raw = raw
		}
	}
	return o
}

func (o *streamOutput) begin(pieces [][]byte) {
	o.pieces, o.size = pieces, 0
	for _, p := range pieces {
		o.size += len(p)
	}
}

func (o *streamOutput) canTry() bool { return o.raw != nil }

// try writes when the send buffer has room for the message twice over: what the kernel counts besides the bytes, and
// what TLS adds, is less than that. So the write does not wait, and saves a change of goroutine.
func (o *streamOutput) try() (done bool, err error) {
	if o.size > tryLimit {
		return false, nil
	}
	if err := o.raw.Control(o.look); err != nil || o.free < 2*o.size {
		return false, err
	}
	return true, o.finish()
}

// room looks how much the socket takes without waiting.
func (o *streamOutput) room(fd uintptr) {
	o.free = 0
	size, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUF)
	if err != nil {
		return
	}
	if queued, err := unix.IoctlGetInt(int(fd), unix.SIOCOUTQ); err == nil {
		o.free = size - 2*queued
	}
}

func (o *streamOutput) finish() error {
	for len(o.pieces) > 0 {
		p := o.pieces[0]
		o.pieces = o.pieces[1:]
		if len(p) < gatherLimit {
			p = o.gather(p)
		}
		if _, err := o.conn.Write(p); err != nil {
			return err
		}
	}
	return nil
}

// gather puts p and the small pieces behind it together.
func (o *streamOutput) gather(p []byte) []byte {
	o.buf = append(o.buf[:0], p...)
	for len(o.pieces) > 0 && len(o.buf)+len(o.pieces[0]) <= gatherLimit {
		o.buf = append(o.buf, o.pieces[0]...)
		o.pieces = o.pieces[1:]
	}
	return o.buf
}
