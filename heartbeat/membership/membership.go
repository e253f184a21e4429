// Package membership tells which nodes of the cluster seem alive, and over which links. It gossips with
// hashicorp/memberlist and probes every link itself; heartbeat.Detector makes one verdict of both.
//
// What it says is a hint that makes decisions sooner, never a decision: a node called dead may be running, one called
// alive may be useless. Only the nodes of the configuration take part; strangers, other clusters and garbage are
// counted and ignored. The configuration's order of links matters: the i-th links of all nodes are one cable.
//
//	                  Run: owns the detector
//	memberlist <----> transport --+-- port 0 --(UDP+TCP)--> every link of the peer,
//	link probes <-----------------+-- port 1 --(UDP+TCP)--> at the same time
//
// A gossip packet goes over all links of its receiver, which drops the copies; a stream takes the best link. Nothing
// here waits for a slow link: sends that would block are dropped, and so is what a full queue cannot take. Both are
// counted.
//
// The daemon's node calls it: New, Run in a goroutine of its own, Snapshot at any time.
package membership

import (
	"slices"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/memberlist"

	"hacluster/heartbeat"
)

// Membership is one node's view of the others.
type Membership struct {
	cfg       Config
	timing    timing
	codec     *codec
	ring      *memberlist.Keyring // the gossip's keys, the same as the codec's; nil without
	remotes   []*remote
	byName    map[string]*remote
	byID      map[nodeID]*remote
	ports     []*port
	transport *transport
	notifier  *notifier
	counters  counters

	inbox  inbox         // from the ports to Run
	wake   chan struct{} // poked for Run when something came that should not wait for its timer; capacity 1
	rejoin chan struct{} // poked by Run when a peer answers that the gossip does not know; capacity 1

	changing sync.Mutex // one SetKeys at a time works on the ring and the codec

	running  atomic.Bool
	view     atomic.Pointer[[]heartbeat.Peer]
	detector *heartbeat.Detector // owned by Run
}

// New checks the configuration. Nothing is opened before Run.
func New(cfg Config) (*Membership, error) {
	cfg = cfg.withDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	codec, err := newCodec(cfg.Cluster, cfg.Keys)
	if err != nil {
		return nil, err
	}
	m := &Membership{
		cfg:      cfg,
		timing:   newTiming(cfg.Base),
		codec:    codec,
		byName:   map[string]*remote{},
		byID:     map[nodeID]*remote{},
		notifier: newNotifier(cfg.OnChange),
		wake:     make(chan struct{}, 1),
		rejoin:   make(chan struct{}, 1),
	}
	if len(cfg.Keys) > 0 {
		// Keys were validated; a keyring of valid keys does not fail.
		m.ring, _ = memberlist.NewKeyring(cfg.Keys, cfg.Keys[0])
	}
	for _, n := range cfg.Nodes {
		if n.Name == cfg.Node {
			for _, address := range n.Links {
				m.ports = append(m.ports, &port{m: m, address: address})
			}
		}
	}
	for _, n := range cfg.Nodes {
		if n.Name != cfg.Node {
			m.addRemote(newRemote(n, len(m.ports)))
		}
	}
	m.transport = newTransport(m)
	m.publish(m.unknownPeers())
	return m, nil
}

func (m *Membership) addRemote(r *remote) {
	m.remotes = append(m.remotes, r)
	m.byName[r.name] = r
	m.byID[r.id] = r
}

func (m *Membership) unknownPeers() []heartbeat.Peer {
	var peers []heartbeat.Peer
	for _, r := range m.remotes {
		p := heartbeat.Peer{Name: r.name}
		for _, l := range r.links {
			p.Links = append(p.Links, heartbeat.Link{Address: l.address})
		}
		peers = append(peers, p)
	}
	return peers
}

// Snapshot is what is known of the other nodes, in the order of the configuration. Before Run they are unknown.
func (m *Membership) Snapshot() []heartbeat.Peer {
	peers := slices.Clone(*m.view.Load())
	for i := range peers {
		peers[i].Links = slices.Clone(peers[i].Links)
	}
	return peers
}

func (m *Membership) publish(peers []heartbeat.Peer) {
	m.view.Store(&peers)
	for i, p := range peers {
		m.remotes[i].note(p)
	}
}
