package identity

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"time"

	"hacluster/cmd/internal/identity/pki"
)

// Peer is who a connection's other side has proved to be.
type Peer struct{ pki.Subject }

// IsNode reports whether the peer is the node of that name.
func (p Peer) IsNode(name string) bool { return p.Kind == pki.KindNode && p.Name == name }

// PeerOf tells who is at the other side of a connection that a Transport made or accepted. Without TLS nobody has
// proved anything: ok is false.
func PeerOf(c net.Conn) (p Peer, ok bool) {
	if t, isTLS := c.(*tlsConn); isTLS {
		return t.peer, true
	}
	return Peer{}, false
}

// Why a certificate is refused. The texts are the log's messages and the counters' names.
const (
	reasonNoCert    = "refused: no certificate"
	reasonUntrusted = "refused: certificate is not signed by this cluster's authority"
	reasonTime      = "refused: certificate is expired or not valid yet"
	reasonCluster   = "refused: certificate is of another cluster"
	reasonNames     = "refused: certificate names nobody of this product"
	reasonALPN      = "refused: no protocol of this port was offered in the TLS handshake"
	reasonNotNode   = "refused: certificate of a user where only nodes speak"
	reasonRole      = "refused: certificate of a user whose role may not use volumes"
	reasonUnknown   = "refused: certificate of a node that is not in the configuration"
	reasonOther     = "refused: certificate of another node than the one that was called"
)

// refusal is why a peer is not spoken with.
type refusal struct {
	reason string
	detail string
}

func (r *refusal) Error() string { return r.reason + ": " + r.detail }

// chain verifies that a certificate is signed by one of the authorities, for this use, and valid at that time.
func (m *material) chain(leaf *x509.Certificate, usage x509.ExtKeyUsage, now time.Time) (reason string, err error) {
	_, err = leaf.Verify(x509.VerifyOptions{Roots: m.roots, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{usage}})
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok && invalid.Reason == x509.Expired {
		return reasonTime, err
	}
	return reasonUntrusted, err
}

// trusts reports whether the certificate hangs on an authority that is trusted now, whatever the time. A clock that
// jumps must not end connections that work (faults.md T82).
func (m *material) trusts(leaf *x509.Certificate) bool {
	for _, ca := range m.cas {
		if leaf.CheckSignatureFrom(ca) == nil {
			return true
		}
	}
	return false
}

// peer says who showed this certificate, or why that one is refused.
func (m *material) peer(cs tls.ConnectionState, usage x509.ExtKeyUsage, now time.Time) (Peer, error) {
	if len(cs.PeerCertificates) == 0 {
		return Peer{}, &refusal{reasonNoCert, "it has to show one of this cluster"}
	}
	leaf := cs.PeerCertificates[0]
	// Whose it claims to be is for the log only, until the chain was verified.
	claims, named := pki.SubjectOf(leaf)
	if reason, err := m.chain(leaf, usage, now); err != nil {
		return Peer{}, &refusal{reason, "claims to be " + quoted(claims, named) + ": " + err.Error()}
	}
	switch {
	case named != nil:
		return Peer{}, &refusal{reasonNames, named.Error()}
	case claims.Cluster != m.self.Cluster:
		return Peer{}, &refusal{reasonCluster, claims.String()}
	}
	return Peer{claims}, nil
}

func quoted(s pki.Subject, err error) string {
	if err != nil {
		return "nobody (" + err.Error() + ")"
	}
	return s.String()
}
