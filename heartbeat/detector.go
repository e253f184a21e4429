package heartbeat

import (
	"errors"
	"fmt"
	"time"
)

// Timeouts are how long silence may last. All count from the last answer to one of our own probes, so that a path which
// carries packets one way only counts as cut.
type Timeouts struct {
	// Suspect: silent on all links for this long, a peer is suspected. At least two probe intervals.
	Suspect time.Duration
	// LinkDown: silent for this long, a link is down.
	LinkDown time.Duration
	// Dead: silent on all links for this long, a peer of which the others say nothing is dead.
	Dead time.Duration
}

// Validate reports all that is wrong.
func (t Timeouts) Validate() error {
	var errs []error
	if t.Suspect <= 0 {
		errs = append(errs, fmt.Errorf("suspect timeout %v: must be positive", t.Suspect))
	}
	if t.LinkDown < t.Suspect {
		errs = append(errs, fmt.Errorf("link-down timeout %v: must not be shorter than the suspect timeout %v", t.LinkDown, t.Suspect))
	}
	if t.Dead < t.Suspect {
		errs = append(errs, fmt.Errorf("dead timeout %v: must not be shorter than the suspect timeout %v", t.Dead, t.Suspect))
	}
	return errors.Join(errs...)
}

// Event is a fact for the Detector: Arrival, Gossip or Tick.
type Event interface{ event() }

// Arrival: the peer answered a probe that we sent over this link.
type Arrival struct {
	Peer string
	Link int
	RTT  time.Duration
}

// Gossip: what the members of the gossip say of the peer: Alive, Dead, or Unknown when they say nothing (any more).
type Gossip struct {
	Peer  string
	State State
}

// Tick: time has passed. It must come at least once per suspect timeout.
type Tick struct{}

func (Arrival) event() {}
func (Gossip) event()  {}
func (Tick) event()    {}

// Detector judges peers by the silence of their links and by hearsay:
//
//	silence on all links   others say alive   nothing     dead
//	never heard            alive              unknown*    dead
//	below Suspect          alive              alive       alive
//	Suspect to Dead        alive              suspect**   dead
//	Dead and longer        alive              dead        dead
//
//	*  dead after the Dead timeout, counted from the start
//	** a verdict does not improve by silence: dead stays dead
//
// Invariant: what was heard directly is never overruled by hearsay. A gossip that wrongly gave a peer up, or that was
// lied to, cannot make a peer dead that answers us.
//
// Not for concurrent use.
type Detector struct {
	timeouts Timeouts
	peers    []*peer // in the order given
	last     time.Time
}

type peer struct {
	name    string
	verdict State
	gossip  State
	heard   time.Time // last arrival on any link; the start, if there was none
	ever    bool      // there was an arrival
	links   []link
}

type link struct {
	address string
	state   LinkState
	heard   time.Time
	rtt     time.Duration
}

// NewDetector starts with all peers unknown and all links down. Of each peer, name and link addresses count.
func NewDetector(now time.Time, t Timeouts, peers []Peer) (*Detector, error) {
	if err := t.Validate(); err != nil {
		return nil, err
	}
	d := &Detector{timeouts: t, last: now}
	for _, p := range peers {
		if d.find(p.Name) != nil {
			return nil, fmt.Errorf("peer %q is listed twice", p.Name)
		}
		added := &peer{name: p.Name, heard: now}
		for _, l := range p.Links {
			added.links = append(added.links, link{address: l.Address, heard: now})
		}
		d.peers = append(d.peers, added)
	}
	return d, nil
}

// Step takes a fact in and returns what became different by it and by the time that passed. An event about a peer or
// link that does not exist is the caller's broken invariant: it panics.
func (d *Detector) Step(now time.Time, ev Event) []Change {
	d.forgiveOwnPause(now)
	before := d.Peers()
	switch ev := ev.(type) {
	case Arrival:
		d.must(ev.Peer).arrived(now, ev.Link, ev.RTT)
	case Gossip:
		d.must(ev.Peer).gossip = ev.State
	case Tick:
	default:
		panic(fmt.Sprintf("heartbeat: unknown event %#v", ev))
	}
	for _, p := range d.peers {
		p.judge(now, d.timeouts)
	}
	return d.changes(before)
}

// Peers is what is known now, in the order given to NewDetector.
func (d *Detector) Peers() []Peer {
	out := make([]Peer, len(d.peers))
	for i, p := range d.peers {
		out[i] = p.export()
	}
	return out
}

// forgiveOwnPause: when this process stood still (stopped, swapped out, its machine paused), nobody else was silent.
// The pause is taken out of every silence.
func (d *Detector) forgiveOwnPause(now time.Time) {
	pause := now.Sub(d.last)
	if pause < 0 {
		return
	}
	d.last = now
	if pause <= d.timeouts.Suspect {
		return
	}
	for _, p := range d.peers {
		p.heard = p.heard.Add(pause)
		for i := range p.links {
			p.links[i].heard = p.links[i].heard.Add(pause)
		}
	}
}

func (p *peer) arrived(now time.Time, i int, rtt time.Duration) {
	if i < 0 || i >= len(p.links) {
		panic(fmt.Sprintf("heartbeat: arrival from %q on link %d of %d", p.name, i, len(p.links)))
	}
	p.heard, p.ever = now, true
	l := &p.links[i]
	l.state, l.heard, l.rtt = Up, now, smooth(l.rtt, max(rtt, 0))
}

// smooth weighs a new sample by an eighth, as TCP does (RFC 6298).
func smooth(old, sample time.Duration) time.Duration {
	if old == 0 {
		return sample
	}
	return old + (sample-old)/8
}

func (p *peer) judge(now time.Time, t Timeouts) {
	for i := range p.links {
		if l := &p.links[i]; now.Sub(l.heard) >= t.LinkDown {
			l.state = Down
		}
	}
	p.verdict = p.judged(now.Sub(p.heard), t)
}

func (p *peer) judged(silence time.Duration, t Timeouts) State {
	switch {
	case p.ever && silence < t.Suspect:
		return Alive
	case p.gossip == Alive:
		return Alive
	case p.gossip == Dead, silence >= t.Dead:
		return Dead
	case p.verdict == Alive:
		return Suspect
	}
	return p.verdict
}

func (d *Detector) changes(before []Peer) []Change {
	var out []Change
	for i, p := range d.peers {
		if c := (Change{Before: before[i], After: p.export()}); c.IsChange() {
			out = append(out, c)
		}
	}
	return out
}

func (p *peer) export() Peer {
	out := Peer{Name: p.name, State: p.verdict, Links: make([]Link, len(p.links))}
	for i, l := range p.links {
		out.Links[i] = Link{Address: l.address, State: l.state, RTT: l.rtt}
	}
	return out
}

func (d *Detector) find(name string) *peer {
	for _, p := range d.peers {
		if p.name == name {
			return p
		}
	}
	return nil
}

func (d *Detector) must(name string) *peer {
	if p := d.find(name); p != nil {
		return p
	}
	panic(fmt.Sprintf("heartbeat: event about unknown peer %q", name))
}
