package replication

import (
	"fmt"
	"time"

	"hacluster/replication/primary"
	"hacluster/replication/resync"
)

// resyncing is what the primary tells an operator of the resync of one replica: how fast it is, and the events of its life.
// A resync lasts from the first stream in which something is compared until the replica is a member, over every break.
type resyncing struct {
	speed   resync.Speed
	began   time.Duration // when it began; the rest means nothing before
	open    bool          // it has begun and has not ended
	running bool          // something is compared or may be: connected, not paused
	stalled bool          // it was said
}

// look takes how it stands and returns what an operator should find in the history.
func (s *resyncing) look(now time.Duration, node string, g primary.Progress) (kind, text string) {
	was := s.running
	s.running = g.Resyncing
	switch {
	case g.Member && s.open:
		text = fmt.Sprintf("%s is in sync: %d bytes compared, %d bytes copied, in %.1f s", node, g.ComparedBytes, g.CopiedBytes, (now - s.began).Seconds())
		*s = resyncing{}
		return "resync ended", text
	case !g.Resyncing && was:
		s.speed, s.stalled = resync.Speed{}, false
		if g.Paused {
			return "resync paused", fmt.Sprintf("that of %s has stopped: %d bytes are left", node, g.RemainingBytes)
		}
		if g.Spoilt {
			return "resync interrupted", fmt.Sprintf("that of %s: %d bytes are left; the primary's own disk failed, and nothing of it is copied while another member, which has all, is waited for", node, g.RemainingBytes)
		}
		return "resync interrupted", fmt.Sprintf("that of %s: %d bytes are left; it goes on when the replica is back", node, g.RemainingBytes)
	case !g.Resyncing:
		return "", ""
	}
	s.speed.Look(now, g.RemainingBytes)
	switch stalled := s.speed.Stalled(now); {
	case !s.open:
		s.open, s.began = true, now
		return "resync begun", fmt.Sprintf("%d bytes are to be compared with %s", g.RemainingBytes, node)
	case !was:
		return "resync goes on", fmt.Sprintf("%d bytes are left to be compared with %s", g.RemainingBytes, node)
	case stalled && !s.stalled:
		s.stalled = true
		return "resync stalled", fmt.Sprintf("what is left of that of %s, %d bytes, has not become less for a while: its disk or the line is slow, or writes add as much as is copied", node, g.RemainingBytes)
	case !stalled && s.stalled:
		s.stalled = false
		return "resync goes on", fmt.Sprintf("that of %s gets ahead again: %d bytes are left", node, g.RemainingBytes)
	}
	return "", ""
}

// followResyncs looks how each resync stands. Only tick calls it.
func (t *Tenure) followResyncs() {
	now := time.Duration(t.r.node.Now())
	t.mu.Lock()
	peers := t.core.Peers()
	t.mu.Unlock()
	for _, n := range peers {
		p := t.peer(n)
		t.mu.Lock()
		g := t.core.Peer(n)
		t.mu.Unlock()
		p.mu.Lock()
		kind, text := p.resync.look(now, n, g)
		p.mu.Unlock()
		if kind != "" {
			t.r.node.Event(t.r.cfg.Volume.Name, kind, text)
		}
	}
}

// SetResync changes what resyncs of the volume may take, also of one that runs.
func (r *Replica) SetResync(l resync.Limits) { r.limits.Store(&l) }

func (r *Replica) resyncLimits() resync.Limits {
	if l := r.limits.Load(); l != nil {
		return *l
	}
	return resync.Limits{}
}
