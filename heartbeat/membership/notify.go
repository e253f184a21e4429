package membership

import (
	"context"
	"sync"

	"hacluster/heartbeat"
)

// notifier calls back from a goroutine of its own. What waits is bounded by the number of peers: changes of one peer
// merge, and those that cancel each other out vanish.
type notifier struct {
	tell func(heartbeat.Change)
	wake chan struct{} // capacity 1

	mu      sync.Mutex
	pending map[string]heartbeat.Change
	order   []string // names in pending, first changed first
}

func newNotifier(tell func(heartbeat.Change)) *notifier {
	return &notifier{tell: tell, wake: make(chan struct{}, 1), pending: map[string]heartbeat.Change{}}
}

func (n *notifier) add(c heartbeat.Change) {
	if n.tell == nil {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	name := c.After.Name
	if earlier, ok := n.pending[name]; ok {
		c.Before = earlier.Before
	} else {
		n.order = append(n.order, name)
	}
	n.pending[name] = c
	poke(n.wake)
}

func (n *notifier) take() (c heartbeat.Change, ok bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.order) == 0 {
		return c, false
	}
	name := n.order[0]
	n.order = n.order[1:]
	c = n.pending[name]
	delete(n.pending, name)
	return c, true
}

func (n *notifier) run(ctx context.Context) {
	for {
		for c, ok := n.take(); ok; c, ok = n.take() {
			if c.IsChange() {
				n.tell(c)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-n.wake:
		}
	}
}
