// Package pki makes, reads and changes the files of a PKI folder: the certificates and keys by which the nodes and users
// of one cluster know each other.
//
//	ca.crt            who may sign certificates: one, and two while a rotation is under way
//	ca.key            signs; needed by `ha-admin pki` only: it stays where certificates are made, and goes to no server
//	ca-next.key       the coming ca.key, between the first two steps of its rotation
//	gossip.key        what gossip is sealed with (see Gossip)
//	node-NAME.crt/.key, user-NAME.crt/.key
//
// A server needs ca.crt, gossip.key and its own node-NAME.crt/.key; a user ca.crt and their own user-NAME.crt/.key.
//
// Whom a certificate speaks for stands in its one URI name, as SPIFFE has it: see Subject. Everything is made by
// crypto/x509 on ECDSA P-256. Files appear whole or not at all, keys with mode 0600, and nothing that exists is
// overwritten but by a rotation. The package opens no connection and knows nothing of running daemons.
//
// `ha-admin pki` writes by it; package identity reads by it.
package pki

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// DefaultPath is where the folder lies on a server.
const DefaultPath = "/etc/hacluster/pki"

var (
	// ErrExists: the file is there already, and is not overwritten.
	ErrExists = errors.New("exists already")
	// ErrStep: this step of a rotation is not the next one.
	ErrStep = errors.New("not the next step")
	// ErrUsage: a name, role or time that makes no sense.
	ErrUsage = errors.New("wrong usage")
)

// Folder is a PKI folder. Its methods that write hold a lock on it, so that two of them do not mix.
type Folder struct {
	Path string
	// Now is the time. Default: time.Now.
	Now func() time.Time
}

func (f Folder) now() time.Time {
	if f.Now != nil {
		return f.Now()
	}
	return time.Now()
}

func (f Folder) file(name string) string { return filepath.Join(f.Path, name) }

// The files' names.
const (
	caCert, caKey, caNextKey = "ca.crt", "ca.key", "ca-next.key"
	gossipKey                = "gossip.key"
)

// nameForm is that of names in cluster.hcl: names become parts of paths and of URIs.
var nameForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)

func checkName(what, name string) error {
	// Two dots in a row, or one at the end, cannot stand in the host part of a URI name.
	if !nameForm.MatchString(name) || strings.Contains(name, "..") || strings.HasSuffix(name, ".") {
		return fmt.Errorf("%w: %s %q: a letter or digit first, then letters, digits, '.', '_', '-', at most 63 in all is wanted", ErrUsage, what, name)
	}
	return nil
}

// locked does something to the folder while no other process changes it.
func (f Folder) locked(do func() error) error {
	dir, err := os.Open(f.Path)
	if err != nil {
		return fmt.Errorf("open the PKI folder: %w: `ha-admin pki init` makes one", err)
	}
	defer dir.Close()
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return fmt.Errorf("lock %s: another ha-admin pki is at work there: %w", f.Path, err)
	}
	// Not by closing it alone: a process that is being started has a copy of the descriptor until it is another program.
	defer func() { _ = unix.Flock(int(dir.Fd()), unix.LOCK_UN) }()
	return do()
}

// Init makes the folder, a certificate authority for the cluster and the first gossip key.
func (f Folder) Init(cluster string, valid time.Duration) error {
	if err := checkName("cluster", cluster); err != nil {
		return err
	}
	if err := checkValid(valid, maxCA); err != nil {
		return err
	}
	if err := os.MkdirAll(f.Path, 0o700); err != nil {
		return fmt.Errorf("make the PKI folder: %w", err)
	}
	return f.locked(func() error {
		for _, name := range []string{caCert, caKey, caNextKey, gossipKey} {
			if _, err := os.Lstat(f.file(name)); err == nil {
				return fmt.Errorf("%s %w: a cluster has one PKI folder; to change what is in it use `ha-admin pki rotate`, to start anew move %s away", f.file(name), ErrExists, f.Path)
			}
		}
		ca, err := newCA(cluster, f.now(), valid)
		if err != nil {
			return err
		}
		gossip := Gossip{Keys: []GossipKey{newGossipKey(f.now())}}
		// The certificate comes last: with it, the folder is complete.
		return f.create([]content{{gossipKey, gossip.encode(cluster), 0o600}, {caKey, ca.keyPEM, 0o600}, {caCert, ca.certPEM, 0o644}})
	})
}
