package membership

import (
	"errors"
	"sync/atomic"
	"time"
)

// Counters count since the start.
type Counters struct {
	// Copies are gossip packets that had come over another link already: with n links, n-1 of n.
	Copies uint64
	// Unsent are packets that a link did not take: not open, not resolved, no route, its queue full.
	Unsent uint64
	// Dropped are packets and streams that came and found a queue full.
	Dropped uint64
	// Garbage are packets and streams that are none of ours, or damaged, or of another version.
	Garbage uint64
	// Foreign are packets and streams of other clusters, of unknown nodes, or sealed with a key that we do not have.
	Foreign uint64
}

type counters struct {
	copies, unsent, dropped, garbage, foreign atomic.Uint64
	lastStrange                               atomic.Int64 // when a strange packet was logged, UnixNano
}

// Counters are the counts so far.
func (m *Membership) Counters() Counters {
	c := &m.counters
	return Counters{
		Copies: c.copies.Load(), Unsent: c.unsent.Load(), Dropped: c.dropped.Load(),
		Garbage: c.garbage.Load(), Foreign: c.foreign.Load(),
	}
}

// logInterval is the shortest time between two lines about strangers.
const logInterval = 10 * time.Second

// strange counts a packet that is ignored, and mentions one now and then.
func (m *Membership) strange(why error, from string) {
	count := &m.counters.foreign
	if errors.Is(why, errGarbage) || errors.Is(why, errVersion) {
		count = &m.counters.garbage
	}
	count.Add(1)
	now, last := time.Now().UnixNano(), m.counters.lastStrange.Load()
	if now-last >= int64(logInterval) && m.counters.lastStrange.CompareAndSwap(last, now) {
		m.cfg.Logger.Warn("ignored a packet or stream on a heartbeat link", "why", why.Error(), "from", from,
			"foreign", m.counters.foreign.Load(), "garbage", m.counters.garbage.Load())
	}
}
