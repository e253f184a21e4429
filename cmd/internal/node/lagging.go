package node

import (
	"context"
	"fmt"
	"time"

	"hacluster/cmd/internal/control"
	"hacluster/heartbeat/cluster"
)

// How far a standby in async is behind, as the history tells it.
const (
	lagCalm   = iota
	lagSlowed // beyond half of the bound
	lagNear   // beyond three quarters
	lagHeld   // writers wait
	lagLevels
)

const (
	// lagLook is how often it is looked at: what comes and goes in less is not worth a line.
	lagLook = 250 * time.Millisecond
	// lagQuiet is for how long a level must not be reached any more before it counts as left, at first. Each line that comes again within
	// lagMemory doubles it, up to lagMemory: a load that swings for days fills no history.
	lagQuiet  = 10 * time.Second
	lagMemory = 10 * time.Minute
)

// nearPerMille is the fill of the bound from which a person should know.
const nearPerMille = 750

// lagging tells an operator, by events, how far one standby is behind: each level when it is reached, and when all is well
// again. It decides only; followLags looks.
type lagging struct {
	level int                       // that was told
	at    [lagLevels]time.Duration  // when each level was reached last
	said  [lagLevels]*time.Duration // when each was told last; nil: never
	quiet time.Duration
	began time.Duration // of what is told of
	most  control.Lag   // since then
}

// look takes how the standby stands, nil for one that writers do not wait for, and gives the event to tell; no kind: none.
func (l *lagging) look(now time.Duration, p *control.Peer, b *control.Bound) (kind, text string) {
	if p.Lag == nil { // it was dropped: that has its own event
		l.level = lagCalm
		return "", ""
	}
	is := levelOf(p.Lag)
	for i := range is + 1 {
		l.at[i] = now
	}
	if l.level > lagCalm {
		l.most.Bytes, l.most.Ms = max(l.most.Bytes, p.Lag.Bytes), max(l.most.Ms, p.Lag.Ms)
	}
	if is > l.level {
		if l.level == lagCalm {
			l.began, l.most = now, *p.Lag
		}
		l.level = is
		l.say(now, is)
		return lagKinds[is], lagText(is, p, b)
	}
	for l.level > lagCalm && now-l.at[l.level] >= l.quiet {
		if l.level--; l.level == lagCalm {
			return "lag caught up", fmt.Sprintf("writers are not slowed any more: after %v, in which %s lacked %d bytes at most, the oldest for %v",
				(now - l.began).Round(100*time.Millisecond), p.Node, l.most.Bytes, millis(l.most.Ms))
		}
	}
	return "", ""
}

// say notes that a level is told. What was told not long before is told less often from then on.
func (l *lagging) say(now time.Duration, level int) {
	if before := l.said[level]; before != nil && now-*before < lagMemory {
		l.quiet = min(2*l.quiet, lagMemory)
	} else {
		l.quiet = max(lagQuiet, l.quiet/2)
	}
	l.said[level] = &now
}

func levelOf(g *control.Lag) int {
	switch {
	case g.Held:
		return lagHeld
	case g.PerMille >= nearPerMille:
		return lagNear
	case g.Slowed:
		return lagSlowed
	}
	return lagCalm
}

var lagKinds = [lagLevels]string{"", "writers slowed", "lag near its bound", "writers held"}

func lagText(level int, p *control.Peer, b *control.Bound) string {
	switch level {
	case lagHeld:
		return heldText(p, b)
	case lagNear:
		return fmt.Sprintf("%d %% of what a failover may lose is used: %s", p.Lag.PerMille/10, behindText(p, b))
	}
	return slowedText(p, b)
}

// lagBook has the standbys of what this node serves in one epoch each. What is not served any more is forgotten.
type lagBook map[string]*lagPage

type lagPage struct {
	epoch cluster.Epoch
	peers map[string]*lagging
}

// look takes all that this node serves.
func (book lagBook) look(now time.Duration, serving []control.Serving, tell func(kind, volume, text string)) {
	served := map[string]bool{}
	for i := range serving {
		s := &serving[i]
		if s.Bound == nil {
			continue
		}
		served[s.Volume] = true
		page := book[s.Volume]
		if page == nil || page.epoch != s.Epoch {
			page = &lagPage{epoch: s.Epoch, peers: map[string]*lagging{}}
			book[s.Volume] = page
		}
		for j := range s.Peers {
			p := &s.Peers[j]
			l := page.peers[p.Node]
			if l == nil {
				l = &lagging{quiet: lagQuiet}
				page.peers[p.Node] = l
			}
			if kind, text := l.look(now, p, s.Bound); kind != "" {
				tell(kind, s.Volume, text)
			}
		}
	}
	for name := range book {
		if !served[name] {
			delete(book, name)
		}
	}
}

// followLags tells of standbys that fall behind, until ctx ends.
func (n *Node) followLags(ctx context.Context) error {
	tick := time.NewTicker(lagLook)
	defer tick.Stop()
	book := lagBook{}
	for {
		book.look(time.Duration(n.now()), n.vols.lags(), func(kind, volume, text string) {
			n.events.add(kind, volume, text)
			n.log.Warn(kind, "volume", volume, "why", text)
		})
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
