package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"

	adminv1 "hacluster/proto/admin/v1"
)

const (
	// maxReply bounds what a node may answer: a status of a thousand volumes takes a third of it.
	maxReply = 4 << 20
	// defaultShare is how long one server may take to answer when the caller sets no limit.
	defaultShare = 5 * time.Second
)

// Dialer opens the connection to a server. Whatever must be said before gRPC begins (who speaks, which protocol of a
// shared port is meant, TLS) is its affair.
type Dialer func(ctx context.Context, server string) (net.Conn, error)

// DialSocket is the Dialer of a node's local socket.
func DialSocket(ctx context.Context, path string) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "unix", path)
}

// Dial tries the servers in turn; the first that answers serves. One that accepts a connection and then is silent
// does not hold up the others: each has its share of the time that ctx leaves.
func Dial(ctx context.Context, servers []string, dial Dialer) (*Client, error) {
	if len(servers) == 0 {
		return nil, BadRequest("no server is named")
	}
	var whys []string
	for i, s := range servers {
		c, err := dialOne(ctx, s, dial, share(ctx, len(servers)-i))
		if err == nil {
			return c, nil
		}
		whys = append(whys, fmt.Sprintf("%s (%v)", s, err))
	}
	return nil, Unavailable("nobody answers at %s: is haclusterd running there?", strings.Join(whys, ", "))
}

func share(ctx context.Context, left int) time.Duration {
	if end, ok := ctx.Deadline(); ok {
		return time.Until(end) / time.Duration(left)
	}
	return defaultShare
}

// dialOne returns when the server has spoken HTTP/2 to us, so that a call on the client has somebody to answer it.
func dialOne(ctx context.Context, server string, dial Dialer, limit time.Duration) (*Client, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var why lastError
	conn, err := grpc.NewClient("passthrough:///"+server,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			c, err := dial(ctx, server)
			why.set(err)
			if err != nil {
				return nil, err
			}
			return &observed{Conn: c, why: &why}, nil
		}),
		grpc.WithAuthority("hacluster"),
		grpc.WithNoProxy(),
		grpc.WithUnaryInterceptor(keepKind(server)),
		grpc.WithDisableServiceConfig(),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxReply), grpc.WaitForReady(false)),
	)
	if err != nil {
		return nil, err
	}
	if err := ready(ctx, conn); err != nil {
		conn.Close()
		return nil, errors.Join(why.get(), onlyIf(why.get() == nil, err))
	}
	return &Client{Server: server, conn: conn, rpc: adminv1.NewAdminClient(conn)}, nil
}

// observed passes on why the server ended the connection.
type observed struct {
	net.Conn
	why *lastError
}

func (o *observed) Read(p []byte) (int, error) {
	n, err := o.Conn.Read(p)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) && !errors.Is(err, syscall.ECONNRESET) { // these tell nothing
		o.why.set(err)
	}
	return n, err
}

func ready(ctx context.Context, conn *grpc.ClientConn) error {
	conn.Connect()
	for {
		switch s := conn.GetState(); s {
		case connectivity.Ready:
			return nil
		case connectivity.TransientFailure, connectivity.Shutdown:
			return errors.New("no gRPC is spoken there")
		default:
			if !conn.WaitForStateChange(ctx, s) {
				return errors.New("no answer in time")
			}
		}
	}
}

func onlyIf(cond bool, err error) error {
	if cond {
		return err
	}
	return nil
}

// lastError passes the dialer's own words out of gRPC, whose error would wrap them thrice.
type lastError struct {
	mu  sync.Mutex
	err error
}

func (l *lastError) set(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.err = err
}

func (l *lastError) get() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}
