package primary

import (
	"slices"

	"hacluster/blockdev"
)

// A block that the primary cannot read is read at a member, and written here anew with what the member has (a mend). A mend
// is admitted as a write and has its place among all others, here and in the outbox of every peer; what it writes is found
// out when everything before its place is on the member that is asked, and nothing behind it has left: so it is the content
// that the block has at that place, on every member (R29, R33). It is marked, sent and made durable as any write; that the
// local disk does not take it is a write error (R23).
//
//	ReadFailed --admitted, sent nowhere--> Fetch --Fetched--> a write as any other
//	                                         \--nobody can--> void: a flush in its place; the read has failed
//
// It has no limit of time of its own. A member that has not come to its place yet is waited for as long as it makes progress,
// and the one that is asked owes the answer as it owes an acknowledgement: it is dropped when it is silent (R4). With the last
// one gone this primary is alone, and tells its client what it could not read: its disk has not failed for that.
type mending struct {
	turn   bool     // no earlier operation that it overlaps is left on the local backing
	filled bool     // its content is known
	asked  string   // the member that was asked and has not answered; empty: none
	given  []string // members that were given time to answer: once each, however often the question is repeated
	cannot []string // members that cannot read it either
	read   *Op      // that is answered with it; it is not complete before
	err    error    // of the read here
}

// IsVoid reports whether the operation changes nothing: its content could not be found out.
func (o *Op) IsVoid() bool { return o.void }

// waiting reports whether what the operation writes is not known yet.
func (o *Op) waiting() bool { return o.mend != nil && !o.mend.filled }

// turn is called when the local backing has nothing left that op overlaps.
func (c *Core) turn(op *Op) {
	if op.mend != nil {
		op.mend.turn = true
	}
	if !op.waiting() {
		c.act(Action{Kind: StartLocal, Op: op})
	}
}

// ReadFailed tells that parts of a read failed on the local backing; the rest of it was read. Each mend is a new Op with the
// Range of one such part, Owner set. Members are asked for them; when there is none it is ReadDone with err. So it is for a
// block that is not settled: what a member holds of it may be another state than a read that is held has seen here (R29),
// and the next primary settles it with what it can read.
func (c *Core) ReadFailed(now Instant, op *Op, err error, mends []*Op) {
	unsettled := slices.ContainsFunc(mends, func(m *Op) bool { return c.Unsettled(m.Range) })
	if c.diskErr != nil || c.flushErr != nil || c.members() == 0 || unsettled {
		for _, m := range mends {
			c.act(Action{Kind: Release, Op: m})
		}
		c.ReadDone(op, err)
		return
	}
	for _, m := range mends {
		m.Kind, m.mend = blockdev.OpWrite, &mending{read: op, err: err}
		c.mends = append(c.mends, m)
		c.Admit(now, m)
	}
	c.ReadDone(op, nil) // complete when every mend is, for it overlaps them; not before it is settled, as any
	c.fetch(now)
}

// fetch asks a member for what each mend is to write. The oldest entry of its outbox that it has not acknowledged is the
// mend: it has all before, and nothing behind was sent.
func (c *Core) fetch(now Instant) {
	for _, op := range c.mends {
		if op.mend.asked != "" {
			continue
		}
		for _, n := range c.names {
			p := c.peers[n]
			if p.member && p.connected && p.out.len() > 0 && p.out.at(0).op == op && !slices.Contains(op.mend.cannot, n) {
				op.mend.asked = n
				if !slices.Contains(op.mend.given, n) {
					op.mend.given, p.moved = append(op.mend.given, n), now
				}
				c.act(Action{Kind: Fetch, Node: n, Op: op, Num: p.acked + 1})
				break
			}
		}
	}
}

// asked reports whether it was asked for what a mend is to write, and has not answered.
func (p *peer) asked() bool {
	if p.out.len() == 0 {
		return false
	}
	op := p.out.at(0).op
	return op.waiting() && op.mend.asked == p.node
}

// Fetching is the mend for which node was asked on this stream as number num; nil: it is waited for no more.
func (c *Core) Fetching(node string, stream, num uint64) *Op {
	p := c.peers[node]
	if stream != p.stream || !p.connected || num != p.acked+1 || !p.asked() {
		return nil
	}
	return p.out.at(0).op
}

// Fetched answers Fetch: op, which Fetching named, has its content, or node cannot read it.
func (c *Core) Fetched(now Instant, node string, op *Op, err error) {
	m := op.mend
	m.asked = ""
	if err != nil {
		m.cannot = append(m.cannot, node)
		c.mendLeft(now)
		return
	}
	m.filled = true
	c.unlist(op)
	if m.turn {
		c.act(Action{Kind: StartLocal, Op: op})
	}
	c.unhold(now, op)
}

// mendLeft gives up what nobody can answer any more, and asks for the rest.
func (c *Core) mendLeft(now Instant) {
	for _, op := range slices.Clone(c.mends) {
		able := slices.ContainsFunc(c.names, func(n string) bool { return c.peers[n].member && !slices.Contains(op.mend.cannot, n) })
		if !able {
			c.voidMend(now, op)
		}
	}
	c.fetch(now)
}

// voidMend leaves a mend's place empty. The reads that wait for it have failed: as long as somebody else has the data they
// are left to the next primary, whose disk may do better.
func (c *Core) voidMend(now Instant, op *Op) {
	m := op.mend
	c.unlist(op)
	for _, n := range c.names {
		p := c.peers[n]
		for i := range p.out.len() {
			if p.out.at(i).op == op {
				p.m.Dropped(op.id)
				p.bytes -= weight(op) - entryWeight
			}
		}
	}
	op.mend, op.void = nil, true
	m.read.Err = m.err
	if c.required() > 0 {
		c.handOn(m.err)
	}
	if m.turn {
		c.act(Action{Kind: StartLocal, Op: op})
	}
	c.unhold(now, op)
}

// unhold sends what a mend held up. That took time which no peer owes us.
func (c *Core) unhold(now Instant, op *Op) {
	for _, n := range c.names {
		p := c.peers[n]
		if p.out.len() > 0 && p.out.at(0).op == op {
			p.moved = now
		}
		c.pump(p)
	}
}

func (c *Core) unlist(op *Op) {
	c.mends = slices.DeleteFunc(c.mends, func(m *Op) bool { return m == op })
}

// unask: the answer of node will not come in a stream that has ended.
func (c *Core) unask(now Instant, node string) {
	for _, op := range c.mends {
		if op.mend.asked == node {
			op.mend.asked = ""
		}
	}
	c.fetch(now)
}
