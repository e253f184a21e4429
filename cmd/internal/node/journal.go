package node

import (
	"context"
	"sort"
	"sync"
	"time"

	"hacluster/cmd/internal/api"
	"hacluster/heartbeat/cluster"
)

// journal is what happened, as this node saw it: the cluster's own history, which all nodes share, and what only this
// one noticed.
type journal struct {
	node string
	most int // events; beyond it the oldest go

	mu      sync.Mutex
	events  []api.Event
	last    uint64        // number of the last event
	seen    uint64        // number of the last event of the cluster's state that is in here
	changed chan struct{} // closed and replaced by each event
}

func newJournal(node string, most int) *journal {
	return &journal{node: node, most: most, changed: make(chan struct{})}
}

func (j *journal) add(kind, volume, text string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.addLocked(api.Event{At: wallClock().UTC(), Node: j.node, Kind: kind, Volume: volume, Text: text})
	j.tellLocked()
}

func (j *journal) addLocked(e api.Event) {
	j.last++
	e.Seq = j.last
	j.events = append(j.events, e)
}

// tellLocked follows one event or more: it bounds what is remembered, and wakes who waits.
func (j *journal) tellLocked() {
	if n := len(j.events) - j.most; n > 0 {
		j.events = append([]api.Event(nil), j.events[n:]...)
	}
	close(j.changed)
	j.changed = make(chan struct{})
}

// follow copies the cluster's events into the journal until ctx ends.
func (j *journal) follow(ctx context.Context, state *stateStore) error {
	for {
		st, changed := state.watch()
		j.copy(st)
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

func (j *journal) copy(st *cluster.State) {
	j.mu.Lock()
	defer j.mu.Unlock()
	first := sort.Search(len(st.Events), func(i int) bool { return st.Events[i].Number > j.seen })
	if first == len(st.Events) {
		return
	}
	for _, e := range st.Events[first:] {
		j.seen = e.Number
		j.addLocked(api.Event{Number: e.Number, At: time.UnixMilli(e.AtMillis).UTC(), Node: e.Node, Kind: e.Kind, Volume: e.Volume, Text: e.Text})
	}
	j.tellLocked()
}

// since returns what came after number, and a channel that is closed when there is more.
func (j *journal) since(number uint64) ([]api.Event, <-chan struct{}) {
	j.mu.Lock()
	defer j.mu.Unlock()
	var out []api.Event
	for _, e := range j.events {
		if e.Seq > number {
			out = append(out, e)
		}
	}
	return out, j.changed
}

// Events implements api.Journal.
func (n *Node) Events(ctx context.Context, follow bool, send func(api.Event) error) error {
	last := uint64(0)
	for {
		events, changed := n.events.since(last)
		for _, e := range events {
			if err := send(e); err != nil {
				return err
			}
			last = e.Seq
		}
		if !follow {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}
