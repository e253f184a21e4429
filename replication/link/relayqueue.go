package link

import (
	"sync"

	"hacluster/blockdev"
)

// carried is a message on its way through a relay.
type carried struct {
	head    []byte // with its prefix
	pieces  [][]byte
	size    int // bytes of pieces
	payload *blockdev.Buf
	lent    []keptWrite
	out     [][]byte // memory for what is sent
}

var carriedPool = sync.Pool{New: func() any { return new(carried) }}

// newCarried copies a head, which lies in memory that moves.
func newCarried(head []byte) *carried {
	m := carriedPool.Get().(*carried)
	m.head = append(append(m.head[:0], make([]byte, prefixSize)...), head...)
	return m
}

func (m *carried) free() {
	if m.payload != nil {
		m.payload.Free()
	}
	for i := range m.lent {
		m.lent[i].free()
	}
	clear(m.lent)
	clear(m.pieces)
	clear(m.out)
	m.pieces, m.lent, m.out, m.size, m.payload = m.pieces[:0], m.lent[:0], m.out[:0], 0, nil
	carriedPool.Put(m)
}

// What is read and not sent on: of payloads that came with their messages little, for what follows them waits as well, and a primary
// knows by the answers how long; of lent ones all that a primary lends, for they are kept for a while only.
const (
	queueFull = 1 << 20
	queueLent = 2 * lendWindow
	queueMost = 4096 // messages
)

// relayQueue holds messages in the order in which they came.
type relayQueue struct {
	mu      sync.Mutex
	changed *sync.Cond
	waiting []*carried
	full    int // bytes of payloads that came with their messages, waiting or being sent
	lent    int // and of lent ones
	under   int // messages, waiting or being sent
	closed  bool
}

// put waits for room; false: the queue is closed.
func (q *relayQueue) put(m *carried) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	for !q.closed && (q.full > queueFull || q.lent > queueLent || q.under >= queueMost) {
		q.changed.Wait()
	}
	if q.closed {
		return false
	}
	q.countLocked(m, m.size)
	q.under++
	q.waiting = append(q.waiting, m)
	q.changed.Broadcast()
	return true
}

func (q *relayQueue) countLocked(m *carried, n int) {
	if len(m.lent) > 0 {
		q.lent += n
	} else {
		q.full += n
	}
}

// take waits for messages, and returns all there are; what it returned before is used again. None: the queue is closed.
func (q *relayQueue) take(before []*carried) []*carried {
	q.mu.Lock()
	defer q.mu.Unlock()
	for !q.closed && len(q.waiting) == 0 {
		q.changed.Wait()
	}
	if q.closed {
		return nil
	}
	all := q.waiting
	q.waiting = before[:0]
	return all
}

// sent tells that a message that was taken is through, or never will be, and frees it.
func (q *relayQueue) sent(m *carried) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.countLocked(m, -m.size)
	q.under--
	m.free()
	q.changed.Broadcast()
}

func (q *relayQueue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.changed.Broadcast()
}

// drop gives back what will not be sent.
func (q *relayQueue) drop() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, m := range q.waiting {
		m.free()
	}
	q.waiting = nil
}
