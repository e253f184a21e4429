package primary

// A read that the local backing cannot carry out. Its client is told of the error only when nobody else has the data (R23):
// until then it is left to a member, which is asked for the block (mend.go), or takes the role. What was written here is here,
// so this replica has not failed for that, and the volume goes on without a member that is silent (R4): then it is alone,
// that read ends with the error, and all others are answered.

// leave keeps a read that failed for whoever else may have its blocks. One whose admission is not decided yet is asked when it is
// a member.
func (c *Core) leave(op *Op) {
	c.unread = append(c.unread, op)
	if c.members() > 0 {
		c.handOn(op.Err)
	}
}

// handOn tells that the next primary is to answer what cannot be read here: its disk may do better.
func (c *Core) handOn(err error) {
	if c.diskErr == nil {
		c.diskErr, c.readsOnly = err, true
	}
	c.act(Action{Kind: HandOn, Err: err})
}

// HandsOn is why the role is to be handed over although nothing that was written failed: a member that answers may have what reads
// wait for. nil: it stays here.
func (c *Core) HandsOn(now Instant) error {
	if !c.readsOnly {
		return nil
	}
	for _, p := range c.peers {
		if p.member && p.connected && c.silence(now, p) < c.longest(p) {
			return c.diskErr
		}
	}
	return nil
}

// tellUnread tells clients what nobody else has. From then on it counts as if it had not been asked for.
func (c *Core) tellUnread() {
	for i, op := range c.unread {
		c.unread[i] = nil
		c.act(Action{Kind: Complete, Op: op})
		c.act(Action{Kind: Release, Op: op})
	}
	c.unread = c.unread[:0]
	if c.readsOnly {
		c.diskErr, c.readsOnly = nil, false
	}
	if c.forReads {
		c.giveUpAt, c.forReads = 0, false
	}
}

// admitted has a new member answer what was not read so far; a disk that failed, or cannot be mended from it, hands over to it.
func (c *Core) admitted() {
	switch {
	case c.diskErr == nil:
		for i, op := range c.unread {
			c.unread[i] = nil
			op.Err = nil
			c.act(Action{Kind: Reread, Op: op})
		}
		c.unread = c.unread[:0]
	case c.readsOnly:
		c.handOn(c.diskErr)
	default:
		c.act(Action{Kind: DiskFailed, Err: c.diskErr})
	}
}
