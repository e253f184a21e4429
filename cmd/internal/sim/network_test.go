package sim

import "time"

// link is one direction between two machines.
type link struct {
	cut  bool
	slow time.Duration // added to every message
}

func (w *world) reachable(from, to *node) bool {
	return from == to || !w.links[from.index][to.index].cut
}

func (w *world) latency(from, to *node) time.Duration {
	d := w.between(100*time.Microsecond, 3*time.Millisecond) + w.links[from.index][to.index].slow
	if w.chance(w.faults.lateMessage) {
		d += w.between(10*time.Millisecond, 800*time.Millisecond)
	}
	if w.chance(w.faults.veryLate) {
		d += w.between(500*time.Millisecond, 6*time.Second)
	}
	return d
}

// datagram carries fn to whatever process runs at to when it arrives: the control messages, each on its own, lost,
// late, doubled or overtaken.
func (w *world) datagram(from *proc, to *node, fn func(*proc)) { w.late(0, from, to, fn) }

// late is a datagram that is held up somewhere on its way with a chance of its own.
func (w *world) late(chance float64, from *proc, to *node, fn func(*proc)) {
	if !w.reachable(from.node, to) { // what is under way when the cable is cut still arrives
		return
	}
	n := 1
	if w.chance(w.faults.doubleMessage) {
		n = 2
	}
	for range n {
		if w.chance(w.faults.loseMessage) {
			continue
		}
		d := w.latency(from.node, to)
		if w.chance(chance) {
			d += w.between(100*time.Millisecond, 3*time.Second)
		}
		w.push(event{at: w.now + int64(d), fn: func() {
			if p := to.proc; p != nil {
				p.soon(func() { fn(p) })
			}
		}})
	}
}

// soon has the process do fn now, or when it wakes.
func (p *proc) soon(fn func()) {
	switch {
	case p.dead:
	case p.w.now < p.pausedUntil:
		p.w.push(event{at: p.w.now, proc: p, fn: fn})
	default:
		fn()
	}
}

// after has the process do fn in d; nothing happens when it has died by then.
func (p *proc) after(d time.Duration, fn func()) {
	p.w.push(event{at: p.w.now + int64(d), proc: p, fn: fn})
}

// conn is one connection of the data path between two processes: bytes arrive in order or not at all. What was sent
// before it broke may still arrive, as late as the network likes.
type conn struct {
	w    *world
	ends [2]connEnd // 0: the primary dialled
	id   int
}

type connEnd struct {
	p      *proc
	closed bool  // this end was closed, or told so
	queue  []any // sent by this end and under way
	last   int64 // nothing sent by this end arrives before
	broken bool  // what this end sends from now on is lost
	// get takes a message, lost tells that the connection ended; both in the end's own process.
	get  func(any)
	lost func()
}

// send carries m to the other end. side is the sender's.
func (c *conn) send(side int, m any) {
	e := &c.ends[side]
	if e.closed || e.broken {
		return
	}
	e.queue = append(e.queue, m)
	e.last = max(c.w.now+int64(c.w.latency(e.p.node, c.ends[1-side].p.node)), e.last)
	c.deliver(side, e.last)
}

// closing is the last message of an end.
type closing struct{}

// deliver hands over the oldest message of side at time at: one for each that was sent.
func (c *conn) deliver(side int, at int64) {
	e, to := &c.ends[side], &c.ends[1-side]
	c.w.push(event{at: at, fn: func() {
		if to.p.dead || to.closed {
			return
		}
		if !c.w.reachable(e.p.node, to.p.node) { // kept and sent again until the cable is back
			e.last = max(e.last, c.w.now+int64(20*time.Millisecond))
			c.deliver(side, c.w.now+int64(20*time.Millisecond))
			return
		}
		m := e.queue[0]
		e.queue = e.queue[1:]
		to.p.soon(func() { c.take(to, m) })
	}})
}

func (c *conn) take(to *connEnd, m any) {
	if to.closed {
		return
	}
	if _, ok := m.(closing); ok {
		to.closed = true
		to.lost()
		return
	}
	to.get(m)
}

// close ends the connection from one side. The other hears of it after everything that was sent, or sooner.
func (c *conn) close(side int) {
	e := &c.ends[side]
	if e.closed {
		return
	}
	c.send(side, closing{})
	e.closed = true
}

// snap breaks the connection in the middle: what is sent from now on is lost, and each end hears of it at its own
// time. What was under way still arrives before that.
func (c *conn) snap() {
	for side := range c.ends {
		e := &c.ends[side]
		if e.closed || e.broken {
			continue
		}
		e.broken = true
	}
	for side := range c.ends {
		to := &c.ends[side]
		at := c.w.now + int64(c.w.between(time.Millisecond, 150*time.Millisecond))
		c.w.push(event{at: at, proc: to.p, fn: func() {
			if !to.closed {
				to.closed = true
				to.lost()
			}
		}})
	}
}
