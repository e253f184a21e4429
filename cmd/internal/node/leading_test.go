package node

import (
	"context"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"hacluster/cmd/internal/config"
	"hacluster/cmd/internal/control"
	"hacluster/heartbeat/cluster"
	"hacluster/heartbeat/consensus"
)

// slowMachine applies nothing before it is let.
type slowMachine struct{ let chan struct{} }

func (m slowMachine) Apply(index, _ uint64, _ []byte) any {
	<-m.let
	return cluster.Result{Index: index}
}

func (slowMachine) Snapshot() ([]byte, error) { return nil, nil }
func (slowMachine) Restore([]byte) error      { return nil }

type loopback struct{ net.Listener }

func (loopback) Dial(ctx context.Context, address string) (net.Conn, error) {
	return (&net.Dialer{}).DialContext(ctx, "tcp", address)
}

// aloneInRaft is a group of one, which leads.
func aloneInRaft(t *testing.T, m consensus.StateMachine) *consensus.Raft {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	elected := make(chan struct{}, 1)
	r, err := consensus.Open(consensus.Config{ID: "a-1", Address: ln.Addr().String(), Cluster: "test", Memory: consensus.NewMemory(),
		Stream: loopback{ln}, Machine: m, OnLeader: func(_ uint64, leader bool) {
			if leader {
				elected <- struct{}{}
			}
		}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := r.Bootstrap([]consensus.Server{{ID: "a-1", Address: ln.Addr().String(), Voter: true}}); err != nil {
		t.Fatal(err)
	}
	<-elected
	// Who is elected is told before raft has appended the entry that begins its term: a test that waits for the log to grow would
	// take that one for its own.
	if err := r.Barrier(t.Context()); err != nil {
		t.Fatal(err)
	}
	return r
}

// leadingBy proposes to r, with so much time for each try.
func leadingBy(t *testing.T, r *consensus.Raft, rto time.Duration) *leading {
	cfg := &config.Config{}
	cfg.Timers.RTO, cfg.Timers.Tick = rto, time.Millisecond // a try takes an RTO at most
	l := &leading{n: &Node{cfg: cfg, log: slog.New(slog.DiscardHandler), state: newStateStore()}, raft: r}
	l.ctx, l.cancel = context.WithCancel(t.Context())
	t.Cleanup(l.end)
	return l
}

// R10, R27: when the outcome of a promotion is unknown, a second try that certainly appended nothing does not make it
// known: the first may yet be applied, and the volume must not be granted before.
func TestUnknownOutcomeStaysUnknownWhenALaterTryFails(t *testing.T) {
	m := slowMachine{make(chan struct{})}
	let := sync.OnceFunc(func() { close(m.let) })
	r := aloneInRaft(t, m)
	defer let()
	l := leadingBy(t, r, 250*time.Millisecond)
	told := make(chan error, 1)
	before := r.LastIndex()
	l.proposeAside(cluster.Command{Promote: &cluster.Promote{Candidate: "a"}}, func(err error) { told <- err })
	for r.LastIndex() == before {
		time.Sleep(time.Millisecond)
	}
	var busy sync.WaitGroup
	defer busy.Wait()
	defer let()
	for range 300 { // more than there are places: later tries find none
		busy.Go(func() { _, _, _ = r.Propose(t.Context(), cluster.Command{}.Encode()) })
	}
	select {
	case err := <-told:
		t.Fatalf("known to have come to %v, while the first try is in the log", err)
	case <-time.After(6 * 250 * time.Millisecond): // tries without a place end meanwhile
	}
	let()
	if err := <-told; err != nil {
		t.Errorf("told %v once it is applied", err)
	}
}

// R27: a promotion whose outcome is not known in time may be in the log or not. Until the record moves the volume is
// granted to nobody, so the leader does not leave it at that: it proposes the same again.
func TestDecisionOfUnknownOutcomeIsProposedAgain(t *testing.T) {
	m := slowMachine{make(chan struct{})}
	let := sync.OnceFunc(func() { close(m.let) })
	r := aloneInRaft(t, m)
	defer let()
	l := leadingBy(t, r, 250*time.Millisecond)
	before := r.LastIndex()
	told := make(chan error, 1)
	l.proposeAside(cluster.Command{Promote: &cluster.Promote{Candidate: "a"}}, func(err error) { told <- err })
	for r.LastIndex() < before+2 {
		select {
		case err := <-told:
			t.Fatalf("left at %v", err)
		case <-time.After(time.Millisecond):
		}
	}
	let()
	if err := <-told; err != nil {
		t.Errorf("told %v once it is applied", err)
	}
}

// R8, R32: a node that answers under another Raft id than the cluster knows, as one whose Raft state was lost does, is no
// voter: its word confirms no leadership, and nothing is remembered of it.
func TestAnswerUnderAnotherRaftIDCountsForNothing(t *testing.T) {
	cfg := &config.Config{Insecure: true, Self: "alpha", Cluster: config.Cluster{Name: "shop"}}
	trans, err := newTransport(cfg, cfg, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	known := cluster.Node{Name: "beta", RaftID: "beta-1"}
	for name, c := range map[string]struct {
		answer control.Answer
		counts bool
	}{
		"the voter":       {control.Answer{Node: "beta", RaftID: "beta-1", Term: 3, Index: 9}, true},
		"another Raft id": {control.Answer{Node: "beta", RaftID: "beta-2", Term: 3, Index: 9}, false},
		"no Raft id":      {control.Answer{Node: "beta", Term: 3, Index: 9}, false},
		"another node":    {control.Answer{Node: "gamma", RaftID: "beta-1", Term: 3, Index: 9}, false},
	} {
		n := &Node{trans: trans, seen: newSeenBook()}
		l := &leading{n: n, inbox: make(chan func(cluster.Instant), 1), heard: map[string]cluster.Instant{}, ctx: t.Context()}
		l.answered(t.Context(), known, 1, &c.answer)
		if told, kept := len(l.inbox) == 1, len(n.seen.all()) == 1; told != c.counts || kept != c.counts {
			t.Errorf("%s: counted %t, remembered %t, want %t", name, told, kept, c.counts)
		}
	}
}
