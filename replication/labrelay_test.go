package replication

import (
	"context"
	"net"
	"sync"
	"sync/atomic"

	"hacluster/heartbeat/cluster"
	"hacluster/replication/link"
	"hacluster/replication/wire"
)

// labRelay is what a node of the laboratory carries on (`via`).
type labRelay struct {
	addr    string
	opened  atomic.Int64 // streams
	refuse  atomic.Bool  // in the name of whom they are for, as one does whose configuration knows nothing of it
	swallow atomic.Bool  // greetings get through, and nothing behind them
	beyond  cable        // to those it carries on to
}

type relayHandler struct{ n *labNode }

func (h relayHandler) Replicate(ctx context.Context, s *link.Session) error {
	hello := s.Hello()
	feed := h.n.get().Feed(hello.Primary, cluster.Epoch(hello.Epoch))
	if feed == nil {
		return s.Reply(wire.HelloReply{Code: wire.RefusedRole, Node: h.n.name, Text: "no stream"})
	}
	defer feed.End()
	to := h.n.l.nodes[hello.Target]
	conn, err := to.cable.dial(ctx, to.addr, &h.n.relay.beyond)
	if err != nil {
		return s.Reply(wire.HelloReply{Code: wire.RefusedRole, Node: h.n.name, Text: err.Error()})
	}
	if h.n.relay.refuse.Load() {
		conn.Close()
		return s.Reply(wire.HelloReply{Code: wire.RefusedRole, Node: hello.Target, Text: "the certificate is of " + h.n.name})
	}
	return link.Relay(ctx, s, &swallows{Conn: conn, n: h.n}, link.NewLine(), feed)
}

func (n *labNode) listenRelay() {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		n.l.t.Fatal(err)
	}
	n.relay.addr = ln.Addr().String()
	n.relay.beyond.init()
	srv := link.NewServer(relayHandler{n}, logger(n.l.t, n.name))
	var goes sync.WaitGroup
	goes.Go(func() { _ = srv.Serve(ln) })
	n.l.t.Cleanup(func() {
		_ = ln.Close()
		n.relay.beyond.mend()
		srv.Close()
		goes.Wait()
	})
}

// swallows lets the greeting through and nothing behind it, when the node is told to.
type swallows struct {
	net.Conn
	n    *labNode
	some bool
}

func (s *swallows) Write(p []byte) (int, error) {
	if s.some && s.n.relay.swallow.Load() {
		return len(p), nil
	}
	s.some = true
	return s.Conn.Write(p)
}
