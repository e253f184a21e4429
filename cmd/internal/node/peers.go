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

// peers keeps the connections to the other nodes: one for control, one for block data, so that a lease request never
// waits behind a megabyte of writes.
type peers struct {
	cfg   *config.Config
	trans *identity.Transport

	mu    sync.Mutex
	conns map[string]*grpc.ClientConn // "control/NAME", "data/NAME"
	ended bool
}

func newPeers(cfg *config.Config, trans *identity.Transport) *peers {
	return &peers{cfg: cfg, trans: trans, conns: map[string]*grpc.ClientConn{}}
}

func (p *peers) conn(kind, name string) (*grpc.ClientConn, error) {
	n, ok := p.cfg.Node(name)
	if !ok {
		return nil, fmt.Errorf("node %q is not in %s", name, p.cfg.File)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	key := kind + "/" + name
	if c := p.conns[key]; c != nil || p.ended {
		if p.ended {
			return nil, fmt.Errorf("connect to %s: this node is stopping", name)
		}
		return c, nil
	}
	c, err := link.ClientConn(n.Address, func(ctx context.Context, addr string) (net.Conn, error) {
		return p.trans.Dial(ctx, addr, identity.ProtoGRPC)
	})
	if err != nil {
		return nil, fmt.Errorf("connect to %s at %s: %w", name, n.Address, err)
	}
	p.conns[key] = c
	return c, nil
}

func (p *peers) control(name string) (control.Client, error) {
	c, err := p.conn("control", name)
	return control.Client{Conn: c}, err
}

// Greet opens a stream of block data.
func (p *peers) Greet(ctx context.Context, name string, h wire.Hello) (*link.Sender, wire.HelloReply, error) {
	c, err := p.conn("data", name)
	if err != nil {
		return nil, wire.HelloReply{}, err
	}
	return link.Dial(ctx, c, h)
}

func (p *peers) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = true
	for _, c := range p.conns {
		c.Close()
	}
}
