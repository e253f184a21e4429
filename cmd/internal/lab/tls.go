package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"

	"hacluster/cmd/internal/lab/topology"
)

// clientTLS is what an NBD client needs: the user's certificate, and trust in the lab's authority. Nil: no TLS.
func clientTLS(l *topology.Lab) (*tls.Config, error) {
	s, err := l.State()
	if err != nil || s.Config.Plain {
		return nil, err
	}
	user := filepath.Join(l.PKI(), "user-"+topology.User)
	cert, err := tls.LoadX509KeyPair(user+".crt", user+".key")
	if err != nil {
		return nil, fmt.Errorf("the clients' certificate: %w", err)
	}
	ca, err := os.ReadFile(filepath.Join(l.PKI(), "ca.crt"))
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		return nil, fmt.Errorf("%s holds no certificate", filepath.Join(l.PKI(), "ca.crt"))
	}
	return &tls.Config{Certificates: []tls.Certificate{cert}, RootCAs: pool, MinVersion: tls.VersionTLS13}, nil
}
