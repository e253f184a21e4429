package heartbeat

import (
	"errors"
	"fmt"
	"time"
)

// Timeouts are how long silence may last. All count from the last answer to a question of our own, so that a path which
// carries packets one way only counts as cut.
type Timeouts struct {
	// Suspect: silent on all links for this long, a peer is suspected. Longer than the interval of the questions.
	Suspect time.Duration
	// LinkDown: silent for this long, a link is down.
	LinkDown time.Duration
	// Dead: silent on all links for this long, a peer of which the others say nothing is dead. It is also the bound
	// between a slow and a paused process, see Step.
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

// Event is a fact for the Detector: Arrival, Answer or Gossip.
type Event interface{ event() }

// Arrival: the peer answered a probe that we sent over this link.
type Arrival struct {
	Peer string
	Link int
	At   time.Time // when the answer came, not later than now
	RTT  time.Duration
}

// Answer: the peer itself answered, over whichever link.
type Answer struct {
	Peer string
	At   time.Time
}

// Gossip: what the members of the gossip say of the peer: Alive, Dead, or Unknown when they say nothing (any more).
type Gossip struct {
	Peer  string
	State State
}

func (Arrival) event() {}
func (Answer) event()  {}
func (Gossip) event()  {}

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

// Step takes facts in and returns what became different by them and by the time that passed. It judges only after the
// last of them, so that of several peers that answered none is judged by its silence before its answer is looked at.
//
// Step must be called when Next says, if nothing happens before. If it is not called for longer than the dead timeout,
// the process counts as paused. An event about a peer or link that does not exist is the caller's broken invariant: it
// panics.
func (d *Detector) Step(now time.Time, events ...Event) []Change {
	d.forgiveOwnPause(now)
	before := d.Peers()
	for _, ev := range events {
		switch ev := ev.(type) {
		case Arrival:
			d.must(ev.Peer).arrived(ev)
		case Answer:
			d.must(ev.Peer).answered(ev.At)
		case Gossip:
			d.must(ev.Peer).gossip = ev.State
		default:
			panic(fmt.Sprintf("heartbeat: unknown event %#v", ev))
		}
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

// Next is when silence alone may change something next: the time for a Step, if nothing else comes before.
func (d *Detector) Next() time.Time {
	next := d.last.Add(d.timeouts.Dead)
	sooner := func(since time.Time, timeout time.Duration) {
		if at := since.Add(timeout); at.After(d.last) && at.Before(next) {
			next = at
		}
	}
	for _, p := range d.peers {
		sooner(p.heard, d.timeouts.Suspect)
		sooner(p.heard, d.timeouts.Dead)
		for _, l := range p.links {
			sooner(l.heard, d.timeouts.LinkDown)
		}
	}
	return next
}

// forgiveOwnPause: when this process stood still (stopped, swapped out, its machine paused), nobody else was silent.
// The pause is taken out of every silence. Shorter delays are not: a process that is always late must still notice a
// death.
func (d *Detector) forgiveOwnPause(now time.Time) {
	pause := now.Sub(d.last)
	if pause < 0 {
		return
	}
	d.last = now
	if pause <= d.timeouts.Dead {
		return
	}
	for _, p := range d.peers {
		p.heard = p.heard.Add(pause)
		for i := range p.links {
			p.links[i].heard = p.links[i].heard.Add(pause)
		}
	}
}

func (p *peer) arrived(a Arrival) {
	if a.Link < 0 || a.Link >= len(p.links) {
		panic(fmt.Sprintf("heartbeat: arrival from %q on link %d of %d", p.name, a.Link, len(p.links)))
	}
	p.answered(a.At)
	l := &p.links[a.Link]
	l.state, l.heard, l.rtt = Up, later(l.heard, a.At), smooth(l.rtt, max(a.RTT, 0))
}

func (p *peer) answered(at time.Time) {
	p.heard, p.ever = later(p.heard, at), true
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
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
