package primary

import (
	"fmt"
	"time"

	"hacluster/heartbeat/cluster"
)

// Set takes the volume's committed record: our own applied state, or the leader's word. Older ones and those of other
// epochs are ignored; a higher epoch ends this Core, which is its owner's to see.
func (c *Core) Set(now Instant, vol cluster.Volume) {
	if vol.Epoch != c.vol.Epoch || vol.Version <= c.vol.Version {
		return
	}
	c.time(now)
	c.vol = vol.Clone()
	c.anew()
	c.setting = true // who leaves may have been the last to ask for a mend: then the disk has failed before anything is answered (R23)
	c.join(now)
	changed := c.setModes()
	for _, n := range c.names {
		c.applySet(now, c.peers[n])
	}
	c.part(now)
	if changed {
		for _, n := range c.names {
			c.otherProcess(now, c.peers[n])
		}
	}
	c.mendLeft(now)
	c.setting = false
	c.sweep()
	c.settle()
	c.drained()
	c.stepMode(now)
}

func (c *Core) applySet(now Instant, p *peer) {
	m, member := c.vol.Members[p.node]
	p.leaving = p.leaving && !c.succeeded(p)
	switch {
	case member && !p.member:
		if !p.required() {
			c.lagBegins(p)
		}
		p.member, p.admitting, p.catching, p.plan = true, 0, false, nil
		c.admitted()
		if m.Incarnation != p.incarnation || m.Process != p.process && c.vol.IsProcess(p.node) { // admitted by nobody here: its writes are unknown to us
			p.reads.foreign = true
			c.proposeDrop(now, p, "it was admitted under an incarnation that this primary did not resync")
		}
	case !member && p.member:
		p.member, p.catching, p.admitting = false, false, 0
		c.disconnect(now, p, "it left the in-sync set")
		p.plan = nil
		c.discard(p)
	case !member && c.vol.WantsFull(p.node) && !p.whole:
		c.beginAnew(now, p)
	case !member && p.admitting != 0 && c.vol.Version > p.admitting:
		c.admissionVoid(now, p)
	}
	if p.member || !c.vol.WantsFull(p.node) {
		p.whole = false
	}
	c.sendAway(now, p)
	if p.connected && (p.plan != nil && !p.required() || p.catching && p.admitting == 0) {
		c.progress(now, p) // a pause may have ended, or the last member whose disk is better than ours may have left
	}
}

// admissionVoid: another entry came first, so the admission is void for good. A peer that stays caught up is proposed
// on the new version; one that is silent goes back to the resync, and so does one whose part in entries that we did
// not see is unknown: its next greeting tells.
func (c *Core) admissionVoid(now Instant, p *peer) {
	next := c.vol.Version == p.admitting+1
	p.admitting = 0
	switch {
	case p.connected && next && c.silence(now, p) < c.longest(p):
		c.progress(now, p)
	case p.connected:
		c.disconnect(now, p, "its admission was overtaken: it is looked at once more")
	default:
		p.catching = false
		c.backToPlan(p)
	}
}

func (c *Core) on() cluster.On {
	return cluster.On{Volume: c.vol.Name, Epoch: c.vol.Epoch, Version: c.vol.Version}
}

// Heard tells when the newest grant was asked for that the leader answered (R8); 0: nobody told.
func (c *Core) Heard(now, at Instant) {
	if at == c.heard {
		return
	}
	if c.heard != 0 {
		c.took = [2]time.Duration{now.Sub(at), c.took[0]}
	}
	c.heard = at
}

// deaf reports whether the leader has not answered us for half as long as a member that is to be dropped, beyond what its
// answers take: then we may be the one that is cut off. A lease is asked for more often than that, and a drop waits for the next
// answer at most. What we propose could reach the leader all the same, and would take from the set who is to succeed us when our
// lease ends. Two answers tell how far away the leader is: a single one that is late was read after we had stood still.
func (c *Core) deaf(now Instant) bool {
	return c.heard != 0 && now.Sub(c.heard) >= c.cfg.DropAfter/2+min(c.took[0], c.took[1])
}

// proposeDrop is sent again until a committed entry decides (R27); it never counts before. For a peer whose admission
// is undecided it makes that void or finds it applied. A primary that could not write or flush does not send away the only
// other member: what it lost may be there.
func (c *Core) proposeDrop(now Instant, p *peer, why string) {
	if !p.member && p.admitting == 0 {
		if p.connected { // nothing was proposed: it is a resync target again
			c.disconnect(now, p, why)
		}
		return
	}
	if c.diskErr != nil && !c.readsOnly && p.member && (c.members() == 1 || !p.isAsync() && c.firmMembers() == 1) {
		return
	}
	if p.member && c.deaf(now) {
		return
	}
	p.proposed = now
	c.act(Action{Kind: Propose, Command: &cluster.Command{By: c.cfg.Self, Drop: &cluster.Drop{On: c.on(), Node: p.node, Reason: why}}})
}

// firmMembers is how many other members there are that may lack nothing.
func (c *Core) firmMembers() (n int) {
	for _, p := range c.peers {
		if c.vol.IsMember(p.node) && !p.isAsync() {
			n++
		}
	}
	return n
}

// members is how many other members there are: by the record, for Set may be at the first of several peers.
func (c *Core) members() int { return len(c.vol.Members) - 1 }

func (c *Core) proposeAdmit(now Instant, p *peer) {
	if c.spoilt() {
		return
	}
	p.admitting, p.proposed = c.vol.Version, now
	m := cluster.Member{Incarnation: p.incarnation, Process: p.process}
	c.act(Action{Kind: Propose, Command: &cluster.Command{By: c.cfg.Self, Admit: &cluster.Admit{On: c.on(), Node: p.node, Member: m, Full: p.whole, Rescued: p.rescued}}})
}

// Tick lets time act: members that do not answer are dropped, silent connections are asked for a sign of life.
func (c *Core) Tick(now Instant) {
	c.time(now)
	c.retrySpool(now)
	c.letGo()
	for _, n := range c.names {
		c.tickPeer(now, c.peers[n])
	}
	c.overdue(now)
	c.stepMode(now)
}

func (c *Core) tickPeer(now Instant, p *peer) {
	c.retryUnreadable(now, p)
	c.readsOverdue(now, p)
	c.sendAway(now, p)
	silent := c.silence(now, p)
	why := c.mustGo(now, p, silent)
	switch {
	case why != "":
		if now.Sub(p.proposed) >= c.cfg.Retry {
			c.proposeDrop(now, p, why)
		}
		if p.connected && silent >= 2*c.longest(p) {
			c.disconnect(now, p, "it does not answer")
		}
	case p.connected && min(silent, now.Sub(p.since)) >= c.deadAfter(p): // a connection that is newer than the silence has its own time
		c.disconnect(now, p, "it does not answer")
	case p.admitting != 0 && now.Sub(p.proposed) >= c.cfg.Retry && !p.member:
		c.proposeAdmit(now, p)
	case p.connected && !p.pinged && !p.owes() && now.Sub(p.since) >= max(c.cfg.PingEvery, c.cfg.DropAfter/3):
		c.ping(now, p)
	}
}

// ping asks for a sign of life. What a peer was silent before it was asked is not held against it, beyond the third of DropAfter
// after which it is asked at the earliest.
func (c *Core) ping(now Instant, p *peer) {
	p.pinged, p.since = true, max(p.since, now.Add(-c.cfg.DropAfter/3))
	c.act(Action{Kind: Ping, Node: p.node})
}

// Doubt has node asked for a sign of life now, if nothing else is awaited of it: another volume got no answer.
func (c *Core) Doubt(now Instant, node string) {
	if p := c.peers[node]; p.connected && !p.pinged && !p.owes() {
		c.ping(now, p)
	}
}

// SetPingEvery changes Config.PingEvery.
func (c *Core) SetPingEvery(d time.Duration) { c.cfg.PingEvery = d }

// Rests reports whether time alone has nothing to do here but to have signs of life asked for: nothing is in flight, and every
// peer is a member that has all and owes nothing, or is neither there nor waited for.
func (c *Core) Rests() bool {
	if c.open > 0 || len(c.held) > 0 || len(c.unread) > 0 || len(c.mends) > 0 || c.late > 0 || c.settling > 0 || c.draining || c.quiet ||
		c.giveUpAt != 0 || c.diskErr != nil || c.flushErr != nil || c.vol.NextMode != "" || len(c.vol.Full) > 0 || c.vol.HasLeaving() {
		return false
	}
	for _, p := range c.peers {
		if p.connected != p.member || p.required() != p.member || p.pinged || p.out.len() > 0 || p.mapping || p.leaving || p.reads.open > 0 {
			return false
		}
		if p.connected && (!p.known || p.plan != nil && !p.plan.Done() || p.m.Behind() > 0 || p.m.Live() > 0) {
			return false
		}
	}
	return true
}

// mustGo is why p is to be dropped now; empty: it is not.
func (c *Core) mustGo(now Instant, p *peer, silent time.Duration) string {
	switch {
	case !p.required():
		return ""
	case p.unfed != "":
		return p.unfed
	case p.leaving && (p.owes() || silent >= c.longest(p)):
		return stopping
	case silent >= c.longest(p):
		return fmt.Sprintf("no answer for %v", silent.Round(time.Millisecond))
	case silent >= c.cfg.DropAfter && p.stuck(c.held):
		return fmt.Sprintf("no answer for %v, and reads wait for what may differ there", silent.Round(time.Millisecond))
	case p.lags():
		return c.heldTooLong(now, p)
	}
	return ""
}

// silence is for how long the peer has owed us an answer, or has not been there.
func (c *Core) silence(now Instant, p *peer) time.Duration {
	if !p.owes() && p.connected && !p.pinged {
		return min(now.Sub(p.since), c.cfg.DropAfter/3) // it was not asked
	}
	if !p.owes() {
		return now.Sub(p.since)
	}
	owed := now.Sub(max(p.moved, p.out.at(0).at))
	if p.connected {
		return owed
	}
	return max(owed, now.Sub(p.since))
}
