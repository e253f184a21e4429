package node

import (
	"context"
	"fmt"
	"sync"
	"time"

	"hacluster/blockdev/deadline"
	"hacluster/replication"
)

// stopServices stops what follows the volumes of this node, before they are handed over. What cannot be stopped is left to the guard;
// the others wait for that.
func (n *Node) stopServices() {
	ctx, cancel := context.WithTimeout(context.Background(), n.conf().Timers.RTO+n.toStop(""))
	defer cancel()
	if err := n.services.stopAll(ctx); err != nil {
		n.log.Error("services have not stopped", "error", err)
	}
}

// handAllOver gives every volume that this node leads to a standby, if one is a member, and leadership of the group to
// somebody else, all within the RTO target, and in async what its standbys lack takes. What cannot be handed over is stopped as it is.
func (n *Node) handAllOver() {
	drain := time.Duration(0)
	for _, r := range n.vols.replicas() {
		drain = max(drain, n.toDrain(r.Volume().Name))
	}
	ctx, cancel := context.WithTimeout(context.Background(), n.conf().Timers.RTO+drain)
	defer cancel()
	var goes sync.WaitGroup
	for _, r := range n.vols.replicas() {
		if v := r.Volume(); r.Tenure() != nil && len(v.Members) > 1 {
			goes.Go(func() { n.handOne(ctx, r) })
		}
	}
	goes.Wait()
	if l := n.currentLeading(); l != nil {
		for _, name := range n.others("") {
			if n.state.get().Nodes[name].RaftID != "" && l.raft.TransferLeadership(ctx, n.state.get().Nodes[name].RaftID) == nil {
				return
			}
		}
	}
}

func (n *Node) handOne(ctx context.Context, r *replication.Replica) {
	before := r.Volume()
	v := view{state: n.state.get(), sites: sitesOf(n.conf())}
	if why := v.onlyBy(&before, v.byWord); why != "" {
		n.log.Warn("volume is stopped without a hand-over: only a person moves it to another node", "volume", before.Name, "why", why)
		return
	}
	err := n.services.leave(ctx, before.Name, before.Epoch)
	if err == nil { // after them: they may use it
		err = n.devices.leave(ctx, before.Name, before.Epoch)
	}
	if err != nil {
		n.log.Error("volume is stopped without a hand-over", "volume", before.Name, "error", err)
		return
	}
	for {
		err := r.HandOver(ctx, "")
		if err == nil {
			break
		}
		select { // there may be no leader at this moment, or a hand-over that a person ordered is under way
		case <-time.After(n.conf().Timers.Renew):
		case <-ctx.Done():
		}
		if ctx.Err() != nil || r.Tenure() == nil {
			n.log.Warn("volume is stopped without a hand-over", "volume", before.Name, "error", err)
			return
		}
	}
	for {
		st, changed := n.state.watch()
		if st.Volumes[before.Name].Epoch > before.Epoch {
			n.log.Info("handed over", "volume", before.Name, "to", st.Volumes[before.Name].Primary)
			return
		}
		if len(st.Volumes[before.Name].Members) == 1 {
			n.log.Warn("volume is stopped without a hand-over: no other replica is a member any more", "volume", before.Name)
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			n.log.Warn("nobody took the volume over in time", "volume", before.Name)
			return
		}
	}
}

// timeDisk ends the node when a call to the disk of data_dir does not return within disk_deadline (R26): what would
// have to be noted there cannot be, so nothing may be answered any more, and no retry mends that.
func (n *Node) timeDisk() (stop func()) {
	after, done := n.conf().Cluster.DiskDeadline, make(chan struct{})
	var goes sync.WaitGroup
	goes.Go(func() {
		tick := time.NewTicker(after / deadline.Ticks)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
			}
			if now := n.conf().Cluster.DiskDeadline; now != after {
				after = now
				tick.Reset(after / deadline.Ticks)
			}
			if err := n.disk.Tick(after); err != nil {
				n.fail(fmt.Errorf("data_dir %s: %w", n.cfg.DataDir(), err))
				return
			}
		}
	})
	return func() {
		close(done)
		goes.Wait()
	}
}
