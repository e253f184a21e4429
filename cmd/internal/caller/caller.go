// Package caller tells a gRPC server who is asking: the node or user that a connection's certificate names, or a process
// of this machine on the local socket. It does no handshake of its own: package identity has done it when a connection
// gets here. It refuses connections that have proved nothing, unless the daemon runs with --insecure, and processes of
// other users than root and the daemon's own.
//
// The node gives Credentials to its servers; packages api and control ask Of.
package caller

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"hacluster/cmd/internal/identity"
	"hacluster/cmd/internal/identity/pki"
)

// Who is a caller.
type Who struct {
	credentials.CommonAuthInfo
	kind kind
	peer identity.Peer // of a certificate
	uid  uint32        // of a local process
}

type kind int

const (
	unknown   kind = iota // the zero Who may do nothing
	certified             // by TLS
	local                 // a process of this machine that the kernel vouches for
	anyone                // --insecure on a loopback address
)

// AuthType is part of credentials.AuthInfo.
func (Who) AuthType() string { return "hacluster" }

// String names the caller for logs.
func (w Who) String() string {
	switch w.kind {
	case certified:
		return w.peer.String()
	case local:
		return fmt.Sprintf("local uid %d", w.uid)
	case anyone:
		return "anyone (--insecure)"
	}
	return "nobody"
}

// Node is the caller's name when a certificate proves that it is a node. Without TLS nothing is proved: any is true, and
// whatever the caller says of itself has to be taken.
func (w Who) Node() (name string, any bool) {
	if w.kind == certified && w.peer.Kind == pki.KindNode {
		return w.peer.Name, false
	}
	return "", w.kind == anyone
}

// Role is what the caller may do. A node passes on what others asked of it, after it has checked them.
func (w Who) Role() pki.Role {
	switch w.kind {
	case certified:
		if w.peer.Kind == pki.KindUser {
			return w.peer.Role
		}
		return pki.RoleAdmin
	case local, anyone:
		return pki.RoleAdmin
	}
	return ""
}

// Of is who makes a call.
func Of(ctx context.Context) Who {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return Who{}
	}
	w, _ := p.AuthInfo.(Who)
	return w
}

// Credentials are for servers behind listeners of package identity. insecure: the daemon runs without TLS.
func Credentials(insecure bool) credentials.TransportCredentials { return creds{insecure} }

type creds struct{ insecure bool }

// ServerHandshake reads who is at the other side.
func (c creds) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	who, err := c.who(conn)
	// What is said on the connection is as protected as it gets: by TLS below, or by not leaving the machine.
	who.CommonAuthInfo = credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}
	return conn, who, err
}

func (c creds) who(conn net.Conn) (Who, error) {
	if p, ok := identity.PeerOf(conn); ok {
		return Who{kind: certified, peer: p}, nil
	}
	if u, ok := conn.(*net.UnixConn); ok {
		uid, err := peerUID(u)
		if err != nil {
			return Who{}, err
		}
		if uid != 0 && uid != uint32(os.Geteuid()) {
			return Who{}, fmt.Errorf("a process of uid %d on the local socket: root or uid %d is wanted", uid, os.Geteuid())
		}
		return Who{kind: local, uid: uid}, nil
	}
	if c.insecure {
		return Who{kind: anyone}, nil
	}
	return Who{}, errors.New("a connection that has proved nothing")
}

func peerUID(c *net.UnixConn) (uid uint32, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, fmt.Errorf("ask who is on the local socket: %w", err)
	}
	var cred *unix.Ucred
	var opt error
	err = raw.Control(func(fd uintptr) { cred, opt = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err := errors.Join(err, opt); err != nil {
		return 0, fmt.Errorf("ask who is on the local socket: %w", err)
	}
	return cred.Uid, nil
}

// ClientHandshake is not for these credentials: callers bring connections that are protected already.
func (c creds) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("caller: credentials of a server used by a client")
}

func (c creds) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "hacluster"}
}

func (c creds) Clone() credentials.TransportCredentials { return c }

func (c creds) OverrideServerName(string) error { return nil }
