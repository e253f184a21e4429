// Package client uses a volume as many applications at once would, and writes down everything that it saw: workers write
// and read registers of one block each, through whichever server serves, and probes insist on one server each, so that
// a primary of the past that still answers is caught.
//
// It judges nothing but the form of a block: package history judges. Whether an operation that was never answered took
// effect stays unknown; it is never repeated.
package client

import (
	"context"
	"crypto/tls"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync"
	"time"

	"hacluster/cmd/internal/lab/history"
)

// Server is one place where the volume may be served.
type Server struct {
	Node string
	URI  string
}

// Config says who does what. Zero values are replaced by the defaults.
type Config struct {
	Servers []Server
	TLS     *tls.Config
	Writers int // default 4
	Readers int // default 4
	// Blocks, default 16, is how many registers each writer has. Few of them make the readers meet the writes.
	Blocks int64
	// First is the first block of the registers, default 0; Stride, default 64, is how far apart they lie.
	First, Stride int64
	// Think, default 2 ms, is how long a worker rests after each answer.
	Think time.Duration
	// Silence, default 1 s, is how long a worker waits for an answer before it leaves the connection. Probes never do.
	Silence time.Duration
	// FUA makes every write durable before its answer counts.
	FUA bool
	// Clock, default history.Clock, stamps all operations: the one clock of all servers.
	Clock func() time.Duration
	// Connect, default the kernel's sockets, makes the connections.
	Connect func(ctx context.Context, network, address string) (net.Conn, error)
}

func (c *Config) defaults() {
	def(&c.Writers, 4)
	def(&c.Readers, 4)
	def(&c.Blocks, 16)
	def(&c.Stride, 64)
	def(&c.Think, 2*time.Millisecond)
	def(&c.Silence, time.Second)
	if c.Clock == nil {
		c.Clock = history.Clock
	}
}

func def[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

// Client is the whole load. Start it with Run.
type Client struct {
	cfg     Config
	pausing pausing

	mu      sync.Mutex
	seq     uint64
	ops     []history.Op
	writing map[string]history.Op    // by worker: sent, and not settled
	latest  map[string]time.Duration // for each server: when the newest answered operation was sent
	errs    map[string]int           // answers that were errors, by NBD error number
	broken  []string                 // blocks that hold what no write put there
	dials   int                      // connections made
	changed chan struct{}            // closed and replaced when latest grows
}

// New prepares a load.
func New(cfg Config) *Client {
	cfg.defaults()
	return &Client{cfg: cfg, writing: map[string]history.Op{}, latest: map[string]time.Duration{}, errs: map[string]int{}, changed: make(chan struct{})}
}

// Run works until ctx ends; then it waits for what is under way, at most Config.Silence. It may be run again: the
// record goes on.
func (c *Client) Run(ctx context.Context) {
	var all sync.WaitGroup
	for i := range c.cfg.Writers {
		w := &worker{c: c, name: fmt.Sprintf("writer%d", i), servers: rotated(c.cfg.Servers, i), own: c.registersOf(i), silence: c.cfg.Silence}
		all.Go(func() { w.run(ctx) })
	}
	for i := range c.cfg.Readers {
		w := &worker{c: c, name: fmt.Sprintf("reader%d", i), servers: rotated(c.cfg.Servers, i), silence: c.cfg.Silence}
		all.Go(func() { w.run(ctx) })
	}
	for i, s := range c.cfg.Servers {
		w := &worker{c: c, name: "probe-" + s.Node, servers: []Server{s}, own: c.registersOf(c.cfg.Writers + i)[:1], mixed: true}
		all.Go(func() { w.run(ctx) })
		// A primary of the past may hold writes back for ever, and with them the reads of their blocks: this one reads a
		// block that nobody writes, so that whatever still answers answers it.
		look := &worker{c: c, name: "look-" + s.Node, servers: []Server{s}, reads: c.registersOf(c.cfg.Writers + i)[1:2], silence: lookSilence}
		all.Go(func() { look.run(ctx) })
	}
	all.Wait()
}

func rotated(s []Server, n int) []Server {
	n %= len(s)
	return append(slices.Clone(s[n:]), s[:n]...)
}

// registersOf are the blocks that only writer i writes.
func (c *Client) registersOf(i int) (blocks []int64) {
	for k := range c.cfg.Blocks {
		blocks = append(blocks, c.cfg.First+(int64(i)*c.cfg.Blocks+k)*c.cfg.Stride)
	}
	return blocks
}

// Registers are all blocks that are ever written or read.
func (c *Client) Registers() (blocks []int64) {
	for i := range c.cfg.Writers {
		blocks = append(blocks, c.registersOf(i)...)
	}
	for i := range c.cfg.Servers {
		blocks = append(blocks, c.registersOf(c.cfg.Writers + i)[:2]...)
	}
	return blocks
}

// Blocks is the length of the stretch of the volume that the registers lie in.
func (c *Client) Span() int64 {
	return (int64(c.cfg.Writers)+int64(len(c.cfg.Servers)))*c.cfg.Blocks*c.cfg.Stride + c.cfg.First
}

func (c *Client) nextSeq() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seq++
	return c.seq
}

// sends tells of a write before it is sent: whoever looks at a disk may see it before its answer comes.
func (c *Client) sends(o history.Op) {
	c.mu.Lock()
	defer c.mu.Unlock()
	o.Unknown = true
	c.writing[o.Who] = o
}

func (c *Client) note(o history.Op) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ops = append(c.ops, o)
	delete(c.writing, o.Who)
	if !o.Unknown && o.Sent > c.latest[o.Server] {
		c.latest[o.Server] = o.Sent
		close(c.changed)
		c.changed = make(chan struct{})
	}
}

func (c *Client) noteError(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.errs[name]++
}

func (c *Client) noteBroken(what string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.broken = append(c.broken, what)
}

// WaitAnswer waits until a server answered something that was sent after a time; an empty name means any server.
func (c *Client) WaitAnswer(ctx context.Context, server string, after time.Duration) error {
	for {
		c.mu.Lock()
		latest, changed := c.latest[server], c.changed
		if server == "" {
			latest = slices.Max(append(slices.Collect(maps.Values(c.latest)), 0))
		}
		c.mu.Unlock()
		if latest > after {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			if server == "" {
				server = "any server"
			}
			return fmt.Errorf("no answer of %s to what was sent after %.3f: %w", server, after.Seconds(), ctx.Err())
		}
	}
}

// Record is what was seen.
type Record struct {
	Ops    []history.Op   `json:"ops"`
	Errors map[string]int `json:"errors"` // answers that were errors, by NBD error number
	Broken []string       `json:"broken"` // blocks that hold what no write put there
	Dials  int            `json:"dials"`
}

// Record copies what was seen so far. Writes under way are among it, as unknown.
func (c *Client) Record() Record {
	c.mu.Lock()
	defer c.mu.Unlock()
	return Record{Ops: slices.AppendSeq(slices.Clone(c.ops), maps.Values(c.writing)), Errors: maps.Clone(c.errs), Broken: slices.Clone(c.broken), Dials: c.dials}
}
