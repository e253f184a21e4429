// Package consensustest connects Raft members inside one process, for tests: connections are memory, links between
// members can be cut and healed, in one direction too. It works in virtual time (testing/synctest) and takes no part
// in the program.
//
// A cut link behaves as a pulled cable does: nothing is refused, bytes wait. What was sent before and during the cut
// arrives after Heal, in order, unless the connection was closed meanwhile.
package consensustest

import (
	"context"
	"fmt"
	"net"
	"sync"
)

// Network is a set of members that can reach each other by address.
type Network struct {
	mu        sync.Mutex
	listeners map[string]*Layer
	cut       map[link]bool
	changed   chan struct{} // closed and replaced at each Cut and Heal
}

// link is one direction between two members.
type link struct{ from, to string }

// NewNetwork returns a network without members.
func NewNetwork() *Network {
	return &Network{listeners: map[string]*Layer{}, cut: map[link]bool{}, changed: make(chan struct{})}
}

// Listen adds a member. Its Layer is a stream layer for consensus.Config; an address is free again when that is closed.
func (n *Network) Listen(address string) (*Layer, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.listeners[address] != nil {
		return nil, fmt.Errorf("listen on %s: address in use", address)
	}
	l := &Layer{network: n, address: address, incoming: make(chan net.Conn), closed: make(chan struct{})}
	n.listeners[address] = l
	return l, nil
}

// Cut stops everything from one member to another, in this direction only.
func (n *Network) Cut(from, to string) { n.set(from, to, true) }

// Heal undoes Cut.
func (n *Network) Heal(from, to string) { n.set(from, to, false) }

// Isolate cuts a member off from all others, in both directions.
func (n *Network) Isolate(address string, others ...string) {
	for _, o := range others {
		n.Cut(address, o)
		n.Cut(o, address)
	}
}

// Rejoin undoes Isolate.
func (n *Network) Rejoin(address string, others ...string) {
	for _, o := range others {
		n.Heal(address, o)
		n.Heal(o, address)
	}
}

func (n *Network) set(from, to string, cut bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut[link{from, to}] = cut
	close(n.changed)
	n.changed = make(chan struct{})
}

// passable tells whether a link works, and what to wait for if not.
func (n *Network) passable(l link) (ok bool, changed <-chan struct{}) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return !n.cut[l], n.changed
}

// Layer is one member's access to the network.
type Layer struct {
	network  *Network
	address  string
	incoming chan net.Conn // sent by dialers, received by Accept, never closed, no buffer
	closed   chan struct{}
	once     sync.Once
}

// Accept waits for a member that dials.
func (l *Layer) Accept() (net.Conn, error) {
	select {
	case c := <-l.incoming:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close removes the member. Its connections live on.
func (l *Layer) Close() error {
	l.once.Do(func() {
		close(l.closed)
		l.network.mu.Lock()
		delete(l.network.listeners, l.address)
		l.network.mu.Unlock()
	})
	return nil
}

// Addr is the member's address.
func (l *Layer) Addr() net.Addr { return addr(l.address) }

// Dial connects to another member. Over a cut link it waits until ctx ends.
func (l *Layer) Dial(ctx context.Context, address string) (net.Conn, error) {
	for _, dir := range []link{{l.address, address}, {address, l.address}} {
		for {
			ok, changed := l.network.passable(dir)
			if ok {
				break
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return nil, fmt.Errorf("dial %s: %w", address, ctx.Err())
			}
		}
	}
	l.network.mu.Lock()
	to := l.network.listeners[address]
	l.network.mu.Unlock()
	if to == nil {
		return nil, fmt.Errorf("dial %s: connection refused", address)
	}
	near, far := l.network.connect(l.address, address)
	select {
	case to.incoming <- far:
		return near, nil
	case <-to.closed:
		return nil, fmt.Errorf("dial %s: connection refused", address)
	case <-ctx.Done():
		return nil, fmt.Errorf("dial %s: %w", address, ctx.Err())
	}
}

type addr string

func (a addr) Network() string { return "memory" }
func (a addr) String() string  { return string(a) }
