package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"net"
	"net/url"
	"time"
)

// How long certificates are valid.
const (
	DefaultCA   = 3650 * 24 * time.Hour
	DefaultLeaf = 365 * 24 * time.Hour
	minValid    = time.Hour
	maxCA       = 20 * 365 * 24 * time.Hour
	maxLeaf     = 5 * 365 * 24 * time.Hour
	// earlier is by how much a certificate is valid before it was made: clocks differ.
	earlier = time.Hour
)

func checkValid(valid, limit time.Duration) error {
	if valid < minValid || valid > limit {
		return fmt.Errorf("%w: valid for %v: from %v to %.0f days is wanted", ErrUsage, valid, minValid, limit.Hours()/24)
	}
	return nil
}

// authority is a certificate authority that can sign.
type authority struct {
	cert            *x509.Certificate
	key             crypto.Signer
	certPEM, keyPEM []byte
}

func newCA(cluster string, now time.Time, valid time.Duration) (*authority, error) {
	tmpl := &x509.Certificate{
		SerialNumber: nil, // crypto/x509 draws one
		Subject:      pkix.Name{CommonName: "hacluster CA of " + cluster + " " + now.UTC().Format("20060102150405")},
		NotBefore:    now.Add(-earlier), NotAfter: now.Add(valid),
		URIs: []*url.URL{{Scheme: "spiffe", Host: cluster}},
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
		KeyUsage: x509.KeyUsageCertSign,
	}
	return sign(tmpl, nil)
}

// names are what clients other than ours look for in a server's certificate.
type names struct {
	dns []string
	ips []net.IP
}

func newNames(hosts []string) (n names) {
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			n.ips = append(n.ips, ip)
		} else {
			n.dns = append(n.dns, h)
		}
	}
	return n
}

func (ca *authority) issue(s Subject, n names, now time.Time, valid time.Duration) (*authority, error) {
	if end := now.Add(valid); end.After(ca.cert.NotAfter) {
		return nil, fmt.Errorf("%w: a certificate until %s would outlive the CA, which ends %s: make it valid for a shorter time, or replace the CA by `ha-admin pki rotate ca add`",
			ErrUsage, end.UTC().Format(time.RFC3339), ca.cert.NotAfter.UTC().Format(time.RFC3339))
	}
	usage := []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	if s.Kind == KindNode {
		usage = append(usage, x509.ExtKeyUsageServerAuth)
	}
	return sign(&x509.Certificate{
		Subject:   pkix.Name{CommonName: s.stem(), Organization: []string{s.Cluster}},
		NotBefore: now.Add(-earlier), NotAfter: now.Add(valid),
		URIs: []*url.URL{s.uri()}, DNSNames: n.dns, IPAddresses: n.ips,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: usage,
	}, ca)
}

// sign makes a key and a certificate for it, signed by ca, or by itself when ca is nil.
func sign(tmpl *x509.Certificate, ca *authority) (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	parent, signer := tmpl, crypto.Signer(key)
	if ca != nil {
		parent, signer = ca.cert, ca.key
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, key.Public(), signer)
	if err != nil {
		return nil, fmt.Errorf("sign a certificate: %w", err)
	}
	cert, err := x509.ParseCertificate(der) // also finds what others would refuse to parse
	if err != nil {
		return nil, fmt.Errorf("read the new certificate back: %w", err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode a key: %w", err)
	}
	return &authority{cert: cert, key: key,
		certPEM: pem.EncodeToMemory(&pem.Block{Type: pemCert, Bytes: der}),
		keyPEM:  pem.EncodeToMemory(&pem.Block{Type: pemKey, Bytes: pkcs8})}, nil
}

const (
	pemCert = "CERTIFICATE"
	pemKey  = "PRIVATE KEY"
)
