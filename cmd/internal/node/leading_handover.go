package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"hacluster/blockdev"
	"hacluster/cmd/internal/api"
	"hacluster/cmd/internal/control"
	"hacluster/heartbeat/cluster"
	"hacluster/heartbeat/failover"
	"hacluster/replication"
)

// watchHandOver tells by the channel why the hand-over of a volume out of an epoch failed, until forget is called.
func (l *leading) watchHandOver(volume string, epoch cluster.Epoch) (failed <-chan error, forget func()) {
	c := make(chan error, 1)
	l.mu.Lock()
	l.orders[c] = recordKey{volume, epoch}
	l.mu.Unlock()
	return c, func() {
		l.mu.Lock()
		delete(l.orders, c)
		l.mu.Unlock()
	}
}

func (l *leading) handOver(a failover.HandOver) {
	ctx, cancel := context.WithTimeout(l.ctx, 2*l.n.conf().Timers.RTO+l.n.toDrain(a.Volume)+l.n.toStop(a.Volume))
	defer cancel()
	var err error
	if a.Primary == l.n.me.Name {
		_, err = l.n.HandOver(ctx, &control.HandOver{Volume: a.Volume, To: a.To, Epoch: a.Epoch})
	} else {
		var client control.Client
		if client, err = l.n.peers.control(a.Primary); err == nil {
			_, err = client.HandOver(ctx, &control.HandOver{Volume: a.Volume, To: a.To, Epoch: a.Epoch})
		}
	}
	if err != nil {
		l.n.log.Warn("hand-over failed", "volume", a.Volume, "primary", a.Primary, "error", err)
		l.handOverFailed(a, err)
	}
}

// handOverFailed tells those who wait. A give-up that no leader took is an order to be given again; a primary that does
// not answer is replaced when its lease ends.
func (l *leading) handOverFailed(a failover.HandOver, err error) {
	why := api.Failed("%s did not give %q up: %v; `ha-admin status %s` shows whether it serves", a.Primary, a.Volume, status.Convert(err).Message(), a.Volume)
	switch status.Code(err) {
	case codes.AlreadyExists, codes.Unavailable:
		return // it is on its way by another order, or without one
	case codes.ResourceExhausted:
		why = api.Refused("%s", status.Convert(err).Message())
	case codes.Aborted:
		why = api.Unavailable("the give-up of %q was not taken: %v", a.Volume, status.Convert(err).Message())
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for c, key := range l.orders {
		if key != (recordKey{a.Volume, a.Epoch}) {
			continue
		}
		select {
		case c <- why:
		default: // told already
		}
	}
}

// resumeIfVoid has the services of a volume run here again when nobody has followed two RTO targets after it was given up (R30).
func (n *Node) resumeIfVoid(volume string, e cluster.Epoch) {
	time.AfterFunc(2*n.conf().Timers.RTO, func() {
		if n.state.get().Volumes[volume].Epoch == e {
			n.services.resume(volume)
		}
	})
}

// HandOver implements control.Handler.
func (n *Node) HandOver(ctx context.Context, h *control.HandOver) (*control.Done, error) {
	r := n.vols.replica(h.Volume)
	if r == nil {
		return nil, status.Error(codes.NotFound, fmt.Sprintf("no replica of volume %q here", h.Volume))
	}
	if now := r.Volume().Epoch; now != h.Epoch {
		return nil, status.Error(codes.AlreadyExists, fmt.Sprintf("a hand-over decided in epoch %d is void in epoch %d", h.Epoch, now))
	}
	if s, ok := r.Serving(); ok && s.Spool.Bytes > 0 { // writers would be held until all of it is on the standbys
		return nil, status.Error(codes.ResourceExhausted, fmt.Sprintf("%d bytes that standbys of %q lack are in the spool of %s, and a hand-over would hold its writers until they have them: wait until `ha-admin status` shows less, or lower max_lag_bytes by `ha-admin apply`, which slows writers until it does", s.Spool.Bytes, h.Volume, n.me.Name))
	}
	err := n.services.leave(ctx, h.Volume, h.Epoch)
	if err == nil { // after them: they may use it
		err = n.devices.leave(ctx, h.Volume, h.Epoch)
	}
	if err == nil {
		err = r.HandOver(ctx, h.To)
	}
	switch {
	case errors.Is(err, replication.ErrHandingOver): // by another order, whose outcome counts
	case err != nil:
		n.devices.stay(h.Volume)
		n.services.resume(h.Volume)
	default:
		n.resumeIfVoid(h.Volume, h.Epoch)
	}
	switch {
	case errors.Is(err, replication.ErrHandingOver), errors.Is(err, blockdev.ErrNotPrimary):
		return nil, status.Error(codes.AlreadyExists, err.Error()) // the volume moves, with or without this order
	case errors.Is(err, errNoLeader), status.Code(err) == codes.Unavailable:
		return nil, status.Error(codes.Aborted, err.Error()) // no leader took the give-up
	case errors.Is(err, errInUse):
		return nil, status.Error(codes.ResourceExhausted, err.Error()) // refused, which is no failure
	}
	return &control.Done{}, toStatus(err)
}
