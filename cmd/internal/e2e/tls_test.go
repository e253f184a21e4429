package e2e

import (
	"crypto/tls"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"hacluster/blockdev/frontend/nbd/nbdclient"
	"hacluster/cmd/internal/api"
	"hacluster/cmd/internal/identity/pki"
)

func (r *rig) pki(args ...string) {
	r.t.Helper()
	if err := r.MakePKI(args...); err != nil {
		r.t.Fatal(err)
	}
}

// reload takes the files to the nodes and waits until each has read them.
func (r *rig) reload() {
	r.t.Helper()
	before := map[string]int{}
	for _, n := range Nodes {
		before[n] = r.logged(n, "certificates were read again")
	}
	if err := r.Reload(Nodes...); err != nil {
		r.t.Fatal(err)
	}
	for _, n := range Nodes {
		r.untilLogged(n, "certificates were read again", before[n]+1)
	}
}

// logged is how often a node's log says something.
func (r *rig) logged(node, words string) int {
	r.t.Helper()
	b, err := os.ReadFile(r.Log(node))
	if err != nil {
		r.t.Fatal(err)
	}
	return strings.Count(string(b), words)
}

func (r *rig) untilLogged(node, words string, times int) {
	r.t.Helper()
	for deadline := time.Now().Add(patience); r.logged(node, words) < times; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			r.t.Fatalf("%s logged %q %d times, not %d", node, words, r.logged(node, words), times)
		}
	}
}

func TestTLSClusterMirrorsAndFailsOver(t *testing.T) {
	r := healthy(t, Config{RTO: "4s", TLS: true})
	l := r.load()
	first, _, _ := r.killed("with TLS", false)
	l.more(100)
	r.start(first)
	r.until("healthy", Healthy)
	r.admin(0, "failover", Volume, "--to", first)
	l.more(100)
	l.stop()
	r.same()
}

// A rotation of everything, step by step, while a client writes. The client's connection lasts, and so does the
// primary's tenure; then all nodes are started anew with what they have in the end.
func TestCertificatesAndKeysAreRotatedUnderLoad(t *testing.T) {
	r := healthy(t, Config{RTO: "10s", TLS: true}) // a busy machine alone must move no role here
	l := r.load()
	before := r.vol()
	for _, step := range []string{"add", "use", "remove"} {
		r.pki("rotate", "ca", step)
		r.pki("rotate", "gossip", step)
		r.reload()
		l.more(50)
	}
	r.pki("rotate", "certs")
	r.reload()
	l.more(50)
	if s := l.dev.Stats(); s.Reconnects != 0 {
		t.Errorf("the client lost its connection %d times", s.Reconnects)
	}
	if v := r.vol(); v.Primary != before.Primary || v.Epoch != before.Epoch || len(v.InSync) != 2 {
		t.Errorf("%s, epoch %d, became %s, epoch %d, members %v", before.Primary, before.Epoch, v.Primary, v.Epoch, v.InSync)
	}
	r.stop("gamma", other(before.Primary), before.Primary)
	r.start()
	r.until("all are back", func(s *api.Status) bool {
		return Healthy(s) && !slices.ContainsFunc(s.Nodes, func(n api.NodeStatus) bool { return n.State != "alive" })
	})
	l.more(50)
	l.stop()
	r.same()
}

// faults.md C81, G40: what is unusable at a reload is refused and named; the node goes on with what it had.
func TestBadCertificatesAtAReloadChangeNothing(t *testing.T) {
	r := healthy(t, Config{RTO: "4s", TLS: true})
	l := r.load()
	standby := other(r.vol().Primary)
	key := filepath.Join(r.NodePKI(standby), "node-"+standby+".key")
	if err := os.WriteFile(key, []byte("no key"), 0o600); err != nil {
		t.Fatal(err)
	}
	r.signal(syscall.SIGHUP, standby)
	r.untilLog(standby, "certificates cannot be read again: the old ones stay in use")
	ctx, cancel := r.within()
	defer cancel()
	out, _, _ := r.AdminAt(ctx, r.socket(standby), "events")
	r.says(out, "certificates refused", "node-"+standby+".key")
	l.more(50)
	r.struck(blow{what: "it is still trusted, and takes over", node: other(standby),
		strike: func(node string) { r.Kill(node) }, undo: func(node string) { r.start(node) }})
	l.more(50)
	r.stop(standby)
	r.start(standby)
	r.ends(standby, 2)
	r.says(r.log(standby), "TLS: "+key, "PEM")
	if err := r.Deliver(standby); err != nil {
		t.Fatal(err)
	}
	r.start()
	r.until("healthy", Healthy)
	l.stop()
}

func (r *rig) log(node string) string {
	r.t.Helper()
	b, err := os.ReadFile(r.Log(node))
	if err != nil {
		r.t.Fatal(err)
	}
	return string(b)
}

func TestLogLevelIsReadAgainAtSIGHUP(t *testing.T) {
	r := healthy(t, Config{RTO: "4s"})
	level := filepath.Join(r.DataDir("gamma"), "log_level")
	write := func(s string) {
		t.Helper()
		if err := os.WriteFile(level, []byte(s), 0o644); err != nil {
			t.Fatal(err)
		}
		r.signal(syscall.SIGHUP, "gamma")
	}
	write("debug\n")
	r.untilLog("gamma", `"log level changed" node=gamma from=INFO to=DEBUG`)
	r.untilLog("gamma", "level=DEBUG")
	write("loud\n")
	r.untilLog("gamma", "the log level stays as it was")
	if err := os.Remove(level); err != nil {
		t.Fatal(err)
	}
	r.signal(syscall.SIGHUP, "gamma")
	r.untilLog("gamma", "from=DEBUG to=INFO")
}

// faults.md G39, G40: certificates that the others would refuse are refused at the start.
func TestUnusableCertificatesAreRefusedAtTheStart(t *testing.T) {
	r := newRig(t, Config{TLS: true})
	twin := newRig2(t, r)
	own := r.NodePKI("alpha")
	past := pki.Folder{Path: filepath.Join(r.cfg.Dir, "past"), Now: func() time.Time { return time.Now().Add(-30 * 24 * time.Hour) }}
	if err := errors.Join(past.Init(clusterName, pki.DefaultCA), past.Node("alpha", nil, 24*time.Hour)); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		dir  string
		says []string
	}{
		"no folder":         {own + "none", []string{"ca.crt", "no such file", "ha-admin pki init"}},
		"another node's":    {r.NodePKI("beta"), []string{"node-alpha.crt", "no such file", "ha-admin pki node alpha"}},
		"a mixture of two":  {twin, []string{"not signed by this cluster's authority", "node-alpha.crt"}},
		"expired long ago":  {past.Path, []string{"expired", "valid from", "ha-admin pki rotate certs"}},
		"none of this name": {otherName(t, r), []string{"spiffe://bank/node/alpha", "spiffe://e2e/node/alpha"}},
	} {
		out, code := r.daemon("--config", r.File(), "--node", "alpha", "--pki", c.dir)
		if code != 2 {
			t.Errorf("%s: exit code %d, want 2: %s", name, code, out)
		}
		r.says(out, c.says...)
	}
	if _, err := os.Stat(r.DataDir("alpha")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a refused start left something behind: %v", err)
	}
}

// newRig2 is a folder with alpha's files and the authority of a cluster of the same name.
func newRig2(t *testing.T, r *rig) string {
	t.Helper()
	f := pki.Folder{Path: filepath.Join(r.cfg.Dir, "twin")}
	if err := errors.Join(f.Init(clusterName, pki.DefaultCA)); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"node-alpha.crt", "node-alpha.key"} {
		b, err := os.ReadFile(filepath.Join(r.NodePKI("alpha"), name))
		if err == nil {
			err = os.WriteFile(filepath.Join(f.Path, name), b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return f.Path
}

func otherName(t *testing.T, r *rig) string {
	t.Helper()
	f := pki.Folder{Path: filepath.Join(r.cfg.Dir, "bank")}
	if err := errors.Join(f.Init("bank", pki.DefaultCA), f.Node("alpha", nil, pki.DefaultLeaf)); err != nil {
		t.Fatal(err)
	}
	return f.Path
}

// faults.md G40, G41, G55, with real processes: every port that speaks TLS, tried by those who may not, by those who may
// do less, and by those who may.
func TestEveryPortRefusesStrangers(t *testing.T) {
	r := healthy(t, Config{RTO: "4s", TLS: true})
	l := r.load()
	for _, role := range []string{"viewer", "operator"} {
		r.pki("user", role, "--role", role)
	}
	stranger := pki.Folder{Path: filepath.Join(r.cfg.Dir, "stranger")}
	if err := errors.Join(stranger.Init(clusterName, pki.DefaultCA), stranger.Node("beta", nil, pki.DefaultLeaf), stranger.User("root", pki.RoleAdmin, pki.DefaultLeaf)); err != nil {
		t.Fatal(err)
	}
	primary := r.vol().Primary
	addr := r.Address(primary)
	ha := func(code int, args ...string) string {
		t.Helper()
		ctx, cancel := r.within()
		defer cancel()
		_, errs, got := r.AdminAt(ctx, addr, args...)
		if got != code {
			t.Errorf("ha-admin %s: exit code %d, want %d: %s", strings.Join(args, " "), got, code, errs)
		}
		return errs
	}
	ha(0, "status", "--pki", r.PKI(), "--user", "viewer")
	ha(0, "status", "--pki", r.PKI(), "--user", "operator")
	r.says(ha(3, "failover", Volume, "--pki", r.PKI(), "--user", "viewer"), "viewer", "operator is wanted", "--user")
	r.says(ha(3, "node", "remove", "gamma", "--pki", r.PKI(), "--user", "operator"), "admin is wanted")
	ha(4, "status", "--pki", stranger.Path)
	ha(4, "status", "--insecure")
	ha(1, "status", "--pki", r.NodePKI(primary)) // no user's certificate there

	// The protocols of the node's port, by hand.
	for name, c := range map[string]struct {
		folder, file string
		alpn         string
		max          uint16
		fine         bool
	}{
		"a node speaks Raft":         {r.PKI(), "node-gamma", "ha-raft", tls.VersionTLS13, true},
		"a user speaks Raft":         {r.PKI(), "user-root", "ha-raft", tls.VersionTLS13, false},
		"a user speaks block data":   {r.PKI(), "user-root", "ha-data", tls.VersionTLS13, false},
		"a stranger speaks Raft":     {stranger.Path, "node-beta", "ha-raft", tls.VersionTLS13, false},
		"a stranger speaks gRPC":     {stranger.Path, "user-root", "h2", tls.VersionTLS13, false},
		"a node with another's data": {r.PKI(), "node-gamma", "imap", tls.VersionTLS13, false},
		"TLS 1.2":                    {r.PKI(), "node-gamma", "ha-raft", tls.VersionTLS12, false},
		"nobody speaks block data":   {"", "", "ha-data", tls.VersionTLS13, false},
	} {
		if err := handshake(r, addr, c.folder, c.file, c.alpn, c.max); (err == nil) != c.fine {
			t.Errorf("%s: %v", name, err)
		}
	}
	nbdTable(r, primary, stranger)
	r.untilLog(primary, "refused: certificate is not signed by this cluster's authority")
	r.untilLog(primary, "refused: no TLS spoken to a port that demands it")
	r.untilLog(primary, "refused: certificate of a user where only nodes speak")
	r.untilLog(primary, "refused: the caller's role does not cover the command")
	l.more(50)
	l.stop()
	r.same()
}

// handshake tries one and stays for the first answer: a server of TLS 1.3 judges a certificate after its own part.
func handshake(r *rig, addr, folder, file, alpn string, most uint16) error {
	cfg := &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12, MaxVersion: most, NextProtos: []string{alpn}}
	if file != "" {
		cert, err := tls.LoadX509KeyPair(filepath.Join(folder, file+".crt"), filepath.Join(folder, file+".key"))
		if err != nil {
			r.t.Fatal(err)
		}
		cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil }
	}
	c, err := tls.Dial("tcp", addr, cfg)
	if err != nil {
		return err
	}
	defer c.Close()
	// A stranger is cut off with an alert. One who is welcome is waited for, until the greeting is overdue.
	c.SetReadDeadline(time.Now().Add(patience))
	_, err = c.Read(make([]byte, 1))
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// nbdTable tries STARTTLS on the tcp port, which is a loopback address here and so does not demand it.
func nbdTable(r *rig, primary string, stranger pki.Folder) {
	r.t.Helper()
	for name, c := range map[string]struct {
		folder, file string
		fine         bool
	}{
		"an operator": {r.PKI(), "user-operator", true},
		"a viewer":    {r.PKI(), "user-viewer", false},
		"a stranger":  {stranger.Path, "user-root", false},
	} {
		cert, err := tls.LoadX509KeyPair(filepath.Join(c.folder, c.file+".crt"), filepath.Join(c.folder, c.file+".key"))
		if err != nil {
			r.t.Fatal(err)
		}
		cfg := &tls.Config{InsecureSkipVerify: true, GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil }}
		ctx, cancel := r.within()
		cl, err := nbdclient.Config{TLS: cfg}.Dial(ctx, "nbds://"+r.NBD(primary)+"/"+Volume)
		if err == nil {
			_, err = cl.ReadAt(make([]byte, 4096), 0)
			cl.Close()
		}
		cancel()
		if (err == nil) != c.fine {
			r.t.Errorf("NBD by %s: %v", name, err)
		}
	}
}
