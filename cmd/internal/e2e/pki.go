package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// PKI is the folder in which `ha-admin pki` works, with user "root" of role admin; only with Config.TLS.
func (c *Cluster) PKI() string { return filepath.Join(c.cfg.Dir, "pki") }

// NodePKI is a node's own folder, as it would lie on its server.
func (c *Cluster) NodePKI(node string) string { return filepath.Join(c.cfg.Dir, node+".pki") }

// MakePKI runs `ha-admin pki` in the cluster's folder.
func (c *Cluster) MakePKI(args ...string) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(c.cfg.Bin, "ha-admin"), append([]string{"pki", "--pki", c.PKI()}, args...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("ha-admin pki %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}

// firstPKI makes what the nodes need to start.
func (c *Cluster) firstPKI() error {
	return errors.Join(c.MakePKI("init", "--cluster", clusterName), c.MakePKI(append([]string{"node", "--config", c.File()}, c.Nodes()...)...),
		c.MakePKI("user", "root", "--role", "admin"), c.Deliver(c.Nodes()...))
}

// Deliver takes each node's files to it: its own certificate and key, ca.crt and gossip.key.
func (c *Cluster) Deliver(nodes ...string) error {
	for _, n := range nodes {
		if err := os.MkdirAll(c.NodePKI(n), 0o700); err != nil {
			return err
		}
		for _, f := range []string{"ca.crt", "gossip.key", "node-" + n + ".crt", "node-" + n + ".key"} {
			b, err := os.ReadFile(filepath.Join(c.PKI(), f))
			if err == nil {
				err = os.WriteFile(filepath.Join(c.NodePKI(n), f), b, 0o600)
			}
			if err != nil {
				return fmt.Errorf("deliver %s to %s: %w", f, n, err)
			}
		}
	}
	return nil
}

// Reload delivers the files and has the nodes read them.
func (c *Cluster) Reload(nodes ...string) error {
	err := c.Deliver(nodes...)
	for _, n := range nodes {
		err = errors.Join(err, c.Signal(n, syscall.SIGHUP))
	}
	return err
}

// security is what the daemon is told of TLS.
func (c *Cluster) security(node string) []string {
	if c.cfg.TLS {
		return []string{"--pki", c.NodePKI(node)}
	}
	return []string{"--insecure"}
}

// Address is a node's TCP port.
func (c *Cluster) Address(node string) string { return c.at(node, 0, c.port) }

// NBD is where a node serves volumes over tcp.
func (c *Cluster) NBD(node string) string { return c.at(node, 0, c.port+2) }

// Links are a node's heartbeat links.
func (c *Cluster) Links(node string) []string {
	return []string{c.at(node, 1, c.port), c.at(node, 2, c.port)}
}

func (c *Cluster) at(node string, cable, port int) string {
	for i, n := range c.Nodes() {
		if n == node {
			return fmt.Sprintf("127.%d.%d.%d:%d", c.net, cable, i+1, port)
		}
	}
	panic("e2e: no such node: " + node)
}
