package sim

import (
	"time"

	"hacluster/blockdev"
)

// request is one operation of a client.
type request struct {
	conn     *clientConn
	kind     blockdev.Op
	from, to int
	fua      bool
	sent     int64 // when the client sent it
	value    value // of a write, given at its admission
	values   []value
	acked    [blocks]value // of a flush: what had been acknowledged when it was sent
	err      error
	answered bool
}

// client writes, reads and flushes through whichever node serves, some operations at a time.
type client struct {
	w       *world
	conn    *clientConn
	dialing bool
	pending int
	quiet   bool // no new operations
	mix     [5]float64
	depth   int
	think   time.Duration
}

// clientConn is one NBD connection.
type clientConn struct {
	c       *client
	p       *proc
	sess    *session
	closed  bool // as the server knows
	gone    bool // as the client knows
	arrives int64
}

const clientTimeout = 6 * time.Second

func (c *client) dial() {
	if c.dialing || c.conn != nil {
		return
	}
	c.dialing = true
	w := c.w
	n := w.anyData()
	w.after(w.between(2*time.Millisecond, 40*time.Millisecond), func() {
		c.dialing = false
		p := n.proc
		if p == nil || p.replica == nil || w.now < p.pausedUntil || p.replica.sess == nil {
			c.dial()
			return
		}
		s := p.replica.sess
		c.conn = &clientConn{c: c, p: p, sess: s}
		c.pending = 0
		s.clients = append(s.clients, c.conn)
		for range c.depth {
			c.next(c.conn)
		}
	})
}

// next sends one more operation after some thought.
func (c *client) next(k *clientConn) {
	w := c.w
	w.after(w.between(0, c.think), func() {
		if k.gone || c.quiet {
			return
		}
		q := c.draw(k)
		c.pending++
		k.arrives = max(k.arrives, w.now+int64(w.between(20*time.Microsecond, time.Millisecond)))
		w.push(event{at: k.arrives, proc: k.p, fn: func() {
			if !k.closed {
				k.sess.submit(q)
			}
		}})
		w.after(clientTimeout, func() {
			if !q.answered && !k.gone {
				k.leave()
			}
		})
	})
}

func (c *client) draw(k *clientConn) *request {
	w := c.w
	q := &request{conn: k, sent: w.now}
	size := countOf(k.sess.r.vol.Size)
	if next := countOf(k.sess.r.vol.NextSize()); next < size && w.chance(0.9) {
		size = next // it has connected since, and is shown no more
	}
	q.from = w.rng.IntN(size)
	q.to = min(q.from+1+w.rng.IntN(2), size)
	x := w.rng.Float64()
	switch {
	case x < c.mix[0]:
		q.kind = blockdev.OpRead
	case x < c.mix[1]:
		q.kind, q.from, q.to = blockdev.OpFlush, 0, 0
		q.acked = w.oracle.acked
	case x < c.mix[2]:
		q.kind = blockdev.OpZero
	case x < c.mix[3]:
		q.kind, q.fua = blockdev.OpWrite, true
	default:
		q.kind = blockdev.OpWrite
	}
	return q
}

// answer carries a reply to the client.
func (k *clientConn) answer(q *request) {
	q.answered = true
	w := k.c.w
	w.after(w.between(20*time.Microsecond, time.Millisecond), func() {
		if !k.gone {
			k.c.pending--
			k.c.next(k)
		}
	})
}

// cut closes the connection from the server's side.
func (k *clientConn) cut() {
	k.closed = true
	k.c.w.after(k.c.w.between(100*time.Microsecond, 5*time.Millisecond), func() { k.lost() })
}

func (k *clientConn) lost() {
	if k.gone {
		return
	}
	k.gone = true
	k.c.conn, k.c.pending = nil, 0
	k.c.dial()
}

// leave closes it from the client's side.
func (k *clientConn) leave() {
	k.p.soon(func() { k.closed = true })
	k.lost()
}
