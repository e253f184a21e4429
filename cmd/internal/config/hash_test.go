package config

import (
	"encoding/json"
	"strings"
	"testing"
)

func hashOf(t *testing.T, src, node string) string {
	t.Helper()
	rep, err := check("cluster.hcl", []byte(src), Options{Node: node})
	if err != nil {
		t.Fatal(err)
	}
	return rep.Config.Hash()
}

// faults.md C78: the same file is the same configuration, whoever reads it.
func TestC78HashIsEqualOnAllNodes(t *testing.T) {
	sample := changed(t, loopback(t), `volume "pgdata" {`, "service \"web\" {\n  volumes = [\"pgdata\"]\n"+
		"  address \"10.0.0.9/24\" { interface = node.name }\n}\nvolume \"pgdata\" {")
	want := hashOf(t, sample, "")
	for _, node := range []string{"alpha", "beta", "gamma"} {
		if got := hashOf(t, sample, node); got != want {
			t.Errorf("read by %s: %s, want %s", node, got, want)
		}
	}
}

func TestHashLooksAtTheMeaningOnly(t *testing.T) {
	src := loopback(t)
	want := hashOf(t, src, "alpha")
	nodes := "node \"gamma\" {\n  role    = \"witness\"\n  address = \"127.0.0.3:7400\"\n}\n"
	same := map[string]string{
		"a comment":         "# hello\n" + src,
		"layout":            strings.ReplaceAll(src, "  ", "\t"),
		"a default":         changed(t, src, `  mode = "sync"`+"\n", ""),
		"another unit":      changed(t, src, `"64MiB"`, `"65536KiB"`),
		"order of nodes":    nodes + changed(t, src, nodes, ""),
		"spelled-out value": changed(t, src, "/srv/${node.name}/${volume.name}.img", "/srv/alpha/pgdata.img"),
	}
	for what, other := range same {
		if got := hashOf(t, other, "alpha"); got != want {
			t.Errorf("%s changes the hash", what)
		}
	}
}

func TestHashSeesEveryChange(t *testing.T) {
	src := loopback(t)
	seen := map[string]string{hashOf(t, src, "alpha"): "the file itself"}
	changes := map[string]string{
		"cluster name":            changed(t, src, `"lab"`, `"lab2"`),
		"rto":                     changed(t, src, `"3s"`, `"4s"`),
		"another node's data_dir": changed(t, src, "/var/lib/hacluster/${node.name}", "/var/lib/hac/${node.name}"),
		"attach_dir":              changed(t, src, "cluster \"lab\" {", "cluster \"lab\" {\n  attach_dir = \"/dev/x\""),
		"another node's address":  changed(t, src, `"127.0.0.2:7400"`, `"127.0.0.2:7499"`),
		"a link":                  changed(t, src, `"127.0.1.2:7401"`, `"127.0.1.2:7402"`),
		"http":                    changed(t, src, `7480`, `7481`),
		"size":                    changed(t, src, `"64MiB"`, `"63MiB"`),
		"io":                      changed(t, src, `"auto"`, `"direct"`),
		"another node's device":   changed(t, src, "device = \"/srv/${node.name}/${volume.name}.img\"\n", "device = \"/srv/b.img\"\n"),
		"an export":               changed(t, src, "10809", "10810"),
		"attach":                  changed(t, src, `attach = "none"`, `attach = "auto"`),
		"suspend limit":           changed(t, src, `"60s"`, `"61s"`),
		"undo limit":              changed(t, src, `suspend_limit = "60s"`, `undo_limit = "10GiB"`),
		"async bound":             changed(t, src, `max_lag       = "5s"`, `max_lag = "6s"`),
		"a fence":                 src + "fence \"alpha\" {\n  agent = \"sh\"\n  options = { a = \"1\" }\n}\n",
		"a fence's option":        src + "fence \"alpha\" {\n  agent = \"sh\"\n  options = { a = \"2\" }\n}\n",
		"a fence's time-out":      src + "fence \"alpha\" {\n  agent = \"sh\"\n  timeout = \"3s\"\n  options = { a = \"1\" }\n}\n",
		"a service":               src + "service \"s\" {\n  volumes = [\"pgdata\"]\n  systemd \"a.service\" {}\n  systemd \"b.service\" {}\n}\n",
		"a service's order":       src + "service \"s\" {\n  volumes = [\"pgdata\"]\n  systemd \"b.service\" {}\n  systemd \"a.service\" {}\n}\n",
	}
	for what, other := range changes {
		h := hashOf(t, other, "alpha")
		if before, twice := seen[h]; twice {
			t.Errorf("%s: the hash is that of %s", what, before)
		}
		seen[h] = what
	}
}

func TestDocumentShowsSumsAndNoSecrets(t *testing.T) {
	src := loopback(t) + "fence \"alpha\" {\n  agent = \"sh\"\n  options = { password = \"hunter2\" }\n}\n"
	rep, err := check("cluster.hcl", []byte(src), Options{Node: "alpha"})
	if err != nil {
		t.Fatal(err)
	}
	doc := rep.Config.Document()
	for _, text := range []string{doc.Table(), string(doc.JSON())} {
		if strings.Contains(text, "hunter2") {
			t.Errorf("a password is shown:\n%s", text)
		}
		for _, want := range []string{"1504.1", "2239.7", "/srv/beta/pgdata.img", "127.0.0.2:10809", rep.Config.Hash()} {
			if !strings.Contains(text, want) {
				t.Errorf("%q is missing:\n%s", want, text)
			}
		}
	}
	var back Document
	if err := json.Unmarshal(doc.JSON(), &back); err != nil || back.Table() != doc.Table() {
		t.Errorf("the document does not survive its JSON: %v", err)
	}
}
