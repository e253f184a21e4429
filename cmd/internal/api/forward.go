package api

import (
	"context"
	"strconv"

	"google.golang.org/grpc/metadata"
)

const (
	hopsKey = "hacluster-hops"
	// maxHops: from the node that was asked to the leader, and once more if the leader moved meanwhile.
	maxHops = 2
)

// Forward prepares the context of a call that a node passes on to another, from the context of the call that it
// serves. It refuses when the call was passed on too often: while leadership moves, two nodes may each take the other
// for the leader.
func Forward(ctx context.Context) (context.Context, error) {
	hops := 0
	if md, ok := metadata.FromIncomingContext(ctx); ok {
		if v := md.Get(hopsKey); len(v) > 0 {
			hops, _ = strconv.Atoi(v[0])
		}
	}
	if hops < 0 || hops >= maxHops {
		return nil, Unavailable("the leader is changing: try again")
	}
	return metadata.AppendToOutgoingContext(ctx, hopsKey, strconv.Itoa(hops+1)), nil
}
