package topology

import (
	"fmt"
	"slices"
)

// The networks of every lab.
const (
	Heartbeat1  = "hb1"
	Heartbeat2  = "hb2"
	Replication = "repl"
	Clients     = "client"
)

// Networks are all of them, in the order of their numbers.
var Networks = []string{Heartbeat1, Heartbeat2, Replication, Clients}

// What a node is.
const (
	Data    = "data"
	Witness = "witness"
	Host    = "host" // runs no daemon: clients of the volumes
)

// ClientHost is the name of the host of the client network.
const ClientHost = "client"

// User is the name of the user whose certificate clients have.
const User = "client"

// Volume is the name of the one volume.
const Volume = "vol"

// The ports of every node.
const (
	Port     = 7400 // block data, Raft, admin
	LinkPort = 7401 // gossip
	HTTPPort = 7480
	NBDPort  = 10809
)

// Node is one server, or the clients' host.
type Node struct {
	Name   string
	Role   string
	Number int    // the last octet of its addresses
	BootID string // given to its processes at their start
	Disk   bool   // its folder lies on the disk that can lose power
}

var witnesses = []string{"gamma", "delta", "epsilon"}

func nodesFor(cfg Config) ([]Node, error) {
	if cfg.Copies == 3 {
		return booted([]Node{{Name: "alpha", Role: Data, Number: 1}, {Name: "beta", Role: Data, Number: 2}, {Name: "gamma", Role: Data, Number: 3}}), nil
	}
	if cfg.Witnesses < 1 || cfg.Witnesses > len(witnesses) || cfg.Witnesses%2 == 0 {
		return nil, fmt.Errorf("%d witnesses beside two data nodes: 1 or 3 are wanted, so that the voters are odd in number", cfg.Witnesses)
	}
	nodes := []Node{{Name: "alpha", Role: Data, Number: 1}, {Name: "beta", Role: Data, Number: 2}}
	for i := range cfg.Witnesses {
		nodes = append(nodes, Node{Name: witnesses[i], Role: Witness, Number: 3 + i})
	}
	return booted(nodes), nil
}

// booted adds the clients' host, and gives each a boot id.
func booted(nodes []Node) []Node {
	nodes = append(nodes, Node{Name: ClientHost, Role: Host, Number: 100})
	for i := range nodes {
		nodes[i].BootID = newBootID()
	}
	return nodes
}

// On lists the networks that a node has a cable to.
func (n *Node) On() []string {
	switch n.Role {
	case Host:
		return []string{Clients}
	case Witness:
		return []string{Heartbeat1, Heartbeat2, Replication}
	}
	return Networks
}

// Shared lists the networks that both nodes are on.
func Shared(a, b *Node) (both []string) {
	for _, n := range a.On() {
		if slices.Contains(b.On(), n) {
			both = append(both, n)
		}
	}
	return both
}

// Address is a node's address in a network.
func (s *State) Address(n *Node, network string) string {
	prefix := "10.77"
	if s.Config.Plain {
		prefix = "127.77"
	}
	return fmt.Sprintf("%s.%d.%d", prefix, slices.Index(Networks, network)+1, n.Number)
}

// Daemons are the nodes that run haclusterd.
func (s *State) Daemons() (names []string) {
	for _, n := range s.Nodes {
		if n.Role != Host {
			names = append(names, n.Name)
		}
	}
	return names
}

// namespace is the name of a network namespace of this lab; of is a node, or "switch".
func (l *Lab) namespace(of string) string { return "halab-" + l.Name + "-" + of }

func (l *Lab) netns(of string) string { return "/run/netns/" + l.namespace(of) }
