package node

import (
	"context"

	"hacluster/blockdev"
	"hacluster/blockdev/frontend/attach"
	"hacluster/blockdev/frontend/nbd"
	"hacluster/replication"
	"hacluster/replication/link"
	"hacluster/replication/wire"
)

// Replicate implements link.Handler.
func (v *volumes) Replicate(ctx context.Context, s *link.Session) error {
	h := s.Hello()
	if no := v.sameSender(s); no != nil {
		return s.Reply(*no)
	}
	r := v.replica(h.VolumeName)
	if r == nil {
		return s.Reply(wire.HelloReply{Code: wire.RefusedRole, Node: v.n.me.Name, Text: "no replica of this volume is open here"})
	}
	return r.Replicate(ctx, s)
}

// Lookup implements nbd.Exports.
func (v *volumes) Lookup(name string) (nbd.Export, error) {
	vol, w, _ := v.n.state.get().Window(name)
	if _, ok := v.n.conf().Volume(name); !ok && vol.Name == "" {
		return nil, nbd.ErrUnknownExport // one of the file is known before the cluster is
	}
	if r := v.replica(vol.Name); r != nil && r.Volume().ID == vol.ID { // not of one that had the name before, with other windows
		if t := r.Tenure(); t != nil {
			if vol.IsGroup() {
				return windowed(t, &vol, w), nil
			}
			if t.Epoch() != vol.Epoch { // who holds requests learns of the epoch by its next connection
				return t.Export(), nil
			}
			return described{t.Export(), attach.Tenure{ID: vol.ID, Epoch: uint64(vol.Epoch), Since: uint64(vol.Since)}}, nil
		}
	}
	primary := vol.Primary
	if primary == v.n.me.Name {
		primary = "" // promoted, not serving yet
	}
	return nil, &nbd.NotPrimaryError{Volume: name, Primary: primary}
}

// Names implements nbd.Exports.
func (v *volumes) Names() (names []string) {
	for _, r := range v.replicas() {
		if r.Tenure() != nil {
			vol := r.Volume()
			for _, w := range vol.Windows() {
				names = append(names, w.Name)
			}
		}
	}
	return names
}

// described is an export that says in which epoch it is one.
type described struct {
	*replication.Export
	tenure attach.Tenure
}

// Describe implements nbd.Describer.
func (d described) Describe() string { return d.tenure.String() }

var (
	_ nbd.Describer   = described{}
	_ nbd.Export      = window{}
	_ nbd.TryGater    = window{}
	_ nbd.Gatherer    = window{}
	_ nbd.FastZeroer  = window{}
	_ nbd.TryGater    = described{}
	_ nbd.Gatherer    = described{}
	_ nbd.Exports     = (*volumes)(nil)
	_ nbd.Export      = (*replication.Export)(nil)
	_ nbd.TryGater    = (*replication.Export)(nil)
	_ nbd.Gatherer    = (*replication.Export)(nil)
	_ link.Handler    = (*volumes)(nil)
	_ blockdev.Device = replication.Backing(nil)
)
