package link

import (
	"context"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/experimental"
	"google.golang.org/grpc/keepalive"

	"hacluster/replication/wire"
)

// The data path's settings of a connection, the same on both sides.
const (
	// streamWindow is what a peer may send on one stream before it is read: with the stream's number, the bound on
	// memory held for a standby that reads slowly.
	streamWindow = 4 << 20
	connWindow   = 16 << 20
	ioBuffer     = 32 << 10

	// maxStreams is per connection: a thousand volumes in both directions, with room to reconnect.
	maxStreams     = 4096
	maxHeaderBytes = 16 << 10
	// connectTime is what a new connection may take for the preface and handshakes.
	connectTime = 5 * time.Second
	// pingInterval is the shortest interval at which a client may ping.
	pingInterval = 5 * time.Second
)

// ClientConn returns a connection to the node at addr, made with dial when first needed, and made again after it
// broke: at first after 50 ms, then more slowly, up to 500 ms. Nothing is resolved and no proxy is asked; dial sees
// addr as it is. It speaks plain text, so dial adds what protects it.
func ClientConn(addr string, dial func(ctx context.Context, addr string) (net.Conn, error)) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///"+addr,
		grpc.WithContextDialer(dial),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithNoProxy(),
		grpc.WithDisableRetry(),
		grpc.WithDisableServiceConfig(),
		grpc.WithDisableHealthCheck(),
		grpc.WithIdleTimeout(0),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 500 * time.Millisecond},
			MinConnectTimeout: time.Second,
		}),
		grpc.WithStaticStreamWindowSize(streamWindow),
		grpc.WithStaticConnWindowSize(connWindow),
		grpc.WithWriteBufferSize(ioBuffer),
		grpc.WithReadBufferSize(ioBuffer),
		grpc.WithMaxHeaderListSize(maxHeaderBytes),
		experimental.WithBufferPool(segments),
	)
}

// ServerOptions are what a server that carries the data path is made with. Its limit on received messages is for the
// whole server: that of the largest write.
func ServerOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.MaxRecvMsgSize(wire.MaxMessage),
		grpc.StaticStreamWindowSize(streamWindow),
		grpc.StaticConnWindowSize(connWindow),
		grpc.WriteBufferSize(ioBuffer),
		grpc.ReadBufferSize(ioBuffer),
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.MaxHeaderListSize(maxHeaderBytes),
		experimental.BufferPool(segments),
		grpc.ConnectionTimeout(connectTime),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: pingInterval, PermitWithoutStream: true}),
	}
}
