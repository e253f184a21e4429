package identity

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"sync"
	"syscall"
	"time"

	"hacluster/cmd/internal/identity/pki"
)

// alpn names the protocols in the TLS handshake, as the preface does without TLS.
var alpn = map[Proto]string{ProtoRaft: "ha-raft", ProtoGRPC: "h2", ProtoData: "ha-data", ProtoRelay: "ha-relay"}

func protoOf(name string) (Proto, bool) {
	for p, n := range alpn {
		if n == name {
			return p, true
		}
	}
	return 0, false
}

// base is what both sides of every connection have in common. Certificates are read through the pointer, so that a
// reload counts for the next handshake. There are no session tickets: each connection proves everything anew.
func (t *Transport) base() *tls.Config {
	return &tls.Config{
		MinVersion:                  tls.VersionTLS13,
		SessionTicketsDisabled:      true,
		DynamicRecordSizingDisabled: true, // block data goes in full records from the first on
		GetCertificate:              func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &t.material.Load().cert, nil },
		GetClientCertificate:        func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &t.material.Load().cert, nil },
	}
}

// portConfig is for the accepting side of the node's port.
func (t *Transport) portConfig() *tls.Config {
	c := t.base()
	for _, p := range protos {
		c.NextProtos = append(c.NextProtos, alpn[p])
	}
	// Any certificate is taken here and judged in VerifyConnection, so that the log can say what is wrong with it.
	c.ClientAuth = tls.RequireAnyClientCert
	c.VerifyConnection = func(cs tls.ConnectionState) error {
		proto, ok := protoOf(cs.NegotiatedProtocol)
		if !ok {
			return &refusal{reasonALPN, fmt.Sprintf("it offers none of %v", slices.Sorted(maps.Values(alpn)))}
		}
		p, err := t.caller(cs)
		if err == nil && proto != ProtoGRPC && p.Kind != pki.KindNode {
			err = &refusal{reasonNotNode, fmt.Sprintf("%s speaks %q", p, cs.NegotiatedProtocol)}
		}
		return err
	}
	return c
}

// caller is who connected to us.
func (t *Transport) caller(cs tls.ConnectionState) (Peer, error) {
	p, err := t.material.Load().peer(cs, x509.ExtKeyUsageClientAuth, time.Now())
	if err == nil && p.Kind == pki.KindNode && t.cfg.KnownNode != nil && !t.cfg.KnownNode(p.Name) {
		err = &refusal{reasonUnknown, p.String()}
	}
	return p, err
}

// callConfig is for the calling side: the one that answers must be the node want, or any of the cluster when want is
// empty.
func (t *Transport) callConfig(p Proto, want string) *tls.Config {
	c := t.base()
	c.NextProtos = []string{alpn[p]}
	// The names in our certificates are URIs, which the library does not compare: VerifyConnection does all of it.
	c.InsecureSkipVerify = true
	c.VerifyConnection = func(cs tls.ConnectionState) error {
		peer, err := t.material.Load().peer(cs, x509.ExtKeyUsageServerAuth, time.Now())
		if err == nil && (peer.Kind != pki.KindNode || want != "" && peer.Name != want) {
			err = &refusal{reasonOther, fmt.Sprintf("%s answered, node %q was called", peer, want)}
		}
		return err
	}
	return c
}

// NBDServer is the TLS configuration of NBD servers behind ListenTCP: a client must be a node, an operator or an admin
// of this cluster. Without TLS it is nil.
func (t *Transport) NBDServer() *tls.Config {
	if t.cfg.Insecure {
		return nil
	}
	c := t.base()
	c.ClientAuth = tls.RequireAnyClientCert
	c.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		one := c.Clone()
		one.GetConfigForClient = nil
		one.VerifyConnection = func(cs tls.ConnectionState) error {
			p, err := t.caller(cs)
			if err == nil && p.Kind == pki.KindUser && !p.Role.Covers(pki.RoleOperator) {
				err = &refusal{reasonRole, p.String()}
			}
			if r, ok := errors.AsType[*refusal](err); ok {
				t.log.warn(r.reason, "remote", hello.Conn.RemoteAddr().String(), "listen", hello.Conn.LocalAddr().String(), "why", r.detail)
			}
			if c, tracked := hello.Conn.(*plainConn); err == nil && tracked {
				t.track(c, cs.PeerCertificates[0])
			}
			return err
		}
		return one, nil
	}
	return c
}

// tlsConn is a connection of the node's port, on either side. It shows nothing of the socket below: bytes written there
// would break the stream. Closing it cuts the connection without a farewell, which could wait for a peer that does not
// read; every protocol here knows by itself what is whole.
type tlsConn struct {
	*tls.Conn
	under net.Conn
	peer  Peer
	t     *Transport
	gone  func() // gives the place back
	once  sync.Once
}

// Read names what an alert means here: with TLS 1.3 the side that called learns behind its handshake only that it is not
// welcome.
func (c *tlsConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if alert, ok := errors.AsType[*net.OpError](err); ok && alert.Op == "remote error" {
		err = fmt.Errorf("TLS: the other side refused the certificate of %s, its log says why: %w", c.t.material.Load().self, err)
	}
	return n, err
}

func (c *tlsConn) Close() error {
	c.once.Do(func() {
		c.t.forget(c)
		c.gone()
	})
	return c.under.Close()
}

// CloseWrite is not offered: a half-closed connection has no use here, and it would wait for the peer.
func (c *tlsConn) CloseWrite() error { return errors.ErrUnsupported }

// wrap makes the connection that protocols see, when the handshake is done.
func (t *Transport) wrap(tc *tls.Conn, under net.Conn, gone func()) *tlsConn {
	leaf := tc.ConnectionState().PeerCertificates[0]
	s, err := pki.SubjectOf(leaf)
	if err != nil {
		panic("identity: a verified certificate lost its name: " + err.Error())
	}
	c := &tlsConn{Conn: tc, under: under, peer: Peer{s}, t: t, gone: gone}
	t.track(c, leaf)
	return c
}

// secure is the calling side's handshake.
func (t *Transport) secure(ctx context.Context, c net.Conn, addr string, p Proto) (net.Conn, error) {
	want := ""
	if t.cfg.NodeAt != nil {
		var ok bool
		if want, ok = t.cfg.NodeAt(addr); !ok {
			return nil, errors.New("no node of the configuration has this address: who should answer is not known")
		}
	}
	ctx, cancel := context.WithTimeout(ctx, t.cfg.HandshakeTimeout)
	defer cancel()
	tc := tls.Client(c, t.callConfig(p, want))
	if err := tc.HandshakeContext(ctx); err != nil {
		return nil, explain(err)
	}
	if got := tc.ConnectionState().NegotiatedProtocol; got != alpn[p] {
		return nil, fmt.Errorf("TLS: the other side does not speak %q", alpn[p])
	}
	return t.wrap(tc, c, func() {}), nil
}

// explain adds what an operator would look for behind the library's words.
func explain(err error) error {
	if r, ok := errors.AsType[*refusal](err); ok {
		return fmt.Errorf("TLS: %w", r)
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) {
		return fmt.Errorf("TLS: the other side ended the handshake (%w): does it run with --insecure?", err)
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return fmt.Errorf("TLS: the other side speaks something else (%w): does it run with --insecure?", err)
	}
	return fmt.Errorf("TLS: %w", err)
}
