package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// faults.md G40, seen from the other side: clients of others judge the node's certificate by rules of their own. GnuTLS,
// which libnbd and qemu use, demands that it names the host of the URI.
func TestClientsOfOthersTakeTheNodesCertificate(t *testing.T) {
	needs(t, "libnbd-bin", "nbdinfo", "nbdcopy")
	r := healthy(t, Config{RTO: "10s", TLS: true, Size: "8MiB"})
	r.pki("user", "operator", "--role", "operator")
	own := filepath.Join(r.cfg.Dir, "client")
	if err := os.Mkdir(own, 0o700); err != nil {
		t.Fatal(err)
	}
	for to, from := range map[string]string{"ca-cert.pem": "ca.crt", "client-cert.pem": "user-operator.crt", "client-key.pem": "user-operator.key"} {
		b, err := os.ReadFile(filepath.Join(r.PKI(), from))
		if err == nil {
			err = os.WriteFile(filepath.Join(own, to), b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	// libnbd's names: nbds demands TLS, and with the certificates it verifies the server.
	uri := "nbds://" + r.NBD(r.vol().Primary) + "/" + Volume + "?tls-certificates=" + own
	if out := r.tool("nbdinfo", uri); !strings.Contains(out, "newstyle-fixed with TLS") {
		t.Errorf("nbdinfo: %s", out)
	}
	r.tool("nbdcopy", uri, filepath.Join(r.cfg.Dir, "copy.img"))
}

// tool runs a program that must succeed.
// needs skips the test when a program of a package, by Debian's name, is missing.
func needs(t *testing.T, pkg string, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("%s is not installed (Debian: %s)", p, pkg)
		}
	}
}

func (r *rig) tool(name string, args ...string) string {
	r.t.Helper()
	ctx, cancel := r.within()
	defer cancel()
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		r.t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}
