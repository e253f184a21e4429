package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"hacluster/blockdev/failpoint"
	"hacluster/cmd/internal/control"
	"hacluster/cmd/internal/identity"
	"hacluster/heartbeat/cluster"
	"hacluster/heartbeat/consensus"
	"hacluster/replication"
)

// stateStore is the Raft group's state machine: it applies commands and shows the newest state to who asks.
type stateStore struct {
	mu      sync.Mutex
	state   *cluster.State
	changed chan struct{} // closed and replaced by each change
}

var _ consensus.StateMachine = (*stateStore)(nil)

func newStateStore() *stateStore {
	return &stateStore{state: cluster.NewState(), changed: make(chan struct{})}
}

// Apply implements consensus.StateMachine. Readers keep the state they were given: a changed one is a copy.
func (s *stateStore) Apply(index, term uint64, command []byte) any {
	c, err := cluster.DecodeCommand(command)
	s.mu.Lock()
	defer s.mu.Unlock()
	next := s.state.Next()
	if err != nil {
		// Every node reads the same bytes and comes to the same conclusion.
		next.Index = index
		s.setLocked(next)
		return cluster.Result{Void: err.Error(), Index: index}
	}
	r := next.Apply(index, term, c)
	s.setLocked(next)
	return r
}

func (s *stateStore) setLocked(next *cluster.State) {
	s.state = next
	close(s.changed)
	s.changed = make(chan struct{})
}

// Snapshot implements consensus.StateMachine.
func (s *stateStore) Snapshot() ([]byte, error) { return s.get().Encode() }

// Restore implements consensus.StateMachine.
func (s *stateStore) Restore(b []byte) error {
	next, err := cluster.Decode(b)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.setLocked(next)
	return nil
}

func (s *stateStore) get() *cluster.State {
	st, _ := s.watch()
	return st
}

// watch returns the state and a channel that is closed when there is another.
func (s *stateStore) watch() (*cluster.State, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state, s.changed
}

// raftOpener returns what opens this node's part in the group, once, perhaps founding it.
func (n *Node) raftOpener() func([]consensus.Server) error {
	dir := filepath.Join(n.cfg.DataDir(), "raft")
	return func(bootstrap []consensus.Server) error {
		n.mu.Lock()
		defer n.mu.Unlock()
		if n.raft != nil || n.stopping {
			return nil
		}
		if !n.old { // an empty one may be left of an earlier identity
			if err := os.RemoveAll(dir); err != nil {
				return fmt.Errorf("make room for raft: %w", err)
			}
		}
		t := n.conf().Timers
		r, err := consensus.Open(consensus.Config{
			ID: n.dir.raftID(), Address: n.me.Address, Cluster: n.cfg.Cluster.Name, Dir: dir,
			Stream: raftStream{n.mux.Listener(identity.ProtoRaft), n}, Machine: n.state,
			Heartbeat: t.RaftHeartbeat, Election: t.RaftElection, LeaderLease: t.RaftLeaderLease, Commit: t.RaftHeartbeat,
			SnapshotThreshold: failpoint.Often[uint64](0, 8), SnapshotInterval: failpoint.Often(0, 50*time.Millisecond),
			DiskDeadline: n.conf().Cluster.DiskDeadline, OnFail: n.fail, OnLeader: n.onLeader,
			OnRemoved: func() {
				n.fail(errors.New("this node was removed from the cluster: empty its data_dir before it is added again"))
			},
			Logger: n.log,
		})
		if err != nil {
			return fmt.Errorf("raft: %w", err)
		}
		if bootstrap != nil {
			if err := r.Bootstrap(bootstrap); err != nil {
				return errors.Join(err, r.Close())
			}
		}
		n.raft = r
		close(n.joined)
		return nil
	}
}

func (n *Node) raftIfOpen() *consensus.Raft {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.raft
}

func (n *Node) closeRaft() {
	n.mu.Lock()
	n.stopping = true
	r, l := n.raft, n.leading
	n.leading = nil
	n.mu.Unlock()
	if l != nil {
		l.end()
	}
	if r == nil {
		return
	}
	if err := r.Close(); err != nil {
		n.log.Error("closing raft", "error", err)
	}
}

// errNoLeader: nobody leads the group as far as this node knows.
var errNoLeader = errors.New("no leader is known: the cluster has no quorum at this moment")

// leaderName is who leads, empty when unknown.
func (n *Node) leaderName() string {
	r := n.raftIfOpen()
	if r == nil {
		return ""
	}
	id, _ := r.Leader()
	return n.nameOf(id)
}

// nameOf is the node with a Raft id.
func (n *Node) nameOf(raftID string) string {
	if raftID == "" {
		return ""
	}
	if raftID == n.dir.raftID() {
		return n.me.Name
	}
	for name, node := range n.state.get().Nodes {
		if node.RaftID == raftID {
			return name
		}
	}
	if f := n.formed(); f != nil {
		for _, node := range f.Nodes {
			if node.RaftID == raftID {
				return node.Name
			}
		}
	}
	return ""
}

// Propose hands a command to the leader, whoever that is. An error means that its outcome is unknown (R27): it is
// repeated as it is, or seen in the state.
func (n *Node) propose(ctx context.Context, c cluster.Command) (cluster.Result, error) {
	c = n.command(c)
	if l := n.currentLeading(); l != nil {
		return l.propose(ctx, c)
	}
	if c.Drop != nil || c.Admit != nil || c.Rejoin != nil || c.SetMode != nil {
		return n.joint.propose(ctx, c) // replicas' own: of many volumes at once when a node dies or returns
	}
	return n.proposeTo(ctx, c)
}

// proposeTo hands a command, or a batch of them, to a leader that is another node.
func (n *Node) proposeTo(ctx context.Context, c cluster.Command) (cluster.Result, error) {
	leader := n.leaderName()
	if leader == "" || leader == n.me.Name {
		return cluster.Result{}, errNoLeader
	}
	client, err := n.peers.control(leader)
	if err != nil {
		return cluster.Result{}, err
	}
	res, err := client.Propose(ctx, &control.Propose{Command: c.Encode()})
	if err != nil {
		return cluster.Result{}, fmt.Errorf("propose to the leader %s: %w", leader, err)
	}
	return *res, nil
}

// mustApply proposes until the command is applied or void, or ctx ends.
func (n *Node) mustApply(ctx context.Context, c cluster.Command) (cluster.Result, error) {
	for {
		try, cancel := context.WithTimeout(ctx, n.conf().Timers.RTO)
		res, err := n.propose(try, c)
		cancel()
		if err == nil {
			return res, nil
		}
		select {
		case <-ctx.Done():
			return res, fmt.Errorf("%w (last: %w)", ctx.Err(), err)
		case <-time.After(n.conf().Timers.Renew / 2):
		}
	}
}

// register makes this process known to the cluster, and keeps the node out of it when it may not take part.
func (n *Node) register(ctx context.Context) error {
	select {
	case <-n.joined:
	case <-ctx.Done():
		return nil
	}
	told := ""
	var asked asking
	for ctx.Err() == nil {
		st, changed := n.state.watch()
		if err := n.sameTimers(st); err != nil {
			return err
		}
		switch rec := st.Nodes[n.me.Name]; {
		case rec.DataDir != n.dir.id.ID: // not yet, or the cluster knows another directory
		case rec.Start == n.dir.id.Start:
			n.becomeReady()
			return nil
		case rec.Start > n.dir.id.Start:
			return fmt.Errorf("the cluster knows process %d of %s, this one is %d: %s was restored or copied; it must not vote with an old state: "+
				"run `ha-admin node remove %s`, empty the directory, start, and run `ha-admin node add %s`",
				rec.Start, n.me.Name, n.dir.id.Start, n.cfg.DataDir(), n.me.Name, n.me.Name)
		}
		pause := time.After(n.conf().Timers.Renew)
		if asked.again(n.now(), st.Index) && n.leaderName() != "" && (st.ID != "" || n.currentLeading() == nil) {
			c := cluster.Command{StartNode: &cluster.StartNode{Node: n.me.Name, DataDir: n.dir.id.ID, Start: n.dir.id.Start,
				Boot: fmt.Sprintf("%x", n.boot), Config: n.cfg.Hash(), Reads: cluster.Reads}}
			try, cancel := context.WithTimeout(ctx, n.conf().Timers.RTO)
			failpoint.Hit(failpoint.Register)
			res, err := n.propose(try, c)
			failpoint.Hit(failpoint.Registered)
			cancel()
			asked = asking{next: n.now().Add(n.conf().Timers.Renew)}
			if err == nil {
				asked.until = res.Index
			}
			// Until the entry is applied here it may be that an earlier try of ours was taken.
			if st := n.state.get(); err == nil && res.Void != "" && st.ID != "" && st.Index >= res.Index && st.Nodes[n.me.Name].Start != n.dir.id.Start && res.Void != told {
				told = res.Void
				n.log.Error("the cluster does not take this node", "why", told)
			}
		}
		select {
		case <-ctx.Done():
		case <-changed:
		case <-pause:
		}
	}
	return nil
}

// sameTimers refuses to take part with another RTO target than the cluster's: a leader waits for leases of its own
// length, and would not wait long enough for those that another one granted (R10). A cluster that keeps its configuration
// tells it to all, whatever their files say.
func (n *Node) sameTimers(st *cluster.State) error {
	if mine := n.cfg.Cluster.RTO; st.ID != "" && len(st.Config) == 0 && st.RTOMillis != mine.Milliseconds() {
		return fmt.Errorf("%s says rto = %q, the cluster runs with %v: set it back",
			n.cfg.File, mine, time.Duration(st.RTOMillis)*time.Millisecond)
	}
	return nil
}

func (n *Node) becomeReady() {
	n.mu.Lock()
	n.ready = true
	n.mu.Unlock()
	close(n.readyc)
	n.log.Info("ready", "node", n.me.Name, "process", n.dir.id.Start)
	n.lease.kickNow()
}

// toStatus tells a caller on the wire what kind of failure it was.
func toStatus(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, errNoLeader), errors.Is(err, consensus.ErrNotLeader), errors.Is(err, consensus.ErrUnknown):
		return status.Error(codes.Unavailable, err.Error())
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return status.Error(codes.DeadlineExceeded, err.Error())
	case errors.Is(err, replication.ErrOvertaken):
		return status.Error(codes.Aborted, err.Error())
	}
	return status.Error(codes.FailedPrecondition, err.Error())
}
