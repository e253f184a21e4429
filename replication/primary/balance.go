package primary

import (
	"time"

	"hacluster/blockdev"
	"hacluster/heartbeat/cluster"
)

// Where the local disk is what reads wait for, a member may answer some of them: it has every acknowledged write, for in sync
// nothing is acknowledged before (R3). A read begins here, and so it may be given what the member holds at any later moment, as
// long as the member had everything when it was asked. What could be newer, older or neither, is read here instead:
//
//   - where a write is under way in the range, when it is asked or when it has answered: the member may have that write and another
//     replica not, so that the next read would see the older state again (R29); and a write that fails leaves anything
//
//   - of a member that is not settled, is being compared or copied to, or is in a weaker mode: it lacks something
//
//   - when the member left the set or its stream ended before the answer was here: what failed there is nobody's content any more
//
//     BeginRead --Ask--> member --TakeRead--> the answer is copied to the client --ReadThere--> Complete
//     \                 \-- too late, stream over, refused ----------\             \-- not to be believed any more
//     \--> local backing <------------------- Reread ----------------+---------------/
//
// Who answers is decided by what a read is expected to take: what a unit of work took of late, times the units that are under way
// there, this one included. A member is asked only where that is less than half as long, and the local disk is slow enough to be
// what clients wait for: a read that goes through the network costs more processor time than one that does not.
const (
	// MaxAsked is how many reads a member has under way for us, those included that nobody waits for any more.
	MaxAsked = 8
	// MaxAskedLen is the longest read that a member is asked for.
	MaxAskedLen = 256 << 10
	// slowRead: a local disk that is expected to answer sooner is left alone.
	slowRead = 500 * time.Microsecond
	// readWeight is what a read counts beside its bytes.
	readWeight = 16 << 10
	// measureEvery is how often a member of which nothing newer is known is asked for one read, to know how fast it is.
	measureEvery = time.Second
	// readPause is how long a member is not asked that could not read, or did not answer in time.
	readPause = 10 * time.Second
)

// source is one disk that can answer reads.
type source struct {
	load  int64   // weight of the reads under way
	nanos float64 // that one unit of weight takes, as measured of late; 0: nothing is known
	at    Instant // when that was measured last
}

func readLoad(r blockdev.Range) int64 { return r.Len + readWeight }

// begins counts a read and returns how much is under way with it.
func (s *source) begins(w int64) int64 {
	s.load += w
	return s.load
}

// ends counts it off. load is what was under way with it when it began.
func (s *source) ends(now, began Instant, w, load int64) {
	s.load -= w
	took := float64(now.Sub(began)) / float64(load)
	if s.nanos == 0 {
		s.nanos = took
	} else {
		s.nanos += (took - s.nanos) / 8
	}
	s.at = now
}

// expects is how long a read of so much weight would take.
func (s *source) expects(w int64) time.Duration { return time.Duration(s.nanos * float64(s.load+w)) }

// asking is one read at a member.
type asking struct {
	op   *Op // nil: nobody waits for it any more, and it was not answered yet
	num  uint64
	at   Instant
	w    int64
	load int64
}

// remote is what a peer reads for our clients.
type remote struct {
	source
	answers bool // its stream knows such questions
	foreign bool // it is a member by an admission that this primary knows nothing of
	asked   [MaxAsked]asking
	open    int // places of asked that are taken
	last    uint64
	pause   Instant // it is not asked before
}

// SetBalance has members asked for reads, or not any more.
func (c *Core) SetBalance(on bool) { c.balances = on }

// Balances reports whether members may be asked: then reads are to be told of at their beginning.
func (c *Core) Balances() bool { return c.balances }

// BeginRead decides who is to read op: a member, which an action Ask tells, or, false, the local backing.
func (c *Core) BeginRead(now Instant, op *Op) (asked bool) {
	w := readLoad(op.Range)
	if p := c.reader(now, op.Range, w); p != nil {
		c.askRead(now, p, op, w)
		return true
	}
	c.readsHere(now, op, w)
	return false
}

func (c *Core) readsHere(now Instant, op *Op, w int64) {
	op.readAt, op.readLoad = now, c.here.begins(w)
}

// IsCounted reports whether ReadHere is to be told of op: reads of members may have been turned off since it began.
func (op *Op) IsCounted() bool { return op.readLoad > 0 }

// ReadHere tells that a read that BeginRead or a Reread left to the local backing returned from there.
func (c *Core) ReadHere(now Instant, op *Op) {
	if op.readLoad > 0 {
		c.here.ends(now, op.readAt, readLoad(op.Range), op.readLoad)
		op.readLoad = 0
	}
}

// reader is the member that is to be asked for r; nil: none.
func (c *Core) reader(now Instant, r blockdev.Range, w int64) (best *peer) {
	if r.Len > MaxAskedLen || c.here.nanos == 0 || c.here.expects(w) < slowRead || c.quiet || c.diskErr != nil || c.flushErr != nil || c.Unsettled(r) || c.underWay(r) {
		return nil
	}
	least := c.here.expects(w) / 2
	for _, n := range c.names {
		p := c.peers[n]
		if !c.mayRead(now, p) {
			continue
		}
		if p.reads.nanos == 0 || now.Sub(p.reads.at) >= measureEvery {
			if p.reads.open == 0 {
				return p
			}
			if p.reads.nanos == 0 {
				continue
			}
		}
		if d := p.reads.expects(w); d < least {
			best, least = p, d
		}
	}
	return best
}

// mayRead reports whether a member has all that clients were told of, and answers.
func (c *Core) mayRead(now Instant, p *peer) bool {
	return p.reads.open < MaxAsked && c.holdsAll(p) && p.reads.answers && !p.leaving && now >= p.reads.pause &&
		(!p.owes() || c.silence(now, p) < c.cfg.DropAfter/4)
}

// holdsAll reports whether nothing that clients were told of can be missing or different at p.
func (c *Core) holdsAll(p *peer) bool {
	return p.member && p.connected && p.mode == cluster.ModeSync && p.ack == cluster.ModeSync && !p.reads.foreign && p.unfed == "" &&
		p.known && !p.mapping && !p.settling && p.copying == 0 && (p.plan == nil || p.plan.Done()) && p.m.Behind() == 0
}

// underWay reports whether a write or zeroing in r is not complete.
func (c *Core) underWay(r blockdev.Range) bool {
	for i := range c.inflight.len() {
		if w := c.inflight.at(i); w != nil && w.Kind != blockdev.OpFlush && w.Range.Overlaps(r) {
			return true
		}
	}
	return false
}

func (c *Core) askRead(now Instant, p *peer, op *Op, w int64) {
	p.reads.last++
	for i := range p.reads.asked {
		if a := &p.reads.asked[i]; a.num == 0 {
			*a = asking{op, p.reads.last, now, w, p.reads.begins(w)}
			break
		}
	}
	p.reads.open++
	op.readBy, op.readIn = p.node, p.stream
	c.act(Action{Kind: Ask, Node: p.node, Op: op, Num: p.reads.last})
}

// TakeRead takes the read for which node was asked on stream as number num: it has answered. The caller puts what it answered
// where the client reads it, and calls ReadThere. nil: nobody waits for that answer any more, and its content is to be left alone.
func (c *Core) TakeRead(now Instant, node string, stream, num uint64) *Op {
	p := c.peers[node]
	if stream != p.stream || !p.connected {
		return nil
	}
	p.pinged, p.since = false, now
	for i := range p.reads.asked {
		if a := &p.reads.asked[i]; a.num == num && num != 0 {
			op := a.op
			p.reads.ends(now, a.at, a.w, a.load)
			*a = asking{}
			p.reads.open--
			return op
		}
	}
	return nil
}

// ReadThere ends a read that TakeRead took: its client has the content, or err tells why not. It reports whether that is the
// answer: whatever cannot be believed any more is read here.
func (c *Core) ReadThere(now Instant, op *Op, err error) bool {
	p := c.peers[op.readBy]
	if err != nil {
		p.reads.pause = now.Add(readPause)
	}
	if err != nil || op.readIn != p.stream || !c.holdsAll(p) || c.Unsettled(op.Range) || c.underWay(op.Range) {
		c.readAgain(now, op)
		return false
	}
	c.told(op)
	return true
}

// readAgain reads here what a member was asked for.
func (c *Core) readAgain(now Instant, op *Op) {
	op.readBy = ""
	c.readsHere(now, op, readLoad(op.Range))
	c.act(Action{Kind: Reread, Op: op})
}

// readsLost: nothing that was asked in the stream that ended is answered any more.
func (c *Core) readsLost(now Instant, p *peer) {
	for i := range p.reads.asked {
		if op := p.reads.asked[i].op; op != nil {
			c.readAgain(now, op)
		}
		p.reads.asked[i] = asking{}
	}
	p.reads.open, p.reads.load, p.reads.foreign = 0, 0, false
}

// readsOverdue reads here what a member did not answer in time. Its place stays taken: it is still at work for us.
func (c *Core) readsOverdue(now Instant, p *peer) {
	if p.reads.open == 0 {
		return
	}
	for i := range p.reads.asked {
		if a := &p.reads.asked[i]; a.op != nil && now.Sub(a.at) >= c.cfg.DropAfter/4 {
			c.readAgain(now, a.op)
			a.op, p.reads.pause = nil, now.Add(readPause)
		}
	}
}

// Asked is how many reads node has under way for clients, those included that nobody waits for any more.
func (c *Core) Asked(node string) int { return c.peers[node].reads.open }
