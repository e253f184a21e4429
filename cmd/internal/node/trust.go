package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"time"

	"google.golang.org/grpc"

	"hacluster/cmd/internal/api"
	"hacluster/cmd/internal/caller"
	"hacluster/cmd/internal/config"
	"hacluster/cmd/internal/control"
	"hacluster/cmd/internal/identity"
	"hacluster/heartbeat/cluster"
	"hacluster/replication/link"
	"hacluster/replication/wire"
)

// newTransport reads the certificates, if any. It opens nothing. applied is what the node runs with.
func newTransport(cfg, applied *config.Config, net identity.Network, log *slog.Logger) (*identity.Transport, error) {
	return identity.New(identity.Config{
		Insecure: cfg.Insecure, PKI: cfg.PKI, Cluster: cfg.Cluster.Name, Node: cfg.Self,
		NodeAt: func(addr string) (string, bool) {
			for _, n := range cfg.Nodes {
				if n.Address == addr {
					return n.Name, true
				}
			}
			return "", false
		},
		KnownNode:   func(name string) bool { _, ok := cfg.Node(name); return ok },
		UserTimeout: applied.Timers.RTO, Logger: log,
		MaxConns: int(applied.Cluster.Limits.NodeConnections), MaxHandshakes: int(applied.Cluster.Limits.NodeHandshakes),
		HandshakeTimeout: applied.Cluster.Limits.NodeHandshake, Network: net,
	})
}

// newServer makes a server of the control and admin services that looks at who calls: on the node's port, or on the
// local socket.
func (n *Node) newServer(opts []grpc.ServerOption) *grpc.Server {
	opts = append(opts, grpc.Creds(caller.Credentials(n.cfg.Insecure)), control.Guard(n.clusterNow, n.trans.Refused))
	return grpc.NewServer(append(opts, api.Authorize(n.trans.Refused)...)...)
}

// clusterNow is the cluster that this node belongs to, as far as it knows.
func (n *Node) clusterNow() control.Cluster {
	c := control.Cluster{Name: n.cfg.Cluster.Name, ID: n.state.get().ID}
	if c.ID == "" && n.old && n.known != nil { // the log has not been read again yet
		c.ID = n.known.ID
	}
	if f := n.formed(); c.ID == "" && f != nil {
		c.ID = f.ID
	}
	return c
}

const reasonStream = "refused: block data in another node's name"

// sameSender refuses a stream whose greeting names another node than the caller's certificate (R2).
func (v *volumes) sameSender(s *link.Session) *wire.HelloReply {
	p, ok := identity.PeerOf(s.Conn())
	h := s.Hello()
	if !ok || p.IsNode(h.Primary) {
		return nil
	}
	if by := v.n.wayTo(h.VolumeName, h.Target); by != "" && h.Target == v.n.me.Name && p.IsNode(by) {
		return nil // the configuration has it carry on what primaries send
	}
	why := fmt.Sprintf("the greeting is of node %q, the certificate of %s", h.Primary, p)
	v.n.trans.Refused(reasonStream, "remote", s.Conn().RemoteAddr().String(), "why", why)
	return &wire.HelloReply{Code: wire.RefusedRole, Node: v.n.me.Name, Text: why}
}

const reasonProposal = "refused: proposal in another node's name"

// mayPropose refuses a command in another node's name: rules ask who proposes (R4, R5).
func (n *Node) mayPropose(ctx context.Context, by string) error {
	name, anybody := caller.Of(ctx).Node()
	if anybody || name == by {
		return nil
	}
	why := fmt.Sprintf("the command is of node %q, the certificate of %q", by, name)
	n.trans.Refused(reasonProposal, "why", why)
	return errors.New(why)
}

const reasonDecision = "refused: proposal of what only the leader decides"

// othersPropose reports whether a command may come from another node than the leader: what a node says of itself, what a
// primary says of its set (checked against the leases, and when it is applied), and a person's word that a node passes on.
func othersPropose(c cluster.Command) bool {
	switch {
	case c.Promote != nil, c.Init != nil, c.CreateVolume != nil, c.Failover != nil, c.SettleLeases != nil:
		return false // whatever it brings along
	case len(c.Batch) > 0:
		return !slices.ContainsFunc(c.Batch, func(item cluster.Command) bool {
			return item.By != "" && item.By != c.By || len(item.Batch) > 0 || !item.Batches() || !othersPropose(item)
		})
	case c.StartNode != nil:
		return c.StartNode.Node == c.By
	case c.FenceNode != nil: // a person's word; the others are the leader's
		return c.FenceNode.Word == cluster.FenceConfirmed
	case c.Form != nil:
		return c.Form.InitialFrom != "" // the leader's own names nobody: all replicas were fresh
	}
	return c.Drop != nil || c.Admit != nil || c.Rejoin != nil || c.AllowResync != nil || c.PauseResync != nil || c.FullResync != nil || c.SetMode != nil ||
		c.AddNode != nil || c.RemoveNode != nil || c.Configure != nil || c.SetDrained != nil || c.SetMaintenance != nil
}

// Reload reads certificates, authorities and gossip keys again. What is unusable changes nothing.
func (n *Node) Reload() error {
	err := n.trans.Reload()
	if err == nil && n.gossip != nil {
		err = n.gossip.SetKeys(n.trans.GossipKeys())
	}
	switch {
	case n.cfg.Insecure:
	case err != nil:
		n.log.Error("certificates cannot be read again: the old ones stay in use", "error", err)
		n.events.add("certificates refused", "", "the old ones stay in use: "+err.Error())
	default:
		n.log.Info("certificates were read again", "valid_until", n.trans.Expiry())
		n.events.add("certificates read", "", "valid until "+n.trans.Expiry().UTC().Format(time.RFC3339))
	}
	return err
}

// expiryPause is how often the ends of certificates are looked at.
const expiryPause = time.Hour

// watchExpiry tells, at each of identity.Warnings once, that a certificate is about to end.
func (n *Node) watchExpiry(ctx context.Context) error {
	tick := time.NewTicker(expiryPause)
	defer tick.Stop()
	told := map[string]time.Duration{}
	for {
		n.warnOfExpiry(time.Now(), told)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// warnOfExpiry keeps in told which warning each certificate has had.
func (n *Node) warnOfExpiry(now time.Time, told map[string]time.Duration) {
	for _, e := range n.trans.Expiries() {
		key := e.File + e.Subject + e.NotAfter.String()
		w, due := e.Warning(now)
		if !due || told[key] == w {
			continue
		}
		told[key] = w
		text := fmt.Sprintf("%s (%s) ends %s: run `ha-admin pki rotate`", e.File, e.Subject, e.NotAfter.UTC().Format(time.RFC3339))
		n.log.Warn("a certificate is about to end", "file", e.File, "ends", e.NotAfter)
		n.events.add("certificate ends", "", text)
	}
}

// raftStream is the port's Raft connections. Each begins with who calls: see raftGreeting.
type raftStream struct {
	net.Listener
	n *Node
}

// Dial is part of consensus.StreamLayer.
func (s raftStream) Dial(ctx context.Context, address string) (net.Conn, error) {
	c, err := s.n.trans.Dial(ctx, address, identity.ProtoRaft)
	if err != nil {
		return nil, err
	}
	if err := s.n.greetRaft(ctx, c); err != nil {
		c.Close()
		return nil, fmt.Errorf("greet %s: %w", address, err)
	}
	return c, nil
}

// Accept is part of net.Listener. It does not wait for the greeting: the first Read does.
func (s raftStream) Accept() (net.Conn, error) {
	c, err := s.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &raftConn{Conn: c, n: s.n}, nil
}
