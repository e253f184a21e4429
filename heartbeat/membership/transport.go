package membership

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// transport is what memberlist sees of the links: nodes by name, each reached over all its links.
type transport struct {
	m       *Membership
	seen    *copies
	packets chan *memberlist.Packet // from the ports to memberlist; full: dropped and counted
	streams chan net.Conn           // likewise; full: closed and counted
	wg      sync.WaitGroup          // streams that have yet to greet
	ctx     context.Context         // ends with Shutdown
	stop    context.CancelFunc

	mu     sync.Mutex
	closed bool
	open   map[*stream]struct{} // at most maxStreams
}

// maxStreams bounds the connections in both directions; one more closes one that has not greeted, if there is any, so
// that silent callers cannot keep out a peer. A push/pull of a few nodes takes milliseconds.
const maxStreams = 32

var _ memberlist.NodeAwareTransport = (*transport)(nil)

var errShutdown = errors.New("membership is shut down")

func newTransport(m *Membership) *transport {
	ctx, stop := context.WithCancel(context.Background())
	return &transport{
		m:       m,
		seen:    newCopies(),
		packets: make(chan *memberlist.Packet, 256),
		streams: make(chan net.Conn, maxStreams),
		ctx:     ctx,
		stop:    stop,
		open:    map[*stream]struct{}{},
	}
}

// FinalAdvertiseAddr is part of memberlist.Transport.
func (t *transport) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return virtualAddress(t.m.cfg.id()).AsSlice(), virtualPort, nil
}

const virtualPort = 1

// PacketCh is part of memberlist.Transport.
func (t *transport) PacketCh() <-chan *memberlist.Packet { return t.packets }

// StreamCh is part of memberlist.Transport.
func (t *transport) StreamCh() <-chan net.Conn { return t.streams }

// WriteTo is part of memberlist.Transport, which knows a node without a name only if something is wrong with it.
func (t *transport) WriteTo(b []byte, addr string) (time.Time, error) {
	return t.WriteToAddress(b, memberlist.Address{Addr: addr})
}

// DialTimeout is part of memberlist.Transport.
func (t *transport) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	return t.DialAddressTimeout(memberlist.Address{Addr: addr}, timeout)
}

// WriteToAddress sends a packet over every link of the node.
func (t *transport) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	r := t.m.byName[a.Name]
	if r == nil {
		return time.Time{}, fmt.Errorf("no such node in the configuration: %q", a.Name)
	}
	if t.ctx.Err() != nil {
		return time.Time{}, errShutdown
	}
	frame := t.m.codec.encodeGossip(rand.Uint64(), b)
	sent := false
	for _, l := range r.links {
		sent = t.m.send(l, frame) || sent
	}
	if !sent {
		// In this shape memberlist counts it as a failed probe; any other error would end the probe without a verdict.
		return time.Time{}, &net.OpError{Op: "write", Net: "udp", Err: errNoLink}
	}
	return time.Now(), nil
}

var errNoLink = errors.New("no link takes a packet")

// DialAddressTimeout tries the node's links one after the other, the most promising first. Each gets an equal share of
// what is left of the time.
func (t *transport) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	r := t.m.byName[a.Name]
	if r == nil {
		return nil, fmt.Errorf("no such node in the configuration: %q", a.Name)
	}
	deadline := time.Now().Add(timeout)
	var errs []error
	links := r.byPromise()
	for i, l := range links {
		share := time.Until(deadline) / time.Duration(len(links)-i)
		c, err := t.dial(l, share)
		if err != nil {
			errs = append(errs, fmt.Errorf("link %s: %w", l.address, err))
			continue
		}
		return t.greet(c, r, deadline)
	}
	return nil, errors.Join(errs...)
}

// greet says who calls. The deadline stays until memberlist sets its own, which it does after its first write.
func (t *transport) greet(c net.Conn, r *remote, deadline time.Time) (net.Conn, error) {
	s, err := t.track(c, false)
	if err != nil {
		return nil, err
	}
	if err = s.SetDeadline(deadline); err == nil {
		_, err = s.Write(t.m.codec.encodeProbe(frameStream, probe{from: t.m.cfg.id(), to: r.id}))
	}
	if err != nil {
		s.Close()
		return nil, fmt.Errorf("greet %s: %w", r.name, err)
	}
	return s, nil
}

func (t *transport) dial(l *remoteLink, timeout time.Duration) (net.Conn, error) {
	to := l.addr.Load()
	link := t.m.ports[l.port].link.Load()
	if to == nil {
		return nil, errors.New("address is not resolved")
	}
	if link == nil {
		return nil, errors.New("our end is not open")
	}
	ctx, cancel := context.WithTimeout(t.ctx, timeout)
	defer cancel()
	return (*link).Dial(ctx, *to)
}

// Shutdown ends all streams and refuses new ones and packets. The ports are closed by Run.
func (t *transport) Shutdown() error {
	t.stop()
	t.mu.Lock()
	t.closed = true
	open := t.open
	t.open = map[*stream]struct{}{}
	t.mu.Unlock()
	for s := range open {
		s.Conn.Close()
	}
	return nil
}

// drain ends what memberlist has not taken, once ports and memberlist are closed. The channels stay open: memberlist
// may still look at them.
func (t *transport) drain() {
	t.wg.Wait()
	for {
		select {
		case <-t.packets:
		case <-t.streams: // closed by Shutdown
		default:
			return
		}
	}
}
