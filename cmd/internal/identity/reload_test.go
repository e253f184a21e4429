package identity

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hacluster/cmd/internal/identity/pki"
)

func TestReloadTakesNewCertificatesAndKeepsConnections(t *testing.T) {
	ours := shop(t)
	f := start(t, Config{PKI: ours.Path, Cluster: "shop", Node: "alpha", Grace: time.Hour}, ProtoGRPC)
	tr := dialer(t, ours, "beta", "alpha")
	call := func() net.Conn {
		t.Helper()
		c, err := tr.Dial(t.Context(), f.addr(), ProtoGRPC)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		if err := works(c); err != nil {
			t.Fatal(err)
		}
		return c
	}
	old := call()
	for _, step := range []pki.Step{pki.StepAdd, pki.StepUse, pki.StepRemove} {
		valid := pki.DefaultLeaf
		if step == pki.StepAdd {
			valid = pki.DefaultCA
		}
		if _, err := ours.RotateCA(step, valid); err != nil {
			t.Fatal(err)
		}
		// One side first, and a call between sides of which only one has taken the step.
		if err := f.tr.Reload(); err != nil {
			t.Fatal(err)
		}
		call()
		if err := tr.Reload(); err != nil {
			t.Fatal(err)
		}
		call()
		if err := works(old); err != nil {
			t.Errorf("step %s ended a connection: %v", step, err)
		}
	}
	if !strings.Contains(f.log.String(), "will be closed") {
		t.Errorf("the coming end of old connections is not announced: %s", f.log)
	}
}

func TestConnectionsOfARemovedAuthorityEndAfterTheGraceOthersStay(t *testing.T) {
	ours := shop(t)
	f := start(t, Config{PKI: ours.Path, Cluster: "shop", Node: "alpha", Grace: 50 * time.Millisecond}, ProtoGRPC)
	tr := dialer(t, ours, "beta", "alpha")
	dial := func() net.Conn {
		c, err := tr.Dial(t.Context(), f.addr(), ProtoGRPC)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		if err := works(c); err != nil {
			t.Fatal(err)
		}
		return c
	}
	old := dial()
	var young net.Conn
	for _, step := range []pki.Step{pki.StepAdd, pki.StepUse, pki.StepRemove} {
		valid := map[pki.Step]time.Duration{pki.StepAdd: pki.DefaultCA}[step]
		if valid == 0 {
			valid = pki.DefaultLeaf
		}
		if _, err := ours.RotateCA(step, valid); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(tr.Reload(), f.tr.Reload()); err != nil {
			t.Fatal(err)
		}
		if step == pki.StepUse {
			young = dial()
		}
	}
	if !isClosed(old) {
		t.Error("a connection of a removed authority stays")
	}
	if err := works(young); err != nil {
		t.Errorf("a connection of the new authority was closed: %v", err)
	}
}

func TestReloadOfBadFilesChangesNothing(t *testing.T) {
	ours := shop(t)
	f := start(t, Config{PKI: ours.Path, Cluster: "shop", Node: "alpha"}, ProtoGRPC)
	tr := dialer(t, ours, "beta", "alpha")
	keys := fmt.Sprint(f.tr.GossipKeys())
	if err := os.WriteFile(filepath.Join(ours.Path, "gossip.key"), []byte("nonsense\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := f.tr.Reload(); err == nil || !strings.Contains(err.Error(), "gossip.key:1") {
		t.Fatalf("taken: %v", err)
	}
	c, err := tr.Dial(t.Context(), f.addr(), ProtoGRPC)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := works(c); err != nil || fmt.Sprint(f.tr.GossipKeys()) != keys {
		t.Errorf("after a refused reload: %v", err)
	}
}
