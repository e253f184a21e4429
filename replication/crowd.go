package replication

import (
	"errors"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"hacluster/replication/link"
)

// Crowd is what the replicas of one node share, so that a thousand idle volumes cost about what a few do. One that has nothing to
// do looks at itself the more seldom the more there are, and asks its peers for a sign of life likewise: together they send
// pingsPerSec. What one of them finds out of a peer, that it does not answer, all others are told and ask at once (suspect). So a
// standby that is gone is dropped from every volume about as soon as from one.
type Crowd struct {
	replicas atomic.Int64
	resyncs  turns

	mu      sync.Mutex
	tenures map[*Tenure]struct{}
	awake   map[*Tenure]struct{} // those of tenures that do not rest
	asked   map[string]time.Time // when all were last told to ask a node
	down    map[string]time.Time // nodes that did not answer the greeting that came back last, and when that was
}

// How often all idle volumes of a node together look at themselves, and ask for signs of life, in a second. With fewer volumes
// than that makes a difference for each keeps its own pace. A peer that is gone is found out by the first one that asks it, so the
// more often they do the sooner: it is more often than one volume alone does.
const (
	looksPerSec = 100
	pingsPerSec = 20
)

// How often all together try in a second to connect to a node that does not answer: as members, for which writes wait until they are
// dropped, and as others. The first that gets through tells the rest.
const (
	memberDialsPerSec = 2000
	dialsPerSec       = 50
)

// pace is how often one volume does what all together do so many times a second; not more often than by itself.
func (c *Crowd) pace(alone time.Duration, perSec int64) time.Duration {
	return max(alone, time.Duration(c.replicas.Load())*time.Second/time.Duration(perSec))
}

func (c *Crowd) enter(t *Tenure) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.tenures == nil {
		c.tenures, c.awake = map[*Tenure]struct{}{}, map[*Tenure]struct{}{}
	}
	c.tenures[t], c.awake[t] = struct{}{}, struct{}{}
}

func (c *Crowd) leave(t *Tenure) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.tenures, t)
	delete(c.awake, t)
}

// rests is called with the mutex of the Tenure held.
func (c *Crowd) rests(t *Tenure, rests bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.tenures[t]; ok && !rests {
		c.awake[t] = struct{}{}
	} else {
		delete(c.awake, t)
	}
}

// Renewed tells that the node's lease goes on: it was in force until now, and names what it named before. Only those that do not
// rest are told, for the others find out when they ask (gate).
func (c *Crowd) Renewed() {
	c.mu.Lock()
	awake := slices.AppendSeq(make([]*Tenure, 0, len(c.awake)), maps.Keys(c.awake))
	c.mu.Unlock()
	for _, t := range awake {
		t.LeaseChanged()
	}
}

// suspectPause is for how long one word of a node's silence counts for all.
const suspectPause = 50 * time.Millisecond

// suspect has every volume but the one that found it ask node for a sign of life, where its stream is idle. It does not wait: each
// does it at its own next turn, which is now.
func (c *Crowd) suspect(by *Tenure, node string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := time.Now(); now.Sub(c.asked[node]) >= suspectPause {
		if c.asked == nil {
			c.asked = map[string]time.Time{}
		}
		c.asked[node] = now
	} else {
		return // they are at it
	}
	for t := range c.tenures {
		if t == by {
			continue
		}
		if p := t.peer(node); p != nil && !p.doubt.Swap(true) {
			t.look()
		}
	}
}

// downFor is how long a word that a node does not answer counts for all: who said it may have ended, and the node be back.
const downFor = time.Second

// greeted tells what came of a greeting. The first answer of a node that gave none is news for all who wait to try again.
func (c *Crowd) greeted(node string, err error) {
	var refused *link.RefusedError
	answered := err == nil || errors.As(err, &refused)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.down == nil {
		c.down = map[string]time.Time{}
	}
	_, was := c.down[node]
	if !answered {
		c.down[node] = time.Now()
		return
	}
	if delete(c.down, node); !was {
		return
	}
	for t := range c.tenures {
		if p := t.peer(node); p != nil {
			select {
			case p.back <- struct{}{}:
			default:
			}
		}
	}
}

func (c *Crowd) isDown(node string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	since, down := c.down[node]
	return down && time.Since(since) < downFor
}

// SetResyncs changes how many resyncs of the node run at a time.
func (c *Crowd) SetResyncs(limit int) { c.resyncs.set(limit) }
