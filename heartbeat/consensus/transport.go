package consensus

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// transport is raft's network transport with a guard at the entrance.
//
// The library answers heartbeats on the connection's goroutine so that a follower's slow disk does not look like a
// dead follower. That shortcut also changes term and role, unsynchronised with the main loop, and can make a node lead
// or append in a term that it was not elected in. Here every request goes through the main loop; only when that is
// busy for a while does the connection's goroutine answer a heartbeat, and then it changes nothing: it says that this
// node still follows that leader in that term.
type transport struct {
	*raft.NetworkTransport
	requests chan raft.RPC // sent by forward and heartbeat, received by raft's main loop, never closed, no buffer
	patience time.Duration
	id       string
	address  string
	standing *standing
	failed   func()                    // told of each heartbeat that got no answer
	node     atomic.Pointer[raft.Raft] // nil until raft runs
	once     sync.Once
	done     chan struct{}
	wg       sync.WaitGroup // forward
}

var (
	_ raft.Transport   = (*transport)(nil)
	_ raft.WithPreVote = (*transport)(nil)
	_ raft.WithClose   = (*transport)(nil)
)

func newTransport(cfg Config, over *stream, standing *standing, log *bridge) *transport {
	t := &transport{
		NetworkTransport: raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
			Stream: over, MaxPool: poolPerPeer, Timeout: rpcTimeout, Logger: log, MaxRPCsInFlight: 1,
		}),
		requests: make(chan raft.RPC),
		patience: cfg.LeaderLease / 4,
		id:       cfg.ID,
		address:  cfg.Address,
		standing: standing,
		done:     make(chan struct{}),
	}
	t.NetworkTransport.SetHeartbeatHandler(t.heartbeat)
	t.wg.Add(1)
	go t.forward()
	return t
}

func (t *transport) Consumer() <-chan raft.RPC { return t.requests }

// SetHeartbeatHandler is called by raft with the shortcut described above, which is not taken.
func (t *transport) SetHeartbeatHandler(func(raft.RPC)) {}

// Close ends the transport and waits for its goroutines, save those of connections, which end with them.
func (t *transport) Close() error {
	t.once.Do(func() { close(t.done) })
	err := t.NetworkTransport.Close()
	t.wg.Wait()
	return err
}

// RequestPreVote and RequestVote ask again when the connection was dead. The library keeps connections without looking
// at them; those to a member that has restarted since the last election would each cost the candidate a round. A vote
// may be asked for twice: the answer is the same.
func (t *transport) RequestPreVote(id raft.ServerID, to raft.ServerAddress, req *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	return again(func() error { return t.NetworkTransport.RequestPreVote(id, to, req, resp) })
}

func (t *transport) RequestVote(id raft.ServerID, to raft.ServerAddress, req *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	return again(func() error { return t.NetworkTransport.RequestVote(id, to, req, resp) })
}

// again tries as often as there can be dead connections, and once more, unless time or a refused dial says that
// connections are not to blame.
func again(ask func() error) (err error) {
	start := time.Now()
	for range poolPerPeer + 1 {
		err = ask()
		var op *net.OpError
		if err == nil || time.Since(start) > rpcTimeout/2 || errors.As(err, &op) && op.Op == "dial" {
			return err
		}
	}
	return err
}

// forward checks requests and hands them to raft's main loop.
func (t *transport) forward() {
	defer t.wg.Done()
	for {
		select {
		case rpc := <-t.NetworkTransport.Consumer():
			if err := checkRequest(rpc.Command); err != nil {
				rpc.Respond(nil, err)
				continue
			}
			if q, ok := rpc.Command.(*raft.RequestPreVoteRequest); ok && q.Term == 0 {
				rpc.Respond(t.tellStanding(q), nil)
				continue
			}
			select {
			case t.requests <- rpc:
			case <-t.done:
				return
			}
		case <-t.done:
			return
		}
	}
}

// askStanding asks a member what it knows of this node, whose newest configuration is entry newest. The question is
// a pre-vote for term 0: nobody can be elected in it, so a member that does not know the question says no.
func (t *transport) askStanding(to raft.Server, newest point) (verdict, error) {
	var answer raft.RequestPreVoteResponse
	err := t.RequestPreVote(to.ID, to.Address, &raft.RequestPreVoteRequest{
		RPCHeader: t.header(), LastLogIndex: newest.index, LastLogTerm: newest.term,
	}, &answer)
	if err != nil || !answer.Granted {
		return unremoved, err
	}
	return verdict(answer.Term), nil
}

func (t *transport) tellStanding(q *raft.RequestPreVoteRequest) *raft.RequestPreVoteResponse {
	v := t.standing.judge(string(q.ID), point{q.LastLogIndex, q.LastLogTerm})
	return &raft.RequestPreVoteResponse{RPCHeader: t.header(), Term: uint64(v), Granted: v != unremoved}
}

func (t *transport) header() raft.RPCHeader {
	return raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(t.id), Addr: []byte(t.address)}
}

func (t *transport) heartbeat(rpc raft.RPC) {
	if err := checkRequest(rpc.Command); err != nil {
		rpc.Respond(nil, err)
		return
	}
	wait := time.NewTimer(t.patience)
	defer wait.Stop()
	for {
		select {
		case t.requests <- rpc:
			return
		case <-t.done:
			rpc.Respond(nil, raft.ErrTransportShutdown)
			return
		case <-wait.C:
			if answer := t.standIn(rpc.Command.(*raft.AppendEntriesRequest)); answer != nil {
				rpc.Respond(answer, nil)
				return
			}
		}
	}
}

// standIn answers a heartbeat for a main loop that is waiting for its disk, if the answer is beyond doubt.
func (t *transport) standIn(req *raft.AppendEntriesRequest) *raft.AppendEntriesResponse {
	node := t.node.Load()
	if node == nil {
		return nil
	}
	_, leader := node.LeaderWithID()
	if node.CurrentTerm() != req.Term || node.State() != raft.Follower || leader != raft.ServerID(req.ID) {
		return nil
	}
	return &raft.AppendEntriesResponse{
		RPCHeader: t.header(),
		Term:      req.Term,
		LastLog:   node.LastIndex(),
		Success:   true,
	}
}

var errMalformed = errors.New("malformed Raft request")

// checkRequest refuses what raft would panic on, or what its log would refuse.
func checkRequest(command any) error {
	switch req := command.(type) {
	case *raft.AppendEntriesRequest:
		return checkAppend(req)
	case *raft.InstallSnapshotRequest:
		if req.Size < 0 || req.Size > indexLen+maxSnapshot {
			return fmt.Errorf("%w: snapshot of %d bytes, the limit is %d", errMalformed, req.Size, maxSnapshot)
		}
		if req.SnapshotVersion != 1 {
			return fmt.Errorf("%w: snapshot version %d, this node knows 1", errMalformed, req.SnapshotVersion)
		}
		return checkConfiguration(req.Configuration)
	}
	return nil
}

func checkAppend(req *raft.AppendEntriesRequest) error {
	if len(req.Entries) > maxBatch {
		return fmt.Errorf("%w: %d entries, the limit is %d", errMalformed, len(req.Entries), maxBatch)
	}
	for i, e := range req.Entries {
		switch {
		case e == nil:
			return fmt.Errorf("%w: entry %d is missing", errMalformed, i)
		case e.Index != req.PrevLogEntry+1+uint64(i):
			return fmt.Errorf("%w: entry %d has index %d after %d", errMalformed, i, e.Index, req.PrevLogEntry)
		case e.Term > req.Term:
			return fmt.Errorf("%w: entry %d has term %d in a request of term %d", errMalformed, i, e.Term, req.Term)
		case len(e.Data) > maxCommand:
			return fmt.Errorf("%w: entry %d has %d bytes, the limit is %d", errMalformed, i, len(e.Data), maxCommand)
		}
		switch e.Type {
		case raft.LogCommand, raft.LogNoop, raft.LogBarrier:
		case raft.LogConfiguration:
			if err := checkConfiguration(e.Data); err != nil {
				return err
			}
		default:
			return fmt.Errorf("%w: entry %d is of type %d", errMalformed, i, e.Type)
		}
	}
	return nil
}

// checkConfiguration decodes as raft will; raft panics where this returns an error.
func checkConfiguration(data []byte) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: configuration: %v", errMalformed, p)
		}
	}()
	if len(raft.DecodeConfiguration(data).Servers) == 0 {
		return fmt.Errorf("%w: configuration without servers", errMalformed)
	}
	return nil
}
