package membership

import (
	"context"
	"net"
	"net/netip"
)

// Network opens the local ends of links. Sockets is the real one, Memory the one for tests in virtual time.
type Network interface {
	// Open starts to listen for packets and streams at the address.
	Open(addr netip.AddrPort) (Link, error)
}

// Link is a node's end of one network path. All methods may be called concurrently.
type Link interface {
	Packets
	Streams
	// Close ends all waiting calls. Streams that were handed out stay.
	Close() error
}

// Packets are unreliable: lost, late, doubled, out of order.
type Packets interface {
	// Send passes a packet on or drops it; it never waits. The caller keeps p.
	Send(p []byte, to netip.AddrPort) error
	// Receive waits for a packet. What does not fit into p is cut off.
	Receive(p []byte) (n int, from netip.AddrPort, err error)
}

// Streams are connections to and from the link's address.
type Streams interface {
	Accept() (net.Conn, error)
	Dial(ctx context.Context, to netip.AddrPort) (net.Conn, error)
}
