package identity

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"hacluster/cmd/internal/identity/pki"
)

// shop is a PKI folder with nodes alpha, beta and gamma, an operator bob and a viewer eve. It is a copy: making one takes
// a few dozen flushes of a disk that may be busy.
func shop(t *testing.T) pki.Folder {
	t.Helper()
	madeShop.Do(func() { madeShop.files = filesOf(t, folderOf(t, "shop")) })
	f := pki.Folder{Path: t.TempDir()}
	for name, b := range madeShop.files {
		if err := os.WriteFile(filepath.Join(f.Path, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

var madeShop struct {
	sync.Once
	files map[string][]byte
}

func filesOf(t *testing.T, f pki.Folder) map[string][]byte {
	t.Helper()
	entries, err := os.ReadDir(f.Path)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string][]byte{}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(f.Path, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		all[e.Name()] = b
	}
	return all
}

// folderOf makes a folder of another cluster, also of one of the same name.
func folderOf(t *testing.T, cluster string) pki.Folder {
	t.Helper()
	f := pki.Folder{Path: filepath.Join(t.TempDir(), "pki")}
	errs := []error{f.Init(cluster, pki.DefaultCA), f.User("bob", pki.RoleOperator, pki.DefaultLeaf), f.User("eve", pki.RoleViewer, pki.DefaultLeaf)}
	for _, n := range []string{"alpha", "beta", "gamma"} {
		errs = append(errs, f.Node(n, nil, pki.DefaultLeaf))
	}
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	return f
}

// keyPair reads a certificate as a client of others would.
func keyPair(t *testing.T, f pki.Folder, name string) *tls.Certificate {
	t.Helper()
	c, err := tls.LoadX509KeyPair(filepath.Join(f.Path, name+".crt"), filepath.Join(f.Path, name+".key"))
	if err != nil {
		t.Fatal(err)
	}
	return &c
}

// forge makes a certificate as change wants it, signed by the folder's authority; by itself when f is nil.
func forge(t *testing.T, f *pki.Folder, uri string, change func(*x509.Certificate)) *tls.Certificate {
	t.Helper()
	u, err := url.Parse(uri)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(7), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), URIs: []*url.URL{u},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}}
	if change != nil {
		change(tmpl)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	parent, signer := tmpl, any(key)
	if f != nil {
		cas, err := f.Authorities()
		if err != nil {
			t.Fatal(err)
		}
		parent = cas[0]
		if signer, err = pki.PrivateKey(filepath.Join(f.Path, "ca.key")); err != nil {
			t.Fatal(err)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func knownNodes(name string) bool { return name == "alpha" || name == "beta" || name == "gamma" }

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

// The like of faults.md N14: TLS handshakes that stop half way are bounded in number and time.
func TestGoodCallerGetsThroughHalfOpenHandshakes(t *testing.T) {
	ours := shop(t)
	f := start(t, Config{PKI: ours.Path, Cluster: "shop", Node: "alpha", MaxHandshakes: 32, HandshakeTimeout: time.Hour}, ProtoRaft)
	tr := dialer(t, ours, "beta", "alpha")
	hello := clientHello(t)
	var half []net.Conn
	for i := range 200 {
		c := f.raw()
		c.Write(hello[:len(hello)*(i%4)/3]) // nothing, parts, and the whole of it
		half = append(half, c)
	}
	c, err := tr.Dial(t.Context(), f.addr(), ProtoRaft)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := works(c); err != nil {
		t.Fatal(err)
	}
	if s := f.mux.Stats(); s.Handshakes > 32 {
		t.Errorf("%d handshakes, the limit is 32", s.Handshakes)
	}
	for _, c := range half {
		c.Close()
	}
}

// clientHello is the first flight of a handshake.
func clientHello(t *testing.T) []byte {
	t.Helper()
	a, b := net.Pipe()
	defer a.Close()
	go func() {
		defer b.Close()
		tls.Client(b, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}}).HandshakeContext(t.Context())
	}()
	buf := make([]byte, 4096)
	n, err := a.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	return buf[:n]
}

func TestHalfOpenTLSHandshakeEndsAtTheDeadline(t *testing.T) {
	f := start(t, Config{PKI: shop(t).Path, Cluster: "shop", Node: "alpha", HandshakeTimeout: 50 * time.Millisecond}, ProtoRaft)
	c := f.raw()
	c.Write(clientHello(t))
	c.SetReadDeadline(time.Now().Add(10 * time.Second))
	buf := make([]byte, 4096)
	for { // its half of the handshake comes, then the end
		if _, err := c.Read(buf); err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatal("it stays open")
			}
			break
		}
	}
	f.eventually(func() bool { return f.mux.Stats().Refusals[errSlow.Error()] == 1 })
}

// One stranger's many connections crowd out its own, not those of others.
func TestTheAddressWithMostHandshakesLosesOne(t *testing.T) {
	f := start(t, Config{MaxHandshakes: 8, HandshakeTimeout: time.Hour}, ProtoRaft)
	from := func(host string) net.Conn {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(host)}}
		c, err := d.Dial("tcp", f.addr())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	good := from("127.0.0.9")
	for range 100 {
		from("127.0.0.8")
	}
	f.mustWork(ProtoRaft) // behind all of them
	p := newPreface(ProtoRaft)
	good.Write(p[:])
	if err := works(good); err != nil {
		t.Errorf("the patient one was closed for the crowd: %v", err)
	}
}

// faults.md G40, at the start: what the others would refuse is refused here, with what, where and what to do.
func TestUnusableMaterialIsRefusedAtTheStart(t *testing.T) {
	cfg := func(f pki.Folder) Config { return Config{PKI: f.Path, Cluster: "shop", Node: "alpha"} }
	write := func(f pki.Folder, name string, b []byte) {
		if err := errors.Join(os.RemoveAll(filepath.Join(f.Path, name)), os.WriteFile(filepath.Join(f.Path, name), b, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	copyFile := func(f, from pki.Folder, name, as string) {
		b, err := os.ReadFile(filepath.Join(from.Path, name))
		if err != nil {
			t.Fatal(err)
		}
		write(f, as, b)
	}
	later := func(f pki.Folder, d time.Duration) error {
		_, err := load(cfg(f), time.Now().Add(d))
		return err
	}
	for name, c := range map[string]struct {
		spoil func(f pki.Folder) Config
		says  []string
	}{
		"no folder":      {func(f pki.Folder) Config { return Config{PKI: f.Path + "x", Node: "alpha"} }, []string{"ca.crt", "no such file", "ha-admin pki init", "--insecure"}},
		"no certificate": {func(f pki.Folder) Config { os.Remove(f.Path + "/node-alpha.crt"); return cfg(f) }, []string{"node-alpha.crt", "ha-admin pki node alpha"}},
		"no key":         {func(f pki.Folder) Config { os.Remove(f.Path + "/node-alpha.key"); return cfg(f) }, []string{"node-alpha.key", "ha-admin pki node alpha"}},
		"no gossip key":  {func(f pki.Folder) Config { os.Remove(f.Path + "/gossip.key"); return cfg(f) }, []string{"gossip.key", "no such file"}},
		"another's key":  {func(f pki.Folder) Config { copyFile(f, f, "node-beta.key", "node-alpha.key"); return cfg(f) }, []string{"do not belong together"}},
		"another's files": {func(f pki.Folder) Config {
			copyFile(f, f, "node-beta.key", "node-alpha.key")
			copyFile(f, f, "node-beta.crt", "node-alpha.crt")
			return cfg(f)
		}, []string{"speaks for spiffe://shop/node/beta", "this is spiffe://shop/node/alpha"}},
		"another CA":      {func(f pki.Folder) Config { copyFile(f, folderOf(t, "shop"), "ca.crt", "ca.crt"); return cfg(f) }, []string{"not signed by this cluster's authority", "rotate certs"}},
		"another cluster": {func(f pki.Folder) Config { return Config{PKI: f.Path, Cluster: "bank", Node: "alpha"} }, []string{"speaks for spiffe://shop/node/alpha", "bank"}},
		"key for all":     {func(f pki.Folder) Config { os.Chmod(f.Path+"/node-alpha.key", 0o644); return cfg(f) }, []string{"chmod 600"}},
		"not PEM":         {func(f pki.Folder) Config { write(f, "node-alpha.crt", []byte("x")); return cfg(f) }, []string{"holds no certificate"}},
		"key in ca.crt":   {func(f pki.Folder) Config { copyFile(f, f, "ca.key", "ca.crt"); return cfg(f) }, []string{"certificates only"}},
		"leaf in ca.crt":  {func(f pki.Folder) Config { copyFile(f, f, "node-beta.crt", "ca.crt"); return cfg(f) }, []string{"not the certificate of a cluster's authority"}},
		"a folder instead": {func(f pki.Folder) Config {
			os.Remove(f.Path + "/ca.crt")
			os.Mkdir(f.Path+"/ca.crt", 0o700)
			return cfg(f)
		}, []string{"no regular file"}},
		"no user": {func(f pki.Folder) Config {
			os.Remove(f.Path + "/user-bob.crt")
			os.Remove(f.Path + "/user-eve.crt")
			return Config{PKI: f.Path}
		}, []string{"no certificate of a user", "ha-admin pki user"}},
	} {
		f := shop(t)
		_, err := New(c.spoil(f))
		if _, ok := errors.AsType[*MaterialError](err); !ok {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for _, s := range c.says {
			if !strings.Contains(err.Error(), s) {
				t.Errorf("%s: %q is missing in: %v", name, s, err)
			}
		}
	}
	f := shop(t)
	if err := later(f, 2*pki.DefaultLeaf); err == nil || !strings.Contains(err.Error(), "expired") || !strings.Contains(err.Error(), "rotate certs") {
		t.Errorf("expired: %v", err)
	}
	if err := later(f, -2*time.Hour); err == nil || !strings.Contains(err.Error(), "not valid yet") {
		t.Errorf("of tomorrow: %v", err)
	}
}

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

func TestExpiryWarnsAtThirtySevenAndOneDay(t *testing.T) {
	end := time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
	const day = 24 * time.Hour
	for before, want := range map[time.Duration]time.Duration{31 * day: 0, 30 * day: 30 * day, 8 * day: 30 * day, 7 * day: 7 * day, day: day, time.Minute: day, -day: day} {
		if w, ok := (Expiry{NotAfter: end}).Warning(end.Add(-before)); w != want || ok != (want != 0) {
			t.Errorf("%v before: %v, %v; want %v", before, w, ok, want)
		}
	}
	tr, err := New(Config{PKI: shop(t).Path, Cluster: "shop", Node: "alpha"})
	if err != nil {
		t.Fatal(err)
	}
	if all := tr.Expiries(); len(all) != 2 || all[0].File != "node-alpha.crt" || all[1].File != "ca.crt" || !tr.Expiry().Equal(all[0].NotAfter) {
		t.Errorf("%+v, first %v", all, tr.Expiry())
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
