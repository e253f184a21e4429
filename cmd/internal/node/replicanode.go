package node

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"hacluster/cmd/internal/control"
	"hacluster/heartbeat/cluster"
	"hacluster/replication"
	"hacluster/replication/link"
	"hacluster/replication/wire"
)

// replicaNode is the node as its replicas see it.
type replicaNode struct{ n *Node }

var _ replication.Node = replicaNode{}

func (r replicaNode) Now() cluster.Instant { return r.n.now() }
func (r replicaNode) Lease(volume string, e cluster.Epoch) cluster.Instant {
	return r.n.lease.until(volume, e)
}
func (r replicaNode) Heard() (asked, there cluster.Instant) { return r.n.lease.newest() }
func (r replicaNode) Propose(ctx context.Context, c cluster.Command) (cluster.Result, error) {
	return r.n.propose(ctx, c)
}
func (r replicaNode) GiveUp(ctx context.Context, volume string, e cluster.Epoch, to string, failed bool) error {
	err := r.n.lease.giveUp(ctx, volume, e, to, failed)
	if status.Code(err) == codes.Aborted {
		return replication.ErrOvertaken
	}
	return err
}
func (r replicaNode) Greet(ctx context.Context, peer, by string, h wire.Hello) (*link.Sender, wire.HelloReply, error) {
	return r.n.peers.Greet(ctx, peer, by, h)
}
func (r replicaNode) Left(volume string) (cluster.Epoch, int64) {
	return left(r.n.state.get(), volume, r.n.me.Name)
}
func (r replicaNode) Event(volume, kind, text string)         { r.n.events.add(kind, volume, text) }
func (r replicaNode) Serving(volume string, e cluster.Epoch)  { r.n.vols.tell(volume, e, false) }
func (r replicaNode) FirstAck(volume string, e cluster.Epoch) { r.n.vols.tell(volume, e, true) }

// tell reports to the leader how far a failover has come.
func (v *volumes) tell(volume string, e cluster.Epoch, first bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	h := v.all[volume]
	if h == nil || h.epoch != e || v.done {
		return
	}
	now := v.n.now()
	since := now.Sub(h.learned).Milliseconds()
	if !first {
		h.promote = since
	}
	v.news.add(now, control.Served{Volume: volume, Epoch: e, Node: v.n.me.Name, PromoteMs: h.promote, FirstAck: first, SinceMs: since})
	if !v.telling {
		v.telling = true
		v.goes.Go(v.tellAll)
	}
}
