package membership

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"hacluster/heartbeat"
)

// logBuffer is a log that may be read while it is written.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *logBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *logBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// cluster is nodes in one process.
type cluster struct {
	t     *testing.T
	name  string
	nodes []Node
	base  Config // what all nodes share
	log   *logBuffer
	run   map[string]*running
}

type running struct {
	*Membership
	stop context.CancelFunc
	done chan error

	mu      sync.Mutex
	changes []heartbeat.Change
}

// nodeNames in the order in which their addresses are given.
var nodeNames = []string{"alpha", "beta", "gamma"}

// memoryNodes have two links each: 10.0.0.k and 192.168.7.k.
func memoryNodes() (nodes []Node) {
	for i, name := range nodeNames {
		nodes = append(nodes, Node{Name: name, Links: []string{
			fmt.Sprintf("10.0.0.%d:7401", i+1), fmt.Sprintf("192.168.7.%d:7401", i+1),
		}})
	}
	return nodes
}

func newCluster(t *testing.T, nodes []Node, base Config) *cluster {
	c := &cluster{t: t, nodes: nodes, base: base, log: &logBuffer{}, run: map[string]*running{}}
	if c.base.Cluster == "" {
		c.base.Cluster = "shop"
	}
	c.base.Nodes = nodes
	c.base.Logger = slog.New(slog.NewTextHandler(c.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	return c
}

func (c *cluster) start(names ...string) {
	c.t.Helper()
	for _, name := range names {
		c.startWith(name, func(*Config) {})
	}
}

func (c *cluster) startWith(name string, change func(*Config)) *running {
	c.t.Helper()
	cfg := c.base
	cfg.Node = name
	cfg.Logger = cfg.Logger.With("node", name)
	r := &running{done: make(chan error, 1)}
	cfg.OnChange = func(ch heartbeat.Change) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.changes = append(r.changes, ch)
	}
	change(&cfg)
	var err error
	if r.Membership, err = New(cfg); err != nil {
		c.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r.stop = cancel
	go func() { r.done <- r.Run(ctx) }()
	c.run[name] = r
	return r
}

func (c *cluster) stop(names ...string) {
	c.t.Helper()
	for _, name := range names {
		c.run[name].stop()
	}
	for _, name := range names {
		if err := <-c.run[name].done; err != nil {
			c.t.Errorf("%s: Run: %v", name, err)
		}
		delete(c.run, name)
	}
}

func (c *cluster) stopAll() {
	c.t.Helper()
	for _, name := range nodeNames {
		if c.run[name] != nil {
			c.stop(name)
		}
	}
	if c.t.Failed() {
		c.t.Log("\n" + c.log.String())
	}
}

// sees is what one node knows of another, like "alive up up".
func (c *cluster) sees(from, of string) string {
	for _, p := range c.run[from].Snapshot() {
		if p.Name == of {
			s := p.State.String()
			for _, l := range p.Links {
				s += " " + l.State.String()
			}
			return s
		}
	}
	return "nothing"
}

func (c *cluster) expect(from, of, want string) {
	c.t.Helper()
	if got := c.sees(from, of); got != want {
		c.t.Errorf("%s sees %s as %q, want %q", from, of, got, want)
	}
}

func (c *cluster) expectAll(want string) {
	c.t.Helper()
	for from := range c.run {
		for of := range c.run {
			if from != of {
				c.expect(from, of, want)
			}
		}
	}
}

func (r *running) seen() []heartbeat.Change {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]heartbeat.Change(nil), r.changes...)
}

// verdicts are the changes of a peer's verdict, oldest first, like "unknown>alive alive>dead".
func (r *running) verdicts(of string) string {
	var out []string
	for _, c := range r.seen() {
		if c.After.Name == of && c.Before.State != c.After.State {
			out = append(out, c.Before.State.String()+">"+c.After.State.String())
		}
	}
	return strings.Join(out, " ")
}

// inBubble runs a test in virtual time, on a network in memory.
func inBubble(t *testing.T, f func(c *cluster, net *Memory)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		net := NewMemory()
		net.Latency = 200 * time.Microsecond
		c := newCluster(t, memoryNodes(), Config{Network: net})
		defer c.stopAll()
		f(c, net)
	})
}

func link(node, cable int) netip.AddrPort {
	return netip.MustParseAddrPort(memoryNodes()[node].Links[cable])
}

func cutBoth(n *Memory, a, b netip.AddrPort) {
	n.Cut(a, b)
	n.Cut(b, a)
}

func healBoth(n *Memory, a, b netip.AddrPort) {
	n.Heal(a, b)
	n.Heal(b, a)
}

func TestThreeNodesWithTwoLinksSeeEachOtherAlive(t *testing.T) {
	inBubble(t, func(c *cluster, _ *Memory) {
		c.start(nodeNames...)
		time.Sleep(time.Second)
		c.expectAll("alive up up")
		for _, name := range nodeNames {
			r := c.run[name]
			for _, p := range r.Snapshot() {
				for _, l := range p.Links {
					if l.RTT != 400*time.Microsecond {
						t.Errorf("%s: rtt of %s over %s = %v, want 400µs", name, p.Name, l.Address, l.RTT)
					}
				}
				if got := r.verdicts(p.Name); got != "unknown>alive" {
					t.Errorf("%s was told %q of %s", name, got, p.Name)
				}
				if r.byName[p.Name].gossipState() != heartbeat.Alive {
					t.Errorf("%s: %s is not alive in the gossip", name, p.Name)
				}
			}
		}
	})
}
