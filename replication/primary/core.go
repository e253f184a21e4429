// Package primary decides everything that the primary of one volume decides in one epoch: when a write is complete,
// in which order, which standby is waited for, when one is dropped or admitted, what a returning one is sent. It is
// pure: no I/O, no goroutine, no clock. Package replication feeds a Core facts under its lock and carries out the
// Actions.
//
//	        Admit                    LocalDone
//	client ------> seq, order queue ----------\
//	                 \                          > complete when the local write returned and every required
//	                  outbox of each peer ----/   peer acknowledged it (R3), never before a lacking member
//	                       Acked                  was dropped by a committed entry (R4)
//
// Words: seq numbers the client's writes and flushes of this epoch; num numbers the entries of one peer's outbox
// (writes, flushes, copies of a resync), which is what travels as the frame's sequence number. A required peer is a
// committed member, or one whose admission has been proposed and not decided (R5).
//
// Invariants:
//   - minSeen is the least seq that every required peer has written; an operation behind it is not complete, save that in
//     semisync a write that need not be durable may be up to minGot, which every required peer has in memory (early.go), and
//     that in async all may be that are within the bound (async.go). Each peer counts by its own mode (cluster.ModeBetween): an
//     operation is complete when all have it that may lack nothing (firm), and the bound of the others lets it
//   - inflight has a place for each seq from the oldest operation that is not complete; the places of those behind it
//     that are complete are empty, so that one slow write does not hold the memory of a million later ones
//   - what a peer may lack is marked in its map, and leaves it only when it is durable on both (maps)
//   - an entry leaves an outbox only by acknowledgement, or with the whole outbox when the peer is no longer required
package primary

import (
	"math"
	"time"

	"hacluster/blockdev"
	"hacluster/heartbeat/cluster"
	"hacluster/replication/maps"
	"hacluster/replication/order"
	"hacluster/replication/resync"
)

// Instant is the node's CLOCK_BOOTTIME.
type Instant = cluster.Instant

// Config is what a Core is made with.
type Config struct {
	Self string
	// DropAfter is for how long a member may leave a write unanswered before it is dropped.
	DropAfter time.Duration
	// Retry is the pause between repeated proposals of one change; default DropAfter/4.
	Retry time.Duration
	// Backlog is how many bytes a replica that is no member may be behind before its connection is closed and the
	// rest is left to the resync; default 64 MiB.
	Backlog int64
	// Piece is the unit of a resync; default resync.PieceSize.
	Piece int64
	// Room is what all volumes of the node may have acknowledged early; nil: each has its own limit only.
	Room Room
	// Spool: there is a file for the data that members in async lack; the zero SpoolSizes: there is none.
	Spool SpoolSizes
	// Bound is what may be lost in async; it counts in no other mode.
	Bound Bound
	// PingEvery is how long an idle stream goes without a sign of life being asked for; at least, and by default, DropAfter/3.
	PingEvery time.Duration
}

// Op is one operation of a client, or one piece that a resync copies. Owner is the Op itself or what embeds it; it is
// set before the Op is handed in.
type Op struct {
	order.Item
	Kind       blockdev.Op
	FUA, Unmap bool
	Err        error // of the local backing, set by LocalDone

	seq      uint64
	id       uint64 // counts writes, flushes and copies alike
	tracked  bool   // a flush whose end tells which marks may leave
	local    bool   // returned from the local backing
	complete bool
	refs     int   // outboxes that hold it, and inflight
	early    int64 // bytes that it counts since it was acknowledged before every member had written it
	claims   int   // windows that it is in
	place    place // of its data, with a spool
	fetched  bool  // its data came back from there, and counts for that
	readers  []*Op // finished reads that wait for it (R29)
	waits    int   // of a finished read: incomplete writes that it overlaps

	lateSince Instant // since when only the bound holds it; 0: it does not

	copyTo  string         // of a copy: the target
	chunk   blockdev.Range // of a copy: the chunk it belongs to
	closing bool           // the entry that closes a resync
	upTo    uint64         // of that: the newest operation of a client that the target has with it, and all before
	look    bool           // its local part is a read for its digests
	repair  bool           // of a copy: it belongs to no chunk of a plan
	// Kept, of a copy: its content is what was read of the chunk after TakeChunk had handed it out. Compared takes it as it
	// is, or takes Kept back and has it read anew.
	Kept bool

	// Of a read, where members are asked:
	readBy   string  // the member that was asked
	readIn   uint64  // in which stream
	readAt   Instant // when it was left to the local backing
	readLoad int64   // what was under way there with it; 0: it is not

	mend *mending // what it writes is to be read at a member
	void bool     // what it was to write could not be found out: it changes nothing
}

// IsCopy reports whether the operation copies a range to one resync target: its local part is a read.
func (o *Op) IsCopy() bool { return o.copyTo != "" }

// IsLook reports whether the operation is a look: its local part makes digests.
func (o *Op) IsLook() bool { return o.look }

// Closing reports whether the operation closes a resync at its target.
func (o *Op) Closing() bool { return o.closing }

// Place is where the operation stands in the order of clients' operations, which all peers share: who has it and all that it was sent
// before has all of them up to there. 0: it is none of them.
func (o *Op) Place() uint64 { return max(o.seq, o.upTo) }

// Reset makes an Op ready for its next use, keeping its memory.
func (o *Op) Reset() {
	item := order.Item{Owner: o.Item.Owner}
	*o = Op{Item: item, readers: o.readers[:0]}
}

// ActionKind tells the Actions apart.
type ActionKind uint8

// What a Core asks for. Begin and Send must reach the peer's connection in the order given.
const (
	StartLocal ActionKind = iota + 1 // run Op on the local backing (a copy: read it), then LocalDone
	Begin                            // Node: entries follow from Num on; Resync tells as what
	Send                             // Node: send Op as number Num
	Ping                             // Node: ask for a sign of life
	Complete                         // Op is done; Op.Err is its outcome
	Release                          // nobody needs Op any more: its memory may be reused
	Propose                          // Command to the Raft leader
	Disconnect                       // Node: close the connection, for Reason
	DiskFailed                       // the local backing failed with Err: hand over, or report (R23)
	HandOn                           // it cannot read, for Err, what reads wait for and a member may have: hand over when HandsOn says so
	Reread                           // Op, a read that failed or that a member did not answer, is to be read here, then ReadHere and ReadDone or ReadFailed
	Drained                          // after Drain: nothing is in flight
	Compare                          // Node: there is work to compare: call TakeChunk
	AskMap                           // Node: ask what it has marked for us; Mapped answers
	Fetch                            // Node: ask for the content of Op's Range, as Num; Fetching and Fetched answer
	Look                             // Node: ask for the digests of Op.Range, in the order of entries
	Barrier                          // a flush of the runner's own is to be admitted: AdmitBarrier
	Spool                            // write the data of Op to the spool, then Spooled
	Unload                           // the data of Op is in the spool: its memory may be reused
	Ask                              // Node: ask for the content of the read Op, as Num; TakeRead and ReadThere answer
	Load                             // read the data of Op from there, then Loaded
	Join                             // Node: its replica is new, or another than before: connect to it
	Part                             // Node: its replica is gone: connect to it no more
)

// Action is one thing to do.
type Action struct {
	Kind    ActionKind
	Op      *Op
	Node    string
	Num     uint64
	Resync  bool
	Reason  string
	Err     error
	Command *cluster.Command
}

// Core is the state of one primary in one epoch. Not safe for concurrent use.
type Core struct {
	cfg       Config
	vol       cluster.Volume
	async     bool // async is in force towards some peer
	change    modeChange
	queue     order.Queue
	inflight  ring[*Op]
	lastSeq   uint64
	lastID    uint64
	flushedAt Instant // when the newest flush was admitted that is watched, or this tenure began
	wroteAt   Instant // when a client's write or zeroing was admitted last
	maps      *maps.Primary
	open      int // operations in inflight
	minSeen   uint64
	minFirm   uint64 // minSeen of the required peers that may lack nothing clients are told of: those that are not in async
	minGot    uint64 // not less than minFirm; the same in sync
	inMemory  bool   // a required peer acknowledges by what it has in memory
	lagging   bool   // a required peer may lack something: operations that all others have wait for the bound alone
	early     int64  // bytes of operations that were acknowledged early and are held
	bound     Bound
	// With a spool:
	fetched    int64   // bytes of data that came back from the spool
	fresh      int64   // bytes of data that clients were told of, and that are in memory only
	spooled    int64   // bytes of data that are in the spool
	spoolAgain Instant // when it is tried again; 0: it has not failed

	late      int     // operations in inflight that only the bound holds
	lateFrom  uint64  // not greater than the seq of the first of them
	giveUpAt  Instant // of GivesUp; 0: not
	forReads  bool    // likewise
	now       Instant // as far as it was told
	quiet     bool    // from Approach or Drain to Resume: nothing is acknowledged that a member lacks, as after GivesUp
	peers     map[string]*peer
	names     []string // of peers, in the order of the configuration
	diskErr   error    // the first failure of the local backing
	readsOnly bool     // diskErr is of reads alone: what was written here is here
	unread    []*Op    // reads that it failed while another may have their blocks; not counted by open
	// settling counts the members that are not settled yet; held are finished reads that wait for it, bounded as unread are.
	settling  int
	held      []*Op
	heard     Instant          // see Heard
	took      [2]time.Duration // how old it was when that was told, of the newest two; 0: there are not so many
	heldSince Instant          // since when nothing was settled although reads are held; 0: not so
	flushErr  error            // the first of a flush: what was written before may be lost, whatever a later flush says (R23)
	readings  []reading
	balances  bool   // members are asked for reads
	here      source // the local backing
	mends     []*Op  // whose content is not known yet; bounded by the reads that failed
	draining  bool
	setting   bool // a record is being applied: nothing completes before all of it counts
	ready     []*order.Item
	actions   []Action
}

// New is the primary of vol.Epoch. vol is its record when this process took the role.
func New(cfg Config, vol cluster.Volume, now Instant) *Core {
	if cfg.Retry == 0 {
		cfg.Retry = cfg.DropAfter / 4
	}
	if cfg.Backlog == 0 {
		cfg.Backlog = 64 << 20
	}
	if cfg.Piece == 0 {
		cfg.Piece = resync.PieceSize
	}
	c := &Core{cfg: cfg, vol: vol.Clone(), peers: map[string]*peer{}, flushedAt: now, now: now}
	c.setBound(cfg.Bound)
	for _, r := range vol.Replicas {
		if r.Node != cfg.Self {
			p := newPeer(r.Node, vol.IsMember(r.Node), now)
			p.number = vol.NumberOf(r.Node)
			p.mode, p.ack = vol.ModeBetween(cfg.Self, r.Node), vol.AckMode(cfg.Self, r.Node)
			c.async = c.async || p.isAsync()
			c.peers[r.Node] = p
			c.names = append(c.names, r.Node)
		}
	}
	c.maps = maps.NewPrimary(vol.Size, cfg.Self, c.names)
	for _, m := range c.maps.Peers() {
		c.peers[m.Name].m = m
	}
	c.beginSettling()
	c.sweep()
	return c
}

// SetDropAfter changes for how long a member may leave a write unanswered.
func (c *Core) SetDropAfter(d time.Duration) {
	if c.cfg.Retry == c.cfg.DropAfter/4 {
		c.cfg.Retry = d / 4
	}
	c.cfg.DropAfter = d
}

// Take appends the Actions that piled up to into.
func (c *Core) Take(into []Action) []Action {
	into = append(into, c.actions...)
	clear(c.actions)
	c.actions = c.actions[:0]
	return into
}

func (c *Core) act(a Action) { c.actions = append(c.actions, a) }

// Admit takes a client's write, zeroing or flush. Range, Kind, FUA, Unmap and Owner are set by the caller.
func (c *Core) Admit(now Instant, op *Op) {
	c.time(now)
	c.lastSeq++
	op.seq = c.lastSeq
	op.id = c.nextID()
	op.refs++
	c.inflight.push(op)
	c.open++
	if op.Kind == blockdev.OpFlush {
		if op.tracked = c.maps.FlushBegins(op.id); op.tracked {
			c.flushedAt = now
		}
		c.act(Action{Kind: StartLocal, Op: op})
	} else {
		c.wroteAt = now
		c.overwrites(op.Range)
		if c.queue.Admit(&op.Item) {
			c.turn(op)
		}
	}
	for _, n := range c.names {
		c.offer(now, c.peers[n], op)
	}
}

func (c *Core) nextID() uint64 {
	c.lastID++
	return c.lastID
}

// LocalDone tells that the local part of op returned. now may be 0 where it succeeded, unless the Core is Timed.
func (c *Core) LocalDone(now Instant, op *Op, err error) {
	c.time(now)
	op.local, op.Err = true, err
	if op.Kind != blockdev.OpFlush {
		c.ready = c.queue.Return(&op.Item, c.ready[:0])
		for _, it := range c.ready {
			c.turn(opOf(it))
		}
	}
	if op.IsCopy() {
		c.copyRead(now, op)
		return
	}
	if op.look {
		c.act(Action{Kind: Complete, Op: op})
		c.act(Action{Kind: Release, Op: op})
		return
	}
	c.noteOutcome(op)
	if op.Kind == blockdev.OpFlush {
		c.maps.FlushReturned(op.id, op.Err == nil)
	} else {
		c.maps.Returned(op.id, op.Range, op.Err == nil)
	}
	switch {
	case c.covered(op):
		c.finish(op)
	case c.firm(op):
		c.ahead(op)
	}
	c.settle()
}

// covered reports whether no required peer is waited for any more.
func (c *Core) covered(op *Op) bool { return op.seq <= c.minSeen || !c.lagging && c.firm(op) }

// firm reports whether the required peers that may lack nothing have op as their mode demands.
func (c *Core) firm(op *Op) bool {
	return op.seq <= c.minFirm || op.seq <= c.minGot && op.Kind != blockdev.OpFlush && !op.FUA
}

// noteOutcome keeps what a failure means: the content of op's range is undefined, and after a failed flush none
// succeeds any more.
func (c *Core) noteOutcome(op *Op) {
	durable := op.Kind == blockdev.OpFlush || op.FUA
	if durable && op.Err == nil {
		op.Err = c.flushErr
		return
	}
	if op.Err == nil {
		return
	}
	if durable && c.flushErr == nil {
		c.flushErr = op.Err
	}
	if c.diskErr == nil || c.readsOnly {
		c.diskErr, c.readsOnly = op.Err, false
	}
	for _, n := range c.names {
		if p := c.peers[n]; p.plan != nil {
			p.plan.Touch(op.Range)
		}
	}
	c.act(Action{Kind: DiskFailed, Err: op.Err})
}

// ReadDone tells that a read returned from the local backing. It is complete when its blocks are settled and every write
// that it overlaps is complete: it may have seen one that a member still lacks (R29). One that failed, and that no member
// could answer (ReadFailed), is left to others (leave).
func (c *Core) ReadDone(op *Op, err error) {
	op.Err = err
	if err != nil && c.required() > 0 {
		c.leave(op)
		return
	}
	if c.Unsettled(op.Range) {
		c.hold(op)
		return
	}
	c.afterWrites(op)
}

// afterWrites completes a finished read when every write that it overlaps is complete.
func (c *Core) afterWrites(op *Op) {
	if op.Err != nil && c.required() > 0 { // it failed while it was held
		c.leave(op)
		return
	}
	for i := range c.inflight.len() {
		w := c.inflight.at(i)
		if w != nil && w.Kind != blockdev.OpFlush && w.Range.Overlaps(op.Range) {
			w.readers = append(w.readers, op)
			op.waits++
		}
	}
	if op.waits == 0 {
		c.told(op)
	}
}

// told completes a read. One that failed tells its client so only when nobody else has the data: a member may have been admitted
// since.
func (c *Core) told(op *Op) {
	if op.Err != nil && c.required() > 0 {
		c.leave(op)
		return
	}
	c.act(Action{Kind: Complete, Op: op})
	c.act(Action{Kind: Release, Op: op})
}

// finish completes an operation that the local backing and every required peer have. A primary whose own disk failed
// completes nothing while another member may be waited for: the outcome is the next primary's to give (R23, R27).
func (c *Core) finish(op *Op) {
	if op.complete || !op.local || c.diskErr != nil && c.required() > 0 || op.seq > c.minSeen && op.early == 0 && !c.beginEarly(op) {
		return
	}
	op.complete = true
	c.open--
	if op.lateSince != 0 {
		op.lateSince = 0
		c.late--
	}
	if op.seq > c.minSeen && c.async {
		c.tellAhead(op)
	}
	c.act(Action{Kind: Complete, Op: op})
	for i, r := range op.readers {
		op.readers[i] = nil
		if r.waits--; r.waits == 0 {
			c.told(r)
		}
	}
	op.readers = op.readers[:0]
	c.inflight.set(int(op.seq-c.first()), nil)
	for c.inflight.len() > 0 && c.inflight.at(0) == nil {
		c.inflight.pop()
	}
	c.barrierEnds(op)
	c.unref(op)
	c.drained()
}

// sweep looks again at what is complete after an acknowledgement or a change of the set.
func (c *Core) sweep() {
	if c.setting {
		return
	}
	const all = uint64(math.MaxUint64)
	seen, firm, got, lagging, inMemory := all, all, all, false, false
	for _, p := range c.peers {
		if !p.required() || mutateAckEarly {
			continue
		}
		seen = min(seen, p.seen)
		switch p.ack {
		case cluster.ModeAsync:
			lagging = true
			continue
		case cluster.ModeSemisync:
			got = min(got, max(p.got, p.seen))
			inMemory = true
		default:
			got = min(got, p.seen)
		}
		firm = min(firm, p.seen)
	}
	wasSeen, wasFirm, wasGot, wasLagging := c.minSeen, c.minFirm, c.minGot, c.lagging
	c.minSeen, c.minFirm, c.minGot, c.lagging, c.inMemory = seen, firm, got, lagging, inMemory
	if c.required() == 0 {
		c.tellUnread()
	}
	c.sweepFrom(wasSeen, seen)
	if firm != all || wasFirm != all { // else all are in async, and what returned locally was looked at then
		c.sweepFrom(max(wasFirm, seen), firm)
		c.sweepFrom(max(wasGot, firm), got)
	}
	if lagging && !wasLagging {
		c.lookAgain()
	}
	c.letGo()
}

// sweepFrom looks at what is behind seq, up to least; what is before was looked at when it returned locally.
func (c *Core) sweepFrom(seq, least uint64) {
	if c.diskErr != nil || seq > c.lastSeq {
		seq = 0
	}
	for seq = max(seq+1, c.first()); seq <= min(least, c.lastSeq); seq = max(seq+1, c.first()) {
		switch op := c.inflight.at(int(seq - c.first())); {
		case op == nil:
		case c.covered(op):
			c.finish(op)
		case op.local && c.firm(op):
			c.ahead(op)
		}
	}
}

// first is the seq of the oldest place of inflight.
func (c *Core) first() uint64 { return c.lastSeq - uint64(c.inflight.len()) + 1 }

func (c *Core) required() (n int) {
	for _, p := range c.peers {
		if p.required() {
			n++
		}
	}
	return n
}

// Drain asks to be told, by Drained, when nothing is in flight, and no member lacks what clients were told of. The caller
// admits no client's operation before Resume but may admit one flush after Drained, which is complete when it is durable on
// every member (R30).
func (c *Core) Drain() {
	c.draining, c.quiet = true, true
	c.drained()
}

// Approach has nothing acknowledged from here on that a member lacks, and reports whether it lacks such yet: then Drain, which lets
// no client in, is quick when it does not any more.
func (c *Core) Approach() bool {
	c.quiet = true
	for _, p := range c.peers {
		if p.isAsync() && p.required() && p.lag.told.len() > 0 {
			return true
		}
	}
	return false
}

// Resume takes Approach and Drain back: the hand-over was void. What the bound holds goes on with the next Tick, or LetGo.
func (c *Core) Resume() { c.draining, c.quiet = false, false }

func (c *Core) drained() {
	if c.draining && c.open == 0 && !c.isLacking() {
		c.draining = false
		c.act(Action{Kind: Drained})
	}
}

// DiskError is the first failure of the local backing in this epoch, nil when there was none.
func (c *Core) DiskError() error { return c.diskErr }

// InFlight is how many client operations are not complete.
func (c *Core) InFlight() int { return c.open }

// Incomplete appends to into what of r a member may lack: the ranges of writes and zeroings that overlap r and are not
// complete, and what is not settled.
func (c *Core) Incomplete(r blockdev.Range, into []blockdev.Range) []blockdev.Range {
	for _, p := range c.peers {
		if p.unsettled(r) {
			if !p.known {
				return append(into, r)
			}
			into = p.m.Ranges(r, into)
		}
	}
	for i := range c.inflight.len() {
		if w := c.inflight.at(i); w != nil && w.Kind != blockdev.OpFlush && w.Range.Overlaps(r) {
			into = append(into, w.Range)
		}
	}
	return into
}

// Version is the version of the newest record of the volume that the Core knows.
func (c *Core) Version() uint64 { return c.vol.Version }

// opOf leads from a queued item back to its Op: the item's Owner is the Op, or what embeds it.
func opOf(it *order.Item) *Op { return it.Owner.(interface{ Core() *Op }).Core() }

// Core is the Op itself: promoted to whatever embeds one, it leads from there to the part that a Core knows.
func (o *Op) Core() *Op { return o }
