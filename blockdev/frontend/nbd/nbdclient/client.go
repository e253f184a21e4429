// Package nbdclient is a small NBD client: what an application's own client would be. Tests, demos and measurements use
// it; the kernel, qemu and libnbd are the clients of users.
//
// A Client is one connection. Many goroutines share it, each with synchronous calls or with Start; at most Config.Window
// requests are in flight. It never repeats a request: when the connection dies, the outcome of what was not answered is
// unknown, and ErrConnectionLost says so. Reconnecting repeats, across the nodes of a cluster.
//
// Nothing that a server says makes a Client allocate more than the limits below, nor write outside the caller's buffer.
package nbdclient

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"hacluster/blockdev"
	"hacluster/blockdev/frontend/nbd/nbdproto"
)

// Config of a Client; the zero value is ready to use.
type Config struct {
	// Window, default 64, is how many requests may be in flight; a further one waits.
	Window int
	// TLS, default nil, is used for nbds:// and nbds+unix://.
	TLS *tls.Config
	// Simple leaves structured replies, and with them BlockStatus, out, as the kernel's client does.
	Simple bool
	// CloseTimeout, default 5 s, is how long Close waits for the answers that are outstanding.
	CloseTimeout time.Duration
	// Connect, default the kernel's sockets, makes the connection.
	Connect func(ctx context.Context, network, address string) (net.Conn, error)
}

// Client is one connection to one export. It is a blockdev.Device. All methods may be called concurrently.
type Client struct {
	nc    net.Conn
	in    *bufio.Reader
	cfg   Config
	names string // export and server, for messages

	size        int64
	flags       nbdproto.TransFlags
	maxPayload  int
	structured  bool
	allocation  bool
	description string

	window chan struct{} // one token for each request in flight
	turn   chan struct{} // the token of who writes to the socket
	dead   chan struct{} // closed when the receiver has ended: nothing is answered any more

	answers atomic.Int64 // replies and chunks received so far

	mu      sync.Mutex
	cookie  uint64
	pending map[uint64]*Call
	closing bool  // Close was called: nothing more is sent
	cause   error // why the connection is dead, or about to be
}

var _ blockdev.Device = (*Client)(nil)

// Dial connects to the export that uri names, such as nbd://host:port/export or nbd+unix:///export?socket=/path.
func Dial(ctx context.Context, uri string) (*Client, error) { return Config{}.Dial(ctx, uri) }

// Dial connects with this configuration. ctx bounds the handshake only.
func (cfg Config) Dial(ctx context.Context, uri string) (*Client, error) {
	if cfg.Window <= 0 {
		cfg.Window = 64
	}
	if cfg.CloseTimeout <= 0 {
		cfg.CloseTimeout = 5 * time.Second
	}
	t, err := parseURI(uri)
	if err != nil {
		return nil, err
	}
	if cfg.Connect == nil {
		cfg.Connect = new(net.Dialer).DialContext
	}
	nc, err := cfg.Connect(ctx, t.network, t.address)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", uri, err)
	}
	c := &Client{
		nc: nc, cfg: cfg, names: uri, window: make(chan struct{}, cfg.Window), turn: make(chan struct{}, 1),
		dead: make(chan struct{}), pending: make(map[uint64]*Call), maxPayload: nbdproto.MaxPayload,
	}
	unhook := context.AfterFunc(ctx, func() { nc.Close() })
	err = c.handshake(ctx, t)
	if !unhook() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		nc.Close()
		return nil, fmt.Errorf("handshake with %s: %w", uri, errors.Join(err, ctx.Err()))
	}
	go c.receive()
	return c, nil
}

// Size is the export's length in bytes, as it was when the connection was made.
func (c *Client) Size() int64 { return c.size }

// Flags is what the server promises.
func (c *Client) Flags() nbdproto.TransFlags { return c.flags }

// Description is what the server says of the export; empty: nothing.
func (c *Client) Description() string { return c.description }

// Lost is closed when the connection is dead.
func (c *Client) Lost() <-chan struct{} { return c.dead }

// Close takes no more calls, says goodbye, waits for what is in flight and for the receiver, and closes the connection.
func (c *Client) Close() error {
	late := time.AfterFunc(c.cfg.CloseTimeout, c.Abort)
	defer late.Stop()
	c.mu.Lock()
	c.closing = true
	c.mu.Unlock()
	select {
	case c.turn <- struct{}{}: // behind every request that was taken
		bye := nbdproto.Request{Magic: nbdproto.MagicRequest, Cmd: nbdproto.CmdDisc}
		if _, err := c.nc.Write(nbdproto.AppendRequest(nil, bye)); err != nil {
			c.Abort()
		}
		<-c.turn
	case <-c.dead:
	}
	<-c.dead // the server answers what it has and hangs up
	return nil
}

// Abort closes the connection at once, as a client that dies does.
func (c *Client) Abort() { c.fail(blockdev.ErrClosed) }

// fail notes why and makes the receiver end.
func (c *Client) fail(cause error) {
	c.mu.Lock()
	if c.cause == nil {
		c.cause = cause
	}
	c.mu.Unlock()
	c.nc.Close()
}
