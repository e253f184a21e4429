package consensus

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/raft"
)

// Server is a member of the group.
type Server struct {
	ID      string
	Address string
	Voter   bool // it votes, and counts for the majority
}

// Bootstrap founds a group with these members; this node must be a voter among them. It is called once in a group's
// life, on one node, whose directory is empty.
func (r *Raft) Bootstrap(servers []Server) error {
	var c raft.Configuration
	for _, s := range servers {
		suffrage := raft.Nonvoter
		if s.Voter {
			suffrage = raft.Voter
		}
		c.Servers = append(c.Servers, raft.Server{ID: raft.ServerID(s.ID), Address: raft.ServerAddress(s.Address), Suffrage: suffrage})
	}
	return r.call(context.Background(), "bootstrap", func(time.Duration) answer {
		a := simple("bootstrap", r.node.BootstrapCluster(c))
		if errors.Is(a.err, raft.ErrCantBootstrap) {
			a.err = fmt.Errorf("bootstrap: %w", ErrNotEmpty)
		}
		return a
	}).err
}

// Servers returns the members by the newest configuration that this node has, which may not be committed yet.
func (r *Raft) Servers() ([]Server, error) {
	f := r.node.GetConfiguration()
	if err := f.Error(); err != nil {
		return nil, fmt.Errorf("read the members: %w", err)
	}
	var all []Server
	for _, s := range f.Configuration().Servers {
		all = append(all, Server{ID: string(s.ID), Address: string(s.Address), Voter: s.Suffrage == raft.Voter})
	}
	return all, nil
}

// AddVoter makes id a voter, or changes the address of one. Only the leader can; errors as for Propose.
func (r *Raft) AddVoter(ctx context.Context, id, address string) error {
	return r.change(ctx, "add voter "+id, func(wait time.Duration) raft.IndexFuture {
		return r.node.AddVoter(raft.ServerID(id), raft.ServerAddress(address), 0, wait)
	})
}

// AddNonvoter makes id a member that receives the log and does not vote, or changes the address of a member. It takes
// no vote away: that is Demote.
func (r *Raft) AddNonvoter(ctx context.Context, id, address string) error {
	return r.change(ctx, "add non-voter "+id, func(wait time.Duration) raft.IndexFuture {
		return r.node.AddNonvoter(raft.ServerID(id), raft.ServerAddress(address), 0, wait)
	})
}

// Demote takes a voter's vote away; it stays a member.
func (r *Raft) Demote(ctx context.Context, id string) error {
	return r.change(ctx, "demote "+id, func(wait time.Duration) raft.IndexFuture {
		return r.node.DemoteVoter(raft.ServerID(id), 0, wait)
	})
}

// Remove ends a membership. A leader that removes itself steps down when that is committed.
func (r *Raft) Remove(ctx context.Context, id string) error {
	return r.change(ctx, "remove "+id, func(wait time.Duration) raft.IndexFuture {
		return r.node.RemoveServer(raft.ServerID(id), 0, wait)
	})
}

// change appends a membership entry. raft takes one at a time, and none before the leader's first commit; until then
// the call waits for a place in raft's queue, without having appended anything.
func (r *Raft) change(ctx context.Context, doing string, start func(time.Duration) raft.IndexFuture) error {
	return r.call(ctx, doing, func(wait time.Duration) (a answer) {
		_, a.err = outcome(doing, start(wait))
		return a
	}).err
}

// TransferLeadership asks voter id to take over. On success this node leads no more; on any error it may or may not.
func (r *Raft) TransferLeadership(ctx context.Context, id string) error {
	doing := "transfer leadership to " + id
	servers, err := r.Servers()
	if err != nil {
		return err
	}
	if r.node.State() != raft.Leader { // its configuration may be older than the voter, or empty
		return fmt.Errorf("%s: %w", doing, ErrNotLeader)
	}
	// raft would ask whatever address it is given, and a node without a vote would disturb the group by trying.
	i := slices.IndexFunc(servers, func(s Server) bool { return s.ID == id })
	if i < 0 || !servers[i].Voter {
		return fmt.Errorf("%s: it is no voter of this group", doing)
	}
	r.unsettle() // raft bounds a transfer by its timers
	return r.call(ctx, doing, func(time.Duration) answer {
		a := simple(doing, r.node.LeadershipTransferToServer(raft.ServerID(id), raft.ServerAddress(servers[i].Address)))
		if errors.Is(a.err, raft.ErrNotLeader) {
			a.err = fmt.Errorf("%s: %w", doing, ErrNotLeader)
		}
		return a
	}).err
}

// noteMembers notices whom an entry of the log makes members, this node perhaps.
func (r *Raft) noteMembers(at point, c raft.Configuration) {
	if names(c, r.cfg.ID) {
		r.member.Store(true)
	}
	r.standing.logged(at, c)
}
