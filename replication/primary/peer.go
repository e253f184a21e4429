package primary

import (
	"fmt"

	"hacluster/blockdev"
	"hacluster/heartbeat/cluster"
	"hacluster/replication/maps"
	"hacluster/replication/resync"
)

// peer is one other replica, as the primary sees it.
//
//	         Up, member: replay             Up, no member: compare and copy
//	offline ------------------> in sync    offline ------> resync --plan empty--> closing --closed--> catching
//	   ^                           |          ^                                                          |
//	   |      Down: entries stay   |          |  Down, before the proposal: what is                      | every completed
//	   \---------------------------/          |  unacknowledged goes back to the plan                    v write is there
//	   \-- unanswered for DropAfter: propose the drop; writes wait until it is applied (R4) --/   admitting --Set--> in sync
type peer struct {
	node      string
	number    uint32 // of its replica
	gone      bool   // it has none any more: what is here of it is kept for what comes late, and for one that follows (joining.go)
	member    bool   // of the committed set
	admitting uint64 // version on which the admission was proposed; 0: not
	catching  bool   // the resync is closed at the target; waited for as a member (R5)
	connected bool
	stream    uint64 // number of the newest stream; answers in older ones count for nothing

	out       ring[entry]
	next      uint64 // num of the next entry
	acked     uint64 // num of the last acknowledged entry
	sent      int    // entries of out that went into this stream
	claimed   int    // entries of out that are in its window: in memory, or on their way there
	window    int64  // bytes that those count
	unfed     string // why it cannot be sent what it lacks; empty: it can
	bytes     int64  // of out
	copying   int    // copies in out
	copyBytes int64  // of those
	seen      uint64 // seq of the newest client operation that it acknowledged, with all before
	got       uint64 // the same of what it has in memory, in this stream
	catch     uint64 // catching: the num that it has to reach
	reach     uint64 // the newest num that went out in any stream

	mode string // in force between this primary and it
	ack  string // by which operations are acknowledged towards it: the stronger one while it changes

	lag     lag    // of what clients were told of, in async
	lagFrom uint64 // seq from which on that counts

	m            *maps.Peer
	known        bool         // m has what both had on stable storage when the process knownAs was asked
	knownAs      identity     // of the peer
	mapping      bool         // the question is on its way
	heard        uint64       // the newest entry that knownAs acknowledged
	settling     bool         // a member since before this tenure, and not known to be equal (R29)
	unsettledWas int64        // bytes, when that was last looked at; -1: all
	total        int64        // what was behind when the plan was made
	compared     int64        // bytes, since the resync began
	copied       int64        // bytes of those
	plan         *resync.Plan // what is to be compared with it; nil: nothing
	incarnation  cluster.Incarnation
	process      uint64
	bad          []blockdev.Range // what cannot be read of the chunk that is told of next
	spoilt       blockdev.Range   // the chunk of which a copy could not be read last
	spoiltAt     Instant
	reading      int     // chunks that it answered for, and that are being read here
	answered     Instant // a digest request, or something was being read here
	asideAt      Instant // when the plan began to set something aside, or last tried it again
	closing      bool    // the closing entry is in out
	whole        bool    // all of it is behind, or was compared since, as an operator asked
	failed       bool    // a write or flush failed there: what it reads may not be what a later flush makes durable
	rescued      bool    // what the resync overwrites is kept aside there

	reads remote // what it reads for clients

	since    Instant // connected, disconnected, or gave its last sign of life
	moved    Instant // acknowledged an entry that was new, or was given time for it
	graced   bool    // a new stream gave it time, and it has not acknowledged anything since
	pinged   bool
	leaving  bool    // it said that its process stops: no answer comes from it before the next stream
	proposed Instant // when a change was last proposed
	badSums  int     // checksum mismatches in a row
}

// identity is one process of a peer.
type identity struct {
	incarnation cluster.Incarnation
	process     uint64
}

type entry struct {
	op *Op
	at Instant
}

func newPeer(node string, member bool, now Instant) *peer {
	return &peer{node: node, member: member, next: 1, since: now, moved: now}
}

func (p *peer) required() bool { return p.member || p.catching || p.admitting != 0 }

// owes reports whether it has not acknowledged what it was sent, or answered what it was asked, or what waits for it. Nobody
// waits for what is copied to one that is waited for already.
func (p *peer) owes() bool {
	waiting := p.out.len()
	if p.required() {
		waiting -= p.copying
	}
	return waiting > 0 && (!p.connected || p.sent > 0 || p.asked())
}

// takes reports whether new client operations go into the outbox.
func (p *peer) takes() bool { return p.required() || p.connected }

// offer puts a client's operation into the outbox of a peer that is to have it, or into its map.
func (c *Core) offer(now Instant, p *peer, op *Op) {
	if !p.takes() {
		if op.Kind != blockdev.OpFlush {
			p.m.Missed(op.Range)
		}
		return
	}
	c.enqueue(now, p, op)
	if p.leaving && p.required() && now.Sub(p.proposed) >= c.cfg.Retry {
		c.proposeDrop(now, p, stopping)
	}
	if !p.required() && p.bytes > c.cfg.Backlog {
		c.disconnect(now, p, fmt.Sprintf("it is %d bytes behind, more than the limit of %d: the rest is left to the resync", p.bytes, c.cfg.Backlog))
	}
}

func (c *Core) enqueue(now Instant, p *peer, op *Op) {
	op.refs++
	c.tell(p, op, p.next)
	if op.IsCopy() {
		p.copying++
		p.copyBytes += op.Range.Len
	}
	p.out.push(entry{op, now})
	p.next++
	p.bytes += weight(op)
	c.pump(p)
}

// weight is what an entry counts against the backlog: its payload and something for itself.
func weight(op *Op) int64 {
	if op.Kind == blockdev.OpWrite && !op.void {
		return op.Range.Len + entryWeight
	}
	return entryWeight
}

const entryWeight = 64

// pump sends what can be sent, in order: a copy or a mend that has not been read yet holds up what follows it, and so does the
// entry that closes a resync, until it is acknowledged: a write behind it could mark the target as in pieces again after
// the closing had removed the mark.
func (c *Core) pump(p *peer) {
	if p.connected {
		c.claim(p)
	}
	for p.connected && p.sent < p.claimed {
		op := p.out.at(p.sent).op
		if op.place == coming || op.IsCopy() && !op.local || op.waiting() || p.sent > 0 && p.out.at(p.sent-1).op.closing {
			return
		}
		p.sent++
		p.reach = max(p.reach, p.acked+uint64(p.sent))
		c.act(Action{Kind: Send, Node: p.node, Op: op, Num: p.acked + uint64(p.sent)})
	}
}

// Greeting is what a standby answered on a new stream.
type Greeting struct {
	Incarnation  cluster.Incarnation
	Process      uint64
	LastNum      uint64 // prefix of entries that this process wrote in this epoch; 0: knows of none
	Inconsistent bool
	Failed       bool
	// Keeps: it keeps aside what the resync overwrites (R19).
	Keeps bool
	// Reads: its stream knows questions for reads of clients.
	Reads bool
	// WentBack says why its map, or ours of it, is older than it was: it was restored. Empty: it was not.
	WentBack string
}

// NextStream numbers a new connection to node, upward within the epoch (R2). The one before has ended, and Down was
// called if it was up.
func (c *Core) NextStream(node string) uint64 {
	p := c.peers[node]
	p.stream++
	return p.stream
}

// Up tells that stream was accepted with g. The answer is a Begin and entries, or a Disconnect.
func (c *Core) Up(now Instant, node string, stream uint64, g Greeting) {
	p := c.peers[node]
	if stream != p.stream || p.connected {
		return
	}
	if p.gone {
		c.act(Action{Kind: Disconnect, Node: node, Reason: noReplica})
		return
	}
	if !c.vol.Is(node, g.Incarnation) {
		c.act(Action{Kind: Disconnect, Node: node, Reason: earlierReplica})
		return
	}
	c.time(now)
	p.pinged, p.leaving, p.sent, p.reads.answers = false, false, 0, g.Reads
	switch {
	case p.unfed != "" && p.required():
		c.act(Action{Kind: Disconnect, Node: p.node, Reason: p.unfed})
	case p.required():
		c.upMember(now, p, g)
	case c.vol.IsHeld(node) && !g.Keeps:
		c.act(Action{Kind: Disconnect, Node: node, Reason: "it may hold acknowledged writes that this epoch lacks, and does not keep them aside: a person has to allow its resync by name"})
	default:
		c.upResync(now, p, g)
	}
}

// upMember goes on where the member's acknowledgements ended: every entry after the last acknowledged one, in order.
func (c *Core) upMember(now Instant, p *peer, g Greeting) {
	want := identity{p.incarnation, p.process}
	if m, ok := c.vol.Members[p.node]; ok && p.member {
		want = identity{m.Incarnation, m.Process}
	}
	other := g.Incarnation != want.incarnation || g.Process != want.process && c.vol.IsProcess(p.node) || c.inParts(p, g)
	if other || g.Inconsistent || g.Failed || g.WentBack != "" {
		c.act(Action{Kind: Disconnect, Node: p.node, Reason: "it is not the replica that is a member"})
		c.proposeDrop(now, p, fmt.Sprintf("it came back changed: incarnation %v, process %d, the set names %v, process %d; inconsistent %t, failed %t %s",
			g.Incarnation, g.Process, want.incarnation, want.process, g.Inconsistent, g.Failed, g.WentBack))
		return
	}
	if g.LastNum >= p.next {
		c.act(Action{Kind: Disconnect, Node: p.node, Reason: fmt.Sprintf("it claims entry %d, %d is the last that was made", g.LastNum, p.next-1)})
		return
	}
	if p.process != g.Process {
		c.anew()
	}
	p.connected, p.process, p.since = true, g.Process, now
	if !p.graced { // once: a link that breaks again and again must not keep writes waiting for ever
		p.graced, p.moved = true, now
	}
	if g.LastNum > p.acked {
		c.pop(now, p, g.LastNum)
	}
	c.act(Action{Kind: Begin, Node: p.node, Num: p.acked + 1})
	if !p.believed(g) {
		p.plan = nil
		c.ask(p, g)
	}
	c.prefer(p)
	c.pump(p)
	c.fetch(now)
	c.progress(now, p)
}

// inParts reports whether a member may have been sent what it has neither acknowledged nor says that it wrote, in another process.
// Sent again to what may be there of it, an older block would lie over a newer one until the end is reached. In semisync and async
// clients may have been told of the newer one (R3), and in async it would be no prefix (R13).
func (c *Core) inParts(p *peer, g Greeting) bool {
	return (p.isAsync() || p.mode == cluster.ModeSemisync) && p.process != 0 && g.Process != p.process && p.reach > max(p.acked, g.LastNum)
}

// upResync begins a resync, or goes on with one of the same process. What a failed flush of the target may have lost is in
// no map, so all is copied.
func (c *Core) upResync(now Instant, p *peer, g Greeting) {
	p.failed, p.mapping, p.rescued = g.Failed, false, g.Keeps
	believed := p.believed(g)
	p.connected, p.incarnation, p.process, p.since, p.moved = true, g.Incarnation, g.Process, now, now
	c.act(Action{Kind: Begin, Node: p.node, Num: p.next, Resync: true})
	switch {
	case g.Failed || g.WentBack != "":
		p.m.Load(blockdev.Range{Len: c.vol.Size})
		p.known, p.knownAs, p.heard = true, identity{g.Incarnation, g.Process}, 0
	case !believed:
		c.ask(p, g)
	}
	if c.vol.WantsFull(p.node) && !p.whole { // once: a later stream of this tenure goes on where this one ends
		p.m.Load(blockdev.Range{Len: c.vol.Size})
		p.whole = true
	}
	if p.plan == nil {
		p.compared, p.copied = 0, 0
	}
	c.replan(p)
	p.acked, p.seen = p.next-1, c.first()-1
	for i := range c.inflight.len() {
		// It may reach the local backing after the copier read there. What has returned there is behind, for p was not there when it
		// was admitted, and is copied: sent as a write it would lie over a later one that clients were told of already, for in
		// semisync that need not wait for it to be durable on every member.
		if op := c.inflight.at(i); op != nil && !op.local {
			c.enqueue(now, p, op)
		}
	}
	c.advance(now, p)
}

// Down tells that stream ended.
func (c *Core) Down(now Instant, node string, stream uint64) {
	if p := c.peers[node]; stream == p.stream && p.connected {
		c.lost(now, p)
	}
}

func (c *Core) disconnect(now Instant, p *peer, why string) {
	c.act(Action{Kind: Disconnect, Node: p.node, Reason: why})
	if p.connected {
		c.lost(now, p)
	}
}

func (c *Core) lost(now Instant, p *peer) {
	c.time(now)
	p.connected, p.sent, p.pinged, p.since, p.mapping, p.reading = false, 0, false, now, false, 0
	p.got, p.bad = 0, nil // its process may have ended
	c.endReadings(p)
	c.unask(now, p.node)
	c.readsLost(now, p)
	if p.plan != nil {
		p.plan.Interrupt()
	}
	if p.admitting == 0 && !p.member {
		p.catching = false
		c.backToPlan(p)
	}
	c.sweep()
}

// backToPlan leaves to the next resync what a replica that is no member did not acknowledge, and what is not durable on
// both: all that is marked is behind.
func (c *Core) backToPlan(p *peer) {
	c.discard(p)
}

// discard empties the outbox. The entries were never acknowledged; their numbers are not used again.
func (c *Core) discard(p *peer) {
	c.maps.Broke(p.m)
	p.acked = p.next - 1
	for p.out.len() > 0 {
		op := p.out.pop().op
		c.unclaim(p, op)
		c.unref(op)
	}
	p.unfed = ""
	p.sent, p.bytes, p.copying, p.copyBytes, p.closing = 0, 0, 0, 0, false
	p.lag.clear()
}

func (c *Core) unref(op *Op) {
	op.refs--
	if op.refs > 0 {
		return
	}
	c.endEarly(op)
	if op.complete || op.closing || op.IsCopy() && op.local {
		c.act(Action{Kind: Release, Op: op})
	}
}

// Acked tells that node has written every entry up to num, and made durable what asked for it.
func (c *Core) Acked(now Instant, node string, stream, num uint64) {
	p := c.peers[node]
	if stream != p.stream || !p.connected {
		return
	}
	if num < p.acked || num > p.acked+uint64(p.sent) {
		c.disconnect(now, p, fmt.Sprintf("it acknowledged entry %d; %d to %d are outstanding", num, p.acked+1, p.acked+uint64(p.sent)))
		return
	}
	c.time(now)
	p.since, p.pinged = now, false
	if num > p.acked {
		p.badSums = 0
		c.pop(now, p, num)
		c.pump(p)
	}
	c.progress(now, p)
}

// Received tells that node has taken every entry up to num in this stream: they are in the memory of its process.
func (c *Core) Received(now Instant, node string, stream, num uint64) {
	p := c.peers[node]
	if stream != p.stream || !p.connected {
		return
	}
	c.time(now)
	if num > p.acked+uint64(p.sent) {
		c.disconnect(now, p, fmt.Sprintf("it received entry %d; %d is the last that was sent", num, p.acked+uint64(p.sent)))
		return
	}
	p.since, p.pinged = now, false
	for i := int(num) - int(p.acked) - 1; i >= 0; i-- { // the newest that is a client's
		if op := p.out.at(i).op; op.seq != 0 {
			p.got = max(p.got, op.seq)
			break
		}
	}
	if p.required() {
		c.sweep()
	}
}

func (c *Core) pop(now Instant, p *peer, num uint64) {
	p.moved, p.graced = now, false
	for p.acked < num {
		p.acked++
		p.sent = max(p.sent-1, 0)
		op := p.out.pop().op
		c.unclaim(p, op)
		p.bytes -= weight(op)
		switch {
		case op.closing:
			// Closed on its stable storage (R18): from here on it is waited for, and admitted once it has every
			// write that was acknowledged without it (R5).
			p.closing, p.catching, p.catch, p.seen = false, true, p.next-1, c.closedUpTo(p)
			c.lagBegins(p)
		case op.IsCopy():
			p.copying--
			p.copyBytes -= op.Range.Len
			p.copied += op.Range.Len
			if p.plan != nil && !op.repair {
				p.plan.Copied(op.chunk)
			}
		default:
			p.seen = op.seq
			c.hasNow(p, op)
		}
		c.unref(op)
	}
	if c.giveUpAt != 0 && p.lag.told.len() == 0 {
		c.act(Action{Kind: HandOn, Err: c.diskErr}) // nobody waits for this one any more
	}
	p.heard = max(p.heard, num)
	c.maps.Acked(p.m, num)
	c.fetch(now)
	if p.required() {
		c.sweep() // also when it has just become required: what it lacks is not complete from now on
		c.drained()
	}
	c.settle()
}

// closedUpTo is the seq up to which a target has everything, durably, whose resync was closed just now: what was sent to it and is
// not acknowledged comes later, and the rest was sent before, or copied.
func (c *Core) closedUpTo(p *peer) uint64 {
	for i := range p.out.len() {
		if op := p.out.at(i).op; op.seq != 0 {
			return op.seq - 1
		}
	}
	return c.lastSeq
}

// progress takes the next step of a resync, after anything that may have made it possible.
func (c *Core) progress(now Instant, p *peer) {
	switch {
	case p.member:
		if c.leftBehind(p) {
			c.replan(p)
		}
		if p.plan != nil && p.connected && !p.plan.Done() {
			c.act(Action{Kind: Compare, Node: p.node})
		}
	case p.catching:
		if p.acked >= p.catch && p.admitting == 0 {
			c.proposeAdmit(now, p)
		}
	case p.plan != nil:
		c.advance(now, p)
	}
}

// leftBehind reports whether blocks of a member are behind that nothing is going to copy: they came behind while their chunk
// was done, or by a repair that could not be read. What fell behind by a failed write here is the next primary's.
func (c *Core) leftBehind(p *peer) bool {
	return p.known && c.diskErr == nil && p.copying == 0 && (p.plan == nil || p.plan.Done()) && p.m.Behind() > 0
}

// Alive tells that node answered a ping.
func (c *Core) Alive(now Instant, node string, stream uint64) {
	if p := c.peers[node]; stream == p.stream && p.connected {
		p.pinged, p.since = false, now
	}
}

// Refused tells that node did not take an entry. A write or flush error drops it (R23); a checksum mismatch closes
// the connection, twice in a row drops it (R21).
func (c *Core) Refused(now Instant, node string, stream uint64, badSum bool, text string) {
	p := c.peers[node]
	if stream != p.stream || !p.connected {
		return
	}
	if badSum {
		p.badSums++
	}
	if !badSum && !p.member {
		p.plan, p.known = nil, false // what it acknowledged before may be lost with what failed
	}
	drop := p.required() && (!badSum || p.badSums >= 2)
	c.disconnect(now, p, text)
	if drop {
		c.proposeDrop(now, p, text)
	}
}

const stopping = "its process stops"

// Leaving tells that node stops in order: it will not answer in this stream any more. What it has not acknowledged is
// not waited for, but for its drop (R4). A member that owes nothing stays one for as long as any other that is silent:
// if it is back before the next write, nothing has to be copied.
func (c *Core) Leaving(now Instant, node string, stream uint64) {
	p := c.peers[node]
	if stream != p.stream || !p.connected {
		return
	}
	c.disconnect(now, p, stopping)
	p.leaving = !c.succeeded(p)
	if p.leaving && p.required() && p.owes() {
		c.proposeDrop(now, p, stopping)
	}
}

// succeeded reports whether the set names another process of a member than the one that was connected last: it is back, or
// about to connect, so that an older one stops, or said so late, is no reason to drop it.
func (c *Core) succeeded(p *peer) bool {
	m, ok := c.vol.Members[p.node]
	return ok && m.Process != p.process
}
