package identity

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hacluster/cmd/internal/identity/pki"
)

// faults.md G40, at the start: what the others would refuse is refused here, with what, where and what to do.
func TestUnusableMaterialIsRefusedAtTheStart(t *testing.T) {
	cfg := func(f pki.Folder) Config { return Config{PKI: f.Path, Cluster: "shop", Node: "alpha"} }
	write := func(f pki.Folder, name string, b []byte) {
		if err := errors.Join(os.RemoveAll(filepath.Join(f.Path, name)), os.WriteFile(filepath.Join(f.Path, name), b, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	copyFile := func(f, from pki.Folder, name, as string) {
		b, err := os.ReadFile(filepath.Join(from.Path, name))
		if err != nil {
			t.Fatal(err)
		}
		write(f, as, b)
	}
	later := func(f pki.Folder, d time.Duration) error {
		_, err := load(cfg(f), time.Now().Add(d))
		return err
	}
	for name, c := range map[string]struct {
		spoil func(f pki.Folder) Config
		says  []string
	}{
		"no folder":      {func(f pki.Folder) Config { return Config{PKI: f.Path + "x", Node: "alpha"} }, []string{"ca.crt", "no such file", "ha-admin pki init", "--insecure"}},
		"no certificate": {func(f pki.Folder) Config { os.Remove(f.Path + "/node-alpha.crt"); return cfg(f) }, []string{"node-alpha.crt", "ha-admin pki node alpha"}},
		"no key":         {func(f pki.Folder) Config { os.Remove(f.Path + "/node-alpha.key"); return cfg(f) }, []string{"node-alpha.key", "ha-admin pki node alpha"}},
		"no gossip key":  {func(f pki.Folder) Config { os.Remove(f.Path + "/gossip.key"); return cfg(f) }, []string{"gossip.key", "no such file"}},
		"another's key":  {func(f pki.Folder) Config { copyFile(f, f, "node-beta.key", "node-alpha.key"); return cfg(f) }, []string{"do not belong together"}},
		"another's files": {func(f pki.Folder) Config {
			copyFile(f, f, "node-beta.key", "node-alpha.key")
			copyFile(f, f, "node-beta.crt", "node-alpha.crt")
			return cfg(f)
		}, []string{"speaks for spiffe://shop/node/beta", "this is spiffe://shop/node/alpha"}},
		"another CA":      {func(f pki.Folder) Config { copyFile(f, folderOf(t, "shop"), "ca.crt", "ca.crt"); return cfg(f) }, []string{"not signed by this cluster's authority", "rotate certs"}},
		"another cluster": {func(f pki.Folder) Config { return Config{PKI: f.Path, Cluster: "bank", Node: "alpha"} }, []string{"speaks for spiffe://shop/node/alpha", "bank"}},
		"key for all":     {func(f pki.Folder) Config { os.Chmod(f.Path+"/node-alpha.key", 0o644); return cfg(f) }, []string{"chmod 600"}},
		"not PEM":         {func(f pki.Folder) Config { write(f, "node-alpha.crt", []byte("x")); return cfg(f) }, []string{"holds no certificate"}},
		"key in ca.crt":   {func(f pki.Folder) Config { copyFile(f, f, "ca.key", "ca.crt"); return cfg(f) }, []string{"certificates only"}},
		"leaf in ca.crt":  {func(f pki.Folder) Config { copyFile(f, f, "node-beta.crt", "ca.crt"); return cfg(f) }, []string{"not the certificate of a cluster's authority"}},
		"a folder instead": {func(f pki.Folder) Config {
			os.Remove(f.Path + "/ca.crt")
			os.Mkdir(f.Path+"/ca.crt", 0o700)
			return cfg(f)
		}, []string{"no regular file"}},
		"no user": {func(f pki.Folder) Config {
			os.Remove(f.Path + "/user-bob.crt")
			os.Remove(f.Path + "/user-eve.crt")
			return Config{PKI: f.Path}
		}, []string{"no certificate of a user", "ha-admin pki user"}},
	} {
		f := shop(t)
		_, err := New(c.spoil(f))
		if _, ok := errors.AsType[*MaterialError](err); !ok {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for _, s := range c.says {
			if !strings.Contains(err.Error(), s) {
				t.Errorf("%s: %q is missing in: %v", name, s, err)
			}
		}
	}
	f := shop(t)
	if err := later(f, 2*pki.DefaultLeaf); err == nil || !strings.Contains(err.Error(), "expired") || !strings.Contains(err.Error(), "rotate certs") {
		t.Errorf("expired: %v", err)
	}
	if err := later(f, -2*time.Hour); err == nil || !strings.Contains(err.Error(), "not valid yet") {
		t.Errorf("of tomorrow: %v", err)
	}
}

func TestExpiryWarnsAtThirtySevenAndOneDay(t *testing.T) {
	end := time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
	const day = 24 * time.Hour
	for before, want := range map[time.Duration]time.Duration{31 * day: 0, 30 * day: 30 * day, 8 * day: 30 * day, 7 * day: 7 * day, day: day, time.Minute: day, -day: day} {
		if w, ok := (Expiry{NotAfter: end}).Warning(end.Add(-before)); w != want || ok != (want != 0) {
			t.Errorf("%v before: %v, %v; want %v", before, w, ok, want)
		}
	}
	tr, err := New(Config{PKI: shop(t).Path, Cluster: "shop", Node: "alpha"})
	if err != nil {
		t.Fatal(err)
	}
	if all := tr.Expiries(); len(all) != 2 || all[0].File != "node-alpha.crt" || all[1].File != "ca.crt" || !tr.Expiry().Equal(all[0].NotAfter) {
		t.Errorf("%+v, first %v", all, tr.Expiry())
	}
}
