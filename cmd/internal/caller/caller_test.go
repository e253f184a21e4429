package caller

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"testing"

	"hacluster/cmd/internal/identity/pki"
)

func pair(t *testing.T, network, addr string) (server net.Conn) {
	t.Helper()
	ln, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	c, err := net.Dial(network, ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	s, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestTheKernelVouchesForTheLocalSocket(t *testing.T) {
	_, info, err := Credentials(false).ServerHandshake(pair(t, "unix", filepath.Join(t.TempDir(), "s")))
	if err != nil {
		t.Fatal(err)
	}
	w := info.(Who)
	if _, any := w.Node(); w.uid != uint32(os.Geteuid()) || w.Role() != pki.RoleAdmin || any {
		t.Errorf("%+v", w)
	}
}

func TestPlainTextProvesSomethingWithConsentOnly(t *testing.T) {
	c := pair(t, "tcp", "127.0.0.1:0")
	if _, _, err := Credentials(false).ServerHandshake(c); err == nil {
		t.Error("plain text was taken where TLS is demanded")
	}
	_, info, err := Credentials(true).ServerHandshake(c)
	if err != nil {
		t.Fatal(err)
	}
	if _, any := info.(Who).Node(); !any || info.(Who).Role() != pki.RoleAdmin {
		t.Errorf("%+v", info)
	}
}

func TestNobodyMayDoNothing(t *testing.T) {
	w := Of(context.Background())
	if name, any := w.Node(); name != "" || any || w.Role().Covers(pki.RoleViewer) {
		t.Errorf("%+v", w)
	}
}
