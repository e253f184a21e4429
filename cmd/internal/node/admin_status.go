package node

import (
	"context"
	"slices"
	"sync"
	"time"

	"hacluster/cmd/internal/api"
	"hacluster/cmd/internal/control"
	"hacluster/heartbeat"
	"hacluster/heartbeat/cluster"
	"hacluster/heartbeat/failover"
)

// view is what a status is made of: the cluster's state, and what each node says of itself.
type view struct {
	state  *cluster.State
	quorum bool
	leader string
	voters map[string]bool // Raft ids
	local  map[string]*control.LocalReply
	bounds map[string]*control.Bound // of volumes, as the node that looks has them configured
	sites  failover.Sites            // likewise
}

// localTime bounds the wait for one node's own part of a status.
const localTime = 500 * time.Millisecond

// look gathers a view: linearizable with quorum (the leader answers behind a barrier), what is known here without.
func (n *Node) look(ctx context.Context) view {
	v := view{state: n.state.get(), leader: n.leaderName(), voters: map[string]bool{}, local: map[string]*control.LocalReply{}, bounds: map[string]*control.Bound{}, sites: sitesOf(n.conf())}
	for _, c := range n.conf().Mirrors() {
		v.bounds[c.Name] = boundFrom(c.Async)
	}
	if reply, err := n.leaderState(ctx); err == nil {
		if st, err := cluster.Decode(reply.State); err == nil {
			v.state, v.quorum = st, true
			for _, id := range reply.Voters {
				v.voters[id] = true
			}
		}
	} else if r := n.raftIfOpen(); r != nil {
		servers, _ := r.Servers()
		for _, s := range servers {
			v.voters[s.ID] = s.Voter
		}
	}
	if !v.quorum && v.state.ID == "" && n.known != nil {
		v.state = n.known
	}
	var mu sync.Mutex
	var goes sync.WaitGroup
	for _, c := range n.cfg.Nodes {
		goes.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, localTime)
			defer cancel()
			if l, err := n.localOf(ctx, c.Name); err == nil {
				mu.Lock()
				v.local[c.Name] = l
				mu.Unlock()
			}
		})
	}
	goes.Wait()
	return v
}

// lookAgain asks a node that did not answer once more: it may have been started just now, and the connection to it
// waits before it is tried anew. An operator named it, so an answer is worth some patience.
func (n *Node) lookAgain(ctx context.Context, v *view, name string) {
	if name == "" || v.local[name] != nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	for {
		try, cancel := context.WithTimeout(ctx, localTime)
		l, err := n.localOf(try, name)
		cancel()
		if err == nil {
			v.local[name] = l
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (n *Node) leaderState(ctx context.Context) (*control.StateReply, error) {
	ctx, cancel := context.WithTimeout(ctx, n.conf().Timers.RTO)
	defer cancel()
	leader := n.leaderName()
	switch leader {
	case "":
		return nil, errNoLeader
	case n.me.Name:
		return n.State(ctx, &control.State{})
	}
	client, err := n.peers.control(leader)
	if err != nil {
		return nil, err
	}
	return client.State(ctx, &control.State{})
}

func (n *Node) localOf(ctx context.Context, name string) (*control.LocalReply, error) {
	if name == n.me.Name {
		return n.Local(ctx, &control.Local{})
	}
	client, err := n.peers.control(name)
	if err != nil {
		return nil, err
	}
	return client.Local(ctx, &control.Local{})
}

// Status implements api.StatusReader.
func (n *Node) Status(ctx context.Context, volume string) (*api.Status, error) {
	v := n.look(ctx)
	st := v.state
	of := st.Mirrored(volume)
	if _, ok := st.Volumes[of]; volume != "" && !ok {
		return nil, api.Failed("volume %q does not exist: `ha-admin volume list` shows those that do", volume)
	}
	s := &api.Status{Cluster: n.cfg.Cluster.Name, Quorum: v.quorum, Leader: v.leader, ConfigVersion: st.ConfigVersion, Maintenance: st.Maintenance, Fencing: st.Fencing}
	for _, c := range n.cfg.Nodes {
		s.Nodes = append(s.Nodes, n.nodeStatus(&v, c.Name))
	}
	for _, name := range sortedKeys(st.Volumes) {
		if volume == "" || of == name {
			vol := st.Volumes[name]
			vs := v.volume(&vol)
			vs.VerifyNext = n.verifyNext(name)
			s.Volumes = append(s.Volumes, v.asKnown(&vol, vs, volume)...)
		}
	}
	for _, c := range n.conf().Services {
		if volume == "" || st.Mirrored(c.Volumes[0]) == of {
			s.Services = append(s.Services, v.serviceStatus(c))
		}
	}
	if i := len(st.Failovers); i > 0 {
		f := failoverOf(st.Failovers[i-1])
		s.LastFailover = &f
	}
	return s, nil
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func (n *Node) nodeStatus(v *view, name string) api.NodeStatus {
	c, _ := n.cfg.Node(name)
	rec := v.state.Nodes[name]
	out := api.NodeStatus{Name: name, Role: string(c.Role), Site: c.Site, Drained: rec.Drained, State: "unknown", Voter: v.voters[rec.RaftID] && rec.RaftID != "",
		ConfigDiffers: rec.Config != "" && rec.Config != v.state.ConfigHash}
	out.Fence = n.fenceStatus(v, name)
	l := v.local[name]
	if l != nil {
		out.State, out.LeaseMs, out.ConfigDiffers = "alive", l.LeaseMs, l.File != v.state.ConfigHash
	}
	if rec.Name == "" && v.state.ID != "" {
		out.State = "removed"
	}
	for _, p := range n.gossipView() {
		if p.Name != name {
			continue
		}
		if l == nil && out.State == "unknown" {
			out.State = p.State.String()
			if p.State == heartbeat.Alive {
				out.State = "suspect" // its links answer, its control port does not
			}
		}
		for _, k := range p.Links {
			out.Links = append(out.Links, api.LinkStatus{Address: k.Address, State: k.State.String(), RTTMs: float64(k.RTT.Microseconds()) / 1000})
		}
	}
	if name == n.me.Name {
		for _, k := range c.Links {
			out.Links = append(out.Links, api.LinkStatus{Address: k, State: "up"})
		}
	}
	return out
}

func (n *Node) gossipView() []heartbeat.Peer {
	if n.gossip == nil {
		return nil
	}
	return n.gossip.Snapshot()
}

// serving is what the primary of the volume says of it, nil when nobody serves it in its epoch.
func (v *view) serving(vol *cluster.Volume) *control.Serving {
	if l := v.local[vol.Primary]; l != nil {
		for i := range l.Serving {
			if s := &l.Serving[i]; s.Volume == vol.Name && s.Epoch == vol.Epoch {
				return s
			}
		}
	}
	return nil
}

func (v *view) report(node, volume string) *cluster.Report {
	if l := v.local[node]; l != nil {
		for i := range l.Reports {
			if l.Reports[i].Volume == volume {
				return &l.Reports[i]
			}
		}
	}
	return nil
}

func (v *view) volume(vol *cluster.Volume) api.VolumeStatus {
	out := api.VolumeStatus{Name: vol.Name, Size: vol.Size, Mode: vol.Mode, Epoch: uint64(vol.Epoch), Primary: vol.Primary, InSync: vol.MemberNames()}
	s := v.serving(vol)
	for _, r := range vol.Replicas {
		rs := v.replica(vol, s, r.Node)
		out.Replicas = append(out.Replicas, rs)
		if rep := v.report(r.Node, vol.Name); r.Node != vol.Primary && vol.IsMember(r.Node) && rep != nil && rep.Usable() &&
			vol.Unchanged(r.Node, rep) {
			out.Promotable = append(out.Promotable, r.Node)
		}
	}
	out.State = stateOf(vol, s, out.Replicas, v.quorum)
	out.Reason = v.reason(vol, &out)
	if vol.Next != 0 {
		out.NextSize, out.NextSizeWaitsFor = vol.Next, sizeWaitsFor(vol, out.Promotable)
	}
	if vol.NextMode != "" {
		out.NextMode, out.NextModeWaitsFor = vol.ModesToBeText(), modeWaitsFor(vol, s)
	}
	out.Verify = v.verifyOf(vol)
	out.Async = v.async(vol, out.Promotable)
	if s != nil {
		out.Device, out.DeviceReason = s.Device, s.DeviceReason
		out.IO = api.IOStatus{ReadOps: s.ReadOps, WriteOps: s.WriteOps, ReadBytes: s.ReadBytes, WriteBytes: s.WriteByte, Suspended: s.Suspended}
	}
	return out
}

func stateOf(vol *cluster.Volume, s *control.Serving, replicas []api.ReplicaStatus, quorum bool) string {
	resyncing, healthy := false, true
	for _, r := range replicas {
		resyncing = resyncing || r.State == api.ReplicaResyncing
		healthy = healthy && r.State == api.ReplicaInSync
	}
	switch {
	case s == nil:
		return api.VolumeUnavailable
	case s.Suspended || !quorum:
		return api.VolumeSuspended
	case resyncing:
		return api.VolumeResyncing
	case !healthy:
		return api.VolumeDegraded
	}
	return api.VolumeHealthy
}

func (v *view) replica(vol *cluster.Volume, s *control.Serving, node string) api.ReplicaStatus {
	out := api.ReplicaStatus{Node: node, Role: api.RoleStandby, State: api.ReplicaInSync, Mode: vol.ModeOf(node)}
	rep := v.report(node, vol.Name)
	if node == vol.Primary {
		out.Role = api.RolePrimary
	}
	peer := v.peer(vol, node)
	switch {
	case rep == nil:
		out.State = api.ReplicaOffline
	case rep.Problem != "" || rep.Failed || rep.Stalled:
		out.State = api.ReplicaFailed
	case peer != nil && peer.Resyncing:
		out.State = api.ReplicaResyncing
	case rep.Inconsistent && rep.Point == nil:
		out.State = api.ReplicaInconsistent
	case !vol.IsMember(node):
		out.State = api.ReplicaOutOfSync
	}
	out.ByHand = v.byWord(vol, node)
	out.Point = v.point(vol, node)
	out.Reason = replicaReason(vol, node, out.State, rep, peer)
	for _, i := range v.rescued(vol.Name, node) {
		if out.Rescue == nil {
			out.Rescue = &api.RescueStatus{}
		}
		out.Rescue.Images++
		out.Rescue.Bytes += i.Image.File
	}
	if peer != nil {
		out.LagBytes, out.LagMs = peer.UnackedBytes, peer.LagMs
		if l := peer.Lag; l != nil {
			out.LagBytes, out.LagMs = l.Bytes, l.Ms
		}
		out.SettlingBytes, out.Via = peer.SettlingBytes, peer.Via
		out.ReadOps, out.ReadBytes = peer.ReadOps, peer.ReadBytes
		if l := peer.Line; l != nil {
			out.Line = &api.LineStatus{RateBytesPerSec: l.RateBytesPerSec, PlainBytes: l.PlainBytes, SentBytes: l.SentBytes, WaitedMs: l.WaitedMs}
		}
	}
	if !vol.IsMember(node) {
		out.DirtyBytes = dirtyBytes(vol, peer)
		if peer != nil && peer.Resyncing {
			out.Resync = resyncOf(vol, peer)
		}
	}
	return out
}

// peer is how the primary sees another node's replica; nil: there is no primary, or it is that one.
func (v *view) peer(vol *cluster.Volume, node string) *control.Peer {
	if s := v.serving(vol); s != nil {
		for i := range s.Peers {
			if s.Peers[i].Node == node {
				return &s.Peers[i]
			}
		}
	}
	return nil
}

// dirtyBytes is what a resync of a replica that is no member has to look at: without a map every block (R16).
func dirtyBytes(vol *cluster.Volume, p *control.Peer) int64 {
	if p != nil && p.Known {
		return p.RemainingBytes
	}
	return vol.Size
}

func resyncOf(vol *cluster.Volume, p *control.Peer) *api.ResyncStatus {
	r := &api.ResyncStatus{Source: vol.Primary, DoneBytes: p.TotalBytes - p.RemainingBytes, TotalBytes: p.TotalBytes, RateBytesPerSec: p.RateBytesPerSec}
	if p.ETAMs >= 0 {
		eta := (p.ETAMs + 999) / 1000
		r.ETASeconds = &eta
	}
	return r
}

func failoverOf(f cluster.Failover) api.Failover {
	out := api.Failover{Volume: f.Volume, From: f.From, To: f.To, Reason: f.Reason, Epoch: uint64(f.Epoch), At: time.UnixMilli(f.AtMillis),
		RTOMs: f.RTOMillis, RTOTargetMs: f.TargetMillis, RPOBytes: f.RPOBytes, RPOMs: f.RPOMillis}
	if l := f.Lag; l != nil {
		out.Lag = &api.FailoverLag{Bytes: l.Bytes, Ms: l.Ms, AgeMs: f.LagAgeMillis}
	}
	for _, s := range f.Stages {
		out.Stages = append(out.Stages, api.Stage{Name: s.Name, Ms: s.Millis})
	}
	return out
}
