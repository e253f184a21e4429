package nbdclient

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"hacluster/blockdev"
)

// ReconnectConfig configures a Reconnecting; the zero value is ready to use.
type ReconnectConfig struct {
	Client Config
	// Limit, default 60 s, bounds each operation, from its call to its answer, all repetitions included.
	Limit time.Duration
	// Pause, default 20 ms, is the wait after every server was tried in vain.
	Pause time.Duration
	// DialTimeout, default 1 s, bounds one attempt at one server.
	DialTimeout time.Duration
	// Silence, default 0 (never), gives a connection up that owes answers and sends none for this long. It must be
	// longer than a lease: a stopped primary that wakes without one admits nothing, but one that may still serve can
	// find our old requests in its socket and do them after newer ones.
	Silence time.Duration
	// Accept, default nil (every one), looks at each new connection before a request goes over it. An error closes the
	// connection, and it is tried again; what End was called with in it is final.
	Accept func(*Client) error
	// Log, default slog.Default().
	Log *slog.Logger
}

// ErrTimeLimit: the operation was not answered within ReconnectConfig.Limit. Whether it took effect is unknown.
var ErrTimeLimit = errors.New("no server answered within the time limit, the outcome is unknown")

// Reconnecting is a client of one volume on several nodes, of which one serves: it connects to that one, and when the
// connection dies it finds the next and repeats what was not answered. Repeating is harmless because every operation
// sets or reads a range, and because of operations that overlap, one writing, only one is ever in flight: they take
// effect in the order of the calls, also across a failover. An error number is an answer: it goes to the caller.
type Reconnecting struct {
	uris  []string
	cfg   ReconnectConfig
	size  atomic.Int64 // as the newest connection has it
	limit int          // of a payload
	order ordering
	meter meter

	dialing  chan struct{}  // the token of who connects
	watchers sync.WaitGroup // one per connection, ended with it; started with mu held and closed false

	mu     sync.Mutex
	client *Client // the present connection; nil: none
	next   int     // the server to be tried first
	closed bool
	ended  error // what End was called with
	over   chan struct{}
}

var _ blockdev.Device = (*Reconnecting)(nil)

// Open connects to the first server that serves; ctx bounds this.
func Open(ctx context.Context, uris []string, cfg ReconnectConfig) (*Reconnecting, error) {
	for v, d := range map[*time.Duration]time.Duration{
		&cfg.Limit: time.Minute, &cfg.Pause: 20 * time.Millisecond, &cfg.DialTimeout: time.Second,
	} {
		if *v <= 0 {
			*v = d
		}
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if len(uris) == 0 {
		return nil, errors.New("no server is named")
	}
	r := &Reconnecting{uris: uris, cfg: cfg, dialing: make(chan struct{}, 1), over: make(chan struct{})}
	c, err := r.connect(ctx)
	if err != nil {
		return nil, err
	}
	r.limit = c.maxPayload
	r.meter.reset()
	return r, nil
}

// connect returns the connection that works, or makes one. One caller connects, the others wait for it.
func (r *Reconnecting) connect(ctx context.Context) (*Client, error) {
	select {
	case r.dialing <- struct{}{}:
		defer func() { <-r.dialing }()
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-r.over:
		return nil, r.closing()
	}
	var last error
	for {
		for range r.uris {
			r.mu.Lock()
			c, uri, closed := r.client, r.uris[r.next%len(r.uris)], r.closed
			r.mu.Unlock()
			if closed {
				return nil, r.closing()
			}
			if c != nil {
				return c, nil
			}
			c, err := r.dial(ctx, uri)
			if err == nil {
				return c, nil
			}
			if last == nil || (ctx.Err() == nil && !timeout(err)) { // that time ran out in the end says less than what a server answered
				last = err
			}
		}
		select {
		case <-time.After(r.cfg.Pause):
		case <-r.over:
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), last)
		}
	}
}

func timeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}

func (r *Reconnecting) dial(ctx context.Context, uri string) (*Client, error) {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.DialTimeout)
	defer cancel()
	c, err := r.cfg.Client.Dial(ctx, uri)
	if err == nil && r.cfg.Accept != nil {
		if err = r.cfg.Accept(c); err != nil {
			c.Abort()
			err = fmt.Errorf("%s: %w", uri, err)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err == nil && r.closed {
		c.Abort()
		err = blockdev.ErrClosed
	}
	if err != nil {
		r.next++
		return nil, err
	}
	r.client = c
	r.size.Store(c.Size())
	if r.cfg.Silence > 0 {
		r.watchers.Go(func() { r.watch(c) })
	}
	return c, nil
}

// lost forgets a dead connection.
func (r *Reconnecting) lost(c *Client, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.client != c || r.closed {
		return
	}
	r.client = nil
	r.meter.reconnect()
	r.cfg.Log.Info("nbd connection lost, looking for the primary", "server", c.names, "error", err)
}

// run does one operation, however many connections it takes.
func (r *Reconnecting) run(op Op) ([]Extent, error) {
	ctx, cancel := context.WithTimeout(context.Background(), r.cfg.Limit)
	defer cancel()
	turn, err := r.order.enter(ctx, op)
	if err != nil {
		return nil, fmt.Errorf("nbd command %d on %v: %w", op.Cmd, op.Range, ErrTimeLimit)
	}
	defer r.order.leave(turn)
	r.meter.begin()
	for {
		es, err := r.try(ctx, op)
		if errors.Is(err, ErrConnectionLost) && ctx.Err() == nil && !r.isClosed() {
			continue
		}
		if ctx.Err() != nil && err != nil {
			err = fmt.Errorf("nbd command %d on %v: %w (last: %w)", op.Cmd, op.Range, ErrTimeLimit, err)
		}
		r.meter.end(err)
		return es, err
	}
}

// try does the operation on the present connection.
func (r *Reconnecting) try(ctx context.Context, op Op) ([]Extent, error) {
	c, err := r.connect(ctx)
	if err != nil {
		return nil, err
	}
	// At the limit the connection must go: the caller's buffer has to be free when run returns.
	unhook := context.AfterFunc(ctx, func() { c.fail(ErrTimeLimit) })
	k := c.Start(op)
	err = k.Wait()
	unhook()
	if errors.Is(err, ErrConnectionLost) {
		r.lost(c, err)
	}
	return k.Extents, err
}

// watch gives the connection up when it owes answers and is silent.
func (r *Reconnecting) watch(c *Client) {
	t := time.NewTicker(r.cfg.Silence)
	defer t.Stop()
	var seen int64
	for owed := false; ; {
		select {
		case <-t.C:
		case <-c.dead:
			return
		}
		answers, owes := c.answers.Load(), len(c.window) > 0
		if owed && owes && answers == seen {
			c.fail(fmt.Errorf("silent for %v", r.cfg.Silence))
			return
		}
		seen, owed = answers, owes
	}
}

func (r *Reconnecting) isClosed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.closed
}

// Size is the volume's length as the newest connection was told it.
func (r *Reconnecting) Size() int64 { return r.size.Load() }

// Server is the URI of the present connection; empty: there is none.
func (r *Reconnecting) Server() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.client == nil {
		return ""
	}
	return r.client.names
}

// closing is the outcome of an operation after Close or End.
func (r *Reconnecting) closing() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended != nil {
		return r.ended
	}
	return blockdev.ErrClosed
}

// End ends every operation, those that wait and later ones, with cause. What the last connection was not answered may have taken
// effect. It waits for nothing; Close is still to be called.
func (r *Reconnecting) End(cause error) {
	r.mu.Lock()
	c, first := r.client, r.ended == nil && !r.closed
	if first {
		r.client, r.closed, r.ended = nil, true, cause
		close(r.over)
	}
	r.mu.Unlock()
	if first && c != nil {
		c.fail(cause)
	}
}

// Close takes no more calls, waits for what is in flight, and ends the connection. What has none ends with ErrClosed.
func (r *Reconnecting) Close() error {
	r.mu.Lock()
	c, first := r.client, !r.closed
	r.client, r.closed = nil, true
	if first {
		close(r.over)
	}
	r.mu.Unlock()
	if c != nil {
		c.Close()
	}
	r.watchers.Wait()
	return nil
}
