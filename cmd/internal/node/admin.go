package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"

	"hacluster/cmd/internal/api"
	"hacluster/cmd/internal/config"
	"hacluster/cmd/internal/control"
	"hacluster/cmd/internal/identity"
	"hacluster/heartbeat/cluster"
	"hacluster/heartbeat/consensus"
)

var _ api.Node = (*Node)(nil)

// onLeader runs f here if this node leads, else passes the call on to the leader as call.
func onLeader[T any](ctx context.Context, n *Node, f func(*leading) (T, error), call func(context.Context, *api.Client) (T, error)) (zero T, err error) {
	if l := n.currentLeading(); l != nil {
		return f(l)
	}
	leader := n.leaderName()
	if leader == "" || leader == n.me.Name {
		return zero, api.Unavailable("%v", errNoLeader)
	}
	ctx, err = api.Forward(ctx)
	if err != nil {
		return zero, err
	}
	to, _ := n.cfg.Node(leader)
	client, err := api.Dial(ctx, []string{to.Address}, func(ctx context.Context, addr string) (net.Conn, error) {
		return n.trans.Dial(ctx, addr, identity.ProtoGRPC)
	})
	if err != nil {
		return zero, err
	}
	defer client.Close()
	return call(ctx, client)
}

// VolumeList implements api.VolumeKeeper.
func (n *Node) VolumeList(ctx context.Context) (all []api.Volume, err error) {
	s, err := n.Status(ctx, "")
	if err != nil {
		return nil, err
	}
	for _, v := range s.Volumes {
		out := api.Volume{Name: v.Name, Size: v.Size, Mode: v.Mode, State: v.State, Primary: v.Primary, Epoch: v.Epoch}
		for _, r := range v.Replicas {
			out.Replicas = append(out.Replicas, r.Node)
		}
		all = append(all, out)
	}
	return all, nil
}

// VolumeCreate implements api.VolumeKeeper: a person's word on replicas that have content at the first start.
func (n *Node) VolumeCreate(ctx context.Context, r api.VolumeCreateRequest) error {
	v := n.look(ctx)
	asked := r.Volume
	r.Volume = v.state.Mirrored(asked)
	vol, ok := v.state.Volumes[r.Volume]
	if ok && (r.InitialFrom != "" || r.DiscardData) {
		if err := consentNamesAll(&vol, asked, "volume create "+vol.Name); err != nil {
			return err
		}
	}
	switch {
	case !v.quorum:
		return api.Unavailable("%v", errNoLeader)
	case !ok:
		return api.Failed("volume %q is not in the applied configuration: add it there with `ha-admin apply`", r.Volume)
	case len(vol.Members) > 0:
		return api.Failed("volume %q exists and has members already: nothing to create", r.Volume)
	case r.InitialFrom == "" && !r.DiscardData:
		return api.Refused("replicas of %q hold data: say whose is kept with --initial-from NODE (the others are overwritten), or --discard-data", r.Volume)
	}
	from := r.InitialFrom
	for _, c := range vol.Replicas { // discarded: any replica will do
		if rep := v.report(c.Node, r.Volume); from == "" && rep != nil && rep.Usable() {
			from = c.Node
		}
	}
	n.lookAgain(ctx, &v, from)
	if from == "" {
		return api.Failed("no replica of %q is usable: `ha-admin status` shows why", r.Volume)
	}
	if _, ok := vol.Replica(from); !ok {
		return api.Failed("node %q holds no replica of volume %q", from, r.Volume)
	}
	rep := v.report(from, r.Volume)
	if rep == nil || !rep.Usable() {
		return api.Failed("the replica of %q on %s is not usable: %s", r.Volume, from, problemOf(rep))
	}
	f := &cluster.Form{On: cluster.On{Volume: vol.Name, Epoch: vol.Epoch, Version: vol.Version}, InitialFrom: from,
		Members: map[string]cluster.Member{from: {Incarnation: rep.Incarnation, Process: rep.Process}}}
	return n.applied(ctx, cluster.Command{Form: f})
}

func problemOf(r *cluster.Report) string {
	switch {
	case r == nil:
		return "the node does not answer"
	case r.Problem != "":
		return r.Problem
	}
	return fmt.Sprintf("failed %t, inconsistent %t, stalled %t", r.Failed, r.Inconsistent, r.Stalled)
}

// applied proposes a command and makes its outcome an answer for an operator.
func (n *Node) applied(ctx context.Context, c cluster.Command) error {
	res, err := n.mustApply(ctx, c)
	switch {
	case err != nil:
		return api.Unavailable("the change was not confirmed: %v", err)
	case res.Void != "":
		return api.Failed("not done: %s", res.Void)
	}
	return nil
}

// NodeList implements api.NodeKeeper.
func (n *Node) NodeList(ctx context.Context) (all []api.Member, err error) {
	s, err := n.Status(ctx, "")
	if err != nil {
		return nil, err
	}
	for _, m := range s.Nodes {
		c, _ := n.cfg.Node(m.Name)
		all = append(all, api.Member{Name: m.Name, Role: m.Role, State: m.State, Voter: m.Voter, Address: c.Address})
	}
	return all, nil
}

// NodeAdd implements api.NodeKeeper: an empty node of the configuration becomes a voter, under its new Raft id.
func (n *Node) NodeAdd(ctx context.Context, name string) error {
	_, err := onLeader(ctx, n, func(l *leading) (struct{}, error) { return struct{}{}, n.nodeAdd(ctx, l, name) },
		func(ctx context.Context, c *api.Client) (struct{}, error) { return struct{}{}, c.NodeAdd(ctx, name) })
	return err
}

func (n *Node) nodeAdd(ctx context.Context, l *leading, name string) error {
	c, ok := n.cfg.Node(name)
	if !ok {
		return api.Failed("node %q is not in %s", name, n.cfg.File)
	}
	h, err := n.helloAgain(ctx, name)
	if err != nil {
		return api.Failed("node %q cannot be added: %v", name, err)
	}
	if rec, ok := n.state.get().Nodes[name]; ok {
		if votes, err := l.votes(rec.RaftID); err == nil && !votes && rec.RaftID == h.RaftID { // an earlier try came half way
			return n.letVote(ctx, l, rec)
		}
		return api.Failed("node %q is part of the cluster already (data directory %s): remove it first", name, rec.DataDir)
	}
	if h.HasState {
		return api.Refused("node %q belongs to cluster id %s already: empty its data_dir first", name, h.ClusterID)
	}
	client, err := n.peers.control(name)
	if err != nil {
		return err
	}
	if _, err := client.Join(ctx, &control.Join{Cluster: n.cfg.Cluster.Name, RaftID: h.RaftID}); err != nil {
		return api.Failed("node %q does not join: %v", name, err)
	}
	add := &cluster.Node{Name: name, Witness: c.Role == config.RoleWitness, Address: c.Address, RaftID: h.RaftID, DataDir: h.DataDir}
	if err := n.applied(ctx, cluster.Command{AddNode: add}); err != nil {
		return err
	}
	return n.letVote(ctx, l, *add)
}

func (n *Node) letVote(ctx context.Context, l *leading, node cluster.Node) error {
	err := l.raft.AddVoter(ctx, node.RaftID, node.Address)
	l.votersChanged(ctx)
	if errors.Is(err, consensus.ErrNotLeader) {
		return api.Unavailable("node %q was added and does not vote yet, for the leader changed: run the command again", node.Name)
	}
	if err != nil {
		return api.Failed("node %q was added and does not vote yet: %v: run the command again", node.Name, err)
	}
	return nil
}

// NodeRemove implements api.NodeKeeper.
func (n *Node) NodeRemove(ctx context.Context, name string) error {
	_, err := onLeader(ctx, n, func(l *leading) (struct{}, error) { return struct{}{}, n.nodeRemove(ctx, l, name) },
		func(ctx context.Context, c *api.Client) (struct{}, error) { return struct{}{}, c.NodeRemove(ctx, name) })
	return err
}

func (n *Node) nodeRemove(ctx context.Context, l *leading, name string) error {
	rec, ok := n.state.get().Nodes[name]
	if !ok {
		return n.removeVote(ctx, l, name)
	}
	if err := n.mayRemove(ctx, l, rec); err != nil {
		return err
	}
	if name == n.me.Name {
		for _, o := range n.others("") {
			if l.raft.TransferLeadership(ctx, n.state.get().Nodes[o].RaftID) == nil {
				return api.Unavailable("%s led the group and has passed that on: run the command again", name)
			}
		}
		return api.Unavailable("%s leads the group and nobody could take over", name)
	}
	res, err := n.mustApply(ctx, cluster.Command{RemoveNode: &cluster.RemoveNode{Node: name}})
	if err != nil {
		return api.Unavailable("the change was not confirmed: %v", err)
	}
	if _, there := n.state.get().Nodes[name]; res.Void != "" && there {
		return api.Refused("node %q is not removed: %s", name, res.Void)
	}
	return n.removeVote(ctx, l, name)
}

// removeVote takes the votes of a node away that is not part of the cluster's state any more.
func (n *Node) removeVote(ctx context.Context, l *leading, name string) error {
	servers, err := l.raft.Servers()
	if err != nil {
		return api.Unavailable("%v", err)
	}
	found := false
	for _, s := range servers {
		if strings.TrimRight(s.ID, "0123456789abcdef") != name+"-" {
			continue
		}
		found = true
		err := l.raft.Remove(ctx, s.ID)
		l.votersChanged(ctx)
		if errors.Is(err, consensus.ErrNotLeader) {
			return api.Unavailable("node %q was removed from the cluster's state and still votes, for the leader changed: run the command again", name)
		}
		if err != nil {
			return api.Failed("node %q was removed from the cluster's state and still votes: %v: run `ha-admin node remove %s` again", name, err, name)
		}
	}
	if !found {
		return api.Failed("node %q is not part of the cluster", name)
	}
	return nil
}

// mayRemove refuses to leave voters behind of which no majority answers: nobody could undo that.
func (n *Node) mayRemove(ctx context.Context, l *leading, rec cluster.Node) error {
	servers, err := l.raft.Servers()
	if err != nil {
		return api.Unavailable("%v", err)
	}
	voters, answer := 0, 0
	for _, s := range servers {
		if !s.Voter || s.ID == rec.RaftID {
			continue
		}
		voters++
		name := n.nameOf(s.ID)
		if name == n.me.Name {
			answer++
		} else if h, err := n.hello(ctx, name); err == nil && h.RaftID == s.ID {
			answer++
		}
	}
	if 2*answer <= voters {
		return api.Refused("without %s the cluster has %d voters, of which only %d answer: it would lose its quorum; start the others first", rec.Name, voters, answer)
	}
	return nil
}

// ConfigShow implements api.ConfigReader: the applied configuration as this node runs with it.
func (n *Node) ConfigShow(context.Context) (config.Document, error) {
	version, cfg, _ := n.run.watch()
	doc := cfg.Document()
	doc.Version = version
	return doc, nil
}

// ConfigExport implements api.ConfigReader.
func (n *Node) ConfigExport(ctx context.Context) (api.ConfigText, error) {
	v := n.look(ctx)
	if !v.quorum || len(v.state.Config) == 0 {
		version, cfg, _ := n.run.watch()
		return api.ConfigText{Version: version, Text: cfg.Source()}, nil
	}
	text, err := config.Unpack(v.state.Config)
	if err != nil {
		return api.ConfigText{}, api.Failed("%v", err)
	}
	return api.ConfigText{Version: v.state.ConfigVersion, Text: text}, nil
}
