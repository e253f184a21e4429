package replication

import (
	"time"
)

func (l *lab) await(what string, cond func() bool) {
	l.t.Helper()
	for end := time.Now().Add(patience); !cond(); {
		if time.Now().After(end) {
			l.t.Fatalf("waited %v for %s; volume %+v", patience, what, l.volume())
		}
		time.Sleep(200 * time.Microsecond)
	}
}

// awaitPassing awaits cond, and lets the lab's time go by in steps, each when a tenth of a second has changed nothing. Real
// standbys answer in real time: a clock that outruns them drops who is well. So it stands still while one of them is to
// answer, and goes on without one that has not after ten seconds. A step of dropAfter or more is for who wants drops.
func (l *lab) awaitPassing(what string, step time.Duration, cond func() bool) {
	l.t.Helper()
	next := time.Now()
	l.await(what, func() bool {
		if cond() {
			return true
		}
		if now := time.Now(); now.After(next) && (step >= dropAfter || l.answered() || now.After(next.Add(10*time.Second))) {
			l.pass(step)
			next = now.Add(100 * time.Millisecond)
		}
		return false
	})
}

// passAnswered lets a step of the lab's time go by when nobody is to answer.
func (l *lab) passAnswered(step time.Duration) {
	l.t.Helper()
	l.await("an answer", l.answered)
	l.pass(step)
}

// answered reports whether no standby that is connected has been silent for so long that it was sent a ping, and none is asked
// in a round of clearing.
func (l *lab) answered() bool {
	for _, n := range l.nodes {
		if t := n.get().Tenure(); t != nil && !t.answered() {
			return false
		}
	}
	return true
}

func (t *Tenure) answered() bool {
	now := t.r.node.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, name := range t.core.Peers() {
		if t.core.Peer(name).Connected && t.core.Silence(now, name) >= dropAfter/3 {
			return false
		}
	}
	return t.clearing == nil
}
