package node

import (
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"sync"

	"hacluster/cmd/internal/control"
	"hacluster/heartbeat/consensus"
)

// seenBook is what this node remembers of each voter: the highest term, and the newest committed entry that it had
// (R32). Neither goes back while its disk keeps what it stored, so a voter that has less was restored or rolled back.
type seenBook struct {
	mu sync.Mutex
	by map[string]control.Seen // by Raft id; as many as ever voted while this process lived
}

func (b *seenBook) note(raftID string, s control.Seen) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.by == nil {
		b.by = map[string]control.Seen{}
	}
	old := b.by[raftID]
	b.by[raftID] = control.Seen{Term: max(old.Term, s.Term), Index: max(old.Index, s.Index)}
}

func (b *seenBook) of(raftID string) control.Seen {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.by[raftID]
}

func (b *seenBook) all() map[string]control.Seen {
	b.mu.Lock()
	defer b.mu.Unlock()
	return maps.Clone(b.by)
}

// reached is how far this node has come: what it applied was committed, so its log never loses it.
func (n *Node) reached(r *consensus.Raft) control.Seen {
	return control.Seen{Term: r.Term(), Index: n.state.get().Index}
}

// checkReached asks the others, before Raft is opened and could vote, whether they remember more of this node than it
// remembers itself. Who does not answer cannot be asked; it takes a majority to give a vote any weight.
func (n *Node) checkReached(ctx context.Context) error {
	term, index, err := consensus.Reached(filepath.Join(n.cfg.DataDir(), "raft"))
	if err != nil {
		return fmt.Errorf("raft state: %w", err)
	}
	var goes sync.WaitGroup
	for _, name := range n.others("") {
		goes.Go(func() {
			if h, err := n.hello(ctx, name); err == nil {
				n.seen.note(n.dir.raftID(), h.Seen)
			}
		})
	}
	goes.Wait()
	if s := n.seen.of(n.dir.raftID()); s.Term > term || s.Index > index {
		return fmt.Errorf("%s was restored or copied: its Raft state has term %d and entries up to %d, others remember term %d and entry %d of it; "+
			"it must not vote with an old state: run `ha-admin node remove %s`, empty the directory, start, and run `ha-admin node add %s`",
			n.cfg.DataDir(), term, index, s.Term, s.Index, n.me.Name, n.me.Name)
	}
	return nil
}
