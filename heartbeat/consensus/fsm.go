package consensus

import (
	"encoding/binary"
	"fmt"
	"io"
	"sync/atomic"

	"github.com/hashicorp/raft"

	"hacluster/blockdev/failpoint"
)

// fsm hands raft's calls to the state machine.
type fsm struct {
	machine  StateMachine
	standing *standing
	applied  atomic.Uint64 // index of the last command that the machine has applied, or of its snapshot

	// restoreErr is the first refusal of a snapshot while opening; raft would go on to an older one in silence.
	restoreErr error
	opened     atomic.Bool
}

var _ raft.ConfigurationStore = (*fsm)(nil)

func (f *fsm) Apply(l *raft.Log) any {
	failpoint.Hit(failpoint.RaftApply)
	defer failpoint.Hit(failpoint.RaftApplied)
	result := f.machine.Apply(l.Index, l.Term, l.Data)
	f.applied.Store(l.Index)
	return result
}

// StoreConfiguration makes raft count membership entries as applied, so that a snapshot may follow one directly. It is
// called when they are committed.
func (f *fsm) StoreConfiguration(index uint64, c raft.Configuration) {
	f.standing.committed(point{index: index}, c)
}

func (f *fsm) Snapshot() (raft.FSMSnapshot, error) {
	data, err := f.machine.Snapshot()
	if err != nil {
		return nil, fmt.Errorf("encode the state: %w", err)
	}
	if len(data) > maxSnapshot {
		return nil, fmt.Errorf("encode the state: it has %d bytes, the limit is %d", len(data), maxSnapshot)
	}
	return encoded{f.applied.Load(), data}, nil
}

func (f *fsm) Restore(from io.ReadCloser) error {
	err := f.restore(from)
	if err != nil && !f.opened.Load() && f.restoreErr == nil {
		f.restoreErr = err
	}
	return err
}

func (f *fsm) restore(from io.Reader) error {
	data, err := io.ReadAll(io.LimitReader(from, indexLen+maxSnapshot+1))
	switch {
	case err != nil:
		return fmt.Errorf("read snapshot: %w", err)
	case len(data) < indexLen:
		return fmt.Errorf("read snapshot: it has only %d bytes", len(data))
	case len(data) > indexLen+maxSnapshot:
		return fmt.Errorf("read snapshot: it exceeds %d bytes", maxSnapshot)
	}
	if err := f.machine.Restore(data[indexLen:]); err != nil {
		return fmt.Errorf("restore the state from a snapshot: %w", err)
	}
	f.applied.Store(binary.LittleEndian.Uint64(data))
	return nil
}

// encoded is a state on its way into a snapshot: 8 bytes, little-endian, for the index of the last command in it, then
// what the state machine made.
type encoded struct {
	applied uint64
	data    []byte
}

const indexLen = 8

func (e encoded) Persist(sink raft.SnapshotSink) error {
	if _, err := sink.Write(binary.LittleEndian.AppendUint64(nil, e.applied)); err != nil {
		return err
	}
	if _, err := sink.Write(e.data); err != nil {
		return err
	}
	return sink.Close()
}

func (e encoded) Release() {}
