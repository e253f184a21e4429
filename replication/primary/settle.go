package primary

import (
	"fmt"
	"slices"

	"hacluster/blockdev"
)

// Settling (R29). When a tenure begins, a member may lack writes that were in flight when the last one ended, or hold such
// as this replica lacks. Whoever was told of such a block would see it change at the next failover. So each member is
// unsettled from the beginning of the tenure: all of the volume until its map is known, then the blocks that are behind,
// until nothing is. A read that ends in an unsettled block is held, the block's chunk is compared before all others, and
// what differs is copied: every member gets this replica's content, which is why what was read stays true. A member that
// leaves the set is no longer asked.
//
// A write needs no settled block. It is complete when every member has it, so what it wrote is the same everywhere, and a
// block that it wrote as a whole is settled by that. Of a block that it wrote in part the rest stays behind: nobody was
// told of it, and a read settles it.
//
// What is copied to settle is durable there before it counts. After a power loss of all, a member may hold, durably, a newer state of
// a block than this primary, who began with an older one and has told of it. Were the older one in that member's memory only, the
// next power loss would bring the newer back there, and clients would see a write that was lost come again.
//
// Who is admitted in this tenure got all of this replica's content; a member that was restarted since goes on where it
// was (R25). Neither is unsettled.

// beginSettling makes every member unsettled.
func (c *Core) beginSettling() {
	for _, p := range c.peers {
		if p.member {
			p.settling, p.unsettledWas = true, -1
			c.settling++
		}
	}
}

// Unsettled reports whether a member may lack a block of r, or hold it in another state, since before this tenure.
func (c *Core) Unsettled(r blockdev.Range) bool {
	if c.settling == 0 {
		return false
	}
	for _, p := range c.peers {
		if p.unsettled(r) {
			return true
		}
	}
	return false
}

func (p *peer) unsettled(r blockdev.Range) bool {
	return p.settling && (!p.known || p.m.Unsettled(r))
}

// hold keeps a finished read until its blocks are settled, and has them looked at first.
func (c *Core) hold(op *Op) {
	c.held = append(c.held, op)
	for _, n := range c.names {
		if p := c.peers[n]; p.unsettled(op.Range) && p.plan != nil && p.connected && !p.mapping {
			p.lookFirst(op.Range)
			c.act(Action{Kind: Compare, Node: n})
		}
	}
}

// lookFirst has r looked at before all others, also what was set aside: it has just been read here.
func (p *peer) lookFirst(r blockdev.Range) {
	p.plan.RetryIn(r)
	p.plan.Prefer(r)
}

// prefer has all looked at first that reads wait for, after a new plan was made or a stream broke.
func (c *Core) prefer(p *peer) {
	if !p.settling || p.plan == nil {
		return
	}
	for _, op := range c.held {
		if p.m.Unsettled(op.Range) {
			p.lookFirst(op.Range)
		}
	}
}

// settle lets go of the reads whose blocks are settled by now. It is called after whatever may have settled one, and
// looks at them only when something was.
func (c *Core) settle() {
	if c.settling == 0 {
		return
	}
	changed := false
	for _, n := range c.names {
		p := c.peers[n]
		if !p.settling {
			continue
		}
		left := int64(-1)
		if p.known {
			left = p.m.Behind()
		}
		if left == 0 || !p.member {
			p.settling = false
			c.settling--
		}
		changed = changed || left != p.unsettledWas || !p.settling
		p.unsettledWas = left
	}
	if !changed {
		return
	}
	c.heldSince = 0
	left := c.held[:0]
	for _, op := range c.held {
		if c.Unsettled(op.Range) {
			left = append(left, op)
		} else {
			c.afterWrites(op)
		}
	}
	clear(c.held[len(left):])
	c.held = left
}

// overdue drops members for which reads are held although they answer, when nothing became settled for a while (R4, R26).
// What is being read here, or cannot be, is not their fault: a disk of ours that hangs is seen by its deadline, one that
// fails in Unreadable, and then the reads are the next primary's to answer.
func (c *Core) overdue(now Instant) {
	if len(c.held) == 0 || c.diskErr != nil {
		c.heldSince = 0
		return
	}
	if c.heldSince == 0 {
		c.heldSince = now
	}
	for _, n := range c.names {
		p := c.peers[n]
		if p.readHere() {
			p.answered = now
		}
		waited := now.Sub(max(c.heldSince, p.answered))
		if waited >= max(settlePatience*c.cfg.DropAfter, c.longest(p)) && now.Sub(p.proposed) >= c.cfg.Retry && p.stuck(c.held) {
			c.proposeDrop(now, p, "reads wait for blocks that may differ there, and it lets nothing be compared")
		}
	}
}

// readHere reports whether the next step of settling is a read of our own disk.
func (p *peer) readHere() bool {
	if !p.connected {
		return false
	}
	if p.reading > 0 {
		return true
	}
	return p.sent < p.out.len() && p.out.at(p.sent).op.IsCopy() && !p.out.at(p.sent).op.local
}

// settlePatience is for how many DropAfter nothing may become settled while reads wait for it.
const settlePatience = 4

func (p *peer) stuck(held []*Op) bool {
	for _, op := range held {
		if p.unsettled(op.Range) {
			return true
		}
	}
	return false
}

// Awaited is what of the chunk reads wait for: it is to be read here whatever else in it cannot be.
func (c *Core) Awaited(node string, chunk blockdev.Range) (all []blockdev.Range) {
	p := c.peers[node]
	for _, op := range c.held {
		if op.Range.Overlaps(chunk) && p.unsettled(op.Range) {
			all = append(all, op.Range)
		}
	}
	return all
}

// unsettledIn reports whether a read of r waits for one of the ranges.
func (p *peer) unsettledIn(ranges []blockdev.Range, r blockdev.Range) bool {
	return slices.ContainsFunc(ranges, func(b blockdev.Range) bool {
		off := max(b.Off, r.Off)
		return b.Overlaps(r) && p.unsettled(blockdev.Range{Off: off, Len: min(b.End(), r.End()) - off})
	})
}

// giveUp hands the role on when a read waits for what cannot be read here: it cannot be settled by this replica, and the
// others have it (R23). It is no reason to drop them.
func (c *Core) giveUp(p *peer, unreadable []blockdev.Range, why error) {
	for _, op := range c.held {
		if c.diskErr == nil && p.unsettledIn(unreadable, op.Range) {
			c.handOn(fmt.Errorf("a read of %v waits for blocks that cannot be compared with %s: %w", op.Range, p.node, why))
		}
	}
}

// UnsettledBytes is how much of the volume is not settled yet, of the member of which it is most.
func (c *Core) UnsettledBytes() (n int64) {
	for _, p := range c.peers {
		switch {
		case !p.settling:
		case !p.known:
			n = c.vol.Size
		default:
			n = max(n, min(p.m.Behind(), c.vol.Size))
		}
	}
	return n
}
