package identity

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"hacluster/cmd/internal/identity/pki"
)

// MaterialError: a certificate or key is missing or unusable. The text says what, where, and what to do.
type MaterialError struct{ err error }

func (e *MaterialError) Error() string { return "TLS: " + e.err.Error() }
func (e *MaterialError) Unwrap() error { return e.err }

// material is what a PKI folder held when it was read. It is replaced as a whole, never changed.
type material struct {
	self   pki.Subject
	cert   tls.Certificate
	roots  *x509.CertPool
	cas    []*x509.Certificate
	gossip [][]byte // of a node
}

// load reads the folder and refuses what would not work with the other nodes.
func load(cfg Config, now time.Time) (*material, error) {
	m, err := read(cfg, now)
	if err != nil {
		return nil, &MaterialError{err}
	}
	return m, nil
}

func read(cfg Config, now time.Time) (*material, error) {
	folder := pki.Folder{Path: cfg.PKI}
	m := &material{roots: x509.NewCertPool()}
	var err error
	if m.cas, err = folder.Authorities(); err != nil {
		return nil, missing(err, "copy it from where `ha-admin pki init` was run")
	}
	for _, c := range m.cas {
		m.roots.AddCert(c)
	}
	file, err := ownFile(cfg, folder)
	if err != nil {
		return nil, err
	}
	if err := m.readOwn(filepath.Join(cfg.PKI, file), "run `ha-admin pki "+howTo(file)+"` where ca.key is, and copy it here"); err != nil {
		return nil, err
	}
	if err := m.checkOwn(cfg, filepath.Join(cfg.PKI, file+".crt"), now); err != nil {
		return nil, err
	}
	if cfg.Node == "" {
		return m, nil
	}
	g, err := folder.GossipKeys()
	m.gossip = g.Raw()
	return m, missing(err, "copy it from where `ha-admin pki init` was run")
}

// ownFile is the name, without ending, of the files that say who we are: a node, or a user; the first one when none is
// named.
func ownFile(cfg Config, folder pki.Folder) (string, error) {
	if cfg.Node != "" {
		return "node-" + cfg.Node, nil
	}
	if cfg.User != "" {
		return "user-" + cfg.User, nil
	}
	users, err := folder.Users()
	if err == nil && len(users) == 0 {
		err = fmt.Errorf("%s holds no certificate of a user: run `ha-admin pki user NAME --role ROLE` where ca.key is, and copy user-NAME.crt and .key here", cfg.PKI)
	}
	if err != nil {
		return "", err
	}
	return "user-" + users[0], nil
}

// howTo is the rest of the command that makes a file.
func howTo(file string) string {
	if name, isUser := cutKind(file, "user-"); isUser {
		return "user " + name + " --role ROLE"
	}
	name, _ := cutKind(file, "node-")
	return "node " + name
}

func cutKind(file, prefix string) (string, bool) {
	if len(file) > len(prefix) && file[:len(prefix)] == prefix {
		return file[len(prefix):], true
	}
	return file, false
}

func missing(err error, todo string) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %s, or start with --insecure on loopback addresses", err, todo)
	}
	return err
}

func (m *material) readOwn(path, todo string) error {
	certs, err := pki.Certificates(path + ".crt")
	if err != nil {
		return missing(err, todo)
	}
	key, err := pki.PrivateKey(path + ".key")
	if err != nil {
		return missing(err, todo)
	}
	if pub, ok := certs[0].PublicKey.(interface{ Equal(crypto.PublicKey) bool }); !ok || !pub.Equal(key.Public()) {
		return fmt.Errorf("%s.crt and %s.key do not belong together: copy both again", path, filepath.Base(path))
	}
	m.cert = tls.Certificate{Certificate: [][]byte{certs[0].Raw}, PrivateKey: key, Leaf: certs[0]}
	return nil
}

// checkOwn asks of our own certificate what the others will ask of it.
func (m *material) checkOwn(cfg Config, path string, now time.Time) (err error) {
	leaf := m.cert.Leaf
	if m.self, err = pki.SubjectOf(leaf); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	want := pki.Subject{Cluster: cfg.Cluster, Kind: pki.KindNode, Name: cfg.Node}
	if cfg.Node == "" {
		want = pki.Subject{Cluster: cfg.Cluster, Kind: pki.KindUser, Name: m.self.Name, Role: m.self.Role}
	}
	if want.Cluster == "" {
		want.Cluster = m.self.Cluster
	}
	if m.self != want {
		return fmt.Errorf("%s speaks for %s, this is %s: copy the right one here", path, m.self, want)
	}
	usage := []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	if m.self.Kind == pki.KindNode {
		usage = append(usage, x509.ExtKeyUsageServerAuth)
	}
	for _, u := range usage {
		if reason, err := m.chain(leaf, u, now); err != nil {
			return fmt.Errorf("%s: %s (valid from %s to %s; it is %s): run `ha-admin pki rotate certs` where ca.key is, and copy the new one here: %w", path, reason,
				leaf.NotBefore.UTC().Format(time.RFC3339), leaf.NotAfter.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339), err)
		}
	}
	return nil
}
