package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"hacluster/cmd/internal/caller"
	"hacluster/cmd/internal/control"
	"hacluster/heartbeat/cluster"
	"hacluster/heartbeat/consensus"
)

// join opens this node's part in the group. A node with Raft state goes on where it was. An empty one founds the
// cluster together with the others when all of them are empty, waits for `node add` when they are not, and starts no
// Raft before: an empty voter under a known name could vote twice.
func (n *Node) join(ctx context.Context) error {
	if n.old {
		if err := n.checkReached(ctx); err != nil || ctx.Err() != nil {
			return err
		}
		return n.openRaft(nil)
	}
	told := ""
	for {
		why, err := n.tryForm(ctx)
		if err != nil {
			return err
		}
		if why != told && why != "" {
			n.log.Warn("not part of a cluster yet", "why", why)
			told = why
		}
		select {
		case <-ctx.Done():
			return nil
		case <-n.joined:
			return nil
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// tryForm founds the cluster if it is this node's to do so now; why says what is missing.
func (n *Node) tryForm(ctx context.Context) (why string, err error) {
	replies := map[string]*control.HelloReply{}
	for _, c := range n.cfg.Nodes {
		if c.Name == n.me.Name {
			continue
		}
		r, err := n.hello(ctx, c.Name)
		if err != nil {
			why = fmt.Sprintf("node %s does not answer: %v", c.Name, err)
			continue
		}
		if r.HasState {
			return fmt.Sprintf("node %s belongs to a cluster (id %s) and this one is empty: run `ha-admin node remove %s` if it knows this node, then `ha-admin node add %s`",
				c.Name, r.ClusterID, n.me.Name, n.me.Name), nil
		}
		replies[c.Name] = r
	}
	if why != "" {
		return why, nil
	}
	if n.cfg.Nodes[0].Name != n.me.Name {
		return fmt.Sprintf("waiting for node %s to found the cluster", n.cfg.Nodes[0].Name), nil
	}
	return n.form(ctx, replies)
}

func (n *Node) hello(ctx context.Context, name string) (*control.HelloReply, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	client, err := n.peers.control(name)
	if err != nil {
		return nil, err
	}
	r, err := client.Hello(ctx, &control.Hello{Version: control.Version, Cluster: n.cfg.Cluster.Name, From: n.me.Name, RaftID: n.dir.raftID()})
	if err == nil {
		err = greeted(r, n.cfg.Cluster.Name, name)
	}
	if err != nil {
		return nil, err
	}
	return r, nil
}

// greeted reports whether who answered is the node that was meant, and speaks as this one does.
func greeted(r *control.HelloReply, cluster, name string) error {
	switch {
	case r.Version != control.Version:
		return fmt.Errorf("it speaks version %d, this node %d: run the same version everywhere", r.Version, control.Version)
	case r.Cluster != cluster || r.Node != name:
		return fmt.Errorf("node %q of cluster %q is there: check the address", r.Node, r.Cluster)
	}
	return nil
}

// helloAgain is hello to a node that may just have been started: the connection to it waits before it is tried anew.
func (n *Node) helloAgain(ctx context.Context, name string) (*control.HelloReply, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	for {
		r, err := n.hello(ctx, name)
		if err == nil {
			return r, nil
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// form is done by the first node of the file: it has all others agree, then starts the group.
func (n *Node) form(ctx context.Context, replies map[string]*control.HelloReply) (why string, err error) {
	text, err := n.cfg.Pack()
	if err != nil {
		return "", fmt.Errorf("found the cluster: %w", err)
	}
	f := &cluster.Init{Config: text, ID: newID(), Name: n.cfg.Cluster.Name, RTOMillis: n.cfg.Cluster.RTO.Milliseconds(), ConfigHash: n.cfg.Hash(), Fencing: string(n.cfg.Cluster.Fencing)}
	var servers []consensus.Server
	for _, c := range n.cfg.Nodes {
		node := cluster.Node{Name: c.Name, Witness: len(c.Role) > 0 && c.Role == "witness", Address: c.Address, RaftID: n.dir.raftID(), DataDir: n.dir.id.ID}
		if r := replies[c.Name]; r != nil {
			node.RaftID, node.DataDir = r.RaftID, r.DataDir
		}
		f.Nodes = append(f.Nodes, node)
		servers = append(servers, consensus.Server{ID: node.RaftID, Address: node.Address, Voter: true})
	}
	for _, v := range n.cfg.Mirrors() {
		f.Volumes = append(f.Volumes, createVolume(v))
	}
	for name := range replies {
		client, err := n.peers.control(name)
		if err == nil {
			try, cancel := context.WithTimeout(ctx, 5*time.Second)
			_, err = client.Form(try, &control.Form{Cluster: n.cfg.Cluster.Name, Formation: f})
			cancel()
		}
		if err != nil {
			return fmt.Sprintf("node %s does not agree to found the cluster: %v", name, err), nil
		}
	}
	end := n.disk.Begin("write the node's identity")
	err = n.agree(f)
	end()
	if err != nil {
		return "", err
	}
	n.log.Info("founding the cluster", "cluster", f.Name, "id", f.ID)
	return "", n.openRaft(servers)
}

// agree keeps the founding durably, so that whoever is elected first can give the cluster its identity.
func (n *Node) agree(f *cluster.Init) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.formation.Store(f)
	n.dir.id.Formation = f
	return n.dir.save()
}

func (n *Node) formed() *cluster.Init { return n.formation.Load() }

// Hello implements control.Handler.
func (n *Node) Hello(_ context.Context, h *control.Hello) (*control.HelloReply, error) {
	if r := n.raftIfOpen(); r != nil {
		n.seen.note(n.dir.raftID(), n.reached(r))
	}
	return &control.HelloReply{Version: control.Version, Cluster: n.cfg.Cluster.Name, ClusterID: n.state.get().ID, Node: n.me.Name,
		RaftID: n.dir.raftID(), DataDir: n.dir.id.ID, HasState: n.hasState(), Seen: n.seen.of(h.RaftID), Voters: n.seen.all()}, nil
}

// hasState reports whether this node has a part in a group: state from before its start, not opened yet perhaps, or
// entries that came since. One that was told to join and heard nothing since is as empty as before.
func (n *Node) hasState() bool {
	r := n.raftIfOpen()
	return n.old || r != nil && r.LastIndex() > 0
}

var errNotEmpty = errors.New("this node belongs to a cluster already")

// Form implements control.Handler.
func (n *Node) Form(ctx context.Context, f *control.Form) (*control.Done, error) {
	if name, anybody := caller.Of(ctx).Node(); !anybody && name != n.cfg.Nodes[0].Name {
		return nil, toStatus(fmt.Errorf("node %q would found the cluster, that is for node %q", name, n.cfg.Nodes[0].Name))
	}
	if f.Formation == nil {
		return nil, toStatus(errors.New("a founding without its content"))
	}
	if err := n.mayJoin(f.Cluster); err != nil {
		return nil, toStatus(err)
	}
	ours := false
	for _, node := range f.Formation.Nodes {
		ours = ours || node.Name == n.me.Name && node.DataDir == n.dir.id.ID && node.RaftID == n.dir.raftID()
	}
	if !ours {
		return nil, toStatus(fmt.Errorf("the founding does not name this node's data directory %s", n.dir.id.ID))
	}
	if f.Formation.ConfigHash != n.cfg.Hash() {
		return nil, toStatus(errors.New("cluster.hcl differs between the nodes: install the same file everywhere"))
	}
	end := n.disk.Begin("write the node's identity")
	err := n.agree(f.Formation)
	end()
	if err != nil {
		return nil, toStatus(err)
	}
	return &control.Done{}, toStatus(n.openRaft(nil))
}

// Join implements control.Handler.
func (n *Node) Join(_ context.Context, j *control.Join) (*control.Done, error) {
	if j.Cluster == n.cfg.Cluster.Name && j.RaftID == n.dir.raftID() && n.raftIfOpen() != nil {
		return &control.Done{}, nil // told before
	}
	if err := n.mayJoin(j.Cluster); err != nil {
		return nil, toStatus(err)
	}
	if j.RaftID != n.dir.raftID() {
		return nil, toStatus(fmt.Errorf("this node is %s, %s was added", n.dir.raftID(), j.RaftID))
	}
	return &control.Done{}, toStatus(n.openRaft(nil))
}

func (n *Node) mayJoin(name string) error {
	if name != n.cfg.Cluster.Name {
		return fmt.Errorf("cluster %q was named, this node is configured for %q", name, n.cfg.Cluster.Name)
	}
	if n.hasState() {
		return errNotEmpty
	}
	return nil
}
