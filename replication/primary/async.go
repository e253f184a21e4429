package primary

import (
	"fmt"
	"time"

	"hacluster/heartbeat/cluster"
)

// In async an operation is acknowledged when this replica has carried it out and no required peer comes to lack more than the
// bound by it (R13). A flush or durable write waits for this replica's disk only, and travels in the stream. One that the bound
// holds keeps its place in inflight, late, and is looked at again with each acknowledgement, record and tick, in the order of
// admission: the first that has to wait has all behind it wait, so that a large one is not overtaken for ever.
//
// What was acknowledged and is on its way keeps its memory, and counts as in semisync (early.go): of a volume it is no more
// than the bound and maxAhead, of a node what the volumes share.
//
// A read waits for operations that are not complete, not for what a member lacks: that may be lost with the bound, and a
// read of it with it (R29 is about what a member is to have).
//
// The moment of an acknowledgement is the one at which it is decided; what is between that and the client is the gate's (R11).

// isAsync reports whether async is in force towards p: it may lack what clients were told of, also when no more is told so (lags).
func (p *peer) isAsync() bool { return p.mode == cluster.ModeAsync }

// lags reports whether operations are acknowledged that p lacks (R13).
func (p *peer) lags() bool { return p.ack == cluster.ModeAsync }

// SetBound changes what may be lost in async. A smaller one counts for what is acknowledged from now on.
func (c *Core) SetBound(now Instant, b Bound) {
	c.time(now)
	c.setBound(b)
	c.sweep()
}

// Timed reports whether LocalDone is to be told the time also of what succeeded.
func (c *Core) Timed() bool { return c.async }

// time lets the Core know how late it is. Two that tell at once may come in either order.
func (c *Core) time(now Instant) { c.now = max(c.now, now) }

// ahead acknowledges what the local backing has carried out before every required peer has written it, or has it wait.
func (c *Core) ahead(op *Op) {
	if c.late == 0 && c.mayLag(op) {
		c.finish(op)
		return
	}
	if op.lateSince == 0 && c.diskErr == nil && op != c.change.barrier { // every peer is to have that, also one that may lag: it holds up nobody
		op.lateSince = max(c.now, 1)
		if c.lateFrom = min(c.lateFrom, op.seq); c.late == 0 {
			c.lateFrom = op.seq
		}
		c.late++
	}
}

// LetGo looks again at what the bound has held, after Resume.
func (c *Core) LetGo(now Instant) {
	c.time(now)
	c.letGo()
}

// letGo looks again at what the bound has held.
func (c *Core) letGo() {
	for op := c.firstLate(); op != nil && (c.covered(op) || c.mayLag(op)); op = c.firstLate() {
		if c.finish(op); op.lateSince != 0 {
			return // no memory is left for it
		}
	}
}

// firstLate is the operation that has to go first of those that the bound holds; nil: there is none. Thousands before it may be
// complete, behind one that is slow on the local backing.
func (c *Core) firstLate() *Op {
	for c.lateFrom = max(c.lateFrom, c.first()); c.late > 0 && c.lateFrom <= c.lastSeq; c.lateFrom++ {
		if op := c.inflight.at(int(c.lateFrom - c.first())); op != nil && op.lateSince != 0 {
			return op
		}
	}
	return nil
}

// mayLag reports whether op may be acknowledged although required peers lack it; then it counts.
func (c *Core) mayLag(op *Op) bool {
	if c.quiet || c.giveUpAt != 0 || c.diskErr != nil || !c.lagging || !c.firm(op) || op == c.change.barrier {
		return false
	}
	for _, p := range c.peers {
		if p.lags() && p.lacks(op) && !p.lag.allows(c.now, op, c.bound) {
			return false
		}
	}
	return c.beginEarly(op)
}

// lacks reports whether op, if it is acknowledged now, counts to the lag of p.
func (p *peer) lacks(op *Op) bool { return p.required() && op.seq > max(p.seen, p.lagFrom) }

// isLacking reports whether a required peer has not written all that was admitted.
func (c *Core) isLacking() bool {
	for _, p := range c.peers {
		if p.isAsync() && p.required() && p.out.len() > p.copying {
			return true
		}
	}
	return false
}

// tellAhead counts what a client is told of before every required peer has it.
func (c *Core) tellAhead(op *Op) {
	for _, p := range c.peers {
		if p.isAsync() && p.lacks(op) {
			p.lag.tell(c.now, op, c.bound)
		}
	}
}

// hasNow counts off an operation that p has written.
func (c *Core) hasNow(p *peer, op *Op) {
	if op.complete && op.seq > p.lagFrom && p.isAsync() {
		p.lag.has(c.now, op, c.bound)
	}
}

// lagBegins counts from here on what p lacks, which has just become required: of what was acknowledged before, it has all when
// its admission is proposed (catch).
func (c *Core) lagBegins(p *peer) {
	p.lag.clear()
	p.lagFrom = c.lastSeq
}

// countLag begins to count when the mode towards p has become async: what clients were told of before counts from now on.
func (c *Core) countLag(p *peer) {
	p.lag.clear()
	if !p.isAsync() || !p.required() {
		return
	}
	p.lagFrom = 0
	for i := range p.out.len() {
		if op := p.out.at(i).op; op.seq != 0 && op.complete {
			p.lag.tell(c.now, op, c.bound)
		}
	}
}

// GivesUp tells that the role is to be given up for a failed disk: from here on nothing is acknowledged that a member lacks. If it is
// for reads alone, that ends with what they wait for (tellUnread).
func (c *Core) GivesUp(now Instant, forReads bool) {
	if c.giveUpAt == 0 {
		c.giveUpAt, c.forReads = max(now, 1), forReads
	}
	c.forReads = c.forReads && forReads
}

// SendsOn reports whether a member lacks what clients were told of, and has acknowledged something within the patience since GivesUp: a
// role that is given up waits for that, and no longer; and not at all where a member that lacks nothing can take it.
func (c *Core) SendsOn(now Instant) bool {
	for _, p := range c.peers {
		if !p.lags() && c.vol.IsMember(p.node) && p.connected && c.silence(now, p) < c.cfg.DropAfter {
			return false
		}
	}
	for _, p := range c.peers {
		if p.isAsync() && p.member && p.lag.told.len() > 0 && now.Sub(max(p.moved, c.giveUpAt)) < max(c.bound.Patience, c.cfg.DropAfter) {
			return true
		}
	}
	return false
}

// maxSilent is how long a member may be silent beside the patience, however long it may lack something: a standby that is gone is to
// leave the set.
const maxSilent = 5 * time.Minute

// longest is how long a member in async may be silent: the bound in time, and the patience. Silence
// alone is nothing that writers feel. In the other modes they wait for it, and it is DropAfter.
func (c *Core) longest(p *peer) time.Duration {
	if !p.lags() {
		return c.cfg.DropAfter
	}
	return max(min(c.bound.Time, maxSilent)+c.bound.Patience, c.cfg.DropAfter)
}

// deadAfter is when a connection is given up on which nothing moves: in async early enough for another one before the patience
// is over, and not because one large operation takes its time on a slow line.
func (c *Core) deadAfter(p *peer) time.Duration {
	if !p.lags() {
		return 4 * c.cfg.DropAfter
	}
	return max(4*c.cfg.DropAfter, c.bound.Patience/2)
}

// heldTooLong is why p is to be dropped in async; empty: it is not.
func (c *Core) heldTooLong(now Instant, p *peer) string {
	held, behind := c.heldFor(now, p), p.lag.age(now)
	switch {
	case held < max(c.bound.Patience, c.cfg.DropAfter) && behind < max(c.bound.Time+c.bound.Patience, c.cfg.DropAfter):
		return ""
	case behind > held:
		return fmt.Sprintf("what clients were told of %v ago is not written there yet: it lacks %d bytes, with the bound at %d bytes or %v, and patience of %v",
			behind.Round(time.Millisecond), p.lag.bytes, c.bound.Bytes, c.bound.Time, c.bound.Patience)
	}
	return fmt.Sprintf("writers waited %v for it: it lacks %d bytes that clients were told of, the oldest for %v; the bound is %d bytes or %v, patience %v%s",
		held.Round(time.Millisecond), p.lag.bytes, behind.Round(time.Millisecond), c.bound.Bytes, c.bound.Time, c.bound.Patience, c.spoolWaits())
}

// heldFor is for how long the operation that has to go first has been held while p lacks it.
func (c *Core) heldFor(now Instant, p *peer) time.Duration {
	if c.diskErr != nil || c.quiet || c.giveUpAt != 0 || !p.lags() {
		return 0 // that holds it
	}
	if op := c.firstLate(); op != nil && p.lacks(op) {
		return now.Sub(op.lateSince)
	}
	return 0
}

// lagOf is what status shows of it.
func (c *Core) lagOf(p *peer, g *Progress) {
	if !p.isAsync() || !p.required() {
		return
	}
	g.Async = true
	g.LagBytes, g.Filled, g.Held = p.lag.bytes, p.lag.fill(c.now, c.bound), c.heldFor(c.now, p)
	if p.lag.told.len() > 0 {
		g.LagSince = p.lag.told.at(0).at
	}
	g.Slowed, g.AtBound = g.Filled >= slowedFrom, g.Filled >= 1000 || c.late > 0
}
