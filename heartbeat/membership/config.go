package membership

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/hashicorp/memberlist"

	"hacluster/heartbeat"
)

// Limits of the configuration; others follow from them.
const (
	maxName  = 64
	maxLinks = 16
	minBase  = 5 * time.Millisecond
)

// Node is a node of the cluster with its heartbeat links.
type Node struct {
	Name string
	// Links are host:port, one for each cable, in the same order of cables on every node.
	Links []string
}

// Config is what a Membership is made from.
type Config struct {
	// Cluster is the cluster's name. Packets and streams of clusters with another name are ignored.
	Cluster string
	// Node is the name of this node, one of Nodes.
	Node string
	// Nodes are all nodes of the cluster, this one included.
	Nodes []Node
	// Base is the gossip's probe interval; every other time is a multiple. A crash is seen after about 5 x Base.
	// Shorter finds it sooner, costs more when idle, and takes a busy machine for a dead one. Default 50 ms.
	Base time.Duration
	// Keys encrypt and authenticate gossip and probes (16, 24 or 32 bytes each). The first one seals, all open, so
	// that keys can be changed in steps. None: plain text, for loopback addresses only; the caller sees to that.
	Keys [][]byte
	// OnChange is told of changes of verdicts and link states, from one goroutine. While it does not return, further
	// changes of a peer merge into one, so that the last is never missing. Run waits for it.
	OnChange func(heartbeat.Change)
	// Network carries packets and streams. Default: UDP and TCP.
	Network Network
	// Resolve finds the addresses of host:port. Default: the system's resolver.
	Resolve func(ctx context.Context, address string) ([]netip.AddrPort, error)
	// Logger is told of changes and of trouble. Default: slog.Default().
	Logger *slog.Logger
}

func (c Config) withDefaults() Config {
	if c.Base == 0 {
		c.Base = 50 * time.Millisecond
	}
	if c.Network == nil {
		c.Network = Sockets{}
	}
	if c.Resolve == nil {
		c.Resolve = resolve
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c
}

// Validate reports all that is wrong.
func (c Config) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if c.Cluster == "" || len(c.Cluster) > memberlist.LabelMaxSize {
		bad("cluster name %q: must have 1 to %d bytes", c.Cluster, memberlist.LabelMaxSize)
	}
	if c.Base != 0 && c.Base < minBase {
		bad("base interval %v: must be at least %v", c.Base, minBase)
	}
	for i, k := range c.Keys {
		if err := memberlist.ValidateKey(k); err != nil {
			bad("gossip key %d: %w", i+1, err)
		}
	}
	errs = append(errs, c.validateNodes()...)
	return errors.Join(errs...)
}

func (c Config) validateNodes() (errs []error) {
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	names, links := map[string]bool{}, map[string]string{}
	for _, n := range c.Nodes {
		if n.Name == "" || len(n.Name) > maxName || strings.ContainsAny(n.Name, "/ \t\r\n") {
			bad("node name %q: must have 1 to %d bytes, no slash and no space", n.Name, maxName)
		}
		if names[n.Name] {
			bad("node %q is listed twice", n.Name)
		}
		names[n.Name] = true
		if len(n.Links) == 0 || len(n.Links) > maxLinks {
			bad("node %q has %d heartbeat links: must have 1 to %d", n.Name, len(n.Links), maxLinks)
		}
		for _, l := range n.Links {
			if host, port, err := net.SplitHostPort(l); err != nil || host == "" || port == "" || port == "0" {
				bad("node %q: link %q: must be host:port", n.Name, l)
			}
			if other, taken := links[l]; taken {
				bad("node %q: link %q is also a link of node %q", n.Name, l, other)
			}
			links[l] = n.Name
		}
	}
	if !names[c.Node] {
		bad("this node, %q, is not among the cluster's nodes", c.Node)
	}
	return errs
}

func (c Config) id() nodeID { return idOf(c.Node) }

// awarenessMax is by how much the gossip may stretch its probes when its own node seems slow.
const awarenessMax = 2

// timing is everything that follows from Config.Base. The gossip is set to find a crash fast. How often it speaks apart
// from probes has no influence on that (measured: both others see a crash after 190 ms, at most 290, with 20, 50 and
// 100 ms alike), only on its cost.
type timing struct {
	gossipProbe, gossipTimeout, gossipInterval time.Duration
	stream                                     time.Duration // one push/pull, dialing included
	pushPull                                   time.Duration
	remembered                                 time.Duration // a dead node is still told that it is dead

	probe    time.Duration // one ping per link
	detector heartbeat.Timeouts

	shortWait, longWait time.Duration // between tries to join, to open, to resolve
	goodbye             time.Duration
	probesEnd           time.Duration // the gossip's last probe after its end
}

func newTiming(base time.Duration) timing {
	return timing{
		gossipProbe:    base,
		gossipTimeout:  base / 2,
		gossipInterval: 4 * base,
		stream:         10 * base,
		pushPull:       200 * base,
		remembered:     20 * base,
		probe:          4 * base,
		detector:       heartbeat.Timeouts{Suspect: 5 * base, LinkDown: 12 * base, Dead: 12 * base},
		shortWait:      5 * base,
		longWait:       100 * base,
		goodbye:        6 * base,
		probesEnd:      (awarenessMax + 1) * base,
	}
}
