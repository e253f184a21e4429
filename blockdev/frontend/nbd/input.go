package nbd

import (
	"hash/crc32"
	"io"
	"net"
	"time"
)

const (
	// minBuffer is the receive buffer during the handshake, and how far is read ahead among large writes.
	minBuffer = 4096
	// largePayload: from here on payloads are worth reading straight to where they belong.
	largePayload = 32 << 10
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// input is the receiving side of a connection: a buffer that takes many small requests in one read, and lets large
// payloads pass by it. Only the reader goroutine uses it.
type input struct {
	nc       net.Conn
	buf      []byte
	pos, end int
	// ahead is how much a read may take beyond what is asked for. After a large write it is small: what follows is
	// probably another one, whose payload would have to be copied out of the buffer.
	ahead int
	// stall, when not 0, is how long a client may stop within a request.
	stall time.Duration
	armed time.Time // the deadline set on nc; zero: none
}

func newInput(nc net.Conn) *input {
	return &input{nc: nc, buf: make([]byte, minBuffer), ahead: minBuffer}
}

// transmission prepares for requests: a buffer of n bytes, and stall from now on.
func (in *input) transmission(n int, stall time.Duration) {
	buf := make([]byte, max(n, in.buffered()))
	in.end = copy(buf, in.buf[in.pos:in.end])
	in.buf, in.pos, in.ahead, in.stall = buf, 0, len(buf), stall
}

func (in *input) buffered() int { return in.end - in.pos }

// next returns the following n bytes, valid until the next call. n is at most minBuffer. io.EOF: the client left
// between two items; io.ErrUnexpectedEOF: within one.
func (in *input) next(n int) ([]byte, error) {
	if in.buffered() < n {
		if err := in.fill(n); err != nil {
			return nil, err
		}
	}
	b := in.buf[in.pos : in.pos+n]
	in.pos += n
	return b, nil
}

func (in *input) fill(n int) error {
	in.end = copy(in.buf, in.buf[in.pos:in.end])
	in.pos = 0
	for in.end < n {
		if err := in.deadline(in.end > 0); err != nil {
			return err
		}
		k, err := in.nc.Read(in.buf[in.end:min(len(in.buf), max(n, in.end+in.ahead))])
		in.end += k
		if err != nil && in.end < n {
			return atItem(err, in.end > 0)
		}
	}
	return nil
}

// payload fills p and returns its checksum, made piece by piece while the data is in the processor's cache.
func (in *input) payload(p []byte) (sum uint32, err error) {
	in.ahead = len(in.buf)
	if len(p) >= largePayload {
		in.ahead = minBuffer
	}
	n := copy(p, in.buf[in.pos:in.end])
	in.pos += n
	sum = crc32.Update(0, castagnoli, p[:n])
	for p = p[n:]; len(p) > 0; p = p[n:] {
		if err := in.deadline(true); err != nil {
			return 0, err
		}
		if n, err = in.nc.Read(p); err != nil && n < len(p) {
			return 0, atItem(err, true)
		}
		sum = crc32.Update(sum, castagnoli, p[:n])
	}
	return sum, nil
}

// discard reads n bytes and forgets them.
func (in *input) discard(n int) error {
	for n > 0 {
		if in.buffered() == 0 {
			if err := in.fill(1); err != nil {
				return atItem(err, true)
			}
		}
		k := min(n, in.buffered())
		in.pos += k
		n -= k
	}
	return nil
}

// deadline sets or removes the limit for the next read. It is moved only when a good part has passed: a large payload
// arrives in many reads.
func (in *input) deadline(within bool) error {
	switch {
	case in.stall == 0:
		return nil
	case !within:
		if in.armed.IsZero() {
			return nil
		}
		in.armed = time.Time{}
	default:
		at := time.Now().Add(in.stall)
		if at.Sub(in.armed) < in.stall/4 {
			return nil
		}
		in.armed = at
	}
	return in.nc.SetReadDeadline(in.armed)
}

func atItem(err error, within bool) error {
	if err == io.EOF && within {
		return io.ErrUnexpectedEOF
	}
	return err
}
