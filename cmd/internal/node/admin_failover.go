package node

import (
	"context"
	"fmt"
	"time"

	"hacluster/cmd/internal/api"
	"hacluster/cmd/internal/control"
	"hacluster/heartbeat/cluster"
	"hacluster/heartbeat/failover"
)

// Failover implements api.Promoter. The order is for the epoch of this moment, so it may be given again to the next leader
// when the one that took it leads no more.
func (n *Node) Failover(ctx context.Context, r api.FailoverRequest) (api.Failover, error) {
	if r.Epoch == 0 {
		v := n.look(ctx)
		asked := r.Volume
		r.Volume = v.state.Mirrored(asked)
		vol := v.state.Volumes[r.Volume]
		if r.AcceptDataLoss && vol.IsGroup() {
			if err := consentNamesAll(&vol, asked, "failover "+vol.Name); err != nil {
				return api.Failover{}, err
			}
		}
		if !v.quorum {
			return api.Failover{}, api.Unavailable("%v", errNoLeader)
		}
		r.Epoch = uint64(vol.Epoch)
	}
	for {
		f, err := onLeader(ctx, n, func(l *leading) (api.Failover, error) { return n.failover(ctx, l, r) },
			func(ctx context.Context, c *api.Client) (api.Failover, error) { return c.Failover(ctx, r) })
		if err == nil || api.KindOf(err) != api.KindUnavailable || r.Epoch == 0 {
			return f, err
		}
		select {
		case <-time.After(n.conf().Timers.Tick):
		case <-ctx.Done():
			return f, err
		}
	}
}

func (n *Node) failover(ctx context.Context, l *leading, r api.FailoverRequest) (out api.Failover, err error) {
	v := n.look(ctx)
	if !v.quorum {
		return out, api.Unavailable("%v", errNoLeader)
	}
	r.Volume = v.state.Mirrored(r.Volume)
	vol, ok := v.state.Volumes[r.Volume]
	if !ok {
		return out, api.Failed("volume %q does not exist: `ha-admin volume list` shows those that do", r.Volume)
	}
	if e := cluster.Epoch(r.Epoch); e != 0 && vol.Epoch != e {
		if r.To != "" && vol.Primary != r.To {
			return out, api.Failed("%q moved out of epoch %d meanwhile, to %s and not to %s: `ha-admin failovers` shows why", r.Volume, e, vol.Primary, r.To)
		}
		vol.Epoch = e
		return n.movedTo(ctx, l, &vol, nil, r.To)
	}
	n.lookAgain(ctx, &v, r.To)
	if err := mayFailover(&v, &vol, r); err != nil {
		return out, err
	}
	failed, forget := l.watchHandOver(r.Volume, vol.Epoch)
	defer forget()
	err = l.do(ctx, func(now cluster.Instant) {
		l.carryOut(l.core.Order(now, r.Volume, failover.Order{To: r.To, Force: r.Force, Epoch: vol.Epoch}))
	})
	if err != nil {
		return out, api.Unavailable("the leader changed: %v", err)
	}
	defer func() {
		if err != nil { // nobody waits any more: it must not happen hours later
			_ = l.do(context.WithoutCancel(ctx), func(cluster.Instant) { l.core.Cancel(r.Volume) })
		}
	}()
	return n.movedTo(ctx, l, &vol, failed, r.To)
}

// movedTo is awaitFailover for a role that was to go to a certain node, if one was named: of several members another follows when
// that one is gone by then.
func (n *Node) movedTo(ctx context.Context, l *leading, before *cluster.Volume, failed <-chan error, to string) (api.Failover, error) {
	f, err := n.awaitFailover(ctx, l, before, failed)
	if err == nil && to != "" && f.To != to {
		err = api.Failed("%q moved to %s and not to %s, which could not follow in time: `ha-admin status %s` shows whether it can now", before.Name, f.To, to, before.Name)
	}
	return f, err
}

// mayFailover refuses what would lose data, or cannot be.
func mayFailover(v *view, vol *cluster.Volume, r api.FailoverRequest) error {
	if r.To == "" && r.Force {
		return api.BadRequest("a forced failover names its target: add --to NODE")
	}
	if len(vol.Members) == 0 { // there is no role to move, and whose content counts is not for a failover to say
		return api.Refused("volume %q was never in use: %s", vol.Name, v.notFormed(vol))
	}
	if why := v.unfenced(vol); why != "" && r.To != vol.Primary {
		return api.Refused("nobody follows as primary of %q now: %s", vol.Name, why)
	}
	if why := v.onlyBy(vol, v.byName); r.To == "" && why != "" {
		return api.Refused("the role of %q goes to none of its other replicas unless a person names it: %s: add --to NODE", vol.Name, why)
	}
	if r.To == "" {
		for _, rep := range vol.Replicas {
			if rep.Node != vol.Primary && vol.IsMember(rep.Node) {
				return nil
			}
		}
		if v.serving(vol) != nil {
			return api.Refused("no other replica of %q is a member of the in-sync set: wait for its resync (R6)", vol.Name)
		}
		return nil
	}
	if _, ok := vol.Replica(r.To); !ok {
		return api.Failed("node %q holds no replica of volume %q", r.To, vol.Name)
	}
	if s := v.serving(vol); r.To == vol.Primary && s != nil && !(r.Force && s.Suspended && v.diskFailed(vol)) {
		return api.Failed("node %q is primary of volume %q already", r.To, vol.Name)
	}
	member := vol.IsMember(r.To)
	rep := v.report(r.To, vol.Name)
	if s := v.serving(vol); !member && s != nil && !s.Suspended { // also when it is gone: no answer of it would change that
		do := "wait for its resync"
		if rep == nil {
			do = "it does not answer: start it, and wait for its resync"
		}
		return api.Refused("the replica of %q on %s is not a member of the in-sync set, and %s serves: %s (R6)", vol.Name, r.To, vol.Primary, do)
	}
	if rep == nil {
		return api.Failed("node %q does not answer: its replica's state is unknown", r.To)
	}
	if !rep.Held || rep.Stalled || rep.Problem != "" {
		return api.Failed("the replica of %q on %s cannot be used: %s", vol.Name, r.To, problemOf(rep))
	}
	if rep.Inconsistent && rep.Point == nil {
		return api.Refused("the replica of %q on %s is inconsistent: a resync that did not end has overwritten a part of it, and there is no undo area that leads back; it cannot be promoted, also not by force", vol.Name, r.To)
	}
	if !member && rep.Epoch == 0 && vol.Epoch > 0 {
		return api.Refused("the replica of %q on %s never held the volume's data; it cannot be promoted, also not by force", vol.Name, r.To)
	}
	if member && vol.Unchanged(r.To, rep) && !rep.Failed && !rep.Inconsistent {
		return nil
	}
	what := "it is not a member of the in-sync set, so it lacks acknowledged writes"
	switch {
	case member && rep.Failed:
		what = "its disk failed, so writes since its last flush may be missing"
	case member:
		what = lostText(vol, r.To, rep)
	}
	point := v.point(vol, r.To)
	if rep.Inconsistent {
		what = fmt.Sprintf("a resync has overwritten a part of it, so it returns to its last consistent point, of epoch %d, before it serves, and lacks acknowledged writes", point.Epoch)
	}
	if !r.Force || !r.AcceptDataLoss {
		return api.Refused("promoting %s for volume %q may lose data: %s; up to %d bytes (%d blocks of 4096) may be old, since %s (R6): consent with --force --accept-data-loss",
			r.To, vol.Name, what, point.LossBytes, point.LossBytes/4096, sinceText(point.At))
	}
	return nil
}

// point is what a forced promotion of a node's replica would give; nil: it cannot be promoted.
func (v *view) point(vol *cluster.Volume, node string) *api.PointStatus {
	rep := v.report(node, vol.Name)
	if rep == nil || len(vol.Members) == 0 || !rep.Promotable() || rep.Epoch == 0 && vol.Epoch > 0 {
		return nil
	}
	peer := v.peer(vol, node)
	if vol.IsMember(node) && vol.Unchanged(node, rep) && rep.Usable() && (vol.Lags(node) || vol.HasAsync() && node == vol.Served) {
		return v.pointOfMember(vol, node)
	}
	if vol.IsMember(node) && vol.Unchanged(node, rep) && rep.Usable() {
		now := wallClock()
		p := &api.PointStatus{Epoch: uint64(vol.Epoch), At: &now}
		if peer != nil {
			p.LossBytes = peer.UnackedBytes
		}
		return p
	}
	e, at := left(v.state, vol.Name, node)
	p := &api.PointStatus{Epoch: uint64(e), LossBytes: dirtyBytes(vol, peer)}
	if rep.Point != nil {
		p.Epoch, at, p.Rollback = uint64(rep.Point.Epoch), rep.Point.AtMillis, true
		p.LossBytes = min(p.LossBytes+rep.Point.Bytes, vol.Size)
	}
	if at != 0 {
		t := time.UnixMilli(at).UTC()
		p.At = &t
	}
	return p
}

func sinceText(at *time.Time) string {
	if at == nil {
		return "a time that is not known"
	}
	return fmt.Sprintf("%s (%.0f s ago)", at.UTC().Format(time.RFC3339), wallClock().Sub(*at).Seconds())
}

// awaitFailover returns when a new primary accepts writes, when the hand-over failed, or when the leader l that was to
// arrange it leads no more.
func (n *Node) awaitFailover(ctx context.Context, l *leading, before *cluster.Volume, failed <-chan error) (api.Failover, error) {
	leads := l.ctx.Done()
	figures := context.Background() // its end: the record is shown without figures
	for {
		st, changed := n.state.watch()
		vol := st.Volumes[before.Name]
		if vol.Epoch > before.Epoch {
			try, cancel := context.WithTimeout(ctx, localTime)
			there, err := n.localOf(try, vol.Primary)
			cancel()
			v := view{local: map[string]*control.LocalReply{vol.Primary: there}}
			if s := v.serving(&vol); err == nil && s != nil && !s.Suspended {
				if f := n.recordOf(st, before, &vol); len(f.Stages) > 1 || figures.Err() != nil {
					return f, nil
				}
				if figures.Done() == nil {
					figures, cancel = context.WithTimeout(ctx, n.conf().Timers.RTO/2)
					defer cancel()
				}
			}
		}
		select {
		case <-changed:
		case <-time.After(n.conf().Timers.Tick):
		case <-leads:
			if vol.Epoch == before.Epoch {
				return api.Failover{}, api.Unavailable("the leader changed before %q was moved: nothing was done", vol.Name)
			}
			leads = nil // decided: what is left to do, the new primary does by itself
		case err := <-failed:
			if n.state.get().Volumes[before.Name].Epoch == before.Epoch {
				return api.Failover{}, err
			}
			failed = nil // it moved all the same
		case <-ctx.Done():
			if vol.Epoch > before.Epoch {
				return api.Failover{}, api.Failed("%s was promoted for %q in epoch %d and does not accept writes yet: watch `ha-admin status`", vol.Primary, vol.Name, vol.Epoch)
			}
			return api.Failover{}, api.Failed("no replica of %q could be promoted in time: the old primary's lease, or the candidate's report, is still waited for; `ha-admin status %s` shows who is missing", vol.Name, vol.Name)
		}
	}
}

func (n *Node) recordOf(st *cluster.State, before, vol *cluster.Volume) api.Failover {
	for _, f := range st.Failovers {
		if f.Volume == vol.Name && f.Epoch == vol.Epoch {
			return failoverOf(f)
		}
	}
	return api.Failover{Volume: vol.Name, From: before.Primary, To: vol.Primary, Epoch: uint64(vol.Epoch), At: time.Now(), RTOTargetMs: st.RTOMillis}
}

// Failovers implements api.Promoter.
func (n *Node) Failovers(ctx context.Context) (all []api.Failover, err error) {
	for _, f := range n.look(ctx).state.Failovers {
		all = append(all, failoverOf(f))
	}
	return all, nil
}
