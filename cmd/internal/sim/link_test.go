package sim

import (
	"slices"
	"time"

	"hacluster/blockdev"
	"hacluster/replication/primary"
	"hacluster/replication/standby"
)

// peerLink keeps a stream to one of the other replicas.
type peerLink struct {
	s      *session
	peer   *node
	conn   *conn
	stream uint64
	up     bool
	off    bool // the node holds no replica any more
	opened int64
	reads  []*chunkRead // chunks being compared on the stream that is up
}

// dialIn opens the next stream after a pause.
func (l *peerLink) dialIn(d time.Duration) {
	l.s.r.p.after(d, l.dial)
}

func (l *peerLink) dial() {
	s, w := l.s, l.s.w
	if s.ended || l.off || l.conn != nil {
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
	l.conn, l.up, l.reads = nil, false, nil
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
	case gotMsg:
		s.core.Received(now, name, l.stream, m.num)
	case pongMsg:
		s.core.Alive(now, name, l.stream)
	case refuseMsg:
		s.core.Refused(now, name, l.stream, false, m.text)
	case stoppingMsg:
		s.core.Leaving(now, name, l.stream)
	case digestOK:
		l.answered(m)
	case fetchOK:
		l.fetched(m)
	}
	s.run()
	s.pump()
}

// compare has the next chunks compared: the target makes its digests while our own part is read.
func (l *peerLink) compare() {
	s, stream := l.s, l.stream
	for range 1 + s.w.rng.IntN(2) {
		chunk, ok := s.core.TakeChunk(s.r.p.now(), l.peer.name, stream, s.w.rng.Int64N(3*chunkSize))
		if !ok {
			return
		}
		s.w.oracle.copies(s, l.peer.name)
		l.send(digestMsg{chunk})
		from, to := blocksOf(chunk)
		read := &chunkRead{stream: stream, chunk: chunk}
		l.reads = append(l.reads, read)
		s.r.n.disk.start(s.r.p, &diskOp{kind: blockdev.OpRead, from: from, to: to}, func(d *diskOp) {
			read.mine = d.values
			l.compared(read)
		})
	}
}

// chunkRead is a chunk that is being compared on a stream.
type chunkRead struct {
	stream       uint64
	chunk        blockdev.Range
	mine, theirs []value
}

// answered takes the target's part of the oldest such chunk that lacks it.
func (l *peerLink) answered(m digestOK) {
	for _, read := range l.reads {
		if read.stream == l.stream && read.chunk == m.chunk && read.theirs == nil {
			read.theirs = m.values
			l.compared(read)
			return
		}
	}
}

// compared has copied what differs, when both parts are there: mostly as it was read, as long as the Core lets that count.
func (l *peerLink) compared(read *chunkRead) {
	s := l.s
	if s.ended || read.mine == nil || read.theirs == nil {
		return
	}
	l.reads = slices.DeleteFunc(l.reads, func(r *chunkRead) bool { return r == read })
	from, to := blocksOf(read.chunk)
	all := s.core.CopyAll(l.peer.name)
	differ := func(b int) bool { return all || read.mine[b-from] != read.theirs[b-from] }
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
		if s.w.rng.IntN(8) > 0 {
			o.Kept, o.values = true, read.mine[b-from:end-from]
		}
		copies = append(copies, &o.Op)
		s.w.counts.Copied += end - b
		b = end - 1
	}
	s.core.Compared(s.r.p.now(), l.peer.name, read.stream, read.chunk, copies)
	s.run()
}
