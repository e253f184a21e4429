package link

import (
	"sync"

	"hacluster/replication/wire"
)

// A payload that a primary has sent to a standby need not be sent to it again when it is to carry it on: a message may leave its
// payloads out, all of writes with a place (wire.Lend), and who relays puts in what it has received of its own stream (Feed).
//
// That one keeps little, and its own stream does not wait for what it carries on. So the primary lends only while the relayed stream
// keeps up: nothing that went with its payload is unacknowledged, and at most lendWindow lent, of what the own stream was sent at most
// lendWindow ago. Then what is lent lies among the last feedLimit bytes when its message is read, which who relays does at once
// (relay.go). What lags is sent in full: on a line that is too slow for it, that is not much.
const (
	lendWindow = 8 << 20
	feedLimit  = 4 * lendWindow
	lendRing   = 4096 // places that are remembered
)

// Lender knows what of late was put into the stream of a standby that carries others on. Put and Forget are called in the order of the
// puts, by one goroutine at a time.
type Lender struct {
	mu   sync.Mutex
	sent uint64 // bytes of payload
	ring [lendRing]lendable
}

// lendable is one write: its place, 0 for none, and how much was put before it.
type lendable struct{ place, at uint64 }

// Put notes that the write with that place, n bytes, was put into the standby's stream.
func (l *Lender) Put(place uint64, n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ring[place%lendRing] = lendable{place: place, at: l.sent}
	l.sent += uint64(n)
}

// Forget: nothing that was put so far is lent.
func (l *Lender) Forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.ring[:])
}

// holds reports whether all payloads of the frames can be left out.
func (l *Lender) holds(frames []wire.Frame) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range frames {
		f := &frames[i]
		if f.Buf == nil {
			continue
		}
		if e := l.ring[f.ID%lendRing]; f.Kind != wire.Write || f.ID == 0 || e.place != f.ID || l.sent-e.at > lendWindow {
			return false
		}
	}
	return true
}

// lending is what one relayed stream has of payloads on their way. begin is called by whoever sends, acked by whoever receives.
type lending struct {
	from *Lender

	mu    sync.Mutex
	way   []onWay // oldest first; from first on
	first int
	lent  int // bytes of way that were left out
	full  int // and that were not
}

type onWay struct {
	seq  uint64
	n    int
	lent bool
}

// begin decides whether the payloads of a message, n bytes, are left out; last is its last sequence number, 0 for none. No more
// messages are on their way then than who relays reads ahead.
func (l *lending) begin(frames []wire.Frame, n int, last uint64) (lends bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	lends = n > 0 && l.full == 0 && l.lent+n <= lendWindow && len(l.way)-l.first < queueMost/2 && l.from.holds(frames)
	switch {
	case last == 0: // nothing of it is acknowledged
		return lends
	case lends:
		l.lent += n
	default:
		l.full += n
	}
	l.way = append(l.way, onWay{last, n, lends})
	return lends
}

func (l *lending) acked(seq uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for ; l.first < len(l.way) && l.way[l.first].seq <= seq; l.first++ {
		if w := l.way[l.first]; w.lent {
			l.lent -= w.n
		} else {
			l.full -= w.n
		}
	}
	if l.first > len(l.way)/2 {
		l.way = l.way[:copy(l.way, l.way[l.first:])]
		l.first = 0
	}
}

// LendFrom has the stream, which the node at the other end carries on, leave out payloads that l says that node has. It comes before
// NewOutbox and Recv.
func (s *Sender) LendFrom(l *Lender) { s.lending = &lending{from: l} }
