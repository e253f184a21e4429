package membership

import (
	"sync"
	"time"
)

// window is how many pings of a link may be under way: at a Base of 50 ms, some twelve seconds.
const window = 64

// prober remembers when each ping was sent, to match echoes. Owned by Run; pure.
type prober struct {
	instance uint64
	links    map[*remoteLink]*pings
}

type pings struct {
	seq  uint64
	sent [window]time.Time // by sequence number modulo window; zero: answered, or never sent
}

// echo is the answer to a ping, as a port saw it.
type echo struct {
	from     *remote
	link     int
	instance uint64
	seq      uint64
	at       time.Time
}

func newProber(instance uint64) *prober {
	return &prober{instance: instance, links: map[*remoteLink]*pings{}}
}

// next is the number of the ping that is about to be sent.
func (p *prober) next(r *remote, link int) uint64 {
	l := p.links[r.links[link]]
	if l == nil {
		l = &pings{}
		p.links[r.links[link]] = l
	}
	l.seq++
	r.links[link].probes.Add(1)
	l.sent[l.seq%window] = time.Now()
	return l.seq
}

// answered reports whether an echo answers a ping of ours that was not answered yet, and how long it took. Doubled,
// very late, replayed and invented echoes are none.
func (p *prober) answered(e echo) (rtt time.Duration, ok bool) {
	if e.instance != p.instance || e.link >= len(e.from.links) {
		return 0, false
	}
	l := p.links[e.from.links[e.link]]
	if l == nil || e.seq > l.seq || l.seq-e.seq >= window {
		return 0, false
	}
	sent := &l.sent[e.seq%window]
	if sent.IsZero() {
		return 0, false
	}
	e.from.links[e.link].echoes.Add(1)
	rtt = e.at.Sub(*sent)
	*sent = time.Time{}
	return rtt, true
}

// inbox holds echoes until Run looks at them. When it is full, more are refused.
type inbox struct {
	mu     sync.Mutex
	echoes []echo
}

const inboxLimit = 256

func (i *inbox) put(e echo) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	if len(i.echoes) >= inboxLimit {
		return false
	}
	i.echoes = append(i.echoes, e)
	return true
}

func (i *inbox) take() []echo {
	i.mu.Lock()
	defer i.mu.Unlock()
	taken := i.echoes
	i.echoes = nil
	return taken
}
