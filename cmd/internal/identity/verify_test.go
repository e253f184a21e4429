package identity

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net/url"
	"strings"
	"testing"
	"time"

	"hacluster/cmd/internal/identity/pki"
)

// stranger dials with any certificate and offer; it gives what came of the first answer.
func (f *fixture) stranger(cert *tls.Certificate, change func(*tls.Config)) error {
	cfg := &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12, NextProtos: []string{alpn[ProtoGRPC]},
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			if cert == nil {
				return &tls.Certificate{}, nil
			}
			return cert, nil
		}}
	if change != nil {
		change(cfg)
	}
	c := f.raw()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	tc := tls.Client(c, cfg)
	if err := tc.Handshake(); err != nil {
		return err
	}
	return works(tc)
}

// faults.md G40, G41, G54, G55: everything that is not exactly as it should be.
func TestStrangersAreRefusedAndCountedByReason(t *testing.T) {
	ours, bank := shop(t), folderOf(t, "bank")
	twin := folderOf(t, "shop") // another cluster that has the same name
	raft := func(c *tls.Config) { c.NextProtos = []string{alpn[ProtoRaft]} }
	cases := map[string]struct {
		cert   *tls.Certificate
		change func(*tls.Config)
		reason string
	}{
		"no certificate":        {nil, nil, reasonHandshake},
		"self-signed":           {forge(t, nil, "spiffe://shop/node/alpha", nil), nil, reasonUntrusted},
		"another cluster":       {keyPair(t, bank, "node-alpha"), nil, reasonUntrusted},
		"its twin":              {keyPair(t, twin, "node-alpha"), nil, reasonUntrusted},
		"our CA, other cluster": {forge(t, &ours, "spiffe://bank/node/alpha", nil), nil, reasonCluster},
		"expired":               {forge(t, &ours, "spiffe://shop/node/beta", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Second) }), nil, reasonTime},
		"not valid yet": {forge(t, &ours, "spiffe://shop/node/beta", func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = time.Now().Add(time.Hour), time.Now().Add(2*time.Hour)
		}), nil, reasonTime},
		"for servers only": {forge(t, &ours, "spiffe://shop/node/beta", func(c *x509.Certificate) {
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		}), nil, reasonUntrusted},
		"signed by a node":       {chained(t, ours), nil, reasonUntrusted},
		"names nobody":           {forge(t, &ours, "spiffe://shop/moon/alpha", nil), nil, reasonNames},
		"unknown role":           {forge(t, &ours, "spiffe://shop/user/bob/root", nil), nil, reasonNames},
		"node not in the file":   {forge(t, &ours, "spiffe://shop/node/delta", nil), nil, reasonUnknown},
		"user speaks Raft":       {keyPair(t, ours, "user-bob"), raft, reasonNotNode},
		"user speaks block data": {keyPair(t, ours, "user-bob"), func(c *tls.Config) { c.NextProtos = []string{"ha-data"} }, reasonNotNode},
		"TLS 1.2":                {keyPair(t, ours, "node-beta"), func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }, reasonHandshake},
		"another protocol":       {keyPair(t, ours, "node-beta"), func(c *tls.Config) { c.NextProtos = []string{"http/1.1"} }, reasonALPN},
		"a foreign protocol":     {keyPair(t, ours, "node-beta"), func(c *tls.Config) { c.NextProtos = []string{"imap"} }, reasonHandshake},
		"no protocol":            {keyPair(t, ours, "node-beta"), func(c *tls.Config) { c.NextProtos = nil }, reasonALPN},
	}
	f := start(t, Config{PKI: ours.Path, Cluster: "shop", Node: "alpha", KnownNode: knownNodes, LogInterval: time.Nanosecond}, protos...)
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			before := f.mux.Stats().Refusals[c.reason]
			if err := f.stranger(c.cert, c.change); err == nil {
				t.Fatal("was served")
			}
			f.eventually(func() bool { return f.mux.Stats().Refusals[c.reason] == before+1 })
		})
	}
	for _, text := range []string{"GET / HTTP/1.1\r\n\r\n", "HACL\x01\x02\x00\x00", "\x00\xff\n\x1b[31m", "NBDMAGIC"} {
		before := f.mux.Stats().Refusals[reasonPlain]
		c := f.raw()
		c.Write([]byte(text))
		if !isClosed(c) {
			t.Errorf("%q: stays open", text)
		}
		f.eventually(func() bool { return f.mux.Stats().Refusals[reasonPlain] == before+1 })
	}
	if err := f.stranger(keyPair(t, ours, "node-beta"), nil); err != nil {
		t.Errorf("a node: %v", err)
	}
	if err := f.stranger(keyPair(t, ours, "user-eve"), nil); err != nil {
		t.Errorf("a user: %v", err)
	}
	if strings.ContainsAny(f.log.String(), "\x00\x1b") {
		t.Error("the log is not escaped")
	}
}

// chained is a certificate that a node's key signed, with that node's certificate behind it.
func chained(t *testing.T, f pki.Folder) *tls.Certificate {
	t.Helper()
	node := keyPair(t, f, "node-beta")
	u, _ := url.Parse("spiffe://shop/node/alpha")
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(8), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), URIs: []*url.URL{u},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, node.Leaf, key.Public(), node.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der, node.Certificate[0]}, PrivateKey: key}
}

// faults.md G40: the caller's side. What answers must be the node that was called.
func TestCallerRefusesWhoeverIsNotTheNodeThatWasCalled(t *testing.T) {
	ours := shop(t)
	answering := func(cert *tls.Certificate) string {
		ln, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{*cert}, NextProtos: []string{"h2"}, ClientAuth: tls.RequestClientCert})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ln.Close() })
		go func() {
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				c.(*tls.Conn).Handshake()
				c.Close()
			}
		}()
		return ln.Addr().String()
	}
	tr := dialer(t, ours, "alpha", "beta")
	for name, c := range map[string]struct {
		cert *tls.Certificate
		says string
	}{
		"another node":          {keyPair(t, ours, "node-gamma"), `spiffe://shop/node/gamma answered, node "beta" was called`},
		"a user":                {keyPair(t, ours, "user-bob"), reasonUntrusted}, // it is not made for servers
		"self-signed":           {forge(t, nil, "spiffe://shop/node/beta", nil), reasonUntrusted},
		"another cluster":       {keyPair(t, folderOf(t, "bank"), "node-beta"), reasonUntrusted},
		"our CA, other cluster": {forge(t, &ours, "spiffe://bank/node/beta", nil), reasonCluster},
		"expired":               {forge(t, &ours, "spiffe://shop/node/beta", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }), reasonTime},
	} {
		if _, err := tr.Dial(t.Context(), answering(c.cert), ProtoGRPC); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %q", name, err, c.says)
		}
	}
	if c, err := tr.Dial(t.Context(), answering(keyPair(t, ours, "node-beta")), ProtoGRPC); err != nil {
		t.Errorf("the right node: %v", err)
	} else {
		c.Close()
	}
	if _, err := dialer(t, ours, "alpha", "").Dial(t.Context(), answering(keyPair(t, ours, "node-beta")), ProtoGRPC); err == nil || !strings.Contains(err.Error(), "who should answer") {
		t.Errorf("an address of nobody was called: %v", err)
	}
}
