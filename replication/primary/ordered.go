package primary

// An operator's orders about a resync stand in the volume's record, so that they outlive every primary: nothing is copied
// to a replica for a while (paused), or a replica is to be compared as a whole (full).

const wholeAsked = "an operator asked to have all of it compared"

// beginAnew takes a replica that is no member back to the beginning of a resync. What was proposed for it is void: the
// order raised the version (R7).
func (c *Core) beginAnew(now Instant, p *peer) {
	p.admitting = 0
	if p.connected {
		c.disconnect(now, p, wholeAsked)
		return
	}
	p.catching = false
	c.backToPlan(p)
}

// sendAway proposes to drop a member that is to leave the volume, or to be compared as a whole, again until it is decided: the set is the
// primary's to change (R4). One that is to leave and without which the primary would be alone stays for now: it goes when who takes its
// place is a member, or as any other when it does not answer.
func (c *Core) sendAway(now Instant, p *peer) {
	if !p.member || p.proposed != 0 && now.Sub(p.proposed) < c.cfg.Retry {
		return
	}
	switch {
	case c.vol.AwaitsNext(p.node):
	case c.vol.Leaves(p.node):
		c.proposeDrop(now, p, "its replica is removed from the volume")
	case c.vol.WantsFull(p.node):
		c.proposeDrop(now, p, wholeAsked)
	}
}

// paused reports whether nothing is compared with p or copied to it now. What is written goes there as ever, and a replica
// that lacks nothing becomes a member.
func (c *Core) paused(p *peer) bool { return !p.member && c.vol.IsPaused(p.node) }
