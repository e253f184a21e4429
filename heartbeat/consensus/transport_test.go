package consensus

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// hashicorp/raft issue 695: a heartbeat of a newer term must not change term and role beside the main loop.
func TestHeartbeatOfNewerTermWaitsForTheMainLoop(t *testing.T) {
	t.Parallel()
	group, stores, _ := faultyGroup(t, 30*time.Second, calm)
	first := leader(t, group...)
	busy := others(group, first)[0]
	term := busy.Term()
	disk := stores[busy.cfg.ID]
	disk.hang()
	defer disk.release()
	go func() { _, _, _ = first.Propose(context.Background(), []byte("x")) }()
	eventually(t, "the follower waits for its disk", func() bool { return disk.stuck.Load() > 0 })

	ask := func(term uint64) <-chan raft.RPCResponse {
		answers := make(chan raft.RPCResponse, 1)
		go busy.trans.heartbeat(raft.RPC{RespChan: answers, Command: &raft.AppendEntriesRequest{
			RPCHeader: raft.RPCHeader{ProtocolVersion: 3, ID: []byte(first.cfg.ID), Addr: []byte(first.cfg.Address)},
			Term:      term,
		}})
		return answers
	}
	if a := (<-ask(term)).Response.(*raft.AppendEntriesResponse); !a.Success || a.Term != term {
		t.Errorf("its leader's heartbeat got %+v", a)
	}
	newer := ask(term + 1)
	select {
	case a := <-newer:
		t.Errorf("answered beside the main loop: %+v", a)
	case <-time.After(4 * busy.trans.patience):
	}
	if now := busy.Term(); now != term {
		t.Errorf("term %d became %d beside the main loop", term, now)
	}
	disk.release()
	if a := (<-newer).Response.(*raft.AppendEntriesResponse); a.Term < term+1 {
		t.Errorf("the main loop answered %+v", a)
	}
}

// The library's pipeline can wait for itself for ever, and a node that stops then never does.
func TestReplicationTakesNoPipeline(t *testing.T) {
	t.Parallel()
	group, _, _ := faultyGroup(t, 30*time.Second)
	first := leader(t, group...)
	peer := others(group, first)[0].cfg
	p, err := first.trans.AppendEntriesPipeline(raft.ServerID(peer.ID), raft.ServerAddress(peer.Address))
	if !errors.Is(err, raft.ErrPipelineReplicationNotSupported) {
		t.Errorf("a pipeline was made: %v, %v", p, err)
	}
}

func TestMalformedRequestsAreRefused(t *testing.T) {
	members := raft.EncodeConfiguration(raft.Configuration{Servers: []raft.Server{{ID: "a", Address: "b"}}})
	entry := func(change func(*raft.Log)) *raft.AppendEntriesRequest {
		e := &raft.Log{Index: 8, Term: 3, Type: raft.LogCommand, Data: []byte("x")}
		change(e)
		return &raft.AppendEntriesRequest{Term: 3, PrevLogEntry: 7, Entries: []*raft.Log{e}}
	}
	for name, c := range map[string]struct {
		command any
		good    bool
	}{
		"heartbeat":           {&raft.AppendEntriesRequest{Term: 3}, true},
		"command":             {entry(func(*raft.Log) {}), true},
		"members":             {entry(func(e *raft.Log) { e.Type, e.Data = raft.LogConfiguration, members }), true},
		"vote":                {&raft.RequestVoteRequest{}, true},
		"snapshot":            {&raft.InstallSnapshotRequest{SnapshotVersion: 1, Size: 5, Configuration: members}, true},
		"missing entry":       {&raft.AppendEntriesRequest{Term: 3, PrevLogEntry: 7, Entries: []*raft.Log{nil}}, false},
		"gap":                 {entry(func(e *raft.Log) { e.Index = 9 }), false},
		"entry of the future": {entry(func(e *raft.Log) { e.Term = 4 }), false},
		"unknown type":        {entry(func(e *raft.Log) { e.Type = 99 }), false},
		"old type":            {entry(func(e *raft.Log) { e.Type = raft.LogAddPeerDeprecated }), false},
		"huge command":        {entry(func(e *raft.Log) { e.Data = make([]byte, maxCommand+1) }), false},
		"bad members":         {entry(func(e *raft.Log) { e.Type, e.Data = raft.LogConfiguration, []byte("\xdf\xff\xff") }), false},
		"no members":          {entry(func(e *raft.Log) { e.Type, e.Data = raft.LogConfiguration, nil }), false},
		"too many entries":    {&raft.AppendEntriesRequest{Term: 3, Entries: make([]*raft.Log, maxBatch+1)}, false},
		"negative snapshot":   {&raft.InstallSnapshotRequest{SnapshotVersion: 1, Size: -1, Configuration: members}, false},
		"huge snapshot":       {&raft.InstallSnapshotRequest{SnapshotVersion: 1, Size: indexLen + maxSnapshot + 1, Configuration: members}, false},
		"old snapshot":        {&raft.InstallSnapshotRequest{Size: 5, Configuration: members}, false},
		"snapshot of nobody":  {&raft.InstallSnapshotRequest{SnapshotVersion: 1, Size: 5}, false},
	} {
		if err := checkRequest(c.command); (err == nil) != c.good {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// dial connects as a member would, or with another greeting.
func dial(t testing.TB, to *member, greeting []byte) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", to.cfg.Address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if _, err := c.Write(greeting); err != nil {
		t.Fatal(err)
	}
	return c
}

// refused waits until the other end hangs up.
func refused(t testing.TB, c net.Conn) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
	if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("got %d bytes, %v; want the connection closed", n, err)
	} else if e, ok := err.(net.Error); ok && e.Timeout() {
		t.Error("the connection was left open")
	}
}

func TestStrangersAndOtherClustersAreRefused(t *testing.T) {
	t.Parallel()
	group := newGroup(t, 1)
	m := leader(t, group...)
	foreign := greeting("another cluster")
	for _, g := range [][]byte{[]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), bytes.Repeat([]byte{0}, 64), foreign[:]} {
		refused(t, dial(t, m, g))
	}
	silent := dial(t, m, nil) // it is closed after greetingTime
	ours := greeting("test")
	random := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		c := dial(t, m, ours[:])
		b := make([]byte, 1+random.IntN(2000))
		for i := range b {
			b[i] = byte(random.Uint32())
		}
		b[0] %= 6 // the kinds of request, and one more
		_, _ = c.Write(b)
		_ = c.(*net.TCPConn).CloseWrite()
		_, _ = io.Copy(io.Discard, c)
		_ = c.Close()
	}
	refused(t, silent)
	propose(t, "unharmed", m)
}

func TestConnectionsAreLimited(t *testing.T) {
	t.Parallel()
	group := newGroup(t, 1)
	m := leader(t, group...)
	g := greeting("test")
	for range maxInbound {
		dial(t, m, g[:])
	}
	eventually(t, "all places taken", func() bool { return m.Stats().Connections == maxInbound })
	refused(t, dial(t, m, g[:]))
}

func TestEndlessRequestIsCutOff(t *testing.T) {
	t.Parallel()
	near, far := net.Pipe()
	s := &stream{conns: map[*conn]struct{}{}, address: "x"}
	c, err := s.register(far, true)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		chunk := make([]byte, 1<<20)
		for {
			if _, err := near.Write(chunk); err != nil {
				return
			}
		}
	}()
	defer near.Close()
	n, err := io.Copy(io.Discard, c)
	if n != maxUnanswered || err == nil {
		t.Errorf("read %d bytes, %v; want %d and an error", n, err, int64(maxUnanswered))
	}
}

// A candidate's kept connections to a member that restarted are dead; that must not cost it a vote.
func TestVoteIsAskedForAgainOverAFreshConnection(t *testing.T) {
	t.Parallel()
	serve := func(address string) (*transport, string) {
		l := listen(t, address)
		cfg := Config{ID: "x", Address: l.Addr().String(), LeaderLease: time.Second, Logger: testLogger(t)}
		log := newBridge(testLogger(t))
		tr := newTransport(cfg, newStream(l, cfg.Address, "test", cfg.Logger), &standing{}, log)
		go func() {
			for {
				select {
				case rpc := <-tr.Consumer():
					rpc.Respond(&raft.RequestPreVoteResponse{Granted: true}, nil)
				case <-tr.done:
					return
				}
			}
		}()
		return tr, cfg.Address
	}
	candidate, _ := serve("127.0.0.1:0")
	defer candidate.Close()
	voter, address := serve("127.0.0.1:0")
	ask := func() error {
		var resp raft.RequestPreVoteResponse
		return candidate.RequestPreVote("v", raft.ServerAddress(address), &raft.RequestPreVoteRequest{Term: 1}, &resp)
	}
	answers := make(chan error, poolPerPeer)
	for range poolPerPeer { // at once, so that as many connections are kept
		go func() { answers <- ask() }()
	}
	for range poolPerPeer {
		if err := <-answers; err != nil {
			t.Fatal(err)
		}
	}
	_ = voter.Close()
	if err := ask(); err == nil {
		t.Error("a voter that is gone voted")
	}
	voter, _ = serve(address)
	if err := ask(); err != nil {
		t.Fatal(err)
	}
	_ = voter.Close()
	voter, _ = serve(address)
	defer voter.Close()
	if err := ask(); err != nil {
		t.Errorf("a vote was lost to a dead connection: %v", err)
	}
}

func TestOwnerThatTakesNoLeadershipChangesFails(t *testing.T) {
	t.Parallel()
	overflow := make(chan error, 1)
	gate := make(chan struct{})
	l := newLeadership(Config{Logger: discard, OnLeader: func(uint64, bool) { <-gate }}, func(err error) {
		select {
		case overflow <- err:
		default:
		}
	})
	done := make(chan struct{})
	go func() { l.run(); close(done) }()
	for i := range maxChanges {
		l.note(uint64(i), i%2 == 0)
	}
	select {
	case err := <-overflow:
		t.Errorf("within its bound: %v", err)
	default:
	}
	for i := range maxChanges {
		l.note(uint64(maxChanges+i), i%2 == 0)
	}
	<-overflow
	close(gate)
	l.end()
	<-done
}
