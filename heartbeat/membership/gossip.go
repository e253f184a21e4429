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
	c.Ping = answers{m}
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
	c.Keyring = m.ring
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
		poke(e.m.wake)
	}
}

// answers notes that a peer answered the gossip's own probe, which says nothing of links but comes often.
type answers struct{ m *Membership }

func (a answers) AckPayload() []byte { return nil }

func (a answers) NotifyPingComplete(n *memberlist.Node, _ time.Duration, _ []byte) {
	if r := a.m.byName[n.Name]; r != nil {
		now := time.Now()
		r.answered.Store(&now)
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
	tries := make([]try, len(m.remotes))
	tick := time.NewTicker(m.timing.shortWait)
	defer tick.Stop()
	for ctx.Err() == nil {
		for i, r := range m.remotes {
			if tries[i].due(time.Now(), r, m.timing) {
				if err := m.join(ctx, gossip, r); err != nil {
					m.cfg.Logger.Debug("cannot join a node yet", "peer", r.name, "err", err, "again_in", tries[i].wait)
				}
			}
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		case <-m.rejoin:
		}
	}
}

// try is when to join a node next.
type try struct {
	next  time.Time
	wait  time.Duration
	alive time.Time // since when the gossip holds the node alive
}

// due reports whether to join now. The pause grows until the node has been alive for a while: over a path that works
// one way only, each join makes it alive for a moment.
func (t *try) due(now time.Time, r *remote, timing timing) bool {
	if r.gossipState() == heartbeat.Alive {
		if t.alive.IsZero() {
			t.alive = now
		}
		if now.Sub(t.alive) >= timing.longWait {
			t.wait, t.next = 0, time.Time{}
		}
		return false
	}
	t.alive = time.Time{}
	if r.eager.Swap(false) {
		t.wait, t.next = 0, time.Time{}
	}
	if now.Before(t.next) {
		return false
	}
	t.wait = min(max(2*t.wait, timing.shortWait), timing.longWait)
	t.next = now.Add(t.wait)
	return true
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
