// Package identity is the one place where the node's listeners and dialers are built. Whoever speaks on the node's TCP
// port (Raft, replication, control, administration) takes its listener and its connections from a Transport, so that
// what a connection must prove is decided here and nowhere else.
//
// There are two modes. With TLS (1.3, certificates on both sides) the protocol is named by ALPN: h2, ha-raft, ha-data.
// Whoever calls must show a certificate of this cluster: a node's for Raft and block data, a node's or a user's for
// gRPC. Whoever is called must be the very node that the configuration has at that address. PeerOf tells the protocols
// who it is, so that they can hold it against what is claimed in their messages. Certificates and keys come from a PKI
// folder (package pki) and are replaced while the daemon runs by Reload.
//
// Insecure, connections are plain TCP between loopback addresses and begin with a preface of eight bytes that names the
// protocol. The package refuses any address that is not a loopback address then.
//
// It never guesses: a connection that is not exactly as it should be is closed. The log says why, at most once in ten
// seconds for each reason; the other side learns no more than TLS has to tell it. How many connections may be in the
// handshake, and for how long, is bounded.
//
//	material.go  what the PKI folder held      verify.go  who a certificate speaks for, and refusals
//	tls.go       the TLS of both sides         reload.go  new certificates, old connections, ends of validity
//	mux.go       the node's port               preface.go, listener.go, unix.go
//	network.go   what lies below: the kernel's sockets, or a test's own
//
// The daemon wires it: New once, Listen once for the node's address, a Listener for each protocol, Dial for the peers,
// Reload at SIGHUP, Close at the end. ha-admin dials as a user.
package identity

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"hacluster/cmd/internal/identity/pki"
)

// ErrNotLoopback: an address that leaves the machine was used without TLS.
var ErrNotLoopback = errors.New("not a loopback address: without TLS only loopback addresses are allowed")

// Config is how connections are built. Zero values are the defaults.
type Config struct {
	// Insecure consents to plain TCP on loopback addresses. What is said of certificates below does not count then.
	Insecure bool
	// PKI is the folder of certificates and keys. Default /etc/hacluster/pki.
	PKI string
	// Cluster is the cluster's name; empty: that of the own certificate.
	Cluster string
	// Node is whose certificate is used. Empty: that of the user User, or of the first user whose certificate is there.
	Node, User string
	// NodeAt says which node must answer at an address; nil: any node of the cluster may. An address that it does not
	// know is not called.
	NodeAt func(addr string) (name string, ok bool)
	// KnownNode says whether the configuration has a node of that name; nil: all are taken.
	KnownNode func(name string) bool
	// Grace is how long connections last whose certificate hangs on an authority that a Reload removed: time to bring a
	// node that was forgotten its new certificate. Default 1 minute.
	Grace time.Duration
	// UserTimeout is how long sent data may stay unacknowledged before the kernel gives a connection up
	// (TCP_USER_TIMEOUT). Shorter finds a dead cable sooner and takes a congested one for dead. Default 5 s.
	UserTimeout time.Duration
	// KeepAlive is the idle time after which the kernel probes the other side. Default 5 s.
	KeepAlive time.Duration
	// HandshakeTimeout is how long a TLS handshake may take, or an accepted connection to send its preface. Default 5 s.
	HandshakeTimeout time.Duration
	// MaxHandshakes is how many accepted connections may be in the handshake, or owe their preface, at once. One more
	// closes the oldest of the address that has most of them. Default 128.
	MaxHandshakes int
	// MaxConns is how many accepted connections beyond the handshake may be open at once; one more is closed. Default 1024.
	MaxConns int
	// Backlog is how many connections of one protocol wait to be accepted; one more is closed. Default 64.
	Backlog int
	// LogInterval is the shortest time between two log lines of the same reason. Default 10 s.
	LogInterval time.Duration
	// Logger is told of refused connections. Default: slog.Default().
	Logger *slog.Logger
	// Network goes with Insecure only. Default: the kernel's TCP and unix sockets.
	Network Network
}

func (c Config) withDefaults() Config {
	if c.PKI == "" {
		c.PKI = pki.DefaultPath
	}
	setDefault(&c.Grace, time.Minute)
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

// Transport builds listeners and connections. It may be used concurrently.
type Transport struct {
	cfg      Config
	log      *limitedLog
	material atomic.Pointer[material] // nil without TLS
	done     chan struct{}            // closed by Close
	wg       sync.WaitGroup           // sweep

	mu       sync.Mutex
	closed   bool
	sweeping bool
	open     map[net.Conn]*x509.Certificate // TLS connections and the other side's certificate
}

// New returns a Transport, or says why this node may not open its port: a *MaterialError when certificates are to
// blame.
func New(cfg Config) (*Transport, error) {
	t := &Transport{cfg: cfg.withDefaults(), done: make(chan struct{}), open: map[net.Conn]*x509.Certificate{}}
	t.log = newLimitedLog(t.cfg.Logger, t.cfg.LogInterval)
	if cfg.Insecure {
		return t, nil
	}
	if cfg.Network != nil {
		return nil, errNetworkTLS
	}
	m, err := load(t.cfg, time.Now())
	if err != nil {
		return nil, err
	}
	t.material.Store(m)
	return t, nil
}

// Refused counts a refusal by somebody who looks at more than the handshake, and logs it, at most once in LogInterval
// for each reason. Reasons are constants.
func (t *Transport) Refused(reason string, args ...any) { t.log.warn(reason, args...) }

// Dial connects to addr for the protocol. With TLS, the node that answers has proved to be the one which the
// configuration has there. The connection has no deadline.
func (t *Transport) Dial(ctx context.Context, addr string, proto Proto) (net.Conn, error) {
	if !proto.known() {
		return nil, fmt.Errorf("dial %s: %v is not a protocol of this node", addr, proto)
	}
	c, err := t.dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	if t.cfg.Insecure {
		err = announce(ctx, c, proto)
	} else if s, errTLS := t.secure(ctx, c, addr, proto); errTLS == nil {
		return s, nil
	} else {
		err = errTLS
	}
	if err != nil {
		c.Close()
		return nil, fmt.Errorf("dial %s: %w", addr, err)
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
		return fmt.Errorf("send the preface: %w", err)
	}
	return c.SetWriteDeadline(time.Time{})
}

// ListenTCP listens on a port where other protocols begin in plain text (NBD, HTTP), under the same rules for addresses
// and sockets. NBD goes on with TLS by NBDServer.
func (t *Transport) ListenTCP(addr string) (net.Listener, error) {
	ln, err := t.listen(addr)
	if err != nil {
		return nil, err
	}
	return plainListener{ln, t}, nil
}

type plainListener struct {
	net.Listener
	t *Transport
}

func (l plainListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	if tcp, ok := c.(*net.TCPConn); ok {
		return &plainConn{tcp, l.t}, nil
	}
	return c, nil // of a Network: there is no TLS, so nothing to reload
}

// plainConn can be found when it is to be closed after a reload. It embeds *net.TCPConn, so that writev and socket
// options stay reachable.
type plainConn struct {
	*net.TCPConn
	t *Transport
}

func (c *plainConn) Close() error {
	c.t.forget(c)
	return c.TCPConn.Close()
}

// CloseDescriptor gives the socket back: whoever speaks through a duplicate of it closes plainConn later.
func (c *plainConn) CloseDescriptor() error { return c.TCPConn.Close() }

func (t *Transport) keepAlive() net.KeepAliveConfig {
	return net.KeepAliveConfig{Enable: true, Idle: t.cfg.KeepAlive, Interval: max(t.cfg.KeepAlive/3, time.Second), Count: 3}
}

// control sees each address after it was resolved and before it is used. Accepted connections inherit the option.
func (t *Transport) control(_, addr string, raw syscall.RawConn) error {
	// An address without a host, which means every interface, does not parse.
	if ap, err := netip.ParseAddrPort(addr); t.cfg.Insecure && (err != nil || !ap.Addr().Unmap().IsLoopback()) {
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
