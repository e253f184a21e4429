package node

import (
	"slices"
	"strings"

	"hacluster/cmd/internal/control"
	"hacluster/heartbeat/cluster"
	"hacluster/replication"
)

// reports are what the replicas of this node say of themselves, in the order of their names.
func (v *volumes) reports() (all []cluster.Report) {
	for _, r := range v.replicas() {
		all = append(all, v.report(r))
	}
	slices.SortFunc(all, func(a, b cluster.Report) int { return strings.Compare(a.Volume, b.Volume) })
	return all
}

// leaseReports are those that a lease request brings: of volumes that this node leads, by an older process, whose end they prove (R10),
// or with a lag that a failover's record tells. What promotions rest on is asked for when it is needed (R25).
func (v *volumes) leaseReports() (all []cluster.Report) {
	for _, r := range v.asked() {
		if vol := r.Volume(); vol.Primary == v.n.me.Name && (vol.Process != v.n.dir.id.Start || vol.Mode == cluster.ModeAsync || vol.NextMode != "") {
			all = append(all, v.report(r))
		}
	}
	return all
}

func (v *volumes) leaseChanged() {
	for _, r := range v.replicas() {
		r.LeaseChanged()
	}
}

func (v *volumes) serving() (all []control.Serving) {
	for _, r := range v.replicas() {
		if s, ok := v.servingOf(r); ok {
			all = append(all, s)
		}
	}
	return all
}

func (v *volumes) servingOf(r *replication.Replica) (out control.Serving, ok bool) {
	bound := v.boundInForce(r)
	s, ok := r.Serving()
	if !ok {
		return out, false
	}
	out = control.Serving{Volume: s.Volume, Epoch: s.Epoch, Suspended: s.Suspended, ReadOps: s.ReadOps, WriteOps: s.WriteOps,
		ReadBytes: s.ReadBytes, WriteByte: s.WriteBytes, Bound: bound, ModeWaits: s.ModeWaits}
	if bound != nil {
		out.Spool = &control.Spool{Bytes: s.Spool.Bytes, Reason: s.Spool.Reason}
	}
	vol := r.Volume()
	for _, w := range vol.Windows() {
		if server := v.server(); server != nil {
			out.Clients += server.Clients(w.Name)
		}
		out.Device, out.DeviceReason = v.n.devices.shown(w.Name)
		if vol.IsGroup() {
			out.Parts = append(out.Parts, control.PartServing{Name: w.Name, Device: out.Device, DeviceReason: out.DeviceReason})
		}
	}
	for _, p := range s.Peers {
		peer := control.Peer{Node: p.Node, Connected: p.Connected, Resyncing: p.Resyncing,
			Known: p.Known, RemainingBytes: p.RemainingBytes, TotalBytes: p.TotalBytes, UnackedBytes: p.UnackedBytes, SettlingBytes: p.SettlingBytes, LagMs: p.Lag.Milliseconds(), RateBytesPerSec: p.RateBytesPerSec, ETAMs: p.ETA.Milliseconds(), Via: p.By, Reason: p.Reason, Blocked: p.Blocked, ReadOps: p.Reads.Ops, ReadBytes: p.Reads.Bytes}
		if bound != nil && p.Async {
			peer.Lag = lagBehind(p)
		}
		peer.Line = v.n.lineTo(p.Node)
		out.Peers = append(out.Peers, peer)
	}
	return out, true
}
