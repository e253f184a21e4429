package nbd_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hacluster/blockdev/frontend/nbd"
	"hacluster/blockdev/frontend/nbd/nbdclient"
	"hacluster/blockdev/frontend/nbd/nbdproto"
)

// certificate makes a self-signed server certificate and the configurations of both sides.
func certificate(t *testing.T) (server, client *tls.Config) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "nbd test"}, DNSNames: []string{"nbd.test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	server = &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	return server, &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: pool, ServerName: "nbd.test"}
}

// farListener pretends that its connections came to an address which other machines reach.
type farListener struct{ net.Listener }

func (l farListener) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return farConn{nc}, nil
}

type farConn struct{ net.Conn }

func (farConn) LocalAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 10809} }

func newFarRig(t *testing.T, cfg nbd.Config) *rig {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "nbd.sock"))
	if err != nil {
		t.Fatal(err)
	}
	dev, e := memExport()
	return newRigOver(t, cfg, dev, e, farListener{l})
}

func TestStartTLSCarriesEverything(t *testing.T) {
	server, client := certificate(t)
	r := newFarRig(t, nbd.Config{TLS: server})
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	uri := strings.Replace(r.uri("vol"), "nbd+unix", "nbds+unix", 1)
	c, err := nbdclient.Config{TLS: client}.Dial(ctx, uri)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	p := pattern(5<<20, 4)
	if _, err := c.WriteAt(p, 77); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(p))
	if _, err := c.ReadAt(got, 77); err != nil || !bytes.Equal(got, p) {
		t.Fatalf("read back differs (%v)", err)
	}
	if _, err := c.BlockStatus(rangeOf(0, testSize)); err != nil {
		t.Fatal(err)
	}
	_, stranger := certificate(t)
	if _, err := (nbdclient.Config{TLS: stranger}).Dial(ctx, uri); err == nil {
		t.Fatal("a client that trusts another certificate got through")
	}
}

func TestPlainTextIsRefusedWhereTLSIsDemanded(t *testing.T) {
	server, _ := certificate(t)
	for name, cfg := range map[string]nbd.Config{"with certificate": {TLS: server}, "without": {}} {
		t.Run(name, func(t *testing.T) {
			r := newFarRig(t, cfg)
			w := r.greeted()
			for _, o := range []nbdproto.Option{nbdproto.OptList, nbdproto.OptInfo, nbdproto.OptGo, nbdproto.OptStructuredReply} {
				w.option(o, goData("vol"))
				w.want(nbdproto.RepErrTLSReqd)
			}
			w.option(nbdproto.OptExportName, []byte("vol"))
			if b := w.wantClosed(); len(b) != 0 {
				t.Fatal("EXPORT_NAME was answered")
			}
		})
	}
}

func TestStartTLSForgetsWhatWasSaidBefore(t *testing.T) {
	server, client := certificate(t)
	r := newRig(t, nbd.Config{TLS: server})
	w := r.greeted()
	w.option(nbdproto.OptStructuredReply, nil)
	w.want(nbdproto.RepAck)
	w.option(nbdproto.OptStartTLS, []byte("x"))
	w.want(nbdproto.RepErrInvalid)
	w.option(nbdproto.OptStartTLS, nil)
	w.want(nbdproto.RepAck)
	tc := tls.Client(w.nc, client)
	if err := tc.Handshake(); err != nil {
		t.Fatal(err)
	}
	w.nc = tc
	w.option(nbdproto.OptStartTLS, nil)
	w.want(nbdproto.RepErrInvalid)
	w.mustGo("vol")
	w.write(req(nbdproto.CmdRead, 0, 1, 0, 512))
	w.wantErrno(nbdproto.OK, 1) // a simple reply: the agreement made in plain text is void
	w.read(512)
}

func TestPlainBytesBehindStartTLSHangUp(t *testing.T) {
	server, _ := certificate(t)
	w := newRig(t, nbd.Config{TLS: server}).greeted()
	b := nbdproto.AppendOption(nil, nbdproto.OptStartTLS, nil)
	w.write(nbdproto.AppendOption(b, nbdproto.OptGo, goData("vol"))) // injected by somebody in between
	if out := w.wantClosed(); len(out) != 0 {
		t.Fatalf("answered %x", out)
	}
}

func TestTLSHandshakeHasTheSameTimeLimit(t *testing.T) {
	server, _ := certificate(t)
	r := newRig(t, nbd.Config{TLS: server, HandshakeTimeout: 200 * time.Millisecond})
	w := r.greeted()
	w.option(nbdproto.OptStartTLS, nil)
	w.want(nbdproto.RepAck)
	w.wantClosed() // without a ClientHello
}

func TestN38OverTLS(t *testing.T) {
	server, client := certificate(t)
	r := newRig(t, nbd.Config{TLS: server})
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, err := nbdclient.Config{TLS: client}.Dial(ctx, strings.Replace(r.uri("vol"), "nbd+unix", "nbds+unix", 1))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	r.export.Suspend()
	k := c.Start(clientOp(nbdproto.CmdFlush, 0, 0, 0))
	r.export.Move()
	<-c.Lost()
	if err := k.Wait(); err == nil {
		t.Fatal("answered after the role moved")
	}
}
