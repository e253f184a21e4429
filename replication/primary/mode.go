package primary

import (
	"fmt"

	"hacluster/heartbeat/cluster"
)

// The mode changes while the role stays. From the record that notes the next mode on, operations are acknowledged by the stronger of
// both (cluster.AckMode), and what is to be durable is fenced while one of the two is async. Then
//
//	every member is there, settled, and greeted --> barrier: a flush of ours, behind all that was admitted --> it is durable here
//	and on every member --> SetMode is proposed, until a record decides --> the record has the new mode: go on by that alone
//
// When the barrier is complete each member has all that was acknowledged before it, by whatever mode, and what came later was
// acknowledged by the stronger one, towards each member by the stronger of its own two: that is what an admission proves, too (R5), so the new mode may be in force (R13). It holds as
// long as the record, and the processes that the members are, stay the same; each other record, and each other process that greets,
// starts the change anew. So in async a member is a prefix of the order when it becomes one: all that was sent to any process
// before is acknowledged by the one that is named.
//
// What makes it wait is looked at again with each tick (waitsFor). Nothing is lost by waiting, or by an end of this tenure: the next
// mode stands in the record.
type modeChange struct {
	asked    bool // the runner is to admit the barrier, or has
	barrier  *Op  // on its way; nil: none
	over     bool // it is complete
	proposed Instant
}

// stepMode asks for what the change of the mode needs now.
func (c *Core) stepMode(now Instant) {
	switch m := &c.change; {
	case c.vol.NextMode == "" || c.setting || c.modeWaits() != "":
	case !m.asked:
		m.asked = true
		c.act(Action{Kind: Barrier})
	case m.over && !c.deaf(now) && (m.proposed == 0 || now.Sub(m.proposed) >= c.cfg.Retry):
		m.proposed = max(now, 1)
		c.proposeMode()
	}
}

// AdmitBarrier takes the flush that Barrier asked for: Kind and Owner are set by the caller. False: it is not wanted any more.
func (c *Core) AdmitBarrier(now Instant, op *Op) bool {
	switch m := &c.change; {
	case !m.asked || m.barrier != nil || m.over:
		return false
	case c.modeWaits() != "":
		c.anew()
		return false
	}
	c.change.barrier = op
	c.Admit(now, op)
	return true
}

// barrierEnds is called with each operation that is complete.
func (c *Core) barrierEnds(op *Op) {
	if m := &c.change; m.barrier == op {
		m.barrier, m.over = nil, op.Err == nil
		c.stepMode(c.now)
	}
}

// anew starts the change of the mode again: what a barrier has shown does not count any more.
func (c *Core) anew() { c.change = modeChange{} }

func (c *Core) proposeMode() {
	members := map[string]cluster.Member{}
	for _, n := range c.names {
		if p := c.peers[n]; p.member {
			members[n] = cluster.Member{Incarnation: c.vol.Members[n].Incarnation, Process: p.process}
		}
	}
	c.act(Action{Kind: Propose, Command: &cluster.Command{By: c.cfg.Self, SetMode: &cluster.SetMode{On: c.on(), Mode: c.vol.NextMode, Members: members}}})
}

// ModeWaits says what the change of the mode waits for; empty: there is none, or nothing keeps it.
func (c *Core) ModeWaits() string {
	if c.vol.NextMode == "" {
		return ""
	}
	if why := c.modeWaits(); why != "" {
		return why
	}
	if c.change.over {
		return "its entry is to be committed"
	}
	for _, n := range c.names {
		if p := c.peers[n]; p.member && p.out.len() > 0 {
			return fmt.Sprintf("%s is to have all that was acknowledged, durably: %d operations are on their way", n, p.out.len())
		}
	}
	return "all that was acknowledged is to be durable"
}

// modeWaits says why no barrier is begun, and nothing proposed.
func (c *Core) modeWaits() string {
	switch {
	case c.diskErr != nil || c.flushErr != nil || c.giveUpAt != 0:
		return "the primary's disk failed: the next primary goes on with it"
	case c.quiet:
		return "the role is being handed over: the next primary goes on with it"
	}
	for _, n := range c.names {
		switch p := c.peers[n]; {
		case p.member && !p.connected:
			return n + " is in sync and does not answer: it is waited for until it does, or is dropped"
		case p.settling || p.member && (p.mapping || p.copying > 0 || p.plan != nil && !p.plan.Done()):
			return n + " is in sync and is being compared with the primary"
		case p.required() && !p.member:
			return n + " is being admitted"
		}
	}
	return ""
}

// setModes takes the modes of a new record, and reports whether others are in force.
func (c *Core) setModes() (changed bool) {
	c.async = false
	for _, p := range c.peers {
		if p.gone {
			continue
		}
		p.ack = c.vol.AckMode(c.cfg.Self, p.node)
		if mode := c.vol.ModeBetween(c.cfg.Self, p.node); mode != p.mode {
			p.mode, changed = mode, true
			c.countLag(p)
		}
		c.async = c.async || p.isAsync()
	}
	return changed
}

// lookAgain is for what returned locally while members had to have it: from now on only the bound holds it.
func (c *Core) lookAgain() {
	for seq := c.first(); seq <= c.lastSeq; seq = max(seq+1, c.first()) {
		if op := c.inflight.at(int(seq - c.first())); op != nil && op.local && c.firm(op) {
			c.ahead(op)
		}
	}
}

// otherProcess is for a member that the record of a new mode names as another process than the one that is connected: what that is
// sent does not count for the one that is named (R25). Its next greeting is judged.
func (c *Core) otherProcess(now Instant, p *peer) {
	if m := c.vol.Members[p.node]; p.member && p.connected && p.process != m.Process && c.vol.IsProcess(p.node) {
		c.disconnect(now, p, fmt.Sprintf("process %d is a member by the new mode, and process %d is connected", m.Process, p.process))
	}
}

// Fences reports whether what is to be durable is sent to node as a fence: nothing that follows it in the stream begins before it is.
func (c *Core) Fences(node string) bool { return c.vol.Fences(c.cfg.Self, node) }
