package maps

import "hacluster/blockdev"

// Primary holds the maps of the primary of a volume, one for each other replica. Operations have ids that ascend in the
// order of admission, over writes and copies alike; entries of a peer have nums of their own.
type Primary struct {
	self  string
	peers []*Peer
	// A flush that is under way and watched; one at a time, the others are not.
	flushID   uint64 // 0: none
	flushHere bool   // it succeeded on our own disk
	// Tell has standbys told what is durable on whom, for their own maps: TakeDurable has to follow.
	Tell bool
	out  []Durable
}

// Durable tells a standby that the flush that reached it as entry Num, and all that was sent before it, is on stable
// storage here and on the others that are named: between them and the standby nothing from before differs.
type Durable struct {
	To    string
	Num   uint64
	Peers []string // the primary first
}

// NewPrimary makes maps in which nothing is marked: Load, Unite or Adopt fill them.
func NewPrimary(size int64, self string, peers []string) *Primary {
	m := &Primary{self: self}
	for _, name := range peers {
		m.peers = append(m.peers, newPeer(name, size))
	}
	return m
}

// Add makes the map of a replica that comes, of which all is behind.
func (m *Primary) Add(name string, size int64) *Peer {
	p := newPeer(name, size)
	p.Load(blockdev.Range{Len: size})
	m.peers = append(m.peers, p)
	return p
}

// Peers are the other replicas, in the order given.
func (m *Primary) Peers() []*Peer { return m.peers }

// Peer finds one by name; nil when there is none.
func (m *Primary) Peer(name string) *Peer {
	for _, p := range m.peers {
		if p.Name == name {
			return p
		}
	}
	return nil
}

// Returned tells that the local part of a write, zeroing or copy ended. After a failure its blocks are undefined here.
func (m *Primary) Returned(id uint64, r blockdev.Range, ok bool) {
	for _, p := range m.peers {
		p.returned(id, ok)
		if !ok {
			p.fall(touched(r))
		}
	}
}

// Acked tells that a peer has written every entry up to num, and made durable what asked for it.
func (m *Primary) Acked(p *Peer, num uint64) {
	p.acknowledged(num)
	m.flushes()
}

// Broke tells that the stream to a peer ended. The next one, of whatever incarnation, begins with everything marked
// behind.
func (m *Primary) Broke(p *Peer) {
	p.Broke()
	m.flushes()
}

// FlushBegins tells that a flush is admitted: it goes to the local disk and to the peers. tracked: it is the one that is
// watched, and FlushSent follows for each peer that it goes to before anything else is sent there.
func (m *Primary) FlushBegins(id uint64) (tracked bool) {
	if m.flushID != 0 {
		return false
	}
	m.flushID, m.flushHere = id, false
	return true
}

// FlushSent tells that the tracked flush goes to p as entry num. What is complete on both by now, and only that, is clean
// when it has succeeded on both.
func (m *Primary) FlushSent(p *Peer, num uint64) {
	p.flushing, p.done = p.done, p.flushing
	empty(p.done)
	for i := range p.window.len() {
		if e := p.window.at(i); !e.complete {
			from, to := touched(e.r)
			p.flushing.Clear(from, to)
		}
	}
	p.flushNum, p.flushed, p.wholly = num, false, p.behind.Count() == 0 && p.copies == 0
}

// FlushReturned tells how the local part of a flush ended. When it failed, what was written here since the last good one
// may be lost: all that is marked has to be sent again, by whoever has it.
func (m *Primary) FlushReturned(id uint64, ok bool) {
	switch {
	case !ok:
		for _, p := range m.peers {
			p.Broke()
		}
		m.flushID = 0
	case id == m.flushID:
		m.flushHere = true
		m.flushes()
	}
}

// flushes ends the tracked flush at each peer that has it, and the tracking when no peer is left that may still.
func (m *Primary) flushes() {
	if m.flushID == 0 || !m.flushHere {
		return
	}
	waiting := false
	for _, p := range m.peers {
		switch {
		case p.flushNum == 0 || p.flushed:
		case p.acked >= p.flushNum:
			p.live.AndNot(p.flushing)
			empty(p.flushing)
			p.flushed = true
		default:
			waiting = true
		}
	}
	if !waiting {
		m.announce()
	}
}

// announce ends the tracking.
func (m *Primary) announce() {
	m.flushID = 0
	if m.Tell {
		m.tell()
	}
	for _, p := range m.peers {
		p.flushNum, p.flushed = 0, false
	}
}

// tell tells those that have the flush about each other. One of which something was behind when it began is left out: what
// was marked for it elsewhere may still differ.
func (m *Primary) tell() {
	var equal []*Peer
	for _, p := range m.peers {
		if p.flushed && p.wholly {
			equal = append(equal, p)
		}
	}
	for _, to := range equal {
		d := Durable{To: to.Name, Num: to.flushNum, Peers: []string{m.self}}
		for _, p := range equal {
			if p != to {
				d.Peers = append(d.Peers, p.Name)
			}
		}
		m.out = append(m.out, d)
	}
}

// TakeDurable returns what is to be told to standbys, in their streams, since the last call.
func (m *Primary) TakeDurable() []Durable {
	out := m.out
	m.out = nil
	return out
}
