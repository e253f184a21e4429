package control

import (
	"context"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
)

// What a server on the node's port lets a peer or a client of the admin service have (R28).
const (
	// maxRequest is the largest message that a server takes: a command with the cluster's configuration, in JSON.
	maxRequest = 4 << 20
	// maxStreams is per connection. A node asks few things at a time.
	maxStreams     = 256
	maxHeaderBytes = 16 << 10
	// connectTime is what a new connection may take for the preface and handshakes.
	connectTime = 5 * time.Second
	// pingInterval is the shortest interval at which a client may ping.
	pingInterval = 5 * time.Second
	// window is how much may be on its way in one direction of a stream, or of a connection. It is fixed: a window that
	// grows with the path is measured by a ping beside each message, which doubled the packets of an idle cluster.
	window = 256 << 10
)

// Connect returns a connection to the node at addr, made with dial when first needed, and made again after it broke: at
// first after 50 ms, then more slowly, up to 500 ms. Nothing is resolved and no proxy is asked; dial sees addr as it is.
// gRPC speaks plain text on it, so dial adds what protects it.
func Connect(addr string, dial func(ctx context.Context, addr string) (net.Conn, error)) (*grpc.ClientConn, error) {
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
		grpc.WithMaxHeaderListSize(maxHeaderBytes),
		grpc.WithStaticStreamWindowSize(window),
		grpc.WithStaticConnWindowSize(window),
	)
}

// ServerOptions are what the server on the node's port is made with.
func ServerOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.MaxRecvMsgSize(maxRequest),
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.MaxHeaderListSize(maxHeaderBytes),
		grpc.ConnectionTimeout(connectTime),
		grpc.StaticStreamWindowSize(window),
		grpc.StaticConnWindowSize(window),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: pingInterval, PermitWithoutStream: true}),
	}
}
