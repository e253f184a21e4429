package primary

import (
	"time"

	"hacluster/blockdev"
)

// Bound is what a volume in async may lose at a failover, at most (R13). The zero Bound is nothing: then writes wait for the
// members' disks, as in sync.
type Bound struct {
	// Bytes of the volume whose change clients were told of and a member has not written: each write, zeroing and trim counts its
	// whole range, also where it changes what another one changed before.
	Bytes int64
	// Time since a client was told of the oldest of them.
	Time time.Duration
	// Patience is for how long an operation may be held by a member at the bound before that one is dropped.
	Patience time.Duration

	ahead int // operations; by whether there is a spool
}

// Slowed is where the slow-down begins, in thousandths of the bound: before it writers go as fast as this replica's disk, from there
// on acknowledged bytes of the member pay for theirs, two for one at first, one for one at the bound. So writers come down to the
// speed of the member and not to a halt, as long as there is any.
const slowedFrom = 500

// maxAhead is how many operations of a volume may be acknowledged and not written by every member, of any size: its outbox takes
// twice as many.
const maxAhead = 32 << 10

// maxSpooled is the same of a volume with a spool: what is in memory of an operation whose data is spooled is earlyWeight at most.
const maxSpooled = 128 << 10

// lag is what one peer lacks of what clients were told of.
type lag struct {
	bytes  int64
	told   ring[told] // in the order in which clients were told; the first is one that it lacks, later ones may be ones that it has
	credit int64      // bytes that may be told of while it is beyond half of the bound
}

// told is an operation that its client was told of, and when.
type told struct {
	seq uint64
	at  Instant
}

// lost is what of a volume is lost with op. A mend writes what is there.
func lost(op *Op) int64 {
	if op.Kind == blockdev.OpFlush || op.mend != nil || op.void {
		return 0
	}
	return op.Range.Len
}

// price is what telling of op costs while writers are slowed. One without data has its price too.
func price(op *Op) int64 { return lost(op) + entryWeight }

// age is for how long a client has known of the oldest operation that the peer lacks.
func (l *lag) age(now Instant) time.Duration {
	if l.told.len() == 0 {
		return 0
	}
	return max(now.Sub(l.told.at(0).at), 0)
}

// fill is how much of the bound is used, in thousandths; 1000: all, or more.
func (l *lag) fill(now Instant, b Bound) int64 {
	if l.told.len() == 0 {
		return 0
	}
	used := max(share(l.bytes, b.Bytes), share(int64(l.age(now)), int64(b.Time)))
	return max(used, share(int64(l.told.len()), int64(b.ahead)))
}

func share(of, most int64) int64 {
	if of >= most {
		return 1000
	}
	return of * 1000 / most // most is bounded: no overflow
}

// allows reports whether one may be told of op now although the peer lacks it: never beyond the bound, and beyond half of it
// for credit.
func (l *lag) allows(now Instant, op *Op, b Bound) bool {
	if b.Bytes <= 0 || b.Time <= 0 || l.bytes+lost(op) > b.Bytes || l.age(now) > b.Time || l.told.len() >= b.ahead {
		return false
	}
	return l.fill(now, b) < slowedFrom || l.credit >= min(price(op), b.most())
}

// setBound has the limit of operations go with it.
func (c *Core) setBound(b Bound) {
	if b.ahead = maxAhead; c.spools() {
		b.ahead = maxSpooled
	}
	c.bound = b
}

// most is how much credit is kept: little of the bound, so that a pause of the writers is not followed by a leap.
func (b Bound) most() int64 { return max(b.Bytes/16, entryWeight) }

// tell counts op, which its client is told of.
func (l *lag) tell(now Instant, op *Op, b Bound) {
	if l.fill(now, b) >= slowedFrom {
		l.credit -= price(op)
	}
	l.bytes += lost(op)
	l.told.push(told{op.seq, now})
}

// has counts op off, which the peer has written, with all before.
func (l *lag) has(now Instant, op *Op, b Bound) {
	fill := l.fill(now, b)
	l.bytes -= lost(op)
	for l.told.len() > 0 && l.told.at(0).seq <= op.seq {
		l.told.pop()
	}
	if l.credit = min(l.credit+price(op)*(3000-2*fill)/1000, b.most()); fill < slowedFrom {
		l.credit = 0
	}
}

func (l *lag) clear() {
	for l.told.len() > 0 {
		l.told.pop()
	}
	l.bytes, l.credit = 0, 0
}
