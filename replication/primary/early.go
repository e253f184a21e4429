package primary

import "hacluster/blockdev"

// In semisync a write is acknowledged early: its client goes on, and its data stays here until every member has written it. What
// the frontends count ends with the acknowledgement, and a member whose disk holds up one write may take thousands behind it. So
// what is held so has a limit of its own, of each volume and of all volumes of a node (R28). At the limit writes wait for the
// members' disks, as in sync.

// Room is what the volumes of a node share of its memory. It may be used concurrently.
type Room interface {
	Take(bytes int64) bool // false: there is not so much
	Give(bytes int64)
	// Back is Take for what was given back while it was in the spool, out of a room of its own, which Returned gives back. must: it is the
	// one operation of a member that is always let in.
	Back(bytes int64, must bool) bool
	Returned(bytes int64)
	// Tight: more than half of it is in use.
	Tight() bool
}

// maxEarlyBytes is the limit of one volume.
const maxEarlyBytes = 64 << 20

// earlyWeight is what an operation counts beside its data.
const earlyWeight = 1024

// beginEarly reports whether op may be acknowledged before every member has written it; then it counts until nobody needs it.
func (c *Core) beginEarly(op *Op) bool {
	n := int64(earlyWeight)
	if op.Kind == blockdev.OpWrite {
		n += op.Range.Len
	}
	full := c.early+n > maxEarlyBytes && (c.inMemory || !c.lagging) // what is in async alone has the bound
	if full || !c.hasMemory(op) || c.cfg.Room != nil && !c.cfg.Room.Take(n) {
		return false
	}
	op.early = n
	c.early += n
	c.keep(op)
	return true
}

func (c *Core) endEarly(op *Op) {
	if op.place == leaving {
		op.place = needless // its data is in memory until the spool lets go of it
		return
	}
	c.endSpool(op)
	c.giveBack(op.early)
	op.early = 0
}

// End gives back what the volumes share: the Core decides nothing any more.
func (c *Core) End() {
	if c.cfg.Room != nil && c.fetched > 0 {
		c.cfg.Room.Returned(c.fetched)
	}
	c.giveBack(c.early)
	c.cfg.Room = nil
}

func (c *Core) giveBack(n int64) {
	c.early -= n
	if c.cfg.Room != nil && n > 0 {
		c.cfg.Room.Give(n)
	}
}
