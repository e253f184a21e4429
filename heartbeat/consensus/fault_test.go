package consensus

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"hacluster/blockdev/deadline"
)

// faulty is a backend whose calls fail or hang on demand.
type faulty struct {
	backend
	fails atomic.Value // op string; calls of that op fail with ENOSPC
	mu    sync.Mutex
	gate  chan struct{} // while not nil, StoreLogs and term writes wait for it
	stuck atomic.Int32
}

func (f *faulty) IsMonotonic() bool { return true }

func (f *faulty) err(op string) error {
	if f.fails.Load() == op {
		return syscall.ENOSPC
	}
	return nil
}

func (f *faulty) hang() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.gate = make(chan struct{})
}

func (f *faulty) release() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.gate != nil {
		close(f.gate)
		f.gate = nil
	}
}

func (f *faulty) wait() {
	f.mu.Lock()
	gate := f.gate
	f.mu.Unlock()
	if gate != nil {
		f.stuck.Add(1)
		<-gate
	}
}

func (f *faulty) StoreLogs(logs []*raft.Log) error {
	f.wait()
	if err := f.err("append"); err != nil {
		return err
	}
	return f.backend.StoreLogs(logs)
}

func (f *faulty) GetLog(i uint64, l *raft.Log) error {
	if err := f.err("get"); err != nil {
		return err
	}
	return f.backend.GetLog(i, l)
}

func (f *faulty) SetUint64(key []byte, v uint64) error {
	if err := f.err("term"); err != nil && string(key) == keyCurrentTerm {
		return err
	}
	return f.backend.SetUint64(key, v)
}

func (f *faulty) Set(key, v []byte) error {
	if err := f.err("vote"); err != nil {
		return err
	}
	return f.backend.Set(key, v)
}

// faultyGroup is a group whose stores can be made to fail; it reports what OnFail was told.
func faultyGroup(t *testing.T, deadline time.Duration, change ...func(*Config)) (group []*member, stores map[string]*faulty, failed chan error) {
	stores, failed = map[string]*faulty{}, make(chan error, 16)
	group = newGroup(t, 3, func(c *Config) {
		for _, f := range change {
			f(c)
		}
		id := c.ID
		c.DiskDeadline = deadline
		c.wrap = func(b backend) backend {
			stores[id] = &faulty{backend: b}
			return stores[id]
		}
		c.OnFail = func(err error) { failed <- err }
	})
	propose(t, "before", group...)
	everywhere(t, "before", group...)
	return group, stores, failed
}

// R26: a leader whose log disk hangs is cut off, so that the others elect another one.
func TestLeaderWithHangingDiskIsReplaced(t *testing.T) {
	t.Parallel()
	group, stores, failed := faultyGroup(t, 10*time.Second, calm)
	first := leader(t, group...)
	first.SetDiskDeadline(400 * time.Millisecond) // the others' disks, which are this machine's, have longer
	stores[first.cfg.ID].hang()
	defer stores[first.cfg.ID].release()
	_, _, err := first.Propose(t.Context(), []byte("stuck"))
	mustFail(t, err, ErrUnknown)
	<-first.Failed()
	if err := <-failed; err == nil {
		t.Error("OnFail was told nothing")
	}
	if leads, _ := first.State(); leads {
		t.Error("the hanging node still claims to lead")
	}
	if id, _ := first.Leader(); id != "" {
		t.Errorf("the hanging node still names leader %q", id)
	}
	_, _, err = first.Propose(t.Context(), []byte("later"))
	mustFail(t, err, ErrFailed)
	rest := others(group, first)
	propose(t, "without it", rest...)
	everywhere(t, "without it", rest...)
	if err := first.Close(); err == nil {
		t.Error("Close says nothing about the call that hangs")
	}
	first.open = false
	if len(failed) != 0 {
		t.Errorf("OnFail was called again: %v", <-failed)
	}
	// Its disk answers in the end; what it had taken may be in its log, but it tells nobody.
	stores[first.cfg.ID].release()
	first.cfg.wrap = nil
	eventually(t, "the directory is free again", func() bool {
		ok, err := HasState(first.cfg.Dir)
		return ok && err == nil
	})
	first.start(t)
	propose(t, "all back", group...)
	everywhere(t, "all back", group...)
	if has(first, "stuck") != has(rest[0], "stuck") {
		t.Error("the nodes disagree about the command of unknown outcome")
	}
}

// A follower's slow disk is no reason to elect: its heartbeats are answered while it waits.
func TestFollowersWithSlowDisksDoNotUnseatTheLeader(t *testing.T) {
	t.Parallel()
	group, stores, _ := faultyGroup(t, 30*time.Second, calm)
	first := leader(t, group...)
	term := first.Term()
	for _, m := range others(group, first) {
		stores[m.cfg.ID].hang()
		defer stores[m.cfg.ID].release()
	}
	done := make(chan error, 1)
	go func() {
		_, _, err := first.Propose(context.Background(), []byte("slow"))
		done <- err
	}()
	for _, m := range others(group, first) {
		eventually(t, "a follower waits for its disk", func() bool { return stores[m.cfg.ID].stuck.Load() > 0 })
	}
	// Three leases: without an answer the leader would step down after one.
	for start := time.Now(); time.Since(start) < 3*first.cfg.Heartbeat*3/4; time.Sleep(5 * time.Millisecond) {
		if leads, now := first.State(); !leads || now != term {
			t.Fatalf("leader in term %d became: leads %v, term %d", term, leads, now)
		}
	}
	for _, m := range others(group, first) {
		stores[m.cfg.ID].release()
	}
	if err := <-done; err != nil {
		t.Errorf("the slow command: %v", err)
	}
}

// faults.md D92: a full disk ends the node's part in the group, not the process.
func TestD92FullDiskOnLeaderStepsDown(t *testing.T) {
	t.Parallel()
	group, stores, failed := faultyGroup(t, 5*time.Second, calm)
	first := leader(t, group...)
	stores[first.cfg.ID].fails.Store("append")
	_, index, err := first.Propose(t.Context(), []byte("full"))
	mustFail(t, err, ErrUnknown)
	if index != 0 && !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("index %d with %v", index, err)
	}
	mustFail(t, <-failed, syscall.ENOSPC)
	rest := others(group, first)
	propose(t, "goes on", rest...)
	if leads, _ := first.State(); leads {
		t.Error("still leads")
	}
	first.shut(t)
	first.cfg.wrap = nil // the disk has room again
	first.start(t)
	propose(t, "all back", group...)
	everywhere(t, "all back", group...)
}

func TestD92FullDiskOnFollowerLeavesTheGroupWorking(t *testing.T) {
	t.Parallel()
	for _, op := range []string{"append", "term", "get"} {
		t.Run(op, func(t *testing.T) {
			group, stores, failed := faultyGroup(t, 5*time.Second)
			first := leader(t, group...)
			sick := others(group, first)[0]
			stores[sick.cfg.ID].fails.Store(op)
			if op == "term" { // raft panics when it cannot store a term: make it try
				_ = first.TransferLeadership(t.Context(), sick.cfg.ID)
			}
			rest := others(group, sick)
			propose(t, "goes on", rest...)
			mustFail(t, <-failed, syscall.ENOSPC)
			propose(t, "and on", rest...)
			everywhere(t, "and on", rest...)
			sick.shut(t)
			if len(failed) != 0 {
				t.Errorf("OnFail was called twice: %v", <-failed)
			}
		})
	}
}

func TestD92FullDiskWhileOpeningIsAnError(t *testing.T) {
	t.Parallel()
	m := newMember(t, "a")
	failed := make(chan error, 1)
	m.cfg.OnFail = func(err error) { failed <- err }
	m.cfg.Machine = &journal{}
	m.cfg.wrap = func(b backend) backend {
		f := &faulty{backend: b}
		f.fails.Store("term")
		return f
	}
	_, err := Open(m.cfg)
	mustFail(t, err, ErrFailed)
	mustFail(t, <-failed, syscall.ENOSPC)
	m.cfg.Stream, m.cfg.wrap = nil, nil
	m.start(t) // nothing was left open
}

func TestHangIsCountedWhileTheProcessRuns(t *testing.T) {
	t.Parallel()
	w := deadline.New()
	end := w.Begin("append")
	for range deadline.Ticks {
		if err := w.Tick(time.Second); err != nil {
			t.Fatalf("within its deadline: %v", err)
		}
	}
	end()
	end = w.Begin("append")
	defer end()
	for range deadline.Ticks {
		if err := w.Tick(time.Second); err != nil {
			t.Fatalf("another call inherits the time of the first: %v", err)
		}
	}
	if err := w.Tick(time.Second); err == nil {
		t.Error("a call that exceeded its deadline was not found")
	}
}
