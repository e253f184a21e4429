package sim

import (
	"time"

	"hacluster/blockdev"
	"hacluster/replication/primary"
	"hacluster/replication/standby"
)

// peerLink keeps a stream to the other replica.
type peerLink struct {
	s      *session
	peer   *node
	conn   *conn
	stream uint64
	up     bool
	opened int64
}

// dialIn opens the next stream after a pause.
func (l *peerLink) dialIn(d time.Duration) {
	l.s.r.p.after(d, l.dial)
}

func (l *peerLink) dial() {
	s, w := l.s, l.s.w
	if s.ended || l.conn != nil {
		return
	}
	from, to := s.r.p, l.peer.proc
	if !w.reachable(from.node, l.peer) || !w.reachable(l.peer, from.node) || to == nil || to.pausedUntil > w.now {
		l.dialIn(w.between(30*time.Millisecond, 100*time.Millisecond))
		return
	}
	l.stream = s.core.NextStream(l.peer.name)
	c := &conn{w: w, id: int(w.seq)}
	c.ends[0].p, c.ends[1].p = from, to
	l.conn, l.up, l.opened = c, false, w.now
	c.ends[0].get = func(m any) { l.get(c, m) }
	c.ends[0].lost = func() { l.lost(c) }
	to.replica.incoming(c)
	c.send(0, helloMsg{standby.Hello{Epoch: s.epoch, Primary: s.r.n.name, Process: s.r.p.number, Stream: l.stream}})
	w.conns = append(w.conns, c)
	from.after(helloWait+200*time.Millisecond, func() {
		if l.conn == c && !l.up {
			l.close()
		}
	})
}

func (l *peerLink) send(m any) {
	if l.conn != nil && l.up {
		l.conn.send(0, m)
	}
}

// close ends the stream from our side; the Core hears of it like of any other end.
func (l *peerLink) close() {
	if c := l.conn; c != nil {
		c.close(0)
		l.s.r.p.after(0, func() { l.lost(c) })
	}
}

func (l *peerLink) lost(c *conn) {
	if l.conn != c {
		return
	}
	s := l.s
	l.conn, l.up = nil, false
	if s.ended {
		return
	}
	s.core.Down(s.r.p.now(), l.peer.name, l.stream)
	s.run()
	l.dialIn(s.w.between(5*time.Millisecond, 60*time.Millisecond))
}

func (l *peerLink) get(c *conn, m any) {
	s := l.s
	if l.conn != c || s.ended {
		return
	}
	now, name := s.r.p.now(), l.peer.name
	switch m := m.(type) {
	case greetMsg:
		if m.refused != 0 {
			l.close()
			return
		}
		l.up = true
		s.core.Up(now, name, l.stream, m.Greeting)
	case ackMsg:
		s.core.Acked(now, name, l.stream, m.num)
	case pongMsg:
		s.core.Alive(now, name, l.stream)
	case refuseMsg:
		s.core.Refused(now, name, l.stream, false, m.text)
	case stoppingMsg:
		s.core.Leaving(now, name, l.stream)
	case digestOK:
		l.compared(m)
	}
	s.run()
	s.pump()
}

// compare has the target's digests of the next chunks fetched.
func (l *peerLink) compare() {
	for range 1 + l.s.w.rng.IntN(2) {
		chunk, ok := l.s.core.TakeChunk(l.s.r.p.now(), l.peer.name, l.stream)
		if !ok {
			return
		}
		l.send(digestMsg{chunk})
	}
}

// compared reads our own part and has copied what differs.
func (l *peerLink) compared(m digestOK) {
	s, stream := l.s, l.stream
	from, to := blocksOf(m.chunk)
	s.r.n.disk.start(s.r.p, &diskOp{kind: blockdev.OpRead, from: from, to: to}, func(d *diskOp) {
		if s.ended {
			return
		}
		all := s.core.CopyAll(l.peer.name)
		differ := func(b int) bool { return all || d.values[b-from] != m.values[b-from] }
		var copies []*primary.Op
		for b := from; b < to; b++ {
			if !differ(b) {
				continue
			}
			end := b + 1
			for end < to && differ(end) {
				end++
			}
			o := s.newOp()
			o.Range = rangeOf(b, end)
			copies = append(copies, &o.Op)
			s.w.counts.Copied += end - b
			b = end - 1
		}
		s.core.Compared(s.r.p.now(), l.peer.name, stream, m.chunk, copies)
		s.run()
	})
}
