package membership

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
)

// port is this node's end of one cable. When its link breaks (an interface that went away) it is opened anew.
type port struct {
	m       *Membership
	address string
	link    atomic.Pointer[Link] // nil while it is not open
}

func (p *port) open(ctx context.Context) error {
	addrs, err := p.m.lookup(ctx, p.address)
	if err != nil {
		return fmt.Errorf("link %s: %w", p.address, err)
	}
	var errs []error
	for _, addr := range addrs { // a name may have an IPv6 address that this machine has not
		link, err := p.m.cfg.Network.Open(addr)
		if err == nil {
			p.link.Store(&link)
			return nil
		}
		errs = append(errs, err)
	}
	return fmt.Errorf("open link %s: %w", p.address, errors.Join(errs...))
}

func (p *port) close() {
	if link := p.link.Swap(nil); link != nil {
		(*link).Close()
	}
}

// serve receives until ctx ends.
func (p *port) serve(ctx context.Context) {
	wait := p.m.timing.shortWait
	for ctx.Err() == nil {
		began := time.Now()
		if p.link.Load() != nil || p.reopen(ctx) {
			err := p.use(ctx)
			if ctx.Err() == nil {
				p.m.cfg.Logger.Warn("heartbeat link broke, opening it anew", "link", p.address, "err", err)
			}
		}
		if time.Since(began) > p.m.timing.longWait {
			wait = p.m.timing.shortWait
		}
		sleep(ctx, wait)
		wait = min(2*wait, p.m.timing.longWait)
	}
}

func (p *port) reopen(ctx context.Context) bool {
	if err := p.open(ctx); err != nil {
		p.m.cfg.Logger.Debug("heartbeat link cannot be opened yet", "link", p.address, "err", err)
		return false
	}
	p.m.cfg.Logger.Info("heartbeat link is open", "link", p.address)
	return true
}

// use runs the open link until it fails or ctx ends, and closes it.
func (p *port) use(ctx context.Context) error {
	link := *p.link.Load()
	ctx, broken := context.WithCancelCause(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { broken(p.receive(link)) })
	wg.Go(func() { broken(p.accept(ctx, link)) })
	<-ctx.Done()
	p.close()
	wg.Wait()
	return context.Cause(ctx)
}

// accept goes on after an error: without descriptors there are no streams for a while, but the packets still flow.
func (p *port) accept(ctx context.Context, link Link) error {
	for {
		c, err := link.Accept()
		switch {
		case err == nil:
			p.m.transport.accepted(c)
		case errors.Is(err, net.ErrClosed):
			return err
		default:
			p.m.cfg.Logger.Debug("cannot accept a heartbeat stream", "link", p.address, "err", err)
			sleep(ctx, p.m.timing.shortWait)
		}
	}
}

// maxStumbles is how many errors in a row a link may return before it counts as broken. Single ones happen: an ICMP
// message about a packet sent earlier, a moment without memory.
const maxStumbles = 16

func (p *port) receive(link Link) error {
	buf := make([]byte, maxFrame)
	stumbles := 0
	for {
		n, from, err := link.Receive(buf)
		if err != nil {
			if stumbles++; stumbles >= maxStumbles || errors.Is(err, net.ErrClosed) {
				return err
			}
			continue
		}
		stumbles = 0
		p.take(link, buf[:n], from, time.Now())
	}
}

func (p *port) take(link Link, b []byte, from netip.AddrPort, now time.Time) {
	kind, err := p.m.codec.check(b)
	if err == nil && kind == frameGossip {
		p.takeGossip(b, from, now)
		return
	}
	var pr probe
	var r *remote
	if err == nil {
		pr, r, err = p.m.fromPeer(b)
	}
	if err == nil && kind == frameStream {
		err = errGarbage
	}
	if err != nil {
		p.m.strange(err, from.String())
		return
	}
	if kind == framePing {
		// To the address it came from: that is the way that the ping asks about. Answer and ping have one length, so
		// a forged sender gains nothing.
		if link.Send(p.m.codec.encodeProbe(frameEcho, pr.echo()), from) != nil {
			p.m.counters.unsent.Add(1)
		}
		return
	}
	if !p.m.inbox.put(echo{from: r, link: int(pr.link), instance: pr.instance, seq: pr.seq, at: now}) {
		p.m.counters.dropped.Add(1)
	}
	if !r.alive.Load() || int(pr.link) < len(r.links) && !r.links[pr.link].up.Load() {
		poke(p.m.wake)
	}
}

func (p *port) takeGossip(b []byte, from netip.AddrPort, now time.Time) {
	if p.m.transport.seen.before(b) {
		p.m.counters.copies.Add(1)
		return
	}
	packet := &memberlist.Packet{Buf: append([]byte(nil), gossipOf(b)...), From: net.UDPAddrFromAddrPort(from), Timestamp: now}
	select {
	case p.m.transport.packets <- packet:
	default:
		p.m.counters.dropped.Add(1)
	}
}

// fromPeer opens a checked frame that one of our peers must have sent to us.
func (m *Membership) fromPeer(b []byte) (probe, *remote, error) {
	pr, err := m.codec.decodeProbe(b)
	if err != nil {
		return probe{}, nil, err
	}
	r := m.byID[pr.from]
	if r == nil || pr.to != m.cfg.id() {
		return probe{}, nil, errStranger
	}
	return pr, r, nil
}

var errStranger = errors.New("heartbeat packet of a node that is not in the configuration, or for another node")

// sleep waits, or not when ctx ends.
func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
