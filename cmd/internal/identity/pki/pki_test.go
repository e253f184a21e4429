package pki

import (
	"bytes"
	"crypto/x509"
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const year = 365 * 24 * time.Hour

func newFolder(t *testing.T) Folder {
	t.Helper()
	f := Folder{Path: filepath.Join(t.TempDir(), "pki")}
	must(t, f.Init("shop", DefaultCA))
	must(t, f.Node("alpha", []string{"10.0.0.1", "alpha.example"}, year))
	must(t, f.Node("beta", nil, year))
	must(t, f.User("bob", RoleOperator, year))
	return f
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// contents is every file of the folder.
func contents(t *testing.T, f Folder) map[string]string {
	t.Helper()
	all := map[string]string{}
	entries, err := os.ReadDir(f.Path)
	must(t, err)
	for _, e := range entries {
		b, err := os.ReadFile(f.file(e.Name()))
		must(t, err)
		all[e.Name()] = string(b)
	}
	return all
}

// A process that is being started has a copy of every descriptor until it is another program.
func TestFolderIsFreeAgainWhileAProcessIsBeingStarted(t *testing.T) {
	f := newFolder(t)
	copied := -1
	must(t, f.locked(func() error {
		fds, err := os.ReadDir("/proc/self/fd")
		for _, fd := range fds {
			if to, _ := os.Readlink("/proc/self/fd/" + fd.Name()); to == f.Path {
				n, _ := strconv.Atoi(fd.Name())
				copied, err = unix.Dup(n)
			}
		}
		return err
	}))
	if copied < 0 {
		t.Fatal("no descriptor of the folder was found")
	}
	defer unix.Close(copied)
	must(t, f.Node("gamma", nil, year))
}

func TestKeysAreSecretAndNothingIsOverwritten(t *testing.T) {
	f := newFolder(t)
	before := contents(t, f)
	for name := range before {
		info, err := os.Stat(f.file(name))
		must(t, err)
		if want := map[bool]os.FileMode{true: 0o600, false: 0o644}[strings.HasSuffix(name, ".key")]; info.Mode().Perm() != want {
			t.Errorf("%s has mode %v, want %v", name, info.Mode(), want)
		}
	}
	for what, do := range map[string]func() error{
		"init": func() error { return f.Init("shop", DefaultCA) },
		"node": func() error { return f.Node("alpha", nil, year) },
		"user": func() error { return f.User("bob", RoleAdmin, year) },
	} {
		if err := do(); !errors.Is(err, ErrExists) {
			t.Errorf("%s again: %v", what, err)
		}
	}
	must(t, os.Remove(f.file("node-beta.key"))) // the key would fit, the certificate is in the way: neither is written
	if err := f.Node("beta", nil, year); !errors.Is(err, ErrExists) {
		t.Errorf("a certificate without its key was overwritten: %v", err)
	}
	delete(before, "node-beta.key")
	if after := contents(t, f); !equal(before, after) {
		t.Error("a refusal changed the folder")
	}
}

func equal(a, b map[string]string) bool {
	if len(a) != len(b) {
		return false
	}
	for k, v := range a {
		if w, ok := b[k]; !ok || v != w {
			return false
		}
	}
	return true
}

// verify checks a certificate of one folder's state against the authorities of another's.
func verify(cas []*x509.Certificate, leaf *x509.Certificate, usage x509.ExtKeyUsage) error {
	pool := x509.NewCertPool()
	for _, c := range cas {
		pool.AddCert(c)
	}
	_, err := leaf.Verify(x509.VerifyOptions{Roots: pool, KeyUsages: []x509.ExtKeyUsage{usage}})
	return err
}

func TestCertificatesSpeakForTheirSubjects(t *testing.T) {
	f := newFolder(t)
	cas, err := f.Authorities()
	must(t, err)
	leaves, err := f.Leaves()
	must(t, err)
	want := map[string]string{"node-alpha": "spiffe://shop/node/alpha", "node-beta": "spiffe://shop/node/beta", "user-bob": "spiffe://shop/user/bob/operator"}
	if len(leaves) != len(want) {
		t.Errorf("%d certificates", len(leaves))
	}
	for _, l := range leaves {
		if l.Cert.URIs[0].String() != want[l.File] || l.Subject.String() != want[l.File] {
			t.Errorf("%s speaks for %v", l.File, l.Cert.URIs)
		}
		must(t, verify(cas, l.Cert, x509.ExtKeyUsageClientAuth))
		if serves := verify(cas, l.Cert, x509.ExtKeyUsageServerAuth) == nil; serves != (l.Subject.Kind == KindNode) {
			t.Errorf("%s may serve: %v", l.File, serves)
		}
		if l.Cert.IsCA {
			t.Errorf("%s can sign others", l.File)
		}
	}
	if a := leaves[0].Cert; !slices.Equal(a.DNSNames, []string{"alpha", "alpha.example"}) || a.IPAddresses[0].String() != "10.0.0.1" {
		t.Errorf("names %v %v", a.DNSNames, a.IPAddresses)
	}
}

func TestUnusableNamesRolesAndTimesAreRefused(t *testing.T) {
	f := newFolder(t)
	before := contents(t, f)
	for _, err := range []error{
		f.Node("", nil, year), f.Node("../x", nil, year), f.Node("a/b", nil, year), f.Node("a..b", nil, year), f.Node("x.", nil, year),
		f.Node("x\n", nil, year), f.Node(strings.Repeat("x", 64), nil, year), f.User("eve", "root", year), f.User("eve", "", year),
		f.Node("gamma", nil, time.Minute), f.Node("gamma", nil, -year), f.Node("gamma", nil, 6*year),
		Folder{Path: f.Path + "2"}.Init("a b", DefaultCA), Folder{Path: f.Path + "2"}.Init("shop", 100*year),
		// It would outlive the CA.
		Folder{Path: f.Path, Now: func() time.Time { return time.Now().Add(9*year + year/2) }}.Node("gamma", nil, year),
	} {
		if !errors.Is(err, ErrUsage) {
			t.Errorf("not refused as wrong usage: %v", err)
		}
	}
	if !equal(before, contents(t, f)) {
		t.Error("a refusal changed the folder")
	}
}

// Nodes that have taken a step and nodes that have not know each other, at each step.
func TestRotationOfTheAuthorityNeverSeparatesNodes(t *testing.T) {
	f := newFolder(t)
	type state struct {
		cas  []*x509.Certificate
		leaf *x509.Certificate
	}
	look := func() state {
		cas, err := f.Authorities()
		must(t, err)
		l, err := f.readLeaf("node-alpha")
		must(t, err)
		return state{cas, l.Cert}
	}
	states := []state{look()}
	times := map[Step]time.Duration{StepAdd: 2 * year, StepUse: year, StepRemove: year}
	for i, step := range []Step{StepAdd, StepUse, StepRemove} {
		for _, other := range []Step{StepAdd, StepUse, StepRemove} {
			if other == step {
				continue
			}
			if _, err := f.RotateCA(other, year); !errors.Is(err, ErrStep) || !strings.Contains(err.Error(), "rotate ca "+string(step)) {
				t.Errorf("step %d: %s was not refused with the next one's name: %v", i+1, other, err)
			}
		}
		if _, err := f.RotateCA(step, times[step]); err != nil {
			t.Fatal(err)
		}
		states = append(states, look())
		for _, pair := range [][2]int{{i, i + 1}, {i + 1, i}, {i + 1, i + 1}} {
			if err := verify(states[pair[0]].cas, states[pair[1]].leaf, x509.ExtKeyUsageServerAuth); err != nil {
				t.Errorf("after step %d: authorities of state %d, certificate of state %d: %v", i+1, pair[0], pair[1], err)
			}
		}
	}
	if verify(states[3].cas, states[0].leaf, x509.ExtKeyUsageServerAuth) == nil || len(states[3].cas) != 1 {
		t.Error("the old authority is still trusted")
	}
	if next, err := f.NextCA(); err != nil || next != StepAdd || f.exists(caNextKey) {
		t.Errorf("after the last step: next %q, %v", next, err)
	}
}

func TestRotationThatWasCutShortGoesOn(t *testing.T) {
	f := newFolder(t)
	must(t, os.WriteFile(f.file(caNextKey), []byte("left by an add that was cut short"), 0o600))
	if _, err := f.RotateCA(StepAdd, 2*year); err != nil {
		t.Fatal(err)
	}
	// use, cut short behind its first effect: the key is in its place, nothing is signed anew.
	must(t, os.Rename(f.file(caNextKey), f.file(caKey)))
	if _, err := f.RotateCA(StepRemove, year); !errors.Is(err, ErrStep) || !strings.Contains(err.Error(), "rotate certs node-alpha") {
		t.Fatalf("the authority of certificates in use was removed: %v", err)
	}
	done, err := f.Reissue(nil, year)
	if err != nil || len(done) != 3 {
		t.Fatalf("reissued %v, %v", done, err)
	}
	if _, err := f.RotateCA(StepRemove, year); err != nil {
		t.Fatal(err)
	}
}

func TestReissueKeepsSubjectAndNamesAndChangesTheKey(t *testing.T) {
	f := newFolder(t)
	before, err := f.readLeaf("node-alpha")
	must(t, err)
	other, err := f.readLeaf("node-beta")
	must(t, err)
	if done, err := f.Reissue([]string{"node-alpha"}, year); err != nil || !slices.Equal(done, []string{"node-alpha"}) {
		t.Fatal(done, err)
	}
	after, err := f.readLeaf("node-alpha")
	must(t, err)
	if after.Subject != before.Subject || !slices.Equal(after.Cert.DNSNames, before.Cert.DNSNames) || bytes.Equal(after.Cert.RawSubjectPublicKeyInfo, before.Cert.RawSubjectPublicKeyInfo) {
		t.Errorf("%+v became %+v", before, after)
	}
	if again, err := f.readLeaf("node-beta"); err != nil || !again.Cert.Equal(other.Cert) {
		t.Error("another certificate changed")
	}
	if _, err := f.Reissue([]string{"node-nobody"}, year); !errors.Is(err, ErrUsage) {
		t.Errorf("an unknown name: %v", err)
	}
}

func TestGossipRotationNeverSeparatesNodes(t *testing.T) {
	f := newFolder(t)
	g, err := f.GossipKeys()
	must(t, err)
	first := g.Keys[0].Key
	opens := func(g Gossip, key []byte) bool {
		return slices.ContainsFunc(g.Raw(), func(k []byte) bool { return bytes.Equal(k, key) })
	}
	for _, step := range []Step{StepAdd, StepUse, StepRemove} {
		if g.Next() != step {
			t.Fatalf("next is %s, want %s", g.Next(), step)
		}
		for _, other := range []Step{StepAdd, StepUse, StepRemove} {
			if err := f.RotateGossip(other); other != step && !errors.Is(err, ErrStep) {
				t.Fatalf("%s before %s: %v", other, step, err)
			} else if other == step {
				must(t, err)
				break
			}
		}
		next, err := f.GossipKeys()
		must(t, err)
		if !opens(next, g.Keys[0].Key) || !opens(g, next.Keys[0].Key) {
			t.Errorf("after %s, nodes with the file and nodes without do not understand each other", step)
		}
		g = next
	}
	if len(g.Keys) != 1 || bytes.Equal(g.Keys[0].Key, first) {
		t.Error("the old key is still there")
	}
}

func TestBadGossipFilesAreRefused(t *testing.T) {
	const good = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
	f := newFolder(t)
	for name, c := range map[string]struct{ text, says string }{
		"empty":      {"# nothing\n\n", "holds 0 keys"},
		"short":      {"MDEy\n", "gossip.key:1: 32 bytes in base64"},
		"not base64": {"# x\n!!!!\n", "gossip.key:2: 32 bytes"},
		"twice":      {good + "\n" + good + "\n", "the same key"},
		"bad time":   {good + " yesterday\n", "a time such as"},
		"more":       {good + " 2026-11-22T10:00:00Z x\n", "nothing else"},
		"huge":       {strings.Repeat("#\n", 1<<16), "at most 65536"},
	} {
		must(t, os.WriteFile(f.file(gossipKey), []byte(c.text), 0o600))
		if _, err := f.GossipKeys(); err == nil || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), good) {
			t.Errorf("%s: %v, want %q", name, err, c.says)
		}
	}
	must(t, os.WriteFile(f.file(gossipKey), []byte(good), 0o600))
	must(t, os.Chmod(f.file(gossipKey), 0o644))
	if _, err := f.GossipKeys(); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("a key that others can read: %v", err)
	}
}

func TestURINamesThatAreNotOursAreRefused(t *testing.T) {
	for _, s := range []string{"", "spiffe://shop", "https://shop/node/a", "spiffe://shop/node/", "spiffe://shop/node/a/b", "spiffe://shop/user/a",
		"spiffe://shop/user/a/root", "spiffe://shop/node/a?x=1", "spiffe://shop/node/a#x", "spiffe://x@shop/node/a", "spiffe:///node/a", "spiffe://shop/node/..",
		"spiffe://shop/node/%2e%2e", "spiffe://shop/node/a%2Fb", "spiffe://shop:1/node/a"} {
		u, err := url.Parse(s)
		must(t, err)
		if got, err := SubjectOf(&x509.Certificate{URIs: []*url.URL{u}}); err == nil {
			t.Errorf("%q was taken for %+v", s, got)
		}
	}
	a, _ := url.Parse("spiffe://shop/node/a")
	if _, err := SubjectOf(&x509.Certificate{URIs: []*url.URL{a, a}}); err == nil {
		t.Error("two names were taken")
	}
	if _, err := SubjectOf(&x509.Certificate{}); err == nil {
		t.Error("no name was taken")
	}
	if got, err := SubjectOf(&x509.Certificate{URIs: []*url.URL{a}}); err != nil || got != (Subject{Cluster: "shop", Kind: KindNode, Name: "a"}) {
		t.Error(got, err)
	}
}

func TestRolesCoverTheLesserOnes(t *testing.T) {
	all := []Role{RoleViewer, RoleOperator, RoleAdmin}
	for i, r := range all {
		for j, least := range all {
			if r.Covers(least) != (i >= j) {
				t.Errorf("%s covers %s: %v", r, least, r.Covers(least))
			}
		}
		if Role("").Covers(r) || Role("root").Covers(r) || r.Covers("") || r.Covers("root") {
			t.Errorf("an unknown role and %s", r)
		}
	}
}
