package link

import (
	"errors"
	"io"
	"net"

	"hacluster/blockdev/hot"
)

// largePayload: from here on a payload is read straight to where it stays.
const largePayload = 32 << 10

// aheadOfLarge is how far is read beyond what is due among large payloads: of what comes next only the head, for its
// payload would have to be copied.
const aheadOfLarge = 4 << 10

// input is the receiving side of a connection. It takes many small messages in one read and cuts them from the chunk
// that they came in. One goroutine uses it.
type input struct {
	conn     net.Conn
	hot      *hot.Conn // conn; nil: it is not one
	c        *chunk
	pos, end int // what of c is not yet taken
	ahead    int
}

func newInput(conn net.Conn) *input {
	in := &input{conn: conn, c: newChunk(chunkSize), ahead: chunkSize}
	in.hot, _ = conn.(*hot.Conn)
	return in
}

// alone tells whether only one message is on its way, for which the next read waits.
func (in *input) alone(alone bool) {
	if in.hot != nil {
		in.hot.Alone(alone && in.buffered() == 0)
	}
}

// eager: the reader asks for what comes next before it waits for it.
func (in *input) eager() {
	if in.hot != nil {
		in.hot.Eager()
	}
}

// close gives the memory back. Nothing is taken any more.
func (in *input) close() {
	if in.c != nil {
		in.c.free()
		in.c = nil
	}
}

func (in *input) buffered() int { return in.end - in.pos }

// message reads the lengths of the next message, within max, and its head, valid until the next call. What it names of
// payload follows. io.EOF: the peer ended the stream between two messages.
func (in *input) message(max limits) (head []byte, payload int, err error) {
	b, err := in.take(prefixSize)
	if err != nil {
		return nil, 0, err
	}
	n, payload, err := parsePrefix(b, max)
	if err != nil {
		return nil, 0, in.goodbye(err, payload)
	}
	head, err = in.take(n)
	return head, payload, within(err)
}

// goodbye completes the peer's last word, if err is one, by the n bytes of text that follow.
func (in *input) goodbye(err error, n int) error {
	if bye, ok := errors.AsType[*goodbyeError](err); ok {
		text, err := in.take(n)
		if err != nil {
			return within(err)
		}
		bye.text = string(text)
	}
	return err
}

// take returns the following n bytes, which lie in in.c.
func (in *input) take(n int) ([]byte, error) {
	if in.buffered() < n {
		if err := in.fill(n); err != nil {
			return nil, err
		}
	}
	b := in.c.mem[in.pos : in.pos+n : in.pos+n]
	in.pos += n
	return b, nil
}

// fill reads until n bytes are there.
func (in *input) fill(n int) error {
	in.makeRoom(n)
	for in.buffered() < n {
		to := min(len(in.c.mem), max(in.pos+n, in.end+in.ahead))
		k, err := in.conn.Read(in.c.mem[in.end:to])
		in.end += k
		if err != nil && in.buffered() < n {
			if in.buffered() > 0 {
				err = within(err)
			}
			return err
		}
	}
	return nil
}

// makeRoom sees to it that n bytes fit behind pos. Memory that nobody refers to is used again at once, while it is in
// the processor's cache.
func (in *input) makeRoom(n int) {
	alone := in.c.refs.Load() == 1
	switch {
	case alone && len(in.c.mem) >= max(n, chunkSize) && (in.buffered() == 0 || in.pos+n > len(in.c.mem)):
		in.end = copy(in.c.mem, in.c.mem[in.pos:in.end])
		in.pos = 0
	case in.pos+n > len(in.c.mem):
		next := newChunk(n)
		in.end = copy(next.mem, in.c.mem[in.pos:in.end])
		in.pos = 0
		in.c.free()
		in.c = next
	}
}

// into fills p with what follows.
func (in *input) into(p []byte) error {
	in.ahead = aheadOfLarge
	n := copy(p, in.c.mem[in.pos:in.end])
	in.pos += n
	_, err := io.ReadFull(in.conn, p[n:])
	return within(err)
}

// within: the end of the stream is not in order in the middle of a message.
func within(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
