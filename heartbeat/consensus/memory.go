package consensus

import (
	"errors"
	"sync"

	"github.com/hashicorp/raft"
)

// Memory keeps a node's Raft state without a disk, for tests. The state outlives the Raft that uses it, so that a
// restart can be played: close one, open another with the same Memory. One Raft may use it at a time.
type Memory struct {
	mu    sync.Mutex // guards inUse
	inUse bool

	logs  *raft.InmemStore
	snaps *raft.InmemSnapshotStore
}

// NewMemory returns the state of a node that never ran.
func NewMemory() *Memory {
	return &Memory{logs: raft.NewInmemStore(), snaps: raft.NewInmemSnapshotStore()}
}

// HasState is the function HasState for a Memory.
func (m *Memory) HasState() (bool, error) {
	return raft.HasExistingState(m.logs, m.logs, m.snaps)
}

func (m *Memory) acquire() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.inUse {
		return errors.New("this Memory is used by another Raft")
	}
	m.inUse = true
	return nil
}

func (m *Memory) release() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.inUse = false
}
