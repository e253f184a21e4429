package client

import (
	"context"
	"sync"
	"time"
)

// pausing lets a load stand still while somebody looks at the disks.
type pausing struct {
	mu       sync.Mutex
	paused   bool
	underWay int           // operations
	changed  chan struct{} // closed and replaced when either changes
}

func (p *pausing) changeLocked() {
	if p.changed != nil {
		close(p.changed)
	}
	p.changed = make(chan struct{})
}

// begin waits until the load may go on, and counts an operation; false: ctx ended first.
func (p *pausing) begin(ctx context.Context) bool {
	for {
		p.mu.Lock()
		if !p.paused {
			p.underWay++
			p.mu.Unlock()
			return true
		}
		changed := p.changed
		p.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return false
		}
	}
}

func (p *pausing) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.underWay--
	if p.paused {
		p.changeLocked()
	}
}

// Pause lets no further operation begin until resume is called, and waits for those under way: for twice Silence, after
// which only probes may still wait for a server that does not answer. unanswered is how many. What was never answered may
// still take effect.
func (c *Client) Pause() (unanswered int, resume func()) {
	p := &c.pausing
	p.mu.Lock()
	p.paused = true
	p.changeLocked()
	p.mu.Unlock()
	limit := time.NewTimer(2 * c.cfg.Silence)
	defer limit.Stop()
	for waiting := true; waiting; {
		p.mu.Lock()
		changed := p.changed
		unanswered = p.underWay
		p.mu.Unlock()
		if unanswered == 0 {
			break
		}
		select {
		case <-changed:
		case <-limit.C:
			waiting = false
		}
	}
	return unanswered, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.paused = false
		p.changeLocked()
	}
}
