package node

import (
	"context"
	"fmt"

	"hacluster/cmd/internal/identity"
	"hacluster/heartbeat/cluster"
	"hacluster/replication/link"
	"hacluster/replication/wire"
)

// relays are the streams that this node carries on: from a primary of which it is a standby, to another standby (`via`).
type relays struct{ n *Node }

// Replicate implements link.Handler.
func (h relays) Replicate(ctx context.Context, s *link.Session) error {
	n, hello := h.n, s.Hello()
	if no := n.vols.sameSender(s); no != nil {
		return s.Reply(*no)
	}
	no := func(why string) error {
		return s.Reply(wire.HelloReply{Code: wire.RefusedRole, Node: n.me.Name, Text: why})
	}
	feed, why := n.mayRelay(hello)
	if feed == nil {
		return no(why)
	}
	defer feed.End()
	to, _ := n.cfg.Node(hello.Target)
	dial, cancel := context.WithTimeout(ctx, n.conf().Timers.DropAfter)
	conn, err := n.trans.Dial(dial, to.Address, identity.ProtoData)
	cancel()
	if err != nil {
		return no(fmt.Sprintf("connect to %s: %v", hello.Target, err))
	}
	return link.Relay(ctx, s, conn, n.peers.lines[hello.Target], feed)
}

// mayRelay is what a stream is carried on from, or why it is not. Only a primary that this node follows itself is served, and only to
// where the configuration says.
func (n *Node) mayRelay(h wire.Hello) (feed *link.Feed, why string) {
	if n.wayTo(h.VolumeName, h.Target) != n.me.Name {
		return nil, fmt.Sprintf("%s is not to be sent volume %s via %s, by the configuration there", h.Target, h.VolumeName, n.me.Name)
	}
	if r := n.vols.replica(h.VolumeName); r != nil {
		feed = r.Feed(h.Primary, cluster.Epoch(h.Epoch))
	}
	return feed, fmt.Sprintf("no stream of %s for volume %s in epoch %d comes to %s, so none is carried on", h.Primary, h.VolumeName, h.Epoch, n.me.Name)
}

// wayTo is via which node a volume's replica is sent to; empty: directly.
func (n *Node) wayTo(volume, node string) string {
	m, _ := n.conf().Mirror(volume)
	rep, _ := m.Replica(node)
	return rep.Via
}
