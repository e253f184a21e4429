package nbd

import (
	"errors"
	"syscall"

	"hacluster/blockdev"
	"hacluster/blockdev/frontend/nbd/nbdproto"
)

// request is one command of a client from its header to its answer. It belongs to one connection for ever: the Done of
// its blockdev.Request is made once, so that serving allocates nothing.
type request struct {
	blockdev.Request
	conn  *conn
	next  *request // in the free list or the queue
	wire  nbdproto.Request
	errno nbdproto.Errno
	held  int64  // taken from the budget
	extra []byte // the answer of BLOCK_STATUS
}

func newRequest(c *conn) *request {
	r := &request{conn: c}
	r.Done = func(*blockdev.Request) { c.done(r) }
	r.Abandoned = c.abandoned
	return r
}

// fifo is a list of requests.
type fifo struct{ head, tail *request }

func (q *fifo) push(r *request) {
	r.next = nil
	if q.tail == nil {
		q.head = r
	} else {
		q.tail.next = r
	}
	q.tail = r
}

func (q *fifo) pop() *request {
	r := q.head
	if r == nil {
		return nil
	}
	q.head = r.next
	if q.head == nil {
		q.tail = nil
	}
	return r
}

// errnoOf translates a volume's error, here and nowhere else.
func errnoOf(op blockdev.Op, err error) nbdproto.Errno {
	switch {
	case err == nil:
		return nbdproto.OK
	case errors.Is(err, blockdev.ErrNoSpace), errors.Is(err, syscall.ENOSPC):
		return nbdproto.ENOSPC
	case errors.Is(err, blockdev.ErrRange) && op == blockdev.OpWrite:
		return nbdproto.ENOSPC
	case errors.Is(err, blockdev.ErrRange):
		return nbdproto.EINVAL
	}
	return nbdproto.EIO
}
