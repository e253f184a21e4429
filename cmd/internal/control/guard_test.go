package control

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"hacluster/cmd/internal/caller"
	"hacluster/cmd/internal/identity"
	"hacluster/cmd/internal/identity/pki"
	"hacluster/heartbeat/cluster"
	"hacluster/heartbeat/failover"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// agreeable answers everything.
type agreeable struct{ Handler }

func (agreeable) Hello(context.Context, *Hello) (*HelloReply, error)    { return &HelloReply{}, nil }
func (agreeable) Lease(context.Context, *Lease) (*cluster.Grant, error) { return &cluster.Grant{}, nil }
func (agreeable) GiveUp(context.Context, *GiveUp) (*Done, error)        { return &Done{}, nil }
func (agreeable) Served(context.Context, *Served) (*Done, error)        { return &Done{}, nil }
func (agreeable) Verify(context.Context, *Verify) (*VerifyReply, error) { return &VerifyReply{}, nil }
func (agreeable) Local(context.Context, *Local) (*LocalReply, error)    { return &LocalReply{}, nil }

// guarded runs the service as a node does and gives a way to call it by another's certificate, or without TLS.
func guarded(t *testing.T, folder string, mine Cluster, reasons *[]string) (dial func(cfg identity.Config, of Cluster) Client) {
	t.Helper()
	tr, err := identity.New(identity.Config{Insecure: folder == "", PKI: folder, Node: "alpha"})
	if err != nil {
		t.Fatal(err)
	}
	mux, err := tr.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	refused := func(reason string, _ ...any) { *reasons = append(*reasons, reason) } // one call at a time here
	s := grpc.NewServer(append(ServerOptions(), grpc.Creds(caller.Credentials(folder == "")), Guard(func() Cluster { return mine }, refused))...)
	Register(s, agreeable{})
	done := make(chan struct{})
	go func() { defer close(done); s.Serve(mux.Listener(identity.ProtoGRPC)) }()
	t.Cleanup(func() {
		s.Stop()
		mux.Close()
		<-done
	})
	return func(cfg identity.Config, of Cluster) Client {
		cfg.Insecure = folder == ""
		other, err := identity.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		c, err := Connect(mux.Addr().String(), func(ctx context.Context, a string) (net.Conn, error) { return other.Dial(ctx, a, identity.ProtoGRPC) })
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return Client{Conn: c, Of: of}
	}
}

// faults.md G39: another cluster on the same addresses, also one of the same name, also without TLS.
func TestG39CallsOfAnotherClusterAreRefused(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for name, c := range map[string]struct {
		mine, theirs Cluster
		fine         bool
	}{
		"same":             {Cluster{"shop", "id1"}, Cluster{"shop", "id1"}, true},
		"another name":     {Cluster{"shop", "id1"}, Cluster{"bank", "id1"}, false},
		"another id":       {Cluster{"shop", "id1"}, Cluster{"shop", "id2"}, false},
		"they know none":   {Cluster{"shop", "id1"}, Cluster{"shop", ""}, true}, // a node that was added
		"we know none":     {Cluster{"shop", ""}, Cluster{"shop", "id1"}, true},
		"they say nothing": {Cluster{"shop", "id1"}, Cluster{}, false},
		"none, other name": {Cluster{"shop", ""}, Cluster{"bank", ""}, false},
	} {
		var reasons []string
		client := guarded(t, "", c.mine, &reasons)(identity.Config{}, c.theirs)
		_, err := client.Local(ctx, &Local{})
		if c.fine != (err == nil) || !c.fine && (status.Code(err) != codes.PermissionDenied || len(reasons) != 1 || reasons[0] != reasonCluster) {
			t.Errorf("%s: %v, reasons %v", name, err, reasons)
		}
		// Who belongs where is told to nodes of the same cluster's name.
		if _, err := client.Hello(ctx, &Hello{}); (err == nil) != (c.mine.Name == c.theirs.Name) {
			t.Errorf("%s: hello: %v", name, err)
		}
	}
}

// faults.md G40, G53: the right certificate of another node does not make somebody else's messages true.
func TestG40MessagesInAnotherNodesNameAreRefused(t *testing.T) {
	f := pki.Folder{Path: filepath.Join(t.TempDir(), "pki")}
	if err := errors.Join(f.Init("shop", pki.DefaultCA), f.Node("alpha", nil, pki.DefaultLeaf), f.Node("beta", nil, pki.DefaultLeaf), f.User("root", pki.RoleAdmin, pki.DefaultLeaf)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var reasons []string
	of := Cluster{"shop", "id"}
	dial := guarded(t, f.Path, of, &reasons)
	beta := dial(identity.Config{PKI: f.Path, Node: "beta"}, of)
	calls := func(c Client, who string) map[string]error {
		errs := map[string]error{}
		_, errs["hello"] = c.Hello(ctx, &Hello{From: who, RaftID: who + "-0123456789ab"})
		_, errs["lease"] = c.Lease(ctx, &Lease{Request: cluster.LeaseRequest{Node: who}})
		_, errs["give up"] = c.GiveUp(ctx, &GiveUp{GiveUp: failover.GiveUp{Node: who}})
		_, errs["served"] = c.Served(ctx, &Served{Node: who})
		return errs
	}
	for what, err := range calls(beta, "beta") {
		if err != nil {
			t.Errorf("%s of its own: %v", what, err)
		}
	}
	for what, err := range calls(beta, "gamma") {
		if status.Code(err) != codes.PermissionDenied || !strings.Contains(err.Error(), `in the name of node "gamma" by node "beta"`) {
			t.Errorf("%s in another's name: %v", what, err)
		}
	}
	if _, err := beta.Hello(ctx, &Hello{From: "beta", RaftID: "gamma-0123456789ab"}); status.Code(err) != codes.PermissionDenied {
		t.Errorf("another's Raft id: %v", err)
	}
	if _, err := beta.Lease(ctx, &Lease{Request: cluster.LeaseRequest{Node: "gamma"}, Relayed: 1, By: "beta"}); err != nil {
		t.Errorf("a relayed request: %v", err)
	}
	if _, err := beta.Lease(ctx, &Lease{Request: cluster.LeaseRequest{Node: "gamma"}, Relayed: 1, By: "alpha"}); status.Code(err) != codes.PermissionDenied {
		t.Errorf("a request relayed in another's name: %v", err)
	}
	reasons = nil
	if _, err := dial(identity.Config{PKI: f.Path, User: "root"}, of).Local(ctx, &Local{}); status.Code(err) != codes.PermissionDenied || len(reasons) != 1 || reasons[0] != reasonUser {
		t.Errorf("a user: %v, %v", err, reasons)
	}
}
