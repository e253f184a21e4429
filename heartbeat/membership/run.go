package membership

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/memberlist"

	"hacluster/heartbeat"
)

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
