package archtest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// pkg is one package of the module as go list tells it, tests left out.
type pkg struct {
	ImportPath string
	Dir        string
	GoFiles    []string
	Imports    []string
	Deps       []string
}

const module = "hacluster/"

func (p *pkg) name() string { return strings.TrimPrefix(p.ImportPath, module) }

// list reads all packages of the module. Those that do not compile at the moment are listed all the same.
func list(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-e", "-json=ImportPath,Dir,GoFiles,Imports,Deps", "./...")
	cmd.Dir = filepath.Join("..", "..", "..")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}
	var all []pkg
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

// The packages that decide. They know no disk, network, goroutine or clock, so that a model can drive them.
var pure = []string{
	"heartbeat/cluster", "heartbeat/failover", "heartbeat/fence", "heartbeat/resource",
	"replication/role", "replication/primary", "replication/standby", "replication/order", "replication/resync", "replication/verify", "replication/maps", "replication/shape",
}

// homes lists where a module of others may be imported; nil: anywhere. What is not listed may not be imported at all:
// replacing a module shall touch one folder, so say which one it is.
var homes = map[string][]string{
	"github.com/hashicorp/raft":         {"heartbeat/consensus"},
	"github.com/hashicorp/raft-wal":     {"heartbeat/consensus"},
	"github.com/hashicorp/go-hclog":     {"heartbeat/consensus"},
	"go.etcd.io/bbolt":                  {"heartbeat/consensus"},
	"github.com/hashicorp/memberlist":   {"heartbeat/membership"},
	"google.golang.org/grpc":            {"cmd/internal/api", "cmd/internal/caller", "cmd/internal/control", "cmd/internal/node", "proto"},
	"google.golang.org/protobuf":        {"cmd/internal/api", "proto"},
	"github.com/hashicorp/hcl/v2":       {"cmd/internal/config"},
	"github.com/zclconf/go-cty":         {"cmd/internal/config"},
	"github.com/spf13/cobra":            {"cmd/ha-admin"},
	"github.com/coreos/go-systemd":      {"cmd/haclusterd"},
	"github.com/klauspost/compress":     {"replication/link"},
	"github.com/anishathalye/porcupine": {"cmd/internal/lab/history"},
	"github.com/prometheus":             {"cmd/internal/metrics"},
	"github.com/hanwen/go-fuse/v2":      {"cmd/internal/lab/disk", "blockdev/frontend/fuse"},
	"github.com/adhocore/gronx":         {"cmd/internal/schedule"},
	"github.com/vishvananda/netlink":    {"heartbeat/resource/effect"},
	"golang.org/x/sys":                  nil,
	"golang.org/x/sync":                 nil,
}

// within reports whether name is one of the packages or lies below one.
func within(name string, roots ...string) bool {
	return slices.ContainsFunc(roots, func(r string) bool { return name == r || strings.HasPrefix(name, r+"/") })
}

func standard(path string) bool {
	first, _, _ := strings.Cut(path, "/")
	return !strings.Contains(first, ".") && !strings.HasPrefix(path, module) && path+"/" != module
}

// violations compares the packages with the picture.
func violations(all []pkg) (bad []string) {
	for i := range all {
		p := &all[i]
		no := func(why, path string) {
			bad = append(bad, fmt.Sprintf("%s imports %s: %s", p.name(), strings.TrimPrefix(path, module), why))
		}
		for _, path := range p.Imports {
			ours, isOurs := strings.CutPrefix(path, module)
			switch {
			case isOurs:
				direct(p.name(), ours, func(why string) { no(why, path) })
			case !standard(path):
				foreign(p.name(), path, func(why string) { no(why, path) })
			}
		}
		for _, path := range p.Deps {
			if ours, isOurs := strings.CutPrefix(path, module); isOurs {
				indirect(p.name(), ours, func(why string) { no(why+" (perhaps by way of another package)", path) })
			}
		}
	}
	return bad
}

// direct judges an import of one of our packages by another.
func direct(from, to string, no func(why string)) {
	switch {
	case from == "blockdev", from == "heartbeat/cluster":
		no("it is a leaf: the standard library only")
	case within(from, "proto"):
		no("generated code knows nothing of ours")
	case within(to, "cmd") && !within(from, "cmd"):
		no("cmd is where everything meets, nothing below knows it")
	case within(to, "cmd/internal/e2e", "cmd/internal/sim", "cmd/internal/ring3", "cmd/internal/archtest", "cmd/internal/lab") && !within(from, "cmd/internal/e2e", "cmd/internal/lab"):
		no("the program does not know its tests")
	}
}

// indirect judges what one of our packages depends on, directly or not.
func indirect(from, to string, no func(why string)) {
	switch {
	case within(from, "replication") && within(to, "heartbeat") && to != "heartbeat/cluster":
		no("of heartbeat, replication knows the pure cluster only; they meet in node")
	case within(from, "heartbeat") && within(to, "replication"):
		no("heartbeat never knows replication; they meet in node")
	case within(from, "blockdev") && within(to, "replication", "heartbeat"):
		no("a block device knows nothing of clusters")
	case within(from, "cmd/ha-admin") && within(to, "cmd/internal/node", "replication", "heartbeat"):
		no("the command line speaks to the admin API only")
	case slices.Contains(pure, from) && !slices.Contains(pure, to) && to != "blockdev" && to != "blockdev/bitmap":
		no("a pure package depends on pure ones only")
	}
}

// foreign judges an import of a module of others.
func foreign(from, path string, no func(why string)) {
	if from == "blockdev" || slices.Contains(pure, from) {
		no("the standard library only")
		return
	}
	module, found := "", false
	for m := range homes {
		if within(path, m) && len(m) > len(module) {
			module, found = m, true
		}
	}
	switch h := homes[module]; {
	case !found:
		no("the module has no home: decide on one folder and note it here")
	case h != nil && !within(from, h...):
		no("its home is " + strings.Join(h, ", "))
	}
}

func TestImportsFollowThePicture(t *testing.T) {
	all := list(t)
	if len(all) < 20 {
		t.Fatalf("go list found %d packages only", len(all))
	}
	for _, v := range violations(all) {
		t.Error(v)
	}
	for _, name := range append([]string{"blockdev", "heartbeat", "cmd/ha-admin"}, pure...) {
		if !slices.ContainsFunc(all, func(p pkg) bool { return p.name() == name }) {
			t.Errorf("the rules name the package %s, which does not exist", name)
		}
	}
}

// Each rule is broken once.
func TestBrokenRulesAreSeen(t *testing.T) {
	for _, c := range []struct{ from, direct, indirect string }{
		{"blockdev", "hacluster/blockdev/bitmap", ""},
		{"blockdev", "golang.org/x/sys/unix", ""},
		{"heartbeat/cluster", "hacluster/blockdev", ""},
		{"heartbeat/cluster", "github.com/hashicorp/raft", ""},
		{"replication", "hacluster/heartbeat/failover", ""},
		{"replication/link", "", "hacluster/heartbeat"},
		{"heartbeat/failover", "hacluster/replication/role", ""},
		{"heartbeat/membership", "", "hacluster/replication"},
		{"blockdev/frontend/nbd", "", "hacluster/heartbeat/cluster"},
		{"heartbeat/membership", "github.com/hashicorp/raft", ""},
		{"heartbeat", "github.com/hashicorp/memberlist", ""},
		{"cmd/internal/node", "github.com/hashicorp/raft", ""},
		{"replication/wire", "google.golang.org/grpc/codes", ""},
		{"cmd/haclusterd", "google.golang.org/grpc", ""},
		{"cmd/internal/node", "github.com/spf13/cobra", ""},
		{"cmd/internal/node", "github.com/adhocore/gronx", ""},
		{"cmd/internal/node", "example.org/new", ""},
		{"cmd/ha-admin", "hacluster/cmd/internal/node", ""},
		{"cmd/ha-admin", "", "hacluster/cmd/internal/node"},
		{"cmd/internal/node", "hacluster/cmd/internal/sim", ""},
		{"cmd/internal/node", "hacluster/cmd/internal/lab/disk", ""},
		{"replication", "hacluster/cmd/internal/config", ""},
		{"proto/admin/v1", "hacluster/blockdev", ""},
		{"replication/primary", "", "hacluster/replication/link"},
		{"replication/resync", "golang.org/x/sync/errgroup", ""},
	} {
		p := pkg{ImportPath: module + c.from}
		for _, path := range []string{c.direct, c.indirect} {
			if path != "" {
				p.Deps = append(p.Deps, path)
			}
		}
		if c.direct != "" {
			p.Imports = []string{c.direct}
		}
		if len(violations([]pkg{p})) == 0 {
			t.Errorf("%s imports %s%s, and nobody objects", c.from, c.direct, c.indirect)
		}
	}
	fine := pkg{ImportPath: module + "replication", Imports: []string{"net/http", "hacluster/heartbeat/cluster", "golang.org/x/sync/errgroup"}}
	fine.Deps = fine.Imports
	if v := violations([]pkg{fine}); len(v) != 0 {
		t.Errorf("objected to without reason: %v", v)
	}
}
