package identity

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"hacluster/cmd/internal/identity/pki"
)

// dialer is a Transport of another node that expects node want at every address.
func dialer(t *testing.T, f pki.Folder, node, want string) *Transport {
	t.Helper()
	tr, err := New(Config{PKI: f.Path, Cluster: "shop", Node: node, NodeAt: func(string) (string, bool) { return want, want != "" }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tr.Close)
	return tr
}

// faults.md G41: TLS called in plain text and the reverse, by our own code.
func TestOneSideInsecure(t *testing.T) {
	ours := shop(t)
	secure := start(t, Config{PKI: ours.Path, Cluster: "shop", Node: "alpha"}, ProtoGRPC)
	open := start(t, Config{}, ProtoGRPC)
	if c, err := open.tr.Dial(t.Context(), secure.addr(), ProtoGRPC); err == nil {
		if works(c) == nil {
			t.Error("plain text was served")
		}
		c.Close()
	}
	if _, err := secure.tr.Dial(t.Context(), open.addr(), ProtoGRPC); err == nil || !strings.Contains(err.Error(), "does it run with --insecure?") {
		t.Errorf("TLS to a plain port: %v", err)
	}
	open.mux.Close()
	if !strings.Contains(open.log.String(), "TLS spoken to a node that runs with --insecure") {
		t.Errorf("not logged: %s", open.log)
	}
	f := secure.mux.Stats().Refusals
	secure.eventually(func() bool { f = secure.mux.Stats().Refusals; return f[reasonPlain] == 1 })
}

func TestProtocolsReachTheirListenersAndPeersAreKnown(t *testing.T) {
	ours := shop(t)
	f := start(t, Config{PKI: ours.Path, Cluster: "shop", Node: "alpha", KnownNode: knownNodes})
	tr := dialer(t, ours, "beta", "alpha")
	for _, p := range protos {
		c, err := tr.Dial(t.Context(), f.addr(), p)
		if err != nil {
			t.Fatal(err)
		}
		got, err := f.mux.Listener(p).Accept()
		if err != nil {
			t.Fatal(err)
		}
		if peer, ok := PeerOf(got); !ok || !peer.IsNode("beta") || peer.IsNode("alpha") {
			t.Errorf("%v: the caller is %+v, %v", p, peer, ok)
		}
		if peer, ok := PeerOf(c); !ok || !peer.IsNode("alpha") {
			t.Errorf("%v: who answered is %+v, %v", p, peer, ok)
		}
		got.Close()
		if !isClosed(c) {
			t.Errorf("%v: the other side does not see the end", p)
		}
		c.Close()
	}
	user, err := New(Config{PKI: ours.Path, User: "eve"})
	if err != nil {
		t.Fatal(err)
	}
	c, err := user.Dial(t.Context(), f.addr(), ProtoGRPC)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	got, err := f.mux.Listener(ProtoGRPC).Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer got.Close()
	if peer, ok := PeerOf(got); !ok || peer.IsNode("eve") || peer.Name != "eve" || peer.Role != pki.RoleViewer {
		t.Errorf("the user is %+v", peer)
	}
}

// TLS for block data behind a port that begins in plain text.
func TestNBDClientsNeedACertificateThatMayUseVolumes(t *testing.T) {
	ours := shop(t)
	f := start(t, Config{PKI: ours.Path, Cluster: "shop", Node: "alpha", KnownNode: knownNodes, Grace: 20 * time.Millisecond})
	ln, err := f.tr.ListenTCP("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	f.wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			f.wg.Go(func() {
				defer c.Close()
				tc := tls.Server(c, f.tr.NBDServer())
				buf := make([]byte, 64)
				for {
					n, err := tc.Read(buf)
					if err != nil {
						return
					}
					tc.Write(buf[:n])
				}
			})
		}
	})
	try := func(cert *tls.Certificate) (net.Conn, error) {
		c, err := tls.Dial("tcp", ln.Addr().String(), &tls.Config{InsecureSkipVerify: true,
			GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil }})
		if err != nil {
			return nil, err
		}
		t.Cleanup(func() { c.Close() })
		return c, works(c)
	}
	for name, c := range map[string]struct {
		cert *tls.Certificate
		fine bool
	}{
		"nobody": {&tls.Certificate{}, false}, "viewer": {keyPair(t, ours, "user-eve"), false}, "another cluster": {keyPair(t, folderOf(t, "shop"), "user-bob"), false},
		"unknown node": {forge(t, &ours, "spiffe://shop/node/delta", nil), false},
		"operator":     {keyPair(t, ours, "user-bob"), true}, "node": {keyPair(t, ours, "node-beta"), true},
	} {
		if _, err := try(c.cert); (err == nil) != c.fine {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n := f.mux.Stats().Refusals[reasonRole]; n != 1 {
		t.Errorf("%d refusals of a role", n)
	}
	c, err := try(keyPair(t, ours, "user-bob"))
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []pki.Step{pki.StepAdd, pki.StepUse, pki.StepRemove} {
		valid := pki.DefaultLeaf
		if step == pki.StepAdd {
			valid = pki.DefaultCA
		}
		if _, err := ours.RotateCA(step, valid); err != nil {
			t.Fatal(err)
		}
		if err := f.tr.Reload(); err != nil {
			t.Fatal(err)
		}
	}
	if !isClosed(c) {
		t.Error("a client of a removed authority stays")
	}
	ln.Close()
}

func TestWithoutTLSNobodyHasProvedAnything(t *testing.T) {
	f := start(t, Config{}, ProtoGRPC)
	if p, ok := PeerOf(f.dial(ProtoGRPC)); ok {
		t.Errorf("peer %+v", p)
	}
	if f.tr.NBDServer() != nil || f.tr.GossipKeys() != nil || f.tr.Expiries() != nil || f.tr.Reload() != nil || !f.tr.Expiry().IsZero() {
		t.Error("something of TLS without TLS")
	}
}

func TestDialEndsWithItsContext(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0") // accepts and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := dialer(t, shop(t), "alpha", "beta").Dial(ctx, ln.Addr().String(), ProtoRaft); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
}
