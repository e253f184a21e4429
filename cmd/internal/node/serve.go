package node

import (
	"context"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"hacluster/cmd/internal/control"
	"hacluster/heartbeat/cluster"
)

var _ control.Handler = (*Node)(nil)

func notLeader() error {
	return status.Error(codes.Unavailable, "this node does not lead the Raft group")
}

// Lease implements control.Handler: the leader's part, or the passing on of a request that could not reach it.
func (n *Node) Lease(ctx context.Context, r *control.Lease) (*cluster.Grant, error) {
	if l := n.currentLeading(); l != nil {
		g, err := l.request(ctx, r)
		return g, toStatus(err)
	}
	leader := n.leaderName()
	if r.Relayed > 0 || leader == "" || leader == n.me.Name || leader == r.Request.Node {
		return nil, notLeader()
	}
	client, err := n.peers.control(leader)
	if err != nil {
		return nil, toStatus(err)
	}
	return client.Lease(ctx, &control.Lease{Request: r.Request, Relayed: r.Relayed + 1, By: n.me.Name})
}

// Ask implements control.Handler. The term is read after the question came, after the reports were made.
func (n *Node) Ask(_ context.Context, a *control.Ask) (*control.Answer, error) {
	r := n.raftIfOpen()
	if r == nil {
		return nil, status.Error(codes.Unavailable, "this node is not part of a cluster")
	}
	for id, s := range a.Seen {
		n.seen.note(id, s)
	}
	var reports []cluster.Report
	if a.Reports {
		reports = n.vols.reports()
	}
	s := n.reached(r)
	return &control.Answer{Node: n.me.Name, RaftID: n.dir.raftID(), Reports: reports, Term: s.Term, Index: s.Index}, nil
}

// Propose implements control.Handler. What only the leader decides is taken from nobody: it waited for leases and asked
// for reports before, which no other node can have done in its term (R10, R25).
func (n *Node) Propose(ctx context.Context, p *control.Propose) (*cluster.Result, error) {
	c, err := cluster.DecodeCommand(p.Command)
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	if !othersPropose(c) {
		why := fmt.Sprintf("node %q proposes what only the leader decides, or for another node", c.By)
		n.trans.Refused(reasonDecision, "why", why)
		return nil, status.Error(codes.PermissionDenied, why)
	}
	if err := n.mayPropose(ctx, c.By); err != nil {
		return nil, status.Error(codes.PermissionDenied, err.Error())
	}
	l := n.currentLeading()
	if l == nil {
		return nil, notLeader()
	}
	res, err := l.propose(ctx, c)
	if err != nil {
		return nil, toStatus(err)
	}
	return &res, nil
}

// GiveUp implements control.Handler.
func (n *Node) GiveUp(ctx context.Context, g *control.GiveUp) (*control.Done, error) {
	l := n.currentLeading()
	if l == nil {
		return nil, notLeader()
	}
	return &control.Done{}, toStatus(l.giveUp(ctx, g.GiveUp))
}

// Served implements control.Handler.
func (n *Node) Served(_ context.Context, s *control.Served) (*control.Done, error) {
	l := n.currentLeading()
	if l == nil {
		return nil, notLeader()
	}
	l.served(s)
	for i := range s.More {
		l.served(&s.More[i])
	}
	return &control.Done{}, nil
}

// State implements control.Handler: the applied state behind a barrier, so that what was committed before the
// question is in it.
func (n *Node) State(ctx context.Context, _ *control.State) (*control.StateReply, error) {
	l := n.currentLeading()
	if l == nil {
		return nil, notLeader()
	}
	if err := l.raft.Barrier(ctx); err != nil {
		return nil, toStatus(err)
	}
	st := n.state.get()
	b, err := st.Encode()
	if err != nil {
		return nil, toStatus(err)
	}
	reply := &control.StateReply{State: b}
	servers, err := l.raft.Servers()
	for _, s := range servers {
		if s.Voter {
			reply.Voters = append(reply.Voters, s.ID)
		}
	}
	return reply, toStatus(err)
}

// Local implements control.Handler.
func (n *Node) Local(context.Context, *control.Local) (*control.LocalReply, error) {
	version, _, _ := n.run.watch()
	return &control.LocalReply{Node: n.me.Name, ConfigVersion: version, File: n.hashOfFile(), LeaseMs: n.lease.remaining().Milliseconds(), Reports: n.vols.reports(), Serving: n.vols.serving(), Verified: n.vols.verified(), Rescued: n.vols.rescued(), Services: n.services.states()}, nil
}
