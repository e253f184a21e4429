package primary

import "hacluster/blockdev"

// Replicas come and go with the record, while operations are in flight. One that comes is nobody's member, and all is behind there: a
// peer as it would be after a long absence. One that goes is no member by the same record. Its peer stays as an empty one, for what is
// still told of its streams; when the node gets a replica again that is another one, of which nothing is known.

const noReplica = "its node holds no replica of the volume any more"

// earlierReplica: both run on one node, and only the later one is to get anything. Which it is, its incarnation tells.
const earlierReplica = "it is an earlier replica of its node, which has not learned yet that it was removed"

// join takes up the replicas that a record has and that were not there before it. It comes before anything else of the record.
func (c *Core) join(now Instant) {
	for _, r := range c.vol.Replicas {
		if r.Node == c.cfg.Self {
			continue
		}
		number, p := c.vol.NumberOf(r.Node), c.peers[r.Node]
		switch {
		case p == nil:
			p = newPeer(r.Node, false, now)
			p.m = c.maps.Add(r.Node, c.vol.Size)
			c.peers[r.Node] = p
			c.names = append(c.names, r.Node)
		case p.number == number:
			continue
		default:
			c.sever(now, p)
			p.gone = false
			p.m.Load(blockdev.Range{Len: c.vol.Size})
		}
		p.number, p.since, p.proposed = number, now, 0
		p.mode, p.ack = c.vol.ModeBetween(c.cfg.Self, r.Node), c.vol.AckMode(c.cfg.Self, r.Node)
		c.act(Action{Kind: Join, Node: r.Node})
	}
}

// part lets go whom the record does not have any more. It comes after the set was applied: by then nobody waits for them.
func (c *Core) part(now Instant) {
	for _, n := range c.names {
		if p := c.peers[n]; !p.gone && c.vol.NumberOf(n) == 0 {
			c.sever(now, p)
			p.gone = true
		}
	}
}

// sever ends what there was with a replica. Its streams count for nothing any more, whatever is told of them.
func (c *Core) sever(now Instant, p *peer) {
	if p.gone {
		return
	}
	p.member, p.admitting, p.catching, p.leaving = false, 0, false, false
	c.disconnect(now, p, noReplica)
	c.discard(p)
	p.stream++
	p.plan, p.known, p.knownAs, p.heard, p.whole, p.failed, p.rescued, p.process, p.reach = nil, false, identity{}, 0, false, false, false, 0, 0
	c.act(Action{Kind: Part, Node: p.node})
}
