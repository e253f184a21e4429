package node

import (
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"hacluster/cmd/internal/config"
	"hacluster/cmd/internal/control"
	"hacluster/cmd/internal/identity/pki"
	"hacluster/heartbeat/cluster"
)

func TestEachCertificateIsWarnedOfOnceAtEachDistance(t *testing.T) {
	f := pki.Folder{Path: filepath.Join(t.TempDir(), "pki")}
	if err := errors.Join(f.Init("shop", pki.DefaultCA), f.Node("alpha", nil, 100*24*time.Hour)); err != nil {
		t.Fatal(err)
	}
	cfg := &config.Config{PKI: f.Path, Self: "alpha", Cluster: config.Cluster{Name: "shop"}}
	trans, err := newTransport(cfg, cfg, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	n := &Node{cfg: cfg, trans: trans, log: slog.New(slog.DiscardHandler), events: newJournal("alpha", 100)}
	told, end := map[string]time.Duration{}, trans.Expiry()
	for i, c := range []struct {
		daysLeft float64
		events   int
	}{{90, 0}, {29, 1}, {28, 1}, {6, 2}, {0.9, 3}, {0.5, 3}, {-1, 3}} {
		n.warnOfExpiry(end.Add(-time.Duration(c.daysLeft*24)*time.Hour), told)
		if got := len(n.events.events); got != c.events {
			t.Fatalf("step %d, %v days left: %d events, want %d", i, c.daysLeft, got, c.events)
		}
	}
	if e := n.events.events[0]; e.Kind != "certificate ends" || !strings.Contains(e.Text, "node-alpha.crt") || !strings.Contains(e.Text, "ha-admin pki rotate") {
		t.Errorf("%+v", e)
	}
}

// R10: a promotion, or a first set that nobody asked for, comes from the leader's own decision alone. What others send is
// refused before the leader looks at it, whatever their certificates.
func TestDecisionsOfTheLeaderAreTakenFromNobody(t *testing.T) {
	cfg := &config.Config{Insecure: true, Self: "alpha", Cluster: config.Cluster{Name: "shop"}}
	trans, err := newTransport(cfg, cfg, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	n := &Node{cfg: cfg, trans: trans, log: slog.New(slog.DiscardHandler)} // does not lead: what is taken, it cannot do
	on := cluster.On{Volume: "v", Epoch: 1, Version: 3}
	for name, c := range map[string]struct {
		command cluster.Command
		want    codes.Code
	}{
		"promotion":             {cluster.Command{Promote: &cluster.Promote{On: on, Term: 2, Candidate: "beta"}}, codes.PermissionDenied},
		"first set":             {cluster.Command{Form: &cluster.Form{On: on}}, codes.PermissionDenied},
		"founding":              {cluster.Command{Init: &cluster.Init{ID: "x"}}, codes.PermissionDenied},
		"leases settled":        {cluster.Command{SettleLeases: &cluster.SettleLeases{}}, codes.PermissionDenied},
		"record of a failover":  {cluster.Command{Failover: &cluster.Failover{}}, codes.PermissionDenied},
		"promotion in a drop":   {cluster.Command{Promote: &cluster.Promote{On: on}, Drop: &cluster.Drop{On: on, Node: "beta"}}, codes.PermissionDenied},
		"another node's start":  {cluster.Command{StartNode: &cluster.StartNode{Node: "gamma"}}, codes.PermissionDenied},
		"promotion in a batch":  {cluster.Command{Batch: []cluster.Command{{Drop: &cluster.Drop{On: on, Node: "beta"}}, {Promote: &cluster.Promote{On: on}}}}, codes.PermissionDenied},
		"another's in a batch":  {cluster.Command{By: "beta", Batch: []cluster.Command{{By: "gamma", Drop: &cluster.Drop{On: on, Node: "beta"}}}}, codes.PermissionDenied},
		"removal in a batch":    {cluster.Command{Batch: []cluster.Command{{RemoveNode: &cluster.RemoveNode{Node: "beta"}}}}, codes.PermissionDenied},
		"batch in a batch":      {cluster.Command{Batch: []cluster.Command{{Batch: []cluster.Command{{Promote: &cluster.Promote{On: on}}}}}}, codes.PermissionDenied},
		"drops in a batch":      {cluster.Command{Batch: []cluster.Command{{Drop: &cluster.Drop{On: on}}, {Drop: &cluster.Drop{On: on}}}}, codes.Unavailable},
		"drop":                  {cluster.Command{Drop: &cluster.Drop{On: on, Node: "beta"}}, codes.Unavailable},
		"admission":             {cluster.Command{Admit: &cluster.Admit{On: on, Node: "beta"}}, codes.Unavailable},
		"first set by a person": {cluster.Command{Form: &cluster.Form{On: on, InitialFrom: "beta"}}, codes.Unavailable},
	} {
		_, err := n.Propose(t.Context(), &control.Propose{Command: c.command.Encode()})
		if got := status.Code(err); got != c.want {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

// A person's word that a node is off may come by way of any node; what the agents say is the leader's alone.
func TestOnlyThePersonsWordOfFencingIsPassedOn(t *testing.T) {
	for _, word := range []cluster.FenceWord{cluster.FenceBegun, cluster.FenceOff, cluster.FenceFailed, cluster.FenceEnded, cluster.FenceConfirmed, cluster.FenceRefuted} {
		if got := othersPropose(cluster.Command{By: "a", FenceNode: &cluster.FenceNode{Node: "b", Word: word}}); got != (word == cluster.FenceConfirmed) {
			t.Errorf("%s: %t", word, got)
		}
	}
}
