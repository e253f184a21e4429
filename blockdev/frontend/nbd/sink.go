package nbd

import (
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// sink writes batches to the client. One goroutine at a time uses it.
type sink interface {
	// send writes until the batch is empty or it had to wait: then it returns with bytes pending, so that the caller
	// can ask the gate again.
	send(*batch) error
	// trySend writes what can be written without waiting.
	trySend(*batch) error
	// canTry: trySend can write at all.
	canTry() bool
}

var errSlowReader = errors.New("client does not read its answers")

func newSink(nc net.Conn, timeout time.Duration) sink {
	if sc, ok := nc.(syscall.Conn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			s := &rawSink{nc: nc, raw: raw, timeout: timeout}
			s.fn = s.attempt
			return s
		}
	}
	return &streamSink{nc: nc, timeout: timeout}
}

// rawSink writes to a socket with writev.
type rawSink struct {
	nc      net.Conn
	raw     syscall.RawConn
	timeout time.Duration
	fn      func(uintptr) bool // attempt, made once: a method value made per call would be an allocation

	b      *batch
	block  bool
	waited bool
	armed  bool // a write deadline is set
	err    error
	iov    [maxPieces]unix.Iovec
}

func (s *rawSink) canTry() bool           { return true }
func (s *rawSink) send(b *batch) error    { return s.run(b, true) }
func (s *rawSink) trySend(b *batch) error { return s.run(b, false) }

func (s *rawSink) run(b *batch, block bool) error {
	s.b, s.block, s.waited, s.err = b, block, false, nil
	err := s.raw.Write(s.fn)
	s.b = nil
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("%w for %v", errSlowReader, s.timeout)
	case err != nil:
		return err
	case s.err != nil:
		return s.err
	case s.armed && !b.pending():
		s.armed = false
		return s.nc.SetWriteDeadline(time.Time{})
	}
	return nil
}

// attempt is called by the runtime; false means: call again when the socket can be written. It must try before it
// waits, because readiness is reported once.
func (s *rawSink) attempt(fd uintptr) bool {
	if s.waited {
		return true
	}
	for s.b.pending() {
		n, errno := s.writev(fd)
		switch errno {
		case 0:
			s.b.advance(n)
		case unix.EINTR:
		case unix.EAGAIN:
			if !s.block {
				return true
			}
			s.waited, s.armed = true, true
			s.err = s.nc.SetWriteDeadline(time.Now().Add(s.timeout))
			return s.err != nil
		default:
			s.err = os.NewSyscallError("writev", errno)
			return true
		}
	}
	return true
}

func (s *rawSink) writev(fd uintptr) (int, syscall.Errno) {
	k := 0
	for _, p := range s.b.pieces[s.b.sent:] {
		s.iov[k].Base = &p[0]
		s.iov[k].SetLen(len(p))
		k++
	}
	n, _, errno := unix.Syscall(unix.SYS_WRITEV, fd, uintptr(unsafe.Pointer(&s.iov[0])), uintptr(k))
	runtime.KeepAlive(s.b)
	clear(s.iov[:k])
	return int(n), errno
}

// streamChunk is how much a streamSink writes between two looks at the gate.
const streamChunk = 128 << 10

// streamSink writes to anything else, such as TLS, which can neither gather nor try.
type streamSink struct {
	nc      net.Conn
	timeout time.Duration
	buf     []byte
}

func (s *streamSink) canTry() bool         { return false }
func (s *streamSink) trySend(*batch) error { return nil }

// send writes one chunk, copied together: a TLS record for each small header would cost more.
func (s *streamSink) send(b *batch) error {
	if s.buf == nil {
		s.buf = make([]byte, 0, streamChunk)
	}
	s.buf = s.buf[:0]
	for _, p := range b.pieces[b.sent:] {
		k := min(len(p), streamChunk-len(s.buf))
		s.buf = append(s.buf, p[:k]...)
		if len(s.buf) == streamChunk {
			break
		}
	}
	if err := s.nc.SetWriteDeadline(time.Now().Add(s.timeout)); err != nil {
		return err
	}
	if _, err := s.nc.Write(s.buf); errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("%w for %v", errSlowReader, s.timeout)
	} else if err != nil {
		return err
	}
	b.advance(len(s.buf))
	return nil
}
