package node

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"hacluster/cmd/internal/api"
	"hacluster/cmd/internal/config"
	"hacluster/heartbeat/cluster"
)

// How the replicas of a volume change while it is served:
//
//	1 a primary whose replica is to go hands its role over to a member that stays
//	2 the applied configuration is committed, with which replicas come and which are to go (cluster.ChangeReplicas)
//	3 the primary connects to who came, resyncs it, and has it admitted; its node makes the superblock when it opens the device
//	4 the primary has who is to go dropped, the last other copy not before one that came is a member; with that entry it is out of the record
//	5 the node of a replica that is gone closes it and sets its metadata aside (parting.go): at once, or when it runs again
//
// A crash of whoever does one of these leaves it to be done: the next primary goes on with 3 and 4.

// replicaChanges are the replicas that the configuration has and the volumes do not, and the other way round.
func replicaChanges(st *cluster.State, next *config.Config) (all []cluster.ChangeReplicas) {
	for _, vol := range next.Mirrors() {
		v, ok := st.Volumes[vol.Name]
		if !ok {
			continue
		}
		m := cluster.ChangeReplicas{Name: v.Name, ID: v.ID, Epoch: v.Epoch, Version: v.Version}
		want := createVolume(vol)
		paths := map[string]map[string]string{} // of the parts, by name: their order in the record is not that of the file
		for _, p := range want.Parts {
			paths[p.Name] = p.Devices
		}
		for _, r := range want.Replicas {
			if has, ok := v.Replica(r.Node); !ok || has.Leaving {
				a := cluster.AddReplica{Node: r.Node, Device: r.Device}
				for _, p := range v.Parts {
					a.Devices = append(a.Devices, paths[p.Name][r.Node])
				}
				if v.IsGroup() {
					a.Device = strings.Join(a.Devices, " + ")
				}
				m.Add = append(m.Add, a)
			}
		}
		for _, r := range v.Replicas {
			if _, stays := vol.Replica(r.Node); !stays && !r.Leaving {
				m.Leave = append(m.Leave, r.Node)
			}
		}
		if len(m.Add)+len(m.Leave) > 0 {
			all = append(all, m)
		}
	}
	return all
}

// mayChangeReplicas refuses what would lose data or redundancy that nobody has spoken of, before anything is decided.
func (v *view) mayChangeReplicas(all []cluster.ChangeReplicas) error {
	for _, m := range all {
		vol := v.state.Volumes[m.Name]
		if vol.Primary == "" || v.serving(&vol) == nil {
			return api.Unavailable("replicas of volume %q are to be changed and it is not served at the moment: `ha-admin status %s` shows why", vol.Name, vol.Name)
		}
		for _, a := range m.Add {
			if vol.Leaves(a.Node) {
				return api.Failed("the replica of %q on %s is still leaving: wait until `ha-admin status %s` does not show it any more, and apply again", vol.Name, a.Node, vol.Name)
			}
		}
		for _, n := range m.Leave {
			if vol.IsHeld(n) {
				return api.Refused("the replica of %q on %s may hold acknowledged writes that the others lack (R19): wait for its resync, which keeps them as a rescue image, or consent to their loss with `ha-admin volume resync %s --replica %s --discard-target-data`; then apply again",
					vol.Name, n, vol.Name, n)
			}
		}
		if slices.Contains(m.Leave, vol.Primary) && v.successor(&vol, m.Leave) == "" {
			return api.Refused("the replica of %q on %s is to be removed, and it is the primary: no other replica that stays is in sync and could take the role over: wait until one is (`ha-admin status %s`), or leave that of %s in the configuration",
				vol.Name, vol.Primary, vol.Name, vol.Primary)
		}
	}
	return nil
}

// successor is a member that stays and can take the role over; empty: none.
func (v *view) successor(vol *cluster.Volume, leave []string) string {
	for _, n := range vol.MemberNames() {
		rep := v.report(n, vol.Name)
		if n != vol.Primary && !slices.Contains(leave, n) && !vol.Leaves(n) && rep != nil && rep.Usable() && vol.Unchanged(n, rep) && v.byWord(vol, n) == "" && !v.state.Nodes[n].Drained {
			return n
		}
	}
	return ""
}

// handOverLeaving has primaries whose replicas are to be removed hand over, and reports whether any did: what was decided about the
// volume before is void then.
func (n *Node) handOverLeaving(ctx context.Context, v *view, c *cluster.Configure) (moved bool, err error) {
	for _, m := range c.Replicas {
		vol := v.state.Volumes[m.Name]
		if !slices.Contains(m.Leave, vol.Primary) {
			continue
		}
		if e := (cluster.Command{Configure: c}); !v.state.Readable(e.Encode()) && !v.state.Readable(e.Plain()) { // it would move for nothing
			return moved, api.Failed("nothing is applied: a node runs a version that does not know replicas that come and go: update all, and apply again")
		}
		to := v.successor(&vol, m.Leave)
		if _, err := n.Failover(ctx, api.FailoverRequest{Volume: vol.Name, Epoch: uint64(vol.Epoch), To: to}); err != nil {
			return moved, api.Failed("nothing is applied: the replica of %q on %s is to be removed, and its role was not handed over to %s: %v", vol.Name, vol.Primary, to, err)
		}
		moved = true
	}
	return moved, nil
}

// awaitReplicas returns when all that are to go are out of the record; at the end of the time it says which are not. Those that come
// are not waited for, nor who stays until then: a resync may take hours.
func (n *Node) awaitReplicas(ctx context.Context, c *cluster.Configure) error {
	until := time.Now().Add(2 * n.conf().Timers.RTO)
	if d, ok := ctx.Deadline(); ok && d.Add(-modePatience).Before(until) {
		until = d.Add(-modePatience)
	}
	for {
		waiting := replicasLeave(n.state.get(), c.Replicas)
		if len(waiting) == 0 {
			return nil
		}
		if time.Now().After(until) {
			return api.Failed("the change is applied, and these replicas have not left yet: %s; nothing more is to be done than what `ha-admin status` shows", strings.Join(waiting, ", "))
		}
		select {
		case <-ctx.Done():
			return api.Unavailable("the change is applied, and not every replica that is removed has left yet: `ha-admin status` shows what it waits for")
		case <-time.After(configuredPause):
		}
	}
}

// replicasLeave are those of the change that are in the record still.
func replicasLeave(st *cluster.State, all []cluster.ChangeReplicas) (waiting []string) {
	for _, m := range all {
		v := st.Volumes[m.Name]
		for _, node := range m.Leave {
			if v.ID == m.ID && v.Leaves(node) && !v.AwaitsNext(node) {
				waiting = append(waiting, fmt.Sprintf("%s of volume %s", node, v.Name))
			}
		}
	}
	return waiting
}

// leavesFor says why a replica that is to go is there still.
func leavesFor(vol *cluster.Volume, node string) string {
	switch {
	case node == vol.Primary:
		return fmt.Sprintf("it is being removed, and is the primary: it leaves when `ha-admin failover %s` has handed the role over", vol.Name)
	case vol.IsHeld(node):
		return "it is being removed, and may hold acknowledged writes that the others lack: it leaves when its resync has kept them as a rescue image"
	case vol.AwaitsNext(node):
		return "it is being removed: it leaves when another replica is in sync, for it is the only other copy that is"
	case vol.IsMember(node):
		return "it is being removed: it leaves when its primary has had it dropped from the in-sync set"
	}
	return "it is being removed"
}
