package main

import (
	"net"
	"path/filepath"
	"testing"

	"hacluster/cmd/internal/config"
	"hacluster/cmd/internal/identity/pki"
)

func TestFolderFromInitToTheLastStepOfEachRotation(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "pki")
	do := func(line ...string) outcome { return admin(t, append(line, "--pki", dir)...) }
	do("pki", "init", "--cluster", "shop").wantSuccess(t, "ha-admin pki node")
	do("pki", "node", "alpha", "beta").wantSuccess(t)
	do("pki", "node", "gamma", "--host", "10.0.0.3,gamma.example", "--valid", "90d").wantSuccess(t)
	do("pki", "user", "bob", "--role", "operator").wantSuccess(t)
	do("pki", "rotate", "ca", "add").wantSuccess(t)
	do("pki", "rotate", "gossip", "add").wantSuccess(t)
	do("pki", "rotate", "ca", "remove").wantFailure(t, 3, "next is `ha-admin pki rotate ca use`")
	do("pki", "rotate", "gossip", "remove").wantFailure(t, 3, "next is `ha-admin pki rotate gossip use`")
	do("pki", "rotate", "ca", "use").wantSuccess(t)
	do("pki", "rotate", "gossip", "use").wantSuccess(t)
	do("pki", "rotate", "ca", "remove").wantSuccess(t)
	do("pki", "rotate", "gossip", "remove").wantSuccess(t)
	do("pki", "rotate", "certs", "node-alpha").wantSuccess(t)
	do("pki", "rotate", "-o", "json").wantSuccess(t)
	for _, line := range [][]string{{"pki", "init", "--cluster", "shop"}, {"pki", "node", "alpha"}, {"pki", "user", "bob", "--role", "admin"}} {
		do(line...).wantFailure(t, 3, "exists already", "rotate")
	}
}

func TestUnusablePKICommandsAreWrongUsage(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "pki")
	do := func(line ...string) outcome { return admin(t, append(line, "--pki", dir)...) }
	do("pki", "init").wantFailure(t, 2, "--cluster") // no cluster.hcl where it lies by default
	do("pki", "node", "alpha").wantFailure(t, 1, "ha-admin pki init")
	do("pki", "init", "--cluster", "shop").wantSuccess(t)
	for _, line := range [][]string{{"pki", "node"}, {"pki", "node", "../x"}, {"pki", "node", "a", "b", "--host", "x"}, {"pki", "user", "bob"},
		{"pki", "user", "bob", "--role", "root"}, {"pki", "node", "a", "--valid", "never"}, {"pki", "node", "a", "--valid", "1s"}, {"pki", "rotate", "ca"},
		{"pki", "rotate", "ca", "back"}, {"pki", "rotate", "moon", "add"}, {"pki", "rotate", "certs", "node-nobody"}, {"pki", "frob"}, {"pki"}} {
		do(line...).wantFailure(t, 2)
	}
}

func TestCertificatesOfNodesBearTheAddressesOfTheConfiguration(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "pki")
	do := func(line ...string) outcome { return admin(t, append(line, "--pki", dir)...) }
	do("pki", "init", "--cluster", "shop").wantSuccess(t)
	do("pki", "node", "alpha", "--config", sample, "--host", "alpha.example").wantSuccess(t)
	rep, err := config.Check(sample, config.Options{})
	if err != nil {
		t.Fatal(err)
	}
	n, _ := rep.Config.Node("alpha")
	host, _, _ := net.SplitHostPort(n.Address)
	certs, err := pki.Certificates(filepath.Join(dir, "node-alpha.crt"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"alpha", "alpha.example", host} {
		if err := certs[0].VerifyHostname(name); err != nil {
			t.Error(err)
		}
	}
	do("pki", "node", "delta", "--config", sample).wantFailure(t, 2, "no node \"delta\"")
	do("pki", "node", "delta").wantSuccess(t, "they name no address", "--host")
}
