package archtest

import (
	"fmt"
	"go/ast"
	"go/constant"
	"go/parser"
	"go/token"
	"go/types"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"hacluster/blockdev/frontend/nbd"
	"hacluster/cmd/internal/config"
)

// rows are the lines of a table of docs/limits.md, by the header's first cell: cells without spaces around and backquotes.
func rows(t *testing.T, header string) (all [][]string) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "..", "..", "docs", "limits.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, text, found := strings.Cut(string(b), "\n| "+header+" |")
	if !found {
		t.Fatalf("docs/limits.md has no table that begins with %q", header)
	}
	for i, line := range strings.Split(text, "\n") {
		if i < 2 {
			continue // the rest of the header, the rule below it
		}
		if !strings.HasPrefix(line, "|") {
			break
		}
		var cells []string
		for _, c := range strings.Split(strings.Trim(line, "|"), "|") {
			cells = append(cells, strings.Trim(strings.TrimSpace(c), "`"))
		}
		all = append(all, cells)
	}
	if len(all) == 0 {
		t.Fatalf("the table that begins with %q has no rows", header)
	}
	return all
}

func TestNamedLimitsAreThoseOfTheDocs(t *testing.T) {
	limits, table := config.LimitTable(), rows(t, "setting")
	if len(limits) != len(table) {
		t.Fatalf("%d limits, %d rows", len(limits), len(table))
	}
	for i, d := range limits {
		when := "with a restart"
		if d.Online {
			when = "at once"
		}
		if d.Online && d.ForClients() {
			when += ", for new clients"
		}
		r := table[i]
		if r[0] != d.Name || r[1] != d.Text(d.Default) || r[3] != d.Effect || r[4] != when {
			t.Errorf("docs/limits.md says %q, the code %s | %s | %s | %s", r, d.Name, d.Text(d.Default), d.Effect, when)
		}
	}
}

// What a file without a limits block gets is what the package would take by itself.
func TestDefaultsAreTheSameInTheFileAndInTheCode(t *testing.T) {
	s, err := nbd.New(nil, nbd.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	have, want := s.Limits(), config.DefaultLimits()
	for _, c := range []struct {
		name       string
		have, want int64
	}{
		{"nbd_connections", int64(have.MaxConnections), want.NBDConnections},
		{"nbd_requests", int64(have.MaxRequestsInFlight), want.NBDRequests},
		{"nbd_bytes", have.MaxBytesInFlight, want.NBDBytes},
		{"nbd_connection_bytes", have.MaxConnBytesInFlight, want.NBDConnectionBytes},
		{"nbd_handshake", int64(have.HandshakeTimeout), int64(want.NBDHandshake)},
		{"nbd_slow_reader", int64(have.SlowReaderTimeout), int64(want.NBDSlowReader)},
		{"nbd_stall", int64(have.StallTimeout), int64(want.NBDStall)},
	} {
		if c.have != c.want {
			t.Errorf("%s: %d in the code, %d in the file", c.name, c.have, c.want)
		}
	}
}

func TestConstantLimitsAreThoseOfTheDocs(t *testing.T) {
	values := map[string]*types.Package{}
	for _, r := range rows(t, "constant") {
		dir, name, _ := strings.Cut(filepath.Base(r[0]), ".")
		dir = filepath.Join(filepath.Dir(r[0]), dir)
		if values[dir] == nil {
			values[dir] = constants(t, dir)
		}
		c, ok := values[dir].Scope().Lookup(name).(*types.Const)
		if !ok {
			t.Errorf("%s is not in the code", r[0])
			continue
		}
		v, exact := constant.Int64Val(constant.ToInt(c.Val()))
		if want, ok := config.ParseSize(r[1]); !exact || v != want && fmt.Sprint(v) != r[1] {
			t.Errorf("%s: docs/limits.md says %s (%t), the code %d", r[0], r[1], ok, v)
		}
	}
}

// constants checks a package without its imports: constants that need none have their values.
func constants(t *testing.T, dir string) *types.Package {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("..", "..", "..", dir, "*.go"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%s: %d files, %v", dir, len(files), err)
	}
	set := token.NewFileSet()
	var parsed []*ast.File
	for _, f := range files {
		if strings.HasSuffix(f, "_test.go") {
			continue
		}
		p, err := parser.ParseFile(set, f, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		parsed = append(parsed, p)
	}
	conf := types.Config{Error: func(error) {}, Importer: nowhere{}, IgnoreFuncBodies: true}
	pkg, _ := conf.Check(dir, set, parsed, nil)
	return pkg
}

type nowhere struct{}

func (nowhere) Import(path string) (*types.Package, error) {
	return nil, fmt.Errorf("%s is not read", path)
}
