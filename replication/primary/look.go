package primary

import "hacluster/blockdev"

// A look reads a range here and at members at one place in the order of all writes (R33): what was admitted before it and
// overlaps it has returned on each side, and what comes later has begun on none. So what differs then differs in truth,
// whatever clients do. It is no part of the sequence: it is not acknowledged, ends with its stream, and holds up only what
// overlaps it.

// MayLook reports whether what is looked at on this stream is at the place where it is here: all that was admitted is on its
// way to the member.
func (c *Core) MayLook(node string, stream uint64) bool {
	p := c.peers[node]
	return p != nil && p.member && p.connected && p.stream == stream && !p.mapping && p.sent == p.out.len()
}

// Look takes a look at op.Range here, by StartLocal, and at the nodes, by Look; each of them MayLook. Complete and Release
// tell that the local part has returned.
func (c *Core) Look(op *Op, nodes []string) {
	op.Kind, op.look = blockdev.OpRead, true
	for _, n := range nodes {
		c.act(Action{Kind: Look, Node: n, Op: op})
	}
	if c.queue.Admit(&op.Item) {
		c.act(Action{Kind: StartLocal, Op: op})
	}
}

// Behind reports whether a block of r is marked as one that node may lack: what differs there is known already, and the
// mirror's own to mend.
func (c *Core) Behind(node string, r blockdev.Range) bool { return c.peers[node].m.Unsettled(r) }

// Repair copies the whole blocks of op.Range to a member that MayLook, whatever is there: a person wants it to have the
// primary's content. They are marked before, and leave the map when they are durable on both (R14).
func (c *Core) Repair(now Instant, node string, op *Op) {
	p := c.peers[node]
	p.m.Missed(op.Range)
	op.id = c.nextID()
	op.Kind, op.copyTo, op.repair = blockdev.OpWrite, node, true
	if c.queue.Admit(&op.Item) {
		c.act(Action{Kind: StartLocal, Op: op})
	}
	c.enqueue(now, p, op)
}
