package replication

import (
	"errors"
	"fmt"
	"maps"
	"time"

	"hacluster/heartbeat/cluster"
	"hacluster/replication/link"
	"hacluster/replication/wire"
)

// A cascade: the stream to one standby goes by way of the node of another one, which carries it on (link.Relay). It stays the
// primary's stream, with its numbers, its acknowledgements and its drops; only the connection leads elsewhere. Where that way is not
// there, the stream goes directly.

// A stream that goes directly, for the way did not work, stays so for wayPause, and after each failure for twice as long as before,
// up to longestWayPause: whoever tries the way again has to close the stream that works. A way that held for wayHolds is new.
const (
	wayPause        = 5 * time.Second
	longestWayPause = 5 * time.Minute
	wayHolds        = time.Minute
)

// way is how the stream to a peer goes. Under t.mu.
type way struct {
	by     string          // by way of whose node the stream that is up goes; empty: directly
	up     cluster.Instant // since when
	blamed bool            // its end is put down to the way
	failed cluster.Instant // when the way failed last; 0: never
	pause  time.Duration   // after that, before it is tried again
}

// blame notes that the stream by way of another node is of no use: who cannot tell whether that is the way or the peer takes it for
// the way, and sees when the stream goes directly.
func (w *way) blame(now cluster.Instant) {
	if w.by == "" || w.blamed {
		return
	}
	w.blamed = true
	w.fail(now)
}

func (w *way) fail(now cluster.Instant) {
	w.failed, w.pause = now, min(max(2*w.pause, wayPause), longestWayPause)
}

// SetWays says by way of which other replica's node the stream to a replica goes, by their nodes. All others go directly.
func (r *Replica) SetWays(by map[string]string) {
	if was := r.ways.Swap(&by); was != nil && maps.Equal(*was, by) {
		return
	}
	if t := r.Tenure(); t != nil {
		t.look()
	}
}

// wayTo is what is set for a replica.
func (r *Replica) wayTo(node string) string {
	if by := r.ways.Load(); by != nil {
		return (*by)[node]
	}
	return ""
}

// nextWayLocked is how the next stream to the peer goes: as it is set, by a standby that has a stream of its own.
func (p *peerLink) nextWayLocked(now cluster.Instant) string {
	by := p.t.r.wayTo(p.node)
	feeder := p.t.peer(by)
	if feeder == nil || feeder.outbox == nil || feeder.way.by != "" || p.way.failed != 0 && now.Sub(p.way.failed) < p.way.pause {
		return ""
	}
	return by
}

// wayFailed reports whether err, of a stream by way of another node, says nothing of the peer. The next attempt goes directly.
func (p *peerLink) wayFailed(by string, err error) bool {
	var no *link.RefusedError
	if by == "" || errors.As(err, &no) && no.Reply.Node == p.node && no.Reply.Code != wire.RefusedRole {
		return false // in that role another node than the way's may be welcome there
	}
	now := p.t.r.node.Now()
	p.t.mu.Lock()
	p.way.fail(now)
	p.t.mu.Unlock()
	p.note(fmt.Sprintf("not by way of %s: %v", by, err), "standby is not reached by way of another one, and is sent to directly")
	return true
}

// overLocked notes the end of a stream; broke: nobody here closed it.
func (p *peerLink) overLocked(now cluster.Instant, broke bool) {
	if broke {
		p.way.blame(now)
	}
	p.way.by, p.way.blamed = "", false
	p.t.cutWaysLocked(now, p.node)
}

// followWays closes streams that could go as it is set and do not. Only tick calls it.
func (t *Tenure) followWays() {
	now := t.r.node.Now()
	t.mu.Lock()
	var wrong []*peerLink
	for _, p := range t.links() {
		if p.way.by != "" && now.Sub(p.way.up) >= wayHolds && t.core.Silence(now, p.node) < t.r.timers.drop() {
			p.way.failed, p.way.pause = 0, 0 // it works
		}
		if p.sender != nil && p.way.by != t.r.wayTo(p.node) && now.Sub(p.way.up) >= wayPause && p.nextWayLocked(now) != p.way.by {
			wrong = append(wrong, p)
		}
	}
	t.mu.Unlock()
	for _, p := range wrong {
		p.disconnect("it is to go another way")
	}
}

// cutWaysLocked closes the streams that go by way of a node whose own stream has ended: they are likely to have ended too, and
// would be missed only when nothing is heard of them for long. One that has not held for long may be cut again soon.
func (t *Tenure) cutWaysLocked(now cluster.Instant, by string) {
	for _, p := range t.links() {
		if p.way.by == by {
			if now.Sub(p.way.up) < wayHolds {
				p.way.blame(now)
			}
			p.closeLocked()
		}
	}
}

// hasWays reports whether any stream is to go by way of another node.
func (r *Replica) hasWays() bool {
	by := r.ways.Load()
	return by != nil && len(*by) > 0
}

// goesLocked notes that a stream, which begins, goes by way of another peer's node. It leaves out payloads that the own stream of that one
// brings there. Only what is put from now on counts: it comes after the other node has begun to keep it.
func (p *peerLink) goesLocked(now cluster.Instant, by string, sender *link.Sender) {
	p.way.by, p.way.up, p.way.blamed = by, now, false
	feeder := p.t.peer(by)
	switch {
	case by == "":
		return
	case feeder == nil || feeder.sender == nil: // it ended while this one was opened
		sender.Close()
		return
	case feeder.sender.Version() < wire.VersionPlace || sender.Version() < wire.VersionPlace:
		return
	}
	if feeder.lender == nil {
		feeder.lender = new(link.Lender)
	}
	feeder.lender.Forget()
	sender.LendFrom(feeder.lender)
}

// Feed is what this replica keeps, from now on, of the stream that it has of that primary in that epoch, for a stream that its node
// carries on until it calls End; nil: it has none.
func (r *Replica) Feed(primary string, e cluster.Epoch) *link.Feed {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.session
	if s == nil || s.epoch != e || s.link.Hello().Primary != primary {
		return nil
	}
	if s.feed.Load() == nil {
		s.feed.Store(link.NewFeed())
	}
	s.feed.Load().Begin()
	return s.feed.Load()
}

// keep keeps what may be carried on.
func (s *session) keep(b *link.Batch, f *wire.Frame) {
	if feed := s.feed.Load(); feed != nil && f.Kind == wire.Write && f.ID != 0 {
		feed.Keep(b, f)
	}
}
