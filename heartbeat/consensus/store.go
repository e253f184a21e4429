package consensus

import (
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"sync/atomic"

	"github.com/hashicorp/raft"

	"hacluster/blockdev/deadline"
	"hacluster/blockdev/failpoint"
)

// backend is where log, term and votes are kept: raft-wal, memory, or a test's misbehaving version of them.
type backend interface {
	raft.LogStore
	raft.StableStore
}

// store stands between raft and its backend. It makes the storage fail-stop: after the first failure nothing is
// written any more, because neither raft (whose idea of its last entry may be wrong by then) nor a file whose sync
// failed can be relied on.
//
// raft panics when it cannot store a term or read an entry, in goroutines of its own. There the calling goroutine is
// ended instead (runtime.Goexit): it runs its deferred calls, so raft's futures are answered and Shutdown still works,
// and the process lives to report the failure.
type store struct {
	under  backend
	mark   *mark // nil in memory
	watch  *deadline.Watch
	fail   func(error)
	noted  func(point, raft.Configuration) // called for each configuration that enters the log, committed or not
	broken atomic.Bool                     // a call failed: nothing is written any more
	closed atomic.Bool                     // raft has ended: errors are of no interest
}

var (
	_ backend                = (*store)(nil)
	_ raft.MonotonicLogStore = (*store)(nil)
)

// keyCurrentTerm is raft's name for the term in its stable store.
const keyCurrentTerm = "CurrentTerm"

// IsMonotonic tells raft that the log must not have holes (raft-wal), so that it empties the log after a snapshot.
func (s *store) IsMonotonic() bool {
	m, ok := s.under.(raft.MonotonicLogStore)
	return ok && m.IsMonotonic()
}

func (s *store) FirstIndex() (index uint64, err error) {
	err = s.read("read the first index of the log", func() error { index, err = s.under.FirstIndex(); return err })
	return index, err
}

func (s *store) LastIndex() (index uint64, err error) {
	err = s.read("read the last index of the log", func() error { index, err = s.under.LastIndex(); return err })
	return index, err
}

func (s *store) GetLog(index uint64, into *raft.Log) error {
	err := s.read("read an entry of the log", func() error { return s.under.GetLog(index, into) })
	if err != nil && !errors.Is(err, raft.ErrLogNotFound) {
		s.giveUp()
	}
	return err
}

func (s *store) StoreLog(l *raft.Log) error { return s.StoreLogs([]*raft.Log{l}) }

// StoreLogs appends. The mark follows the log, never leads it.
func (s *store) StoreLogs(logs []*raft.Log) error {
	if len(logs) == 0 {
		return nil
	}
	failpoint.Hit(failpoint.RaftAppend)
	defer failpoint.Hit(failpoint.RaftAppended)
	return s.write("append to the log", func() error {
		if err := s.under.StoreLogs(logs); err != nil {
			return err
		}
		for _, l := range logs {
			if l.Type == raft.LogConfiguration {
				s.noted(point{l.Index, l.Term}, raft.DecodeConfiguration(l.Data))
			}
		}
		failpoint.Hit(failpoint.RaftAppendStored)
		return s.mark.raiseIndex(logs[len(logs)-1].Index)
	})
}

// DeleteRange removes a prefix (after a snapshot) or a suffix (entries that another leader overruled). Before a suffix
// goes, the mark is lowered durably; a crash in between leaves a mark that claims too little, which is harmless.
func (s *store) DeleteRange(from, to uint64) error {
	failpoint.Hit(failpoint.RaftTruncate)
	defer failpoint.Hit(failpoint.RaftTruncated)
	return s.write("truncate the log", func() error {
		last, err := s.under.LastIndex()
		if err != nil {
			return err
		}
		if to >= last && from > 0 {
			if err := s.mark.lowerIndex(from - 1); err != nil {
				return err
			}
		}
		return s.under.DeleteRange(from, to)
	})
}

func (s *store) Get(key []byte) (value []byte, err error) {
	err = s.read("read the vote", func() error { value, err = s.under.Get(key); return err })
	return value, err
}

func (s *store) GetUint64(key []byte) (value uint64, err error) {
	err = s.read("read term or vote", func() error { value, err = s.under.GetUint64(key); return err })
	return value, err
}

func (s *store) Set(key, value []byte) error {
	return s.write("store the vote", func() error { return s.under.Set(key, value) })
}

func (s *store) SetUint64(key []byte, value uint64) error {
	failpoint.Hit(failpoint.RaftVote)
	defer failpoint.Hit(failpoint.RaftVoted)
	isTerm := string(key) == keyCurrentTerm
	err := s.write("store term or vote", func() error {
		if err := s.under.SetUint64(key, value); err != nil || !isTerm {
			return err
		}
		failpoint.Hit(failpoint.RaftVoteStored)
		return s.mark.raiseTerm(value)
	})
	if err != nil && isTerm {
		s.giveUp()
	}
	return err
}

func (s *store) write(op string, fn func() error) error {
	if s.broken.Load() {
		return fmt.Errorf("%s: %w", op, ErrFailed)
	}
	defer s.watch.Begin(op)()
	return s.judge(op, guarded(fn))
}

func (s *store) read(op string, fn func() error) error {
	defer s.watch.Begin(op)()
	return s.judge(op, guarded(fn))
}

// judge passes on answers; any other error is this store's last.
func (s *store) judge(op string, err error) error {
	if err == nil || errors.Is(err, raft.ErrLogNotFound) || err.Error() == "not found" || s.closed.Load() {
		return err // "not found" is how raft's stores say that a key was never set; there is no sentinel for it
	}
	err = fmt.Errorf("%s: %w", op, err)
	s.broken.Store(true)
	s.fail(err)
	return err
}

// giveUp ends the calling goroutine where raft would panic. A store that failed may have been closed meanwhile, by
// whoever heard of the failure first.
func (s *store) giveUp() {
	if s.broken.Load() || !s.closed.Load() {
		runtime.Goexit()
	}
}

// guarded turns a fault in memory-mapped state (bbolt reads its file that way: an unreadable or missing page is a
// signal) and a panic over damaged pages into an error.
func guarded(fn func() error) (err error) {
	old := debug.SetPanicOnFault(true)
	defer debug.SetPanicOnFault(old)
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v", ErrCorrupt, p)
		}
	}()
	return fn()
}
