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
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/memberlist"

	"hacluster/heartbeat"
)

// Membership is one node's view of the others.
type Membership struct {
	cfg       Config
	timing    timing
	codec     *codec
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

// Run takes part until ctx ends, then says good-bye to the others and leaves nothing behind. It returns an error if no
// link can be opened, or one is in use by somebody else. It may be called once.
func (m *Membership) Run(ctx context.Context) error {
	if m.running.Swap(true) {
		return errors.New("membership: Run called twice")
	}
	if err := m.openPorts(ctx); err != nil {
		return err
	}
	gossip, err := memberlist.Create(m.gossipConfig())
	if err != nil {
		m.closePorts()
		return fmt.Errorf("start the gossip: %w", err)
	}
	m.detector, err = heartbeat.NewDetector(time.Now(), m.timing.detector, m.unknownPeers())
	if err != nil {
		panic("membership: " + err.Error()) // the timeouts are our own
	}

	// The ports and the notifier outlive ctx: the good-bye still needs them.
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var serve, work sync.WaitGroup
	for _, p := range m.ports {
		serve.Go(func() { p.serve(serving) })
	}
	serve.Go(func() { m.notifier.run(serving) })
	work.Go(func() { m.resolveLoop(ctx) })
	work.Go(func() { m.joinLoop(ctx, gossip) })

	m.loop(ctx)
	m.leave(gossip)
	work.Wait()
	stop()
	serve.Wait()
	m.transport.drain()
	return nil
}

func (m *Membership) openPorts(ctx context.Context) error {
	var errs []error
	opened := 0
	for _, p := range m.ports {
		err := p.open(ctx)
		switch {
		case err == nil:
			opened++
			continue
		case errors.Is(err, syscall.EADDRINUSE):
			m.closePorts()
			return fmt.Errorf("%w: is this node running already, or another with the same link?", err)
		}
		errs = append(errs, err)
	}
	if opened == 0 {
		return fmt.Errorf("no heartbeat link can be opened: %w", errors.Join(errs...))
	}
	for _, err := range errs {
		m.cfg.Logger.Warn("heartbeat link cannot be opened, going on with the others and trying again", "err", err)
	}
	return nil
}

func (m *Membership) closePorts() {
	for _, p := range m.ports {
		p.close()
	}
}

// loop owns the detector: all facts come here. Answers of peers that are alive wait for the timer: waking up for each
// would be most of what an idle node does.
func (m *Membership) loop(ctx context.Context) {
	prober := newProber(rand.Uint64())
	probe := time.NewTicker(m.timing.probe)
	defer probe.Stop()
	silence := time.NewTimer(m.timing.probe)
	defer silence.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-probe.C:
			m.sendProbes(prober)
		case <-silence.C:
		case <-m.wake:
		}
		m.step(m.facts(prober))
		silence.Reset(time.Until(m.detector.Next()))
	}
}

// facts is everything that came since it was called last.
func (m *Membership) facts(p *prober) (facts []heartbeat.Event) {
	for _, e := range m.inbox.take() {
		if rtt, ok := p.answered(e); ok {
			facts = append(facts, heartbeat.Arrival{Peer: e.from.name, Link: e.link, At: e.at, RTT: rtt})
		}
	}
	for _, r := range m.remotes {
		if at := r.answered.Swap(nil); at != nil {
			facts = append(facts, heartbeat.Answer{Peer: r.name, At: *at})
		}
		if said := r.gossipState(); said != r.told {
			r.told = said
			facts = append(facts, heartbeat.Gossip{Peer: r.name, State: said})
		}
	}
	return facts
}

func (m *Membership) step(facts []heartbeat.Event) {
	changes := m.detector.Step(time.Now(), facts...)
	m.publish(m.detector.Peers()) // before anybody is told, who may then look
	for _, c := range changes {
		m.log(c)
		r := m.byName[c.After.Name]
		if c.Before.State != heartbeat.Alive && c.After.State == heartbeat.Alive && r.gossipState() != heartbeat.Alive {
			r.eager.Store(true)
			poke(m.rejoin)
		}
		m.notifier.add(c)
	}
}

func (m *Membership) log(c heartbeat.Change) {
	if c.Before.State != c.After.State {
		log := m.cfg.Logger.Info
		if c.After.State == heartbeat.Suspect || c.After.State == heartbeat.Dead {
			log = m.cfg.Logger.Warn
		}
		log("peer changed", "peer", c.After.Name, "from", c.Before.State.String(), "to", c.After.State.String(),
			"gossip", m.byName[c.After.Name].gossipState().String())
	}
	for i, l := range c.After.Links {
		if was := c.Before.Links[i].State; was != l.State {
			m.cfg.Logger.Info("link changed", "peer", c.After.Name, "link", l.Address, "from", was.String(), "to", l.State.String())
		}
	}
}

// sendProbes pings every link of every peer.
func (m *Membership) sendProbes(p *prober) {
	for _, r := range m.remotes {
		for i := range r.links {
			frame := m.codec.encodeProbe(framePing, probe{from: m.cfg.id(), to: r.id, instance: p.instance, seq: p.next(r, i), link: uint8(i)})
			m.send(r.links[i], frame)
		}
	}
}

// send hands a frame to the local end of a link; false means that it was dropped here.
func (m *Membership) send(l *remoteLink, frame []byte) bool {
	to := l.addr.Load()
	link := m.ports[l.port].link.Load()
	if to == nil || link == nil {
		m.counters.unsent.Add(1)
		return false
	}
	if err := (*link).Send(frame, *to); err != nil {
		m.counters.unsent.Add(1)
		return false
	}
	return true
}

// poke wakes whoever waits on c, or lets it find the note that is there already.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// virtualAddress stands for a node in the gossip. The transport goes by names; were the real addresses gossiped, a
// node whose name resolves to a new one would be refused as an impostor until its old one is forgotten.
func virtualAddress(id nodeID) netip.Addr {
	a := [16]byte{0: 0xfd}
	copy(a[8:], id[:])
	return netip.AddrFrom16(a)
}
