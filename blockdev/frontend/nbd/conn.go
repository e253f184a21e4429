package nbd

import (
	"container/list"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
	"syscall"

	"hacluster/blockdev"
	"hacluster/blockdev/hot"
)

// conn is one client's connection.
type conn struct {
	srv limited
	log *slog.Logger
	socket
	base net.Conn        // what was accepted
	raw  syscall.RawConn // of base; nil: it is no socket
	nc   net.Conn        // what is spoken through: base, or TLS over it
	hot  *hot.Conn       // nc; nil: it is not one
	in   *input
	tls  bool

	place      *list.Element // among those in the handshake, nil otherwise; guarded by srv.mu
	crowdedOut bool          // guarded by srv.mu

	// Agreed in the handshake, fixed afterwards.
	export     Export
	name       string
	size       int64
	readOnly   bool
	structured bool
	allocation bool // base:allocation was negotiated, for contextName
	// contextName is the export for which the metadata context was negotiated.
	contextName string
	tryGate     func() bool // nil: the export cannot say without blocking
	gatherer    Gatherer    // nil: nothing is gained by waiting for company
	sole        bool        // the reader's own: the last request came while no other was under way
	held        bool        // the reader's own: the export waits for the next request, or push
	fastZero    func(blockdev.Range, bool) bool
	gone        <-chan struct{}

	account *account
	sink    sink
	cancel  context.CancelFunc
	wake    chan struct{} // one token: the writer goroutine has something to do
	room    chan struct{} // one token: the reader goroutine, which said so in waits, may look again
	idle    chan struct{} // one token: after the end, the last admitted request came back

	mu       sync.Mutex
	free     *request
	queue    fifo   // finished, to be answered
	inflight int    // from header to answer
	admitted int    // handed to the export and not yet back
	waits    bool   // the reader waits on room
	closed   bool   // the end: answers are dropped
	sender   sender // who owns out
	out      batch
	cause    error // why the connection was closed by us
}

func newConn(s *Server, nc net.Conn) *conn {
	return &conn{
		srv: limited{s, s.Limits()}, log: s.log.With("client", nc.RemoteAddr().String()), socket: socket{conn: nc}, base: nc, raw: rawOf(nc), nc: nc, in: newInput(nc),
		account: newAccount(), wake: make(chan struct{}, 1), room: make(chan struct{}, 1), idle: make(chan struct{}, 1),
	}
}

// serve runs the connection from greeting to end and leaves nothing behind.
func (c *conn) serve(server context.Context) {
	ctx, cancel := context.WithCancel(server)
	c.cancel = cancel
	defer cancel()
	unhook := context.AfterFunc(ctx, c.hangUp)
	defer unhook()
	defer c.hangUp()
	err := c.handshake(ctx)
	if err == nil && c.wasCrowdedOut() {
		err = errCrowded
	}
	if err == nil {
		defer c.srv.serves(c.name)()
		c.log = c.log.With("volume", c.name)
		c.log.Debug("nbd client connected", "tls", c.tls, "structured", c.structured)
		err = c.transmit(ctx, server)
	}
	c.logEnd(err)
}

func (c *conn) logEnd(err error) {
	c.mu.Lock()
	if c.cause != nil {
		err = c.cause
	}
	c.mu.Unlock()
	switch {
	case errors.Is(err, errSlowReader):
		c.srv.slow.Add(1)
		c.log.Warn("nbd connection closed", "reason", err)
	default:
		c.log.Debug("nbd connection closed", "reason", err)
	}
}

// The ends that are no fault.
var (
	errDone = errors.New("client is done") // ABORT, DISC or end of stream between requests
	errGone = errors.New("role moved")
)

// transmit serves requests until the end of the connection.
func (c *conn) transmit(ctx, server context.Context) error {
	c.enter()
	var wg sync.WaitGroup
	wg.Go(func() { c.write(ctx) })
	wg.Go(func() {
		select {
		case <-c.gone:
			c.fail(errGone)
		case <-ctx.Done():
		}
	})
	err := c.receive(ctx)
	if errors.Is(err, errDone) || errors.Is(err, io.EOF) {
		err = c.drain(ctx)
	}
	c.hangUp()
	c.cancel()
	wg.Wait()
	c.finish(server)
	return err
}

// enter fixes what the transmission phase needs.
func (c *conn) enter() {
	c.gone = c.export.Gone()
	if t, ok := c.export.(TryGater); ok {
		c.tryGate = t.TryGate
	}
	if g, ok := c.export.(Gatherer); ok {
		c.gatherer, c.in.before = g, c.push
	}
	if z, ok := c.export.(FastZeroer); ok {
		c.fastZero = z.FastZero
	}
	c.allocation = c.allocation && c.contextName == c.name
	if !c.tls { // a client that speaks in plain text is answered from the very thread that hears it
		c.nc = c.heat()
		c.hot, _ = c.nc.(*hot.Conn)
		c.in.nc = c.nc
		c.raw = rawOf(c.nc)
	}
	c.in.transmission(c.srv.cfg.ReadBuffer, c.srv.cfg.StallTimeout)
	c.sink = newSink(c.nc, c.srv.cfg.SlowReaderTimeout)
	c.out.hdr = make([]byte, 0, maxBatch*maxHeader)
	c.out.reset()
}

// fail closes the connection; the first reason is kept for the log.
func (c *conn) fail(err error) {
	c.mu.Lock()
	if c.cause == nil {
		c.cause = err
	}
	c.mu.Unlock()
	c.hangUp()
	c.cancel()
}

// drain waits until every request was answered: the client said that it sends no more.
func (c *conn) drain(ctx context.Context) error {
	return c.await(ctx, func() bool { return c.inflight == 0 })
}

// await blocks the reader until cond, which is called with mu held, is true.
func (c *conn) await(ctx context.Context, cond func() bool) error {
	for {
		c.mu.Lock()
		ok := cond()
		c.waits = !ok
		c.mu.Unlock()
		if ok {
			return nil
		}
		c.push()
		select {
		case <-c.room:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// finish waits, after the goroutines have ended, for the requests that the export still has; not so when the role
// moved or the server stops, for then they are the volume's.
func (c *conn) finish(server context.Context) {
	c.mu.Lock()
	c.closed = true
	for r := c.queue.pop(); r != nil; r = c.queue.pop() {
		c.dropData(r)
	}
	if c.sender != direct { // a direct sender sees closed and cleans up itself
		c.dropAll(c.out.reset())
	}
	rest := c.admitted
	c.mu.Unlock()
	if rest > 0 {
		select {
		case <-c.idle:
		case <-c.gone:
		case <-server.Done():
		}
	}
	c.srv.budget.abandon(c.account)
}

func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}
