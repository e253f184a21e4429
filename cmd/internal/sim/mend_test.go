package sim

import (
	"hacluster/blockdev"
	"hacluster/replication/primary"
)

// Reads of the primary's own disk that fail: the block comes from a member and is written anew (R23; primary/mend.go).

type (
	// fetchMsg asks a member for what a mend is to write, at its place in the sequence.
	fetchMsg struct {
		num      uint64
		from, to int
	}
	fetchOK struct {
		fetchMsg
		values []value // nil: it cannot tell
	}
)

// garbage is what the memory of a failed read shows: nobody ever wrote it.
const garbage value = 0xffffffff

// unread is what of a client's read the disk cannot give; the rest of it was read.
func (d *disk) unread(o *diskOp) {
	for b := o.from; b < o.to; b++ {
		if !d.bad[b] {
			continue
		}
		d.w.badDisk, o.err = true, errDisk
		o.values[b-o.from] = garbage
		o.bad = append(o.bad, b)
	}
	if o.err != nil {
		d.w.counts.Unread++
		d.w.tracef("disk %s: blocks %v cannot be read", d.node.name, o.bad)
	}
}

// read answers a client's read from the local disk, and what that cannot give from a member.
func (s *session) read(o *op) {
	q := o.req
	s.r.n.disk.start(s.r.p, &diskOp{kind: blockdev.OpRead, from: q.from, to: q.to, client: true}, func(d *diskOp) {
		q.values = d.values
		switch {
		case s.ended:
			return
		case d.err == nil:
			s.core.ReadDone(&o.Op, nil)
		default:
			s.core.ReadFailed(s.r.p.now(), &o.Op, d.err, s.mends(q, d.bad))
		}
		s.run()
	})
}

func (s *session) mends(q *request, bad []int) (all []*primary.Op) {
	for _, b := range bad {
		m := s.newOp()
		m.Range, m.reader = rangeOf(b, b+1), q
		all = append(all, &m.Op)
	}
	return all
}

// fetch reads for the primary. It counts only if the replica has all that a member has when it was read (R2).
func (in *incoming) fetch(m fetchMsg) {
	r := in.r
	r.n.disk.start(r.p, &diskOp{kind: blockdev.OpRead, from: m.from, to: m.to}, func(o *diskOp) {
		if in.dead {
			return
		}
		answer := fetchOK{fetchMsg: m}
		if r.recv.MayRead(in.hello.Stream) && !in.failed {
			answer.values = o.values
		}
		in.send(answer)
	})
}

// fetched gives a mend its content, and the read that waits for it its part of that.
func (l *peerLink) fetched(m fetchOK) {
	s, now := l.s, l.s.r.p.now()
	waiting := s.core.Fetching(l.peer.name, l.stream, m.num)
	switch {
	case waiting == nil: // too late
	case m.values == nil:
		s.core.Fetched(now, l.peer.name, waiting, errDisk)
	default:
		o := waiting.Owner.(*op)
		o.values = m.values
		for b := m.from; b < m.to; b++ {
			o.reader.values[b-o.reader.from] = m.values[b-m.from]
		}
		s.w.counts.Mended++
		s.core.Fetched(now, l.peer.name, waiting, nil)
	}
}

// voidDone is the local part of a mend that nobody could fill: nothing is written.
func (s *session) voidDone(o *op) {
	if !s.ended {
		s.core.LocalDone(s.r.p.now(), &o.Op, nil)
		s.run()
	}
}
