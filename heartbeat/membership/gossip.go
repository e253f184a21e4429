package membership

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/hashicorp/memberlist"

	"hacluster/heartbeat"
)

func (m *Membership) gossipConfig() *memberlist.Config {
	c := memberlist.DefaultLocalConfig()
	c.Name = m.cfg.Node
	c.Transport = m.transport
	c.RequireNodeNames = true
	c.Label = m.cfg.Cluster
	c.Events = events{m}
	c.Alive = configured{m}
	c.Logger = newGossipLog(m.cfg.Logger)

	c.ProbeInterval = m.timing.gossipProbe
	c.ProbeTimeout = m.timing.gossipTimeout
	c.GossipInterval = m.timing.gossipInterval
	c.SuspicionMult = 2
	c.SuspicionMaxTimeoutMult = 1
	c.AwarenessMaxMultiplier = awarenessMax
	c.IndirectChecks = 1
	c.RetransmitMult = 4
	c.TCPTimeout = m.timing.stream
	c.DisableTcpPings = true // the fall-back eats the interval
	c.PushPullInterval = m.timing.pushPull
	c.GossipToTheDeadTime = m.timing.remembered
	c.DeadNodeReclaimTime = m.timing.shortWait
	c.EnableCompression = false
	c.UDPBufferSize = gossipPayload
	c.HandoffQueueDepth = 256
	if len(m.cfg.Keys) > 0 {
		// Keys were validated; a keyring of valid keys does not fail.
		c.Keyring, _ = memberlist.NewKeyring(m.cfg.Keys, m.cfg.Keys[0])
	}
	return c
}

// events notes what the gossip says. memberlist calls it with its lock held: it must not wait.
type events struct{ m *Membership }

func (e events) NotifyJoin(n *memberlist.Node)  { e.note(n, heartbeat.Alive) }
func (e events) NotifyLeave(n *memberlist.Node) { e.note(n, heartbeat.Dead) }
func (e events) NotifyUpdate(*memberlist.Node)  {}

func (e events) note(n *memberlist.Node, s heartbeat.State) {
	if r := e.m.byName[n.Name]; r != nil {
		r.gossip.Store(uint32(s))
		poke(e.m.gossiped)
	}
}

// configured keeps strangers out of memberlist's table, which thereby stays as small as the configuration.
type configured struct{ m *Membership }

func (c configured) NotifyAlive(n *memberlist.Node) error {
	if n.Name == c.m.cfg.Node || c.m.byName[n.Name] != nil {
		return nil
	}
	return fmt.Errorf("no such node in the configuration: %q", n.Name)
}

// joinLoop joins every node that the gossip does not hold alive, again and again with growing pauses: the gossip by
// itself forgets the dead and would never find one that returns after a partition.
func (m *Membership) joinLoop(ctx context.Context, gossip *memberlist.Memberlist) {
	type try struct {
		next time.Time
		wait time.Duration
	}
	tries := map[*remote]*try{}
	for _, r := range m.remotes {
		tries[r] = &try{wait: m.timing.shortWait}
	}
	tick := time.NewTicker(m.timing.shortWait)
	defer tick.Stop()
	for ctx.Err() == nil {
		for r, t := range tries {
			if r.gossipState() == heartbeat.Alive {
				t.wait, t.next = m.timing.shortWait, time.Time{}
				continue
			}
			if r.eager.Swap(false) {
				t.wait = m.timing.shortWait
			} else if time.Now().Before(t.next) {
				continue
			}
			if err := m.join(ctx, gossip, r); err != nil {
				m.cfg.Logger.Debug("cannot join a node yet", "peer", r.name, "err", err, "again_in", t.wait)
			}
			t.next = time.Now().Add(t.wait)
			t.wait = min(2*t.wait, m.timing.longWait)
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		case <-m.rejoin:
		}
	}
}

func (m *Membership) join(ctx context.Context, gossip *memberlist.Memberlist, r *remote) error {
	if ctx.Err() != nil {
		return nil
	}
	at := net.JoinHostPort(virtualAddress(r.id).String(), strconv.Itoa(virtualPort))
	_, err := gossip.Join([]string{r.name + "/" + at})
	return err
}

// leave tells the others that this node goes on purpose, so that they need not wait for its silence, and ends the
// gossip. Nobody answering is no error: it is what the last node to stop sees.
func (m *Membership) leave(gossip *memberlist.Memberlist) {
	if err := gossip.Leave(m.timing.goodbye); err != nil {
		m.cfg.Logger.Debug("the good-bye was not heard", "err", err)
	}
	if err := gossip.Shutdown(); err != nil {
		m.cfg.Logger.Debug("gossip did not end cleanly", "err", err)
	}
	// memberlist does not wait for its goroutines. With its streams closed, the last to end is a probe under way: it
	// lasts for at most two intervals, and there is nothing that tells when it is over.
	time.Sleep(m.timing.probesEnd)
}
