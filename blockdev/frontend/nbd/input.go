package nbd

import (
	"errors"
	"hash/crc32"
	"io"
	"net"
	"os"
	"time"

	"hacluster/blockdev/frontend/nbd/nbdproto"
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
	// before, when not nil, is called before each read, which may wait.
	before func()
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
		if err := in.fill(n, false); err != nil {
			return nil, err
		}
	}
	b := in.buf[in.pos : in.pos+n]
	in.pos += n
	return b, nil
}

// fill reads until n bytes are there; within: something of the same item came before them.
func (in *input) fill(n int, within bool) error {
	in.end = copy(in.buf, in.buf[in.pos:in.end])
	in.pos = 0
	for in.end < n {
		if err := in.deadline(within || in.end > 0); err != nil {
			return err
		}
		in.waits()
		k, err := in.nc.Read(in.buf[in.end:min(len(in.buf), max(n, in.end+in.ahead))])
		in.end += k
		if err != nil && !within && in.end == 0 && !in.armed.IsZero() && errors.Is(err, os.ErrDeadlineExceeded) {
			in.armed = time.Time{} // it was that of an earlier request
			if err = in.nc.SetReadDeadline(in.armed); err == nil {
				continue
			}
		}
		if err != nil && in.end < n {
			return atItem(err, within || in.end > 0)
		}
	}
	return nil
}

func (in *input) waits() {
	if in.before != nil {
		in.before()
	}
}

// hasRequest reports whether a whole request follows, so that nothing has to be waited for before it is there.
func (in *input) hasRequest() bool {
	if in.buffered() < nbdproto.RequestLen {
		return false
	}
	req := nbdproto.ParseRequest(in.buf[in.pos:in.end])
	return req.Cmd != nbdproto.CmdWrite || in.buffered()-nbdproto.RequestLen >= int(req.Len)
}

// payload fills p and returns its checksum, made piece by piece while the data is in the processor's cache. What is
// missing of a small one is read with as much as follows it; a large one passes the buffer by.
func (in *input) payload(p []byte) (sum uint32, err error) {
	in.ahead = len(in.buf)
	if len(p) >= largePayload {
		in.ahead = minBuffer
	} else if in.buffered() < len(p) && len(p) <= len(in.buf) {
		if err := in.fill(len(p), true); err != nil {
			return 0, err
		}
	}
	n := copy(p, in.buf[in.pos:in.end])
	in.pos += n
	sum = crc32.Update(0, castagnoli, p[:n])
	for p = p[n:]; len(p) > 0; p = p[n:] {
		if err := in.deadline(true); err != nil {
			return 0, err
		}
		in.waits()
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
			if err := in.fill(1, true); err != nil {
				return err
			}
		}
		k := min(n, in.buffered())
		in.pos += k
		n -= k
	}
	return nil
}

// deadline sets the limit for the next read, if that is within a request. It is moved only when a good part has passed:
// a large payload arrives in many reads, and a deadline for each small request would cost more than reading it. So one
// stays set when the request is there; when it comes to pass between requests, fill removes it.
func (in *input) deadline(within bool) error {
	if in.stall == 0 || !within {
		return nil
	}
	at := time.Now().Add(in.stall)
	if at.Sub(in.armed) < in.stall/4 {
		return nil
	}
	in.armed = at
	return in.nc.SetReadDeadline(in.armed)
}

func atItem(err error, within bool) error {
	if err == io.EOF && within {
		return io.ErrUnexpectedEOF
	}
	return err
}
