package api_test

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"hacluster/cmd/internal/api"
	"hacluster/cmd/internal/api/apitest"
	"hacluster/cmd/internal/caller"
	"hacluster/cmd/internal/identity"
	"hacluster/cmd/internal/identity/pki"
	adminv1 "hacluster/proto/admin/v1"
)

// methods are all of the service, as the generated code has them.
func methods() (unary, streams []string) {
	for _, m := range adminv1.Admin_ServiceDesc.Methods {
		unary = append(unary, m.MethodName)
	}
	for _, s := range adminv1.Admin_ServiceDesc.Streams {
		streams = append(streams, s.StreamName)
	}
	return unary, streams
}

func TestEveryMethodHasARoleAndEveryRoleAMethod(t *testing.T) {
	unary, streams := methods()
	all := append(unary, streams...)
	for _, m := range all {
		if !pki.RoleAdmin.Covers(api.LeastRole[m]) {
			t.Errorf("method %s has no role (%q): nobody may call it; decide on one in roles.go", m, api.LeastRole[m])
		}
	}
	for m := range api.LeastRole {
		if !slices.Contains(all, m) {
			t.Errorf("the table names the method %s, which does not exist", m)
		}
	}
}

// guarded serves the admin service with TLS on a port, and tells how many calls were refused.
func guarded(t *testing.T, f pki.Folder) (addr string, refused *atomic.Int64) {
	t.Helper()
	tr, err := identity.New(identity.Config{PKI: f.Path, Cluster: "shop", Node: "alpha"})
	if err != nil {
		t.Fatal(err)
	}
	mux, err := tr.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	refused = new(atomic.Int64)
	opts := append(api.ServerOptions(), grpc.Creds(caller.Credentials(false)))
	s := grpc.NewServer(append(opts, api.Authorize(func(string, ...any) { refused.Add(1) })...)...)
	api.Register(s, &apitest.Node{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := s.Serve(mux.Listener(identity.ProtoGRPC)); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			t.Error(err)
		}
	}()
	t.Cleanup(func() {
		s.Stop()
		mux.Close()
		tr.Close()
		<-done
	})
	return mux.Addr().String(), refused
}

func connect(t *testing.T, addr string, cfg identity.Config) *grpc.ClientConn {
	t.Helper()
	tr, err := identity.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	c, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy(),
		grpc.WithContextDialer(func(ctx context.Context, a string) (net.Conn, error) { return tr.Dial(ctx, a, identity.ProtoGRPC) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// faults.md G55: each method, called by each role, a node, and nobody.
func TestEachMethodIsRefusedToEachLesserRole(t *testing.T) {
	f := pki.Folder{Path: filepath.Join(t.TempDir(), "pki")}
	errs := []error{f.Init("shop", pki.DefaultCA), f.Node("alpha", nil, pki.DefaultLeaf), f.Node("beta", nil, pki.DefaultLeaf)}
	for _, r := range []pki.Role{pki.RoleViewer, pki.RoleOperator, pki.RoleAdmin} {
		errs = append(errs, f.User(string(r), r, pki.DefaultLeaf))
	}
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	addr, refused := guarded(t, f)
	unary, streams := methods()
	callers := map[string]identity.Config{"beta": {PKI: f.Path, Cluster: "shop", Node: "beta"}}
	for _, r := range []pki.Role{pki.RoleViewer, pki.RoleOperator, pki.RoleAdmin} {
		callers[string(r)] = identity.Config{PKI: f.Path, User: string(r)}
	}
	for who, cfg := range callers {
		conn := connect(t, addr, cfg)
		for _, m := range append(unary, streams...) {
			before := refused.Load()
			err := call(within(t), conn, m, slices.Contains(streams, m))
			may := who == "beta" || pki.Role(who).Covers(api.LeastRole[m])
			if denied := status.Code(err) == codes.PermissionDenied; denied == may {
				t.Errorf("%s calls %s: %v", who, m, err)
			}
			if counted := refused.Load() - before; (counted == 1) == may {
				t.Errorf("%s calls %s: %d refusals counted", who, m, counted)
			}
		}
		if err := call(within(t), conn, "Frobnicate", false); status.Code(err) != codes.Unimplemented {
			t.Errorf("%s calls a method that does not exist: %v", who, err)
		}
	}
}

// call makes a call with an empty request, which is one of every method.
func call(ctx context.Context, c *grpc.ClientConn, method string, stream bool) error {
	full := "/" + adminv1.Admin_ServiceDesc.ServiceName + "/" + method
	if !stream {
		return c.Invoke(ctx, full, &adminv1.StatusRequest{}, &adminv1.StatusReply{})
	}
	s, err := c.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, full)
	if err == nil {
		err = errors.Join(s.SendMsg(&adminv1.EventsRequest{}), s.CloseSend())
	}
	if err != nil {
		return err
	}
	return s.RecvMsg(&adminv1.Event{})
}

// A server without credentials knows nobody, and nobody may do anything.
func TestWithoutCredentialsNobodyMayDoAnything(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(api.Authorize(func(string, ...any) {})...)
	api.Register(s, &apitest.Node{})
	done := make(chan struct{})
	go func() { defer close(done); s.Serve(ln) }()
	defer func() { s.Stop(); <-done }()
	c, err := grpc.NewClient(ln.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := call(within(t), c, "Status", false); status.Code(err) != codes.PermissionDenied {
		t.Errorf("%v", err)
	}
}
