// Package identity is the one place where the node's listeners and dialers are built. Whoever speaks on the node's TCP
// port (Raft, replication, control, administration) takes its listener and its connections from a Transport, so that
// what a connection must prove is decided here and nowhere else.
//
// There is one mode so far: insecure. Connections are plain TCP between loopback addresses and begin with a preface of
// eight bytes that names the protocol, as ALPN will. The package refuses to run without consent to that, refuses any
// address that is not a loopback address, and never guesses: a connection without a correct preface is closed.
//
// The daemon wires it: New once, Listen once for the node's address, a Listener for each protocol, Dial for the peers.
package identity

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ErrNotLoopback: an address that leaves the machine was used without TLS.
var ErrNotLoopback = errors.New("not a loopback address: without TLS only loopback addresses are allowed")

// Config is how connections are built. Zero values are the defaults.
type Config struct {
	// Insecure consents to plain TCP on loopback addresses. There is nothing else yet: New refuses without it.
	Insecure bool
	// UserTimeout is how long sent data may stay unacknowledged before the kernel gives a connection up
	// (TCP_USER_TIMEOUT). Shorter finds a dead cable sooner and takes a congested one for dead. Default 5 s.
	UserTimeout time.Duration
	// KeepAlive is the idle time after which the kernel probes the other side. Default 5 s.
	KeepAlive time.Duration
	// HandshakeTimeout is how long an accepted connection may take to send its preface. Default 5 s.
	HandshakeTimeout time.Duration
	// MaxHandshakes is how many connections may owe their preface at once; one more closes the oldest. Default 128.
	MaxHandshakes int
	// MaxConns is how many connections with a preface may be open at once; one more is closed. Default 1024.
	MaxConns int
	// Backlog is how many connections of one protocol wait to be accepted; one more is closed. Default 64.
	Backlog int
	// LogInterval is the shortest time between two log lines of the same reason. Default 10 s.
	LogInterval time.Duration
	// Logger is told of refused connections. Default: slog.Default().
	Logger *slog.Logger
}

func (c Config) withDefaults() Config {
	setDefault(&c.UserTimeout, 5*time.Second)
	setDefault(&c.KeepAlive, 5*time.Second)
	setDefault(&c.HandshakeTimeout, 5*time.Second)
	setDefault(&c.MaxHandshakes, 128)
	setDefault(&c.MaxConns, 1024)
	setDefault(&c.Backlog, 64)
	setDefault(&c.LogInterval, 10*time.Second)
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c
}

func setDefault[T int | time.Duration](v *T, d T) {
	if *v <= 0 {
		*v = d
	}
}

// Transport builds listeners and connections. It holds no resources and may be used concurrently.
type Transport struct{ cfg Config }

// New returns a Transport, or says why this node may not open its port.
func New(cfg Config) (*Transport, error) {
	if !cfg.Insecure {
		return nil, errors.New("TLS is not supported yet: run with --insecure on loopback addresses")
	}
	return &Transport{cfg: cfg.withDefaults()}, nil
}

// Dial connects to addr and announces the protocol. The connection has no deadline.
func (t *Transport) Dial(ctx context.Context, addr string, proto Proto) (net.Conn, error) {
	if !proto.known() {
		return nil, fmt.Errorf("dial %s: %v is not a protocol of this node", addr, proto)
	}
	d := net.Dialer{Control: t.control, KeepAliveConfig: t.keepAlive()}
	c, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	if err := announce(ctx, c, proto); err != nil {
		c.Close()
		return nil, fmt.Errorf("dial %s: send the preface: %w", addr, err)
	}
	return c, nil
}

// announce sends the preface at once, not with the first write: a protocol in which the accepting side speaks first
// would wait for ever. Eight bytes always fit into the buffer of a new connection, so that this does not wait.
func announce(ctx context.Context, c net.Conn, proto Proto) error {
	if deadline, ok := ctx.Deadline(); ok {
		if err := c.SetWriteDeadline(deadline); err != nil {
			return err
		}
	}
	p := newPreface(proto)
	if _, err := c.Write(p[:]); err != nil {
		return err
	}
	return c.SetWriteDeadline(time.Time{})
}

// ListenTCP listens on a port that needs no preface (NBD, HTTP), under the same rules for addresses and sockets.
func (t *Transport) ListenTCP(addr string) (net.Listener, error) {
	return t.listen(addr)
}

func (t *Transport) listen(addr string) (*net.TCPListener, error) {
	lc := net.ListenConfig{Control: t.control, KeepAliveConfig: t.keepAlive()}
	ln, err := lc.Listen(context.Background(), "tcp", addr)
	if err != nil {
		return nil, err
	}
	return ln.(*net.TCPListener), nil
}

func (t *Transport) keepAlive() net.KeepAliveConfig {
	return net.KeepAliveConfig{Enable: true, Idle: t.cfg.KeepAlive, Interval: max(t.cfg.KeepAlive/3, time.Second), Count: 3}
}

// control sees each address after it was resolved and before it is used. Accepted connections inherit the option.
func (t *Transport) control(_, addr string, raw syscall.RawConn) error {
	// An address without a host, which means every interface, does not parse.
	if ap, err := netip.ParseAddrPort(addr); err != nil || !ap.Addr().Unmap().IsLoopback() {
		return fmt.Errorf("%q: %w", addr, ErrNotLoopback)
	}
	var opt error
	err := raw.Control(func(fd uintptr) {
		opt = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(t.cfg.UserTimeout.Milliseconds()))
	})
	if err := errors.Join(err, opt); err != nil {
		return fmt.Errorf("set TCP_USER_TIMEOUT: %w", err)
	}
	return nil
}
