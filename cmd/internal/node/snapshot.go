package node

import (
	"time"

	"hacluster/blockdev"
	"hacluster/cmd/internal/control"
	"hacluster/cmd/internal/metrics"
	"hacluster/heartbeat"
	"hacluster/heartbeat/cluster"
	"hacluster/replication"
)

// snapshot is what a scrape of /metrics shows: all of it known here, nobody is asked.
func (n *Node) snapshot() metrics.Snapshot {
	st := n.state.get()
	s := metrics.Snapshot{Node: n.me.Name, Cluster: n.cfg.Cluster.Name, Version: n.Version, Ready: n.isReady(), Lease: n.lease.remaining(),
		ConfigVersion: st.ConfigVersion, Raft: n.raftFigures()}
	for _, v := range n.services.states() {
		s.Services = append(s.Services, metrics.Service{Name: v.Name, State: v.State})
	}
	n.fenceFigures(st, &s)
	n.linkFigures(&s)
	n.lineFigures(&s)
	n.portFigures(&s)
	n.certificateFigures(&s)
	local := map[string]*replication.Replica{}
	for _, r := range n.vols.replicas() {
		local[r.Volume().Name] = r
	}
	for _, name := range sortedKeys(st.Volumes) {
		vol := st.Volumes[name]
		v := clusterFigures(st, &vol)
		if r := local[name]; r != nil {
			f := r.Figures()
			v.Local = localFigures(&f, r.Report())
			for _, i := range r.RescueImages() {
				v.Local.RescueImages++
				v.Local.RescueBytes += i.File
			}
			v.Serving = servingFigures(r, &vol, n.vols.boundInForce(r))
			s.Queues = append(s.Queues,
				metrics.Queue{Name: "standby entries", Volume: name, Length: float64(f.Taken), Limit: replication.MaxTaken},
				metrics.Queue{Name: "standby bytes", Volume: name, Length: float64(f.TakenBytes), Limit: replication.MaxTakenBytes})
		}
		s.Volumes = append(s.Volumes, v)
	}
	return s
}

func (n *Node) isReady() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.ready
}

func (n *Node) raftFigures() *metrics.Raft {
	r := n.raftIfOpen()
	if r == nil {
		return nil
	}
	s := r.Stats()
	leads, term := r.State()
	leader, _ := r.Leader()
	out := &metrics.Raft{Leads: leads, LeaderKnown: leader != "", Term: term, LastIndex: s.LastIndex, CommitIndex: s.CommitIndex, AppliedIndex: s.AppliedIndex,
		Won: n.won.Load(), Commits: latencyOf(n.commits.Read())}
	if at := r.LastContact(); !leads && !at.IsZero() {
		out.LastContact = time.Since(at)
	}
	return out
}

func (n *Node) linkFigures(s *metrics.Snapshot) {
	if n.gossip == nil {
		return
	}
	c := n.gossip.Counters()
	s.Gossip = metrics.Gossip{Copies: c.Copies, Unsent: c.Unsent, Dropped: c.Dropped, Garbage: c.Garbage, Foreign: c.Foreign}
	type path struct{ peer, address string }
	at := map[path]heartbeat.Link{}
	for _, p := range n.gossipView() {
		for _, l := range p.Links {
			at[path{p.Name, l.Address}] = l
		}
	}
	for _, c := range n.gossip.LinkCounts() {
		l := at[path{c.Peer, c.Address}]
		s.Links = append(s.Links, metrics.Link{Peer: c.Peer, Address: c.Address, Up: l.State == heartbeat.Up, RTT: l.RTT,
			ProbesSent: c.Sent, ProbesLost: c.Sent - c.Answered})
	}
}

// portFigures are those of what others may open and fill.
func (n *Node) portFigures(s *metrics.Snapshot) {
	queue := func(name string, length, limit float64) {
		s.Queues = append(s.Queues, metrics.Queue{Name: name, Length: length, Limit: limit})
	}
	m := n.mux.Stats()
	s.HandshakeRefusals = m.Refusals
	queue("node handshakes", float64(m.Handshakes), float64(m.MaxHandshakes))
	queue("node connections", float64(m.Established), float64(m.MaxEstablished))
	if server := n.vols.server(); server != nil {
		c, limit := server.Stats(), server.Limits()
		s.NBD = metrics.NBD{Connections: c.Connections, BytesInFlight: c.BytesInFlight, Refused: c.Refused, Slow: c.Slow}
		queue("nbd connections", float64(c.Connections), float64(limit.MaxConnections))
		queue("nbd bytes", float64(c.BytesInFlight), float64(limit.MaxBytesInFlight))
	}
	if r := n.raftIfOpen(); r != nil {
		c := r.Stats()
		queue("raft calls", float64(c.Calls), float64(c.MaxCalls))
	}
	if l := n.currentLeading(); l != nil {
		queue("leader inbox", float64(len(l.inbox)), float64(cap(l.inbox)))
	}
	queue("lease requests", float64(n.lease.underWay()), maxFlying)
}

// certificateFigures shows each file once: of several CAs in one, the first to end.
func (n *Node) certificateFigures(s *metrics.Snapshot) {
	first := map[string]time.Time{}
	for _, e := range n.trans.Expiries() {
		if at, ok := first[e.File]; !ok || e.NotAfter.Before(at) {
			first[e.File] = e.NotAfter
		}
	}
	for _, file := range sortedKeys(first) {
		s.Certificates = append(s.Certificates, metrics.Certificate{Name: file, NotAfter: first[file]})
	}
}

func clusterFigures(st *cluster.State, vol *cluster.Volume) metrics.Volume {
	v := metrics.Volume{Name: vol.Name, Size: vol.Size, Epoch: uint64(vol.Epoch), Primary: vol.Primary, Drops: vol.Drops, Admissions: vol.Admissions,
		Promotions: map[string]uint64{}}
	for _, b := range cluster.Bases() {
		v.Promotions[string(b)] = vol.Promotions[b]
	}
	for _, r := range vol.Replicas {
		v.Replicas = append(v.Replicas, metrics.Replica{Node: r.Node, Member: vol.IsMember(r.Node)})
	}
	for i := len(st.Failovers) - 1; i >= 0 && v.LastFailover == nil; i-- {
		if f := st.Failovers[i]; f.Volume == vol.Name {
			v.LastFailover = failoverFigures(f)
		}
	}
	return v
}

func failoverFigures(f cluster.Failover) *metrics.Failover {
	out := &metrics.Failover{At: time.UnixMilli(f.AtMillis), RTO: millis(f.RTOMillis), Target: millis(f.TargetMillis), RPOBytes: f.RPOBytes, RPO: millis(f.RPOMillis), Stages: map[string]time.Duration{}}
	for _, s := range f.Stages {
		out.Stages[s.Name] = millis(s.Millis)
	}
	return out
}

func millis(n int64) time.Duration { return time.Duration(n) * time.Millisecond }

// The names of the stages that are timed.
var stageNames = map[replication.Stage]string{
	replication.StageRead: "read", replication.StageWrite: "write", replication.StageFlush: "flush",
	replication.StageLocalWrite: "local_write", replication.StageLocalFlush: "local_flush",
}

func localFigures(f *replication.Figures, r cluster.Report) *metrics.Local {
	l := &metrics.Local{Ops: map[string]uint64{}, Bytes: map[string]uint64{}, Errors: f.Errors, ChecksumErrors: f.ChecksumErrors, DiskErrors: f.DiskErrors, ReadRepairs: f.ReadRepairs,
		Verified: metrics.Verified(f.Verified), Failed: r.Failed || r.Problem != "", Stalled: r.Stalled, Inconsistent: r.Inconsistent, Stages: map[string]metrics.Latency{}, Acks: map[string]metrics.Latency{}, ReadsAt: map[string]metrics.Reads{}}
	for _, op := range []blockdev.Op{blockdev.OpRead, blockdev.OpWrite, blockdev.OpZero, blockdev.OpFlush} {
		l.Ops[op.String()] = f.Ops[op]
		if op != blockdev.OpFlush {
			l.Bytes[op.String()] = f.Bytes[op]
		}
	}
	for stage, name := range stageNames {
		l.Stages[name] = latencyOf(f.Stages[stage])
	}
	for peer, n := range f.ReadsAt {
		l.ReadsAt[peer] = metrics.Reads(n)
	}
	for peer, a := range f.Acks {
		l.Acks[peer] = latencyOf(a)
	}
	return l
}

func latencyOf(l replication.Latency) metrics.Latency {
	return metrics.Latency{Bounds: replication.BoundsSeconds(), Cumulative: l.Cumulative, Count: l.Count, SumSeconds: l.SumSeconds}
}

func servingFigures(r *replication.Replica, vol *cluster.Volume, bound *control.Bound) *metrics.Serving {
	s, ok := r.Serving()
	if !ok {
		return nil
	}
	out := &metrics.Serving{Suspended: s.Suspended}
	if bound != nil {
		out.Async = &metrics.Async{MaxLagBytes: bound.Bytes, MaxLag: millis(bound.Ms), SpoolBytes: s.Spool.Bytes, SpoolFailed: s.Spool.Reason != ""}
	}
	for _, p := range s.Peers {
		m := metrics.Peer{Node: p.Node, Connected: p.Connected, Resyncing: p.Resyncing, LagBytes: p.UnackedBytes, Lag: p.Lag}
		if a := out.Async; a != nil && p.Async {
			l := lagBehind(p)
			m.LagBytes, m.Lag = l.Bytes, p.Lag
			a.Slowed, a.Held = a.Slowed || l.Slowed, a.Held || l.Held
		}
		if p.Resyncing {
			m.ResyncTotal, m.ResyncDone, m.ResyncRate = p.TotalBytes, p.TotalBytes-p.RemainingBytes, p.RateBytesPerSec
		}
		switch {
		case p.Known && !p.Member:
			m.DirtyBytes = p.RemainingBytes
		case !p.Member:
			m.DirtyBytes = vol.Size // without a map every block counts as differing (R16)
		}
		out.Peers = append(out.Peers, m)
	}
	return out
}
