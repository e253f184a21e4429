package primary

import (
	"fmt"
	"time"

	"hacluster/blockdev"
)

// With a spool, what members in async lack may be more than memory holds: the data of an operation that its client was told of
// goes to a file, and comes back when it is a member's turn. The operation itself stays here, in its place in every outbox, so
// the order, the lag and the maps know of no spool.
//
//	            Spool           Spooled               nobody's window holds it
//	told: kept -------> leaving -------> both ------------------------------> stowed
//	        ^              |               ^                                   |
//	        |    failed    |               |   Loaded               a window   | Load
//	        \--------------/               \------------- coming <-------------/
//	                                                        \-- failed --> gone: who lacks it is dropped
//
// The window of a member is the beginning of its outbox: what was sent and not acknowledged, and what goes next. It is in
// memory, or on its way there. Behind it data is spooled as soon as there is more of it than spoolFrom, or the volumes of the
// node run short of memory. Data in kept and leaving is bounded by Most: a spool that is full, fails or is slow has writers wait
// there, as the bound does, for the patience at most (heldFor).

// SpoolSizes are what of a volume with a spool is in memory.
type SpoolSizes struct {
	Window int64 // of each member, sent or next; one operation may always be
	From   int64 // told of and not spooled: from here on what comes is
	Most   int64 // likewise: what comes waits. 0: there is no spool
}

// The sizes of every volume. The window is enough for 100 ms of a line of 160 MB/s.
const (
	spoolWindow = 16 << 20
	spoolFrom   = 32 << 20
	spoolMost   = 64 << 20
)

// DefaultSpool has them.
var DefaultSpool = SpoolSizes{Window: spoolWindow, From: spoolFrom, Most: spoolMost}

// spoolRetry is the pause after which a spool that failed is tried again.
const spoolRetry = time.Second

// place says where the data of an operation is that its client was told of.
type place uint8

const (
	untold   place = iota // not told of, or there is no spool, or no data
	kept                  // in memory only
	leaving               // in memory, and on its way to the spool
	needless              // likewise, and nobody needs it any more
	both                  // in memory and in the spool
	stowed                // in the spool only
	coming                // in the spool, and on its way back
	gone                  // the spool could not give it back
)

// Spooling is how the spool stands.
type Spooling struct {
	Bytes  int64 // of data that is in the spool
	Memory int64 // of data that waits for it
	Failed bool  // it did not take the last that it was given
}

// Spooling tells it.
func (c *Core) Spooling() Spooling {
	return Spooling{Bytes: c.spooled, Memory: c.fresh, Failed: c.spoolAgain != 0}
}

// UseSpool has the Core use one from now on, until its end. It comes before SetBound.
func (c *Core) UseSpool(s SpoolSizes) { c.cfg.Spool = s }

func (c *Core) spools() bool { return c.cfg.Spool.Most > 0 }

// payload is what of the operation would go to the spool.
func payload(op *Op) int64 {
	if op.Kind != blockdev.OpWrite || op.IsCopy() || op.mend != nil || op.void {
		return 0
	}
	return op.Range.Len
}

// size is what an entry counts in a window; always the same, for what a mend or a copy is may change.
func size(op *Op) int64 {
	switch {
	case op.mend != nil || op.void:
		return earlyWeight
	case op.Kind == blockdev.OpWrite || op.IsCopy():
		return op.Range.Len + earlyWeight
	}
	return earlyWeight
}

// hasMemory reports whether the data of one more operation may be told of and not be spooled.
func (c *Core) hasMemory(op *Op) bool {
	return !c.spools() || c.fresh == 0 || c.fresh+payload(op) <= c.cfg.Spool.Most
}

// keep counts the data of an operation that was told of early, and has it spooled if there is much.
func (c *Core) keep(op *Op) {
	if !c.spools() || payload(op) == 0 {
		return
	}
	op.place = kept
	c.fresh += payload(op)
	if c.spoolAgain == 0 && (c.fresh > c.cfg.Spool.From || c.cfg.Room != nil && c.cfg.Room.Tight()) {
		c.spool(op)
	}
}

// spool has the data spooled of what is being told of, if an outbox holds it for later.
func (c *Core) spool(op *Op) {
	if op.claims < op.refs-1 { // inflight has one reference
		op.place = leaving
		c.act(Action{Kind: Spool, Op: op})
	}
}

// Spooled tells how the data of op came to the spool.
func (c *Core) Spooled(now Instant, op *Op, err error) {
	c.time(now)
	switch {
	case op.place == needless:
		op.place = kept
		c.endEarly(op)
		c.letGo()
		return
	case op.place != leaving:
		return
	case err != nil:
		op.place = kept
		c.spoolAgain = now.Add(spoolRetry)
		return
	}
	op.place = both
	c.fresh -= payload(op)
	c.spooled += payload(op)
	if c.unload(op); c.spoolAgain != 0 {
		c.spoolAgain = 0
		c.spoolRest()
	}
	c.letGo()
}

// Needless reports whether op is on its way to the spool for nobody.
func (c *Core) Needless(op *Op) bool { return op.place == needless }

// spoolRest has all data spooled that a failure left in memory, if it is still too much.
func (c *Core) spoolRest() {
	for _, n := range c.names {
		p := c.peers[n]
		for i := p.claimed; i < p.out.len(); i++ {
			if op := p.out.at(i).op; op.place == kept {
				op.place = leaving
				c.act(Action{Kind: Spool, Op: op})
			}
		}
	}
}

// retrySpool tries a spool again that failed.
func (c *Core) retrySpool(now Instant) {
	if c.spoolAgain == 0 || now < c.spoolAgain {
		return
	}
	c.spoolAgain = now.Add(spoolRetry)
	for _, n := range c.names { // one is enough to learn whether it works again
		p := c.peers[n]
		for i := p.claimed; i < p.out.len(); i++ {
			switch op := p.out.at(i).op; op.place {
			case leaving:
				return
			case kept:
				op.place = leaving
				c.act(Action{Kind: Spool, Op: op})
				return
			}
		}
	}
	c.spoolAgain = 0 // nothing waits for it: the next that comes tells
}

// unload gives the memory back of what is in the spool and in no window.
func (c *Core) unload(op *Op) {
	if op.place != both || op.claims > 0 {
		return
	}
	op.place = stowed
	c.letsGo(op)
	c.act(Action{Kind: Unload, Op: op})
}

// regain takes the memory for what comes back.
func (c *Core) regain(op *Op, must bool) bool {
	if c.cfg.Room != nil && !c.cfg.Room.Back(payload(op), must) {
		return false
	}
	op.fetched = true
	c.fetched += payload(op)
	return true
}

// letsGo gives the memory of the data back, to the room that it is of.
func (c *Core) letsGo(op *Op) {
	n := payload(op)
	if !op.fetched {
		op.early -= n
		c.giveBack(n)
		return
	}
	op.fetched = false
	c.fetched -= n
	if c.cfg.Room != nil {
		c.cfg.Room.Returned(n)
	}
}

// claim has what p is sent next come into its window. The target of a resync has none: it is bounded by the backlog, and would not keep
// up with clients by a window for each round trip.
func (c *Core) claim(p *peer) {
	for p.claimed < p.out.len() {
		op := p.out.at(p.claimed).op
		if c.spools() && p.required() && p.claimed > 0 && p.window+size(op) > c.cfg.Spool.Window {
			return
		}
		switch op.place {
		case stowed:
			if !c.regain(op, p.claimed == 0) {
				return // what is in the window goes first
			}
			op.place = coming
			c.act(Action{Kind: Load, Op: op})
		case gone:
			c.unfed(p, "the spool of this node lost what it is to be sent next")
			return
		}
		op.claims++
		p.claimed++
		p.window += size(op)
	}
}

// unclaim takes the first entry out of the window, which leaves the outbox.
func (c *Core) unclaim(p *peer, op *Op) {
	if p.claimed == 0 {
		return
	}
	p.claimed--
	p.window -= size(op)
	if op.claims--; op.refs > 1 {
		c.unload(op)
	}
}

// Loaded tells that the data of op is in memory again, or cannot be had: then who lacks it is dropped (R4), for what follows
// must not come before it (R13).
func (c *Core) Loaded(now Instant, op *Op, err error) {
	if op.place != coming {
		return
	}
	c.time(now)
	op.place = both
	if err != nil {
		op.place = gone
		c.letsGo(op)
	}
	c.unload(op)
	for _, n := range c.names {
		p := c.peers[n]
		if err != nil && p.claims(op) {
			c.unfed(p, fmt.Sprintf("what it is to be sent next cannot be read from the spool of this node: %v", err))
		}
		if p.connected {
			if p.sent == 0 {
				p.moved = max(p.moved, now) // that took time which no peer owes us
			}
			c.pump(p)
		}
	}
}

func (p *peer) claims(op *Op) bool {
	for i := range p.claimed {
		if p.out.at(i).op == op {
			return true
		}
	}
	return false
}

// unfed gives a peer up that cannot be sent what it lacks. A member waits for its drop; another one is resynced.
func (c *Core) unfed(p *peer, why string) {
	if p.required() {
		p.unfed = why
	}
	c.disconnect(c.now, p, why)
	c.proposeDrop(c.now, p, why)
}

// endSpool: nobody needs the data any more.
func (c *Core) endSpool(op *Op) {
	switch op.place {
	case kept:
		c.fresh -= payload(op)
	case both, stowed, coming, gone:
		c.spooled -= payload(op)
	}
	if op.fetched {
		c.letsGo(op)
	}
	op.place = untold
}

// spoolWaits says what the spool has to do with writers that wait; empty: nothing.
func (c *Core) spoolWaits() string {
	if !c.spools() || c.fresh*2 < c.cfg.Spool.From+c.cfg.Spool.Most {
		return ""
	}
	return fmt.Sprintf("; %d bytes of it are in memory, of at most %d, for the spool of %s does not take them (see its events)", c.fresh, c.cfg.Spool.Most, c.cfg.Self)
}
