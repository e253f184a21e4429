package nbd

import (
	"context"
	"errors"

	"hacluster/blockdev"
	"hacluster/blockdev/frontend/nbd/nbdproto"
)

// sender says who owns conn.out and the right to write to the socket.
type sender uint8

const (
	nobody sender = iota
	direct        // a goroutine that called Done
	writer        // the writer goroutine
	handed        // a direct sender left the rest of out to the writer goroutine, which was woken
)

// directLimit is the largest answer that a goroutine of the volume writes itself; copying more would keep it too long.
const directLimit = 64 << 10

// done is the end of an admitted request, called by the export.
func (c *conn) done(r *request) {
	if errors.Is(r.Err, blockdev.ErrAbandoned) {
		c.fail(r.Err) // nobody is there to be answered, or half of somebody: the end says that the outcome is unknown
	}
	r.errno = errnoOf(r.Op, r.Err)
	if r.Op == blockdev.OpWrite || r.errno != nbdproto.OK {
		c.dropData(r)
	}
	c.enqueue(r, 1)
}

// answer queues a request that never reached the export.
func (c *conn) answer(r *request) { c.enqueue(r, 0) }

// enqueue puts the request in line to be answered and sees to it that somebody sends. It does not block.
func (c *conn) enqueue(r *request, admitted int) {
	c.mu.Lock()
	c.admitted -= admitted
	if c.closed {
		last := c.admitted == 0
		c.mu.Unlock()
		c.dropData(r)
		if last {
			signal(c.idle)
		}
		return
	}
	c.queue.push(r)
	if c.sender != nobody { // who sends looks again before it stops
		c.mu.Unlock()
		return
	}
	if !c.lone(r) {
		c.mu.Unlock()
		signal(c.wake)
		return
	}
	c.sender = direct
	c.out.fill(c)
	c.mu.Unlock()
	c.sendDirect()
}

// lone: this answer is the only thing that the client waits for, so that batching has nothing to gain.
func (c *conn) lone(r *request) bool {
	return c.inflight == 1 && c.tryGate != nil && c.sink.canTry() && r.held <= directLimit
}

// sendDirect writes out as far as that is possible at once, and leaves the rest to the writer goroutine.
func (c *conn) sendDirect() {
	if !c.isGone() && c.tryGate() {
		if err := c.sink.trySend(&c.out); err != nil {
			c.fail(err)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closed:
		c.dropAll(c.out.reset())
	case c.out.pending():
		c.sender = handed
		signal(c.wake)
	default:
		c.settle()
		c.sender = nobody
		if c.queue.head != nil {
			signal(c.wake)
		}
	}
}

// write is the writer goroutine: it sends all that is ready in as few calls as possible.
func (c *conn) write(ctx context.Context) {
	for {
		select {
		case <-c.wake:
		case <-ctx.Done():
			return
		}
		for c.claim() {
			if err := c.sendAll(ctx); err != nil {
				c.fail(err)
				return
			}
		}
	}
}

// claim makes the writer goroutine the sender of the next batch, if there is one.
func (c *conn) claim() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch c.sender {
	case direct:
		return false
	case handed:
		c.sender = writer
		return true
	case writer:
		c.settle()
	}
	c.out.fill(c)
	c.sender = writer
	if !c.out.pending() {
		c.sender = nobody
		return false
	}
	return true
}

// sendAll writes out, asking the gate before each call that may write (R11): also when the socket was full meanwhile.
func (c *conn) sendAll(ctx context.Context) error {
	for c.out.pending() {
		if err := c.gate(ctx); err != nil {
			return err
		}
		if err := c.sink.send(&c.out); err != nil {
			return err
		}
	}
	return nil
}

// settle, with mu held, ends the requests whose answers were written.
func (c *conn) settle() {
	for _, r := range c.out.reset() {
		c.dropData(r)
		r.next, c.free = c.free, r
		c.inflight--
	}
	if c.waits {
		c.waits = false
		signal(c.room)
	}
}

// dropData frees the request's data and gives its bytes back.
func (c *conn) dropData(r *request) {
	if r.Buf != nil {
		r.Buf.Free()
		r.Buf = nil
	}
	c.srv.budget.release(c.account, r.held)
	r.held = 0
}

// dropAll drops the data of requests that will not be answered.
func (c *conn) dropAll(rs []*request) {
	for _, r := range rs {
		c.dropData(r)
	}
}
