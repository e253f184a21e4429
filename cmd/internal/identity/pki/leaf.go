package pki

import (
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"
)

// Node makes the certificate of a node. hosts are names and addresses that clients other than ours (NBD over tcp) may
// look for in it, beside the node's name.
func (f Folder) Node(name string, hosts []string, valid time.Duration) error {
	return f.leaf(Subject{Kind: KindNode, Name: name}, append([]string{name}, hosts...), valid)
}

// User makes the certificate of a user.
func (f Folder) User(name string, role Role, valid time.Duration) error {
	if role.rank() == 0 {
		return fmt.Errorf("%w: role %q: admin, operator or viewer is wanted", ErrUsage, role)
	}
	return f.leaf(Subject{Kind: KindUser, Name: name, Role: role}, nil, valid)
}

func (f Folder) leaf(s Subject, hosts []string, valid time.Duration) error {
	if err := errors.Join(checkName(string(s.Kind), s.Name), checkValid(valid, maxLeaf)); err != nil {
		return err
	}
	return f.locked(func() error {
		ca, err := f.authority()
		if err != nil {
			return err
		}
		s.Cluster = ca.cert.URIs[0].Host
		l, err := ca.issue(s, newNames(hosts), f.now(), valid)
		if err != nil {
			return err
		}
		return f.create([]content{{s.stem() + ".key", l.keyPEM, 0o600}, {s.stem() + ".crt", l.certPEM, 0o644}})
	})
}

// authority is the CA whose key is ca.key.
func (f Folder) authority() (*authority, error) {
	key, err := PrivateKey(f.file(caKey))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: certificates are made where ca.key is; `ha-admin pki init` makes a new folder", err)
	}
	if err != nil {
		return nil, err
	}
	cas, err := Certificates(f.file(caCert))
	if err != nil {
		return nil, err
	}
	for _, c := range cas {
		if err := checkCA(c); err != nil {
			return nil, fmt.Errorf("%s: %w", f.file(caCert), err)
		}
		if fits(c, key) {
			if f.now().After(c.NotAfter) {
				return nil, fmt.Errorf("%s: the CA ended %s: start anew with another folder by `ha-admin pki init`", f.file(caCert), c.NotAfter.UTC().Format(time.RFC3339))
			}
			return &authority{cert: c, key: key}, nil
		}
	}
	return nil, fmt.Errorf("no certificate of %s belongs to %s: the two are of different folders", f.file(caCert), f.file(caKey))
}

// checkCA refuses certificates that are not those of an authority made here.
func checkCA(c *x509.Certificate) error {
	if !c.IsCA || len(c.URIs) != 1 || c.URIs[0].Scheme != "spiffe" || checkName("cluster", c.URIs[0].Host) != nil {
		return fmt.Errorf("%q is not the certificate of a cluster's authority", c.Subject.CommonName)
	}
	return nil
}

func fits(c *x509.Certificate, key crypto.Signer) bool {
	pub, ok := c.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	return ok && pub.Equal(key.Public())
}

// Leaf is a certificate that lies in the folder.
type Leaf struct {
	Subject Subject
	File    string // without folder and ending, as "node-alpha"
	Cert    *x509.Certificate
}

// Leaves are all certificates of nodes and users in the folder.
func (f Folder) Leaves() (all []Leaf, err error) {
	for _, kind := range []Kind{KindNode, KindUser} {
		found, err := f.list(kind)
		if err != nil {
			return nil, err
		}
		for _, name := range found {
			l, err := f.readLeaf(string(kind) + "-" + name)
			if err != nil {
				return nil, err
			}
			all = append(all, l)
		}
	}
	return all, nil
}

func (f Folder) readLeaf(file string) (Leaf, error) {
	certs, err := Certificates(f.file(file + ".crt"))
	if err != nil {
		return Leaf{}, err
	}
	s, err := SubjectOf(certs[0])
	if err == nil && s.stem() != file {
		err = fmt.Errorf("it speaks for %s", s)
	}
	if err != nil {
		return Leaf{}, fmt.Errorf("%s: %w", f.file(file+".crt"), err)
	}
	return Leaf{Subject: s, File: file, Cert: certs[0]}, nil
}

// Reissue makes new keys and certificates in the place of those named ("node-alpha"; none: all), and says which.
func (f Folder) Reissue(files []string, valid time.Duration) (done []string, err error) {
	if err := checkValid(valid, maxLeaf); err != nil {
		return nil, err
	}
	err = f.locked(func() error { done, err = f.reissue(files, valid); return err })
	return done, err
}

func (f Folder) reissue(files []string, valid time.Duration) (done []string, err error) {
	ca, err := f.authority()
	if err != nil {
		return nil, err
	}
	var leaves []Leaf
	if len(files) == 0 {
		if leaves, err = f.Leaves(); err != nil {
			return nil, err
		}
	}
	for _, file := range files {
		file = strings.TrimSuffix(file, ".crt")
		l, err := f.readLeaf(file)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%w: %q: no such certificate in %s: node-NAME or user-NAME is wanted", ErrUsage, file, f.Path)
		}
		if err != nil {
			return nil, err
		}
		leaves = append(leaves, l)
	}
	for _, l := range leaves {
		l.Subject.Cluster = ca.cert.URIs[0].Host
		n, err := ca.issue(l.Subject, names{l.Cert.DNSNames, l.Cert.IPAddresses}, f.now(), valid)
		if err != nil {
			return done, err
		}
		if err := f.replace(content{l.File + ".key", n.keyPEM, 0o600}, content{l.File + ".crt", n.certPEM, 0o644}); err != nil {
			return done, err
		}
		done = append(done, l.File)
	}
	return done, nil
}

// exists reports whether a file of the folder is there.
func (f Folder) exists(name string) bool {
	_, err := os.Lstat(f.file(name))
	return err == nil
}
