package node

import (
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hacluster/cmd/internal/config"
	"hacluster/cmd/internal/identity/pki"
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
