package pki

import (
	"crypto/x509"
	"fmt"
	"net/url"
	"strings"
)

// Kind is what a certificate speaks for.
type Kind string

// The kinds.
const (
	KindNode Kind = "node"
	KindUser Kind = "user"
)

// Role is what a user may do.
type Role string

// The roles; each may do what those before it may.
const (
	RoleViewer   Role = "viewer"   // look
	RoleOperator Role = "operator" // move roles, pause, resync; use volumes over NBD
	RoleAdmin    Role = "admin"    // change what the cluster consists of
)

// Covers reports whether r may do what needs the role least.
func (r Role) Covers(least Role) bool {
	return r.rank() > 0 && r.rank() >= least.rank() && least.rank() > 0
}

func (r Role) rank() int {
	switch r {
	case RoleViewer:
		return 1
	case RoleOperator:
		return 2
	case RoleAdmin:
		return 3
	}
	return 0
}

// Subject is whom a certificate speaks for. It stands in the certificate's only URI name:
//
//	spiffe://CLUSTER/node/NAME
//	spiffe://CLUSTER/user/NAME/ROLE
type Subject struct {
	Cluster string
	Kind    Kind
	Name    string
	Role    Role // of a user
}

func (s Subject) String() string { return s.uri().String() }

func (s Subject) uri() *url.URL {
	path := "/" + string(s.Kind) + "/" + s.Name
	if s.Kind == KindUser {
		path += "/" + string(s.Role)
	}
	return &url.URL{Scheme: "spiffe", Host: s.Cluster, Path: path}
}

// stem is the name of the subject's files without the ending.
func (s Subject) stem() string { return string(s.Kind) + "-" + s.Name }

// SubjectOf reads whom a certificate speaks for. It does not say that the certificate is any good.
func SubjectOf(c *x509.Certificate) (Subject, error) {
	if len(c.URIs) != 1 {
		return Subject{}, fmt.Errorf("the certificate has %d URI names, one is wanted", len(c.URIs))
	}
	u := c.URIs[0]
	parts := strings.Split(strings.TrimPrefix(u.Path, "/"), "/")
	s := Subject{Cluster: u.Host}
	switch {
	case u.Scheme != "spiffe" || u.User != nil || u.RawQuery != "" || u.Fragment != "":
	case len(parts) == 2 && parts[0] == string(KindNode):
		s.Kind, s.Name = KindNode, parts[1]
	case len(parts) == 3 && parts[0] == string(KindUser) && Role(parts[2]).rank() > 0:
		s.Kind, s.Name, s.Role = KindUser, parts[1], Role(parts[2])
	}
	if s.Kind == "" || checkName("cluster", s.Cluster) != nil || checkName("name", s.Name) != nil {
		return Subject{}, fmt.Errorf("the certificate's URI name %q is none of this product's", u)
	}
	return s, nil
}
