package consensus

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"hacluster/blockdev/deadline"
	"hacluster/blockdev/failpoint"
)

// Raft is this node's part in the group. Its methods may be called concurrently.
type Raft struct {
	cfg      Config
	node     *raft.Raft
	fsm      *fsm
	store    *store
	stream   *stream
	trans    *transport
	leading  *leadership
	standing *standing
	removal  removal
	beat     beat
	watch    *deadline.Watch
	close    func() error // closes directory or memory

	disk    atomic.Int64 // Config.DiskDeadline as it is now
	member  atomic.Bool  // some configuration named this node, committed or not: only then can it be removed
	failure atomic.Pointer[error]
	failed  chan struct{} // closed by fail
	stop    chan struct{} // closed by Close: monitor ends
	spread  chan struct{} // a commit that the followers are to learn of; bound 1
	places  chan struct{} // one element per call in progress; bound maxCalls
	wg      sync.WaitGroup

	mu     sync.Mutex
	closed bool
	calls  sync.WaitGroup // calls that raft has not answered; Add only while !closed
}

// Open starts this node with what its directory holds. It takes over cfg.Stream, also on error. An empty directory
// without a Bootstrap makes a node that waits for a leader to find it.
func Open(cfg Config) (*Raft, error) {
	cfg.setDefaults()
	if err := cfg.validate(); err != nil {
		if cfg.Stream != nil {
			_ = cfg.Stream.Close()
		}
		return nil, err
	}
	log := newBridge(cfg.Logger)
	r := &Raft{
		cfg:      cfg,
		standing: &standing{id: cfg.ID},
		watch:    deadline.New(),
		failed:   make(chan struct{}),
		stop:     make(chan struct{}),
		spread:   make(chan struct{}, 1),
		places:   make(chan struct{}, maxCalls),
	}
	r.beat = beat{wake: make(chan struct{}, 1), heartbeat: cfg.Heartbeat, election: cfg.Election}
	r.fsm = &fsm{machine: cfg.Machine, standing: r.standing}
	r.SetDiskDeadline(cfg.DiskDeadline)
	snaps, err := r.openStores(log)
	if err != nil {
		_ = cfg.Stream.Close()
		return nil, err
	}
	if err := r.readStanding(snaps); err != nil {
		_ = cfg.Stream.Close()
		return nil, errors.Join(err, r.close())
	}
	r.stream = newStream(cfg.Stream, cfg.Address, cfg.Cluster, cfg.Logger)
	r.trans = newTransport(cfg, r.stream, r.standing, log)
	r.trans.failed = r.unsettle
	r.leading = newLeadership(cfg, r.fail)
	r.wg.Go(r.leading.run)
	r.wg.Go(r.monitor)
	r.wg.Go(r.spreadCommits)
	r.wg.Go(r.keepBeat)
	if err := r.start(log, snaps); err != nil {
		return nil, errors.Join(err, r.abandon())
	}
	return r, nil
}

// openStores opens what keeps the state.
func (r *Raft) openStores(log *bridge) (raft.SnapshotStore, error) {
	r.store = &store{watch: r.watch, fail: r.fail, noted: r.noteMembers}
	var snaps raft.SnapshotStore
	if m := r.cfg.Memory; m != nil {
		if err := m.acquire(); err != nil {
			return nil, err
		}
		r.store.under, snaps = m.logs, m.snaps
		r.close = func() error { m.release(); return nil }
	} else {
		d, err := openDirectory(r.cfg, log)
		if err != nil {
			return nil, err
		}
		r.store.under, r.store.mark = d.logs, d.mark
		snaps = &snapshots{SnapshotStore: d.snaps, watch: r.watch, dir: d.file("snapshots")}
		r.close = d.close
	}
	if r.cfg.wrap != nil {
		r.store.under = r.cfg.wrap(r.store.under)
	}
	r.standing.logs = r.store
	return witnessed{snaps, r.standing}, nil
}

// readStanding learns from what is stored who was a member.
func (r *Raft) readStanding(snaps raft.SnapshotStore) error {
	metas, err := snaps.List()
	if err != nil {
		return fmt.Errorf("list the snapshots: %w", err)
	}
	for _, m := range metas {
		if names(m.Configuration, r.cfg.ID) {
			r.member.Store(true)
		}
		r.standing.committed(point{m.ConfigurationIndex, m.Term}, m.Configuration)
	}
	return configurations(r.store.under, r.noteMembers)
}

// start runs raft. It has a goroutine of its own because the store ends the goroutine in which raft would panic.
func (r *Raft) start(log *bridge, snaps raft.SnapshotStore) (err error) {
	type started struct {
		node *raft.Raft
		err  error
	}
	done := make(chan started, 1)
	go func() {
		s := started{err: ErrFailed}
		defer func() { done <- s }()
		s.node, s.err = raft.NewRaft(r.raftConfig(log), r.fsm, r.store, r.store, snaps, r.trans)
	}()
	select {
	case s := <-done:
		r.node, err = s.node, s.err
	case <-r.failed:
	}
	if failure := r.failure.Load(); failure != nil {
		return fmt.Errorf("start raft: %w: %w", ErrFailed, *failure)
	}
	if refused := r.fsm.restoreErr; refused != nil {
		return fmt.Errorf("start raft: %w: %w (the snapshots are in %s)", ErrCorrupt, refused, r.cfg.Dir)
	}
	if err != nil {
		return fmt.Errorf("start raft: %w", err)
	}
	r.fsm.opened.Store(true)
	r.trans.node.Store(r.node)
	r.leading.observe(r.node, r.unsettle)
	r.unsettle() // it may have been elected before there was an observer
	return nil
}

func (r *Raft) raftConfig(log *bridge) *raft.Config {
	c := raft.DefaultConfig()
	c.LocalID = raft.ServerID(r.cfg.ID)
	c.HeartbeatTimeout = r.cfg.Heartbeat
	c.ElectionTimeout = r.cfg.Election
	c.LeaderLeaseTimeout = r.cfg.LeaderLease
	c.CommitTimeout = r.cfg.Commit
	c.MaxAppendEntries = sentBatch
	c.TrailingLogs = failpoint.Often[uint64](trailingLogs, 4)
	c.SnapshotThreshold = r.cfg.SnapshotThreshold
	c.SnapshotInterval = r.cfg.SnapshotInterval
	c.Logger = log
	c.NoLegacyTelemetry = true
	c.ShutdownOnRemove = false     // a removed node is told so (OnRemoved), it does not just fall silent
	c.RestoreCommittedLogs = false // needs a log store that tracks commits; raft-wal v0.4.1 does not
	return c
}

// fail ends this node's part: nothing more goes out or comes in. It is called from any goroutine, the watchdog's or
// one of raft's, and does not wait.
func (r *Raft) fail(err error) {
	if !r.failure.CompareAndSwap(nil, &err) {
		return
	}
	r.stream.sever()
	r.store.broken.Store(true)
	r.leading.lose()
	close(r.failed)
	r.cfg.Logger.Error("Raft storage failed; this node takes part no more, the process must end", "error", err)
}

// monitor times the store's calls (R26), reports a failure, and notices that this node was removed.
func (r *Raft) monitor() {
	after := r.diskDeadline()
	tick := time.NewTicker(after / deadline.Ticks)
	defer tick.Stop()
	removal := time.NewTicker(removedAfter / 3 * r.cfg.Heartbeat)
	defer removal.Stop()
	failed := r.failed // nil once it was reported
	report := func() {
		failed = nil
		if r.cfg.OnFail != nil {
			r.cfg.OnFail(*r.failure.Load())
		}
	}
	for {
		select {
		case <-tick.C:
			if now := r.diskDeadline(); now != after {
				after = now
				tick.Reset(after / deadline.Ticks)
			}
			if err := r.watch.Tick(after); err != nil {
				r.fail(err)
			}
		case <-removal.C:
			if node := r.trans.node.Load(); node != nil {
				r.checkRemoved(node)
			}
		case <-failed:
			report()
		case <-r.stop:
			if failed != nil && r.failure.Load() != nil {
				report()
			}
			return
		}
	}
}

// Failed is closed when a store call has failed or exceeded its deadline, before Config.OnFail is called.
func (r *Raft) Failed() <-chan struct{} { return r.failed }
