package identity

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
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
