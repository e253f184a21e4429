package identity

import (
	"context"
	"errors"
	"net"
)

// Network makes the connections below everything else, in the place of the kernel's: whole clusters in one process, in
// virtual time. Its addresses are *net.TCPAddr for "tcp". It is for tests and knows no certificates.
type Network interface {
	// Listen opens addr, of the network "tcp" or "unix".
	Listen(network, addr string) (net.Listener, error)
	// Dial connects to addr of the network "tcp".
	Dial(ctx context.Context, network, addr string) (net.Conn, error)
}

var errNetworkTLS = errors.New("a network of its own carries no TLS: it goes with Insecure only")

// dial makes the connection below the preface or TLS.
func (t *Transport) dial(ctx context.Context, addr string) (net.Conn, error) {
	if t.cfg.Network != nil {
		return t.cfg.Network.Dial(ctx, "tcp", addr)
	}
	d := net.Dialer{Control: t.control, KeepAliveConfig: t.keepAlive()}
	c, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return newSocket(c), nil
}

func (t *Transport) listen(addr string) (net.Listener, error) {
	if t.cfg.Network != nil {
		return t.cfg.Network.Listen("tcp", addr)
	}
	lc := net.ListenConfig{Control: t.control, KeepAliveConfig: t.keepAlive()}
	return lc.Listen(context.Background(), "tcp", addr)
}

// ListenUnix is the function ListenUnix, in the Transport's network.
func (t *Transport) ListenUnix(path string) (net.Listener, error) {
	if t.cfg.Network != nil {
		return t.cfg.Network.Listen("unix", path)
	}
	return ListenUnix(path)
}
