package nbdclient

import (
	"errors"
	"maps"
	"sync"
	"time"

	"hacluster/blockdev/frontend/nbd/nbdproto"
)

// Stats is what a Reconnecting saw.
type Stats struct {
	Answers    int64                    // operations that were answered, with success or an error number
	Errors     map[nbdproto.Errno]int64 // error numbers among them
	Unanswered int64                    // operations that ended without an answer
	Reconnects int64                    // connections lost
	// LongestPause is the longest time in which operations waited and none was answered.
	LongestPause time.Duration
}

// Stats returns the present numbers.
func (r *Reconnecting) Stats() Stats { return r.meter.stats() }

// meter measures how well an application is served.
type meter struct {
	mu      sync.Mutex
	s       Stats
	waiting int
	since   time.Time // while waiting > 0: of the last answer, or since when somebody waits
}

func (m *meter) reset() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.s = Stats{Errors: make(map[nbdproto.Errno]int64)}
}

func (m *meter) begin() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.waiting == 0 {
		m.since = time.Now()
	}
	m.waiting++
}

func (m *meter) end(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	m.s.LongestPause = max(m.s.LongestPause, now.Sub(m.since))
	m.waiting--
	var errno nbdproto.Errno
	switch {
	case err == nil:
		m.s.Answers++
	case errors.As(err, &errno):
		m.s.Answers++
		m.s.Errors[errno]++
	default:
		m.s.Unanswered++
		return // no answer: the pause goes on
	}
	m.since = now
}

func (m *meter) reconnect() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.s.Reconnects++
}

func (m *meter) stats() Stats {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.s
	s.Errors = maps.Clone(m.s.Errors)
	return s
}
