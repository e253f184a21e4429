package replication

import (
	"maps"

	"hacluster/blockdev/marks"
	"hacluster/heartbeat/cluster"
)

// roster is who holds a replica of the volume, and where this replica keeps what may differ from each: what is marked, numbered and
// asked about another replica goes by it. It never changes; the next one takes its place at once, so that who sees a slot in it
// marks for that slot.
type roster struct {
	numbers map[string]uint32 // of all replicas, by node
	slots   map[string]int    // of the others, in cfg.Marks; a peer without one has everything to copy, always
	named   []string          // who has a slot, in the order of the volume's record
	all     marks.Slots       // of those
}

func newRoster(vol *cluster.Volume, self string, f *marks.File) *roster {
	l := &roster{numbers: map[string]uint32{}, slots: map[string]int{}}
	for _, rep := range vol.Replicas {
		n := rep.Node
		l.numbers[n] = vol.NumberOf(n)
		if f == nil || n == self {
			continue
		}
		if i, ok := f.Lookup(marks.Peer{Name: n, Replica: vol.Stamp(n)}); ok {
			l.slots[n] = i
			l.named = append(l.named, n)
			l.all |= marks.Of(i)
		}
	}
	return l
}

// Peers are the other replicas of a volume, as the map of node self names them.
func Peers(vol *cluster.Volume, self string) (peers []marks.Peer) {
	for _, r := range vol.Replicas {
		if r.Node != self {
			peers = append(peers, marks.Peer{Name: r.Node, Replica: vol.Stamp(r.Node)})
		}
	}
	return peers
}

// followRosterLocked takes up that replicas came or went. Nothing is marked for those that went from here on; one that came has no slot,
// so all of it may differ, until it has one on stable storage. What was promised before is void: it may name slots that are given up.
func (r *Replica) followRosterLocked() {
	l := newRoster(&r.vol, r.cfg.Node, r.cfg.Marks)
	if maps.Equal(l.numbers, r.roster.Load().numbers) {
		return
	}
	r.roster.Store(l)
	r.promised.s, r.promised.n = nil, 0
	r.beginFitLocked()
}

func (r *Replica) beginFitLocked() {
	if r.cfg.Marks != nil && !r.fitting && !r.stopped {
		r.fitting = true
		r.goes.Go(r.fit)
	}
}

// revivedLocked has the map take up what it could not while it had failed: that replicas came or went.
func (r *Replica) revivedLocked() {
	if l := r.roster.Load(); len(l.slots) < len(l.numbers)-1 {
		r.beginFitLocked()
	}
}

// fit has the map keep a slot for each of the others, and for nobody else.
func (r *Replica) fit() {
	for {
		r.mu.Lock()
		vol := r.vol
		r.mu.Unlock()
		err := r.cfg.Marks.Fit(Peers(&vol, r.cfg.Node))
		r.mu.Lock()
		l := newRoster(&r.vol, r.cfg.Node, r.cfg.Marks)
		if err == nil {
			r.roster.Store(l)
		}
		if err != nil || len(l.slots) == len(l.numbers)-1 || l.numbers[r.cfg.Node] == 0 {
			r.fitting = false
			r.mu.Unlock()
			if err != nil {
				r.log.Error("the map of what may differ cannot follow that replicas came or went: those are compared as a whole", "error", err)
			}
			return
		}
		r.mu.Unlock() // they changed meanwhile
	}
}

// bits names replicas as a Clearing does, by their numbers.
func (l *roster) bits(names ...string) (b uint32) {
	for _, n := range names {
		if number, ok := l.numbers[n]; ok {
			b |= cluster.NumberBit(number)
		}
	}
	return b
}
