package replication

import (
	"cmp"
	"slices"
	"sync"
	"time"
)

// turns has so many resyncs of a node run at a time: each keeps two disks and the line busy, and a node that is back has one for
// every volume. The others wait in the order in which they came. One that has had its time goes behind those that wait, so that a
// large volume does not keep small ones from being in sync.
type turns struct {
	mu    sync.Mutex
	limit int // 0: defaultResyncs
	held  []turn
	queue []*copier
}

type turn struct {
	c    *copier
	over time.Time // from then on another may have it
}

const (
	defaultResyncs = 8
	turnTime       = 5 * time.Second
	// turnLook is how often one that waits looks whether a time is over: who has it may be held up itself, and say nothing.
	turnLook = time.Second
)

// may reports whether c has a turn, and takes one or a place in the queue.
func (q *turns) may(c *copier, now time.Time) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if i := q.place(c); i >= 0 {
		if now.Before(q.held[i].over) || len(q.queue) == 0 {
			return true
		}
		q.held = slices.Delete(q.held, i, i+1)
	}
	if !slices.Contains(q.queue, c) {
		q.queue = append(q.queue, c)
	}
	q.grantLocked(now)
	return q.place(c) >= 0
}

// done gives back what c has.
func (q *turns) done(c *copier, now time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if i := q.place(c); i >= 0 {
		q.held = slices.Delete(q.held, i, i+1)
	} else if i := slices.Index(q.queue, c); i >= 0 {
		q.queue = slices.Delete(q.queue, i, i+1)
	}
	q.grantLocked(now)
}

// waits tells how many are before c; ok false: it does not wait.
func (q *turns) waits(c *copier) (before int, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	i := slices.Index(q.queue, c)
	return i, i >= 0
}

func (q *turns) place(c *copier) int {
	return slices.IndexFunc(q.held, func(t turn) bool { return t.c == c })
}

// set changes how many run at a time.
func (q *turns) set(limit int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.limit = limit
	q.grantLocked(time.Now())
}

func (q *turns) atATime() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return cmp.Or(q.limit, defaultResyncs)
}

// grantLocked gives turns to the first of the queue while there are some, those included whose time is over.
func (q *turns) grantLocked(now time.Time) {
	limit := cmp.Or(q.limit, defaultResyncs)
	for len(q.queue) > 0 {
		if len(q.held) >= limit {
			i := slices.IndexFunc(q.held, func(t turn) bool { return !now.Before(t.over) })
			if i < 0 {
				return
			}
			q.held = slices.Delete(q.held, i, i+1)
		}
		c := q.queue[0]
		q.queue = slices.Delete(q.queue, 0, 1)
		q.held = append(q.held, turn{c, now.Add(turnTime)})
		c.p.compare()
	}
}
