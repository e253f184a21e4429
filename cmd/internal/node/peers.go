package node

import (
	"context"
	"fmt"
	"net"
	"sync"

	"google.golang.org/grpc"

	"hacluster/cmd/internal/config"
	"hacluster/cmd/internal/control"
	"hacluster/cmd/internal/identity"
	"hacluster/replication/link"
	"hacluster/replication/wire"
)

// peers keeps a connection for control to each other node, and makes one for block data, of each volume, when asked: so
// that a lease request never waits behind a megabyte of writes, and a volume never behind another one.
type peers struct {
	cfg   *config.Config
	trans *identity.Transport
	of    func() control.Cluster
	conf  func() *config.Config // as it is now
	lines map[string]*link.Line // to each other node; for block data, of all volumes together
	// beyond are the lines on which a node sends on what this one has it carry, as far as this one has to know them; by both. Under mu.
	beyond map[[2]string]*link.Line

	greets map[string]chan struct{} // a token for each greeting under way, by node; fixed

	mu    sync.Mutex
	conns map[string]*grpc.ClientConn
	ended bool
}

func newPeers(cfg *config.Config, trans *identity.Transport, of func() control.Cluster, conf func() *config.Config) *peers {
	p := &peers{cfg: cfg, trans: trans, of: of, conf: conf, lines: map[string]*link.Line{}, beyond: map[[2]string]*link.Line{}, conns: map[string]*grpc.ClientConn{}, greets: map[string]chan struct{}{}}
	for _, n := range cfg.Nodes {
		p.lines[n.Name] = link.NewLine()
		p.greets[n.Name] = make(chan struct{}, maxGreets)
	}
	return p
}

// maxGreets is how many streams to one node are being opened at a time. A thousand volumes that move together would else have the
// node close the oldest of those that have not said yet who they are, again and again.
const maxGreets = 32

func (p *peers) conn(name string) (*grpc.ClientConn, error) {
	n, ok := p.cfg.Node(name)
	if !ok {
		return nil, fmt.Errorf("node %q is not in %s", name, p.cfg.File)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if c := p.conns[name]; c != nil || p.ended {
		if p.ended {
			return nil, fmt.Errorf("connect to %s: this node is stopping", name)
		}
		return c, nil
	}
	c, err := control.Connect(n.Address, func(ctx context.Context, addr string) (net.Conn, error) {
		return p.trans.Dial(ctx, addr, identity.ProtoGRPC)
	})
	if err != nil {
		return nil, fmt.Errorf("connect to %s at %s: %w", name, n.Address, err)
	}
	p.conns[name] = c
	return c, nil
}

func (p *peers) control(name string) (control.Client, error) {
	c, err := p.conn(name)
	return control.Client{Conn: c, Of: p.of()}, err
}

// Greet opens a stream of block data to a node, by way of another one if that is not empty.
func (p *peers) Greet(ctx context.Context, name, by string, h wire.Hello) (*link.Sender, wire.HelloReply, error) {
	proto, first := identity.ProtoData, name
	if by != "" {
		proto, first = identity.ProtoRelay, by
	}
	n, ok := p.cfg.Node(first)
	if !ok {
		return nil, wire.HelloReply{}, fmt.Errorf("node %q is not in %s", first, p.cfg.File)
	}
	select {
	case p.greets[first] <- struct{}{}:
		defer func() { <-p.greets[first] }()
	case <-ctx.Done():
		return nil, wire.HelloReply{}, fmt.Errorf("connect to %s: %d streams are being opened already: %w", first, maxGreets, ctx.Err())
	}
	c, err := p.trans.Dial(ctx, n.Address, proto)
	if err != nil {
		return nil, wire.HelloReply{}, fmt.Errorf("connect to %s: %w", first, err)
	}
	s, reply, err := link.DialOn(ctx, c, h, p.lines[first])
	if err == nil && by != "" {
		s.SetBeyond(p.lineBeyond(by, name))
	}
	return s, reply, err
}

func (p *peers) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = true
	for _, c := range p.conns {
		c.Close()
	}
}
