package control

import (
	"context"
	"fmt"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"hacluster/cmd/internal/caller"
)

// Cluster is which cluster a node belongs to. ID is empty until the node knows it: before the cluster was founded, and
// while a node that was added has not caught up.
type Cluster struct{ Name, ID string }

// The keys under which each call carries its Cluster.
const (
	clusterKey   = "hacluster-cluster"
	clusterIDKey = "hacluster-cluster-id"
)

// Refuses says why a call of another cluster is refused, empty when it is of the same. Two clusters may have one name
// and the same addresses, one after the other: the id tells them apart (faults.md G39).
func (c Cluster) Refuses(other Cluster) string {
	switch {
	case other.Name != c.Name:
		return fmt.Sprintf("it is of cluster %q, this node of %q", other.Name, c.Name)
	case other.ID != c.ID && other.ID != "" && c.ID != "":
		return fmt.Sprintf("it is of a cluster %q with id %s, this one's is %s", other.Name, other.ID, c.ID)
	}
	return ""
}

// claimant is a message that says who sent it. With TLS that must be the node of the caller's certificate.
type claimant interface {
	sender() (node string, claimed bool)
}

func (h *Hello) sender() (string, bool)  { return h.From, true }
func (g *GiveUp) sender() (string, bool) { return g.GiveUp.Node, true }
func (s *Served) sender() (string, bool) { return s.Node, true }

// A relayed request bears the name of who asked first; the node that relays it is trusted to have checked it.
func (l *Lease) sender() (string, bool) {
	if l.Relayed > 0 {
		return l.By, l.By != ""
	}
	return l.Request.Node, true
}

// Why calls are refused: the log's messages and the counters' names.
const (
	reasonCluster = "refused: control call of another cluster"
	reasonUser    = "refused: control call of somebody who is no node"
	reasonClaim   = "refused: control call in another node's name"
)

// Guard makes a server refuse calls of this service that come from another cluster, from anybody who is not a node, or
// in another node's name. mine is asked at each call; refused is told why, with attributes for a log, and must not
// wait. Calls of other services are not looked at.
func Guard(mine func() Cluster, refused func(reason string, args ...any)) grpc.ServerOption {
	return grpc.ChainUnaryInterceptor(func(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		if !strings.HasPrefix(info.FullMethod, "/"+serviceName+"/") {
			return next(ctx, req)
		}
		if reason, why := judge(ctx, mine(), req); reason != "" {
			refused(reason, "caller", caller.Of(ctx).String(), "method", info.FullMethod, "why", why)
			return nil, status.Error(codes.PermissionDenied, why)
		}
		return next(ctx, req)
	})
}

func judge(ctx context.Context, mine Cluster, req any) (reason, why string) {
	name, anybody := caller.Of(ctx).Node()
	if name == "" && !anybody {
		return reasonUser, "only nodes speak this"
	}
	theirs := clusterOf(ctx)
	if _, asks := req.(*Hello); asks {
		theirs.ID = "" // its reply is what tells an operator which cluster a node belongs to
	}
	if why := mine.Refuses(theirs); why != "" {
		return reasonCluster, why
	}
	if c, ok := req.(claimant); ok && !anybody {
		if claims, claimed := c.sender(); claimed && claims != name {
			return reasonClaim, fmt.Sprintf("it is made in the name of node %q by node %q", claims, name)
		}
	}
	if h, ok := req.(*Hello); ok && !anybody && h.RaftID != "" && !strings.HasPrefix(h.RaftID, name+"-") {
		return reasonClaim, fmt.Sprintf("node %q names Raft id %q", name, h.RaftID)
	}
	return "", ""
}

func clusterOf(ctx context.Context) (c Cluster) {
	md, _ := metadata.FromIncomingContext(ctx)
	first := func(key string) string {
		if v := md.Get(key); len(v) > 0 {
			return v[0]
		}
		return ""
	}
	return Cluster{Name: first(clusterKey), ID: first(clusterIDKey)}
}
