package failpoint

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The names are unique and complete, and there are enough of them to matter.
func TestPointsAreNamed(t *testing.T) {
	seen := map[string]bool{}
	for _, p := range All() {
		if p.String() == "" || seen[p.String()] {
			t.Errorf("point %d is called %q, as another or not at all", p, p)
		}
		seen[p.String()] = true
		if got, err := Named(p.String()); err != nil || got != p {
			t.Errorf("%v is found as %v, %v", p, got, err)
		}
	}
	if len(seen) < 40 {
		t.Errorf("there are %d points", len(seen))
	}
	if _, err := Named("nowhere"); err == nil {
		t.Error("a point that is not there was found")
	}
}

// A point that is named and never placed would never be crashed at.
func TestEachPointIsPlaced(t *testing.T) {
	declared := constants(t)
	if len(declared) != int(count) {
		t.Fatalf("%d points are declared, %d constants were found", count, len(declared))
	}
	placed := map[string]int{}
	root := filepath.Join("..", "..")
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil || !bytes.Contains(b, []byte("failpoint.Hit")) {
			return err
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, b, 0)
		if err != nil {
			return nil // somebody is writing it
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if e, ok := n.(ast.Expr); ok {
				placed[name(e)]++
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range declared {
		if placed[c] == 0 {
			t.Errorf("failpoint.%s is hit nowhere", c)
		}
	}
}

// name is the name behind "failpoint.".
func name(e ast.Expr) string {
	if s, ok := e.(*ast.SelectorExpr); ok {
		if x, ok := s.X.(*ast.Ident); ok && x.Name == "failpoint" {
			return s.Sel.Name
		}
	}
	return ""
}

// constants are the names in the list of points, by the source.
func constants(t *testing.T) (out []string) {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), "points.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range f.Decls {
		g, ok := d.(*ast.GenDecl)
		if !ok || g.Tok != token.CONST {
			continue
		}
		for _, s := range g.Specs {
			for _, n := range s.(*ast.ValueSpec).Names {
				if n.Name != "count" {
					out = append(out, n.Name)
				}
			}
		}
	}
	return out
}

const crasher = `package main

import (
	"fmt"
	"hacluster/blockdev/failpoint"
)

func main() {
	for i := range 5 {
		failpoint.Hit(failpoint.FailureNoted)
		fmt.Println(i)
	}
	failpoint.Hit(failpoint.RaftVoted)
}
`

// A program built with the tag ends at the hit that was asked for, having counted; without the tag it knows nothing.
func TestCrashAtTheThirdHit(t *testing.T) {
	dir, err := os.MkdirTemp(".", "crasher") // within the module, so that it may import this package
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.WriteFile(filepath.Join(dir, "main.go"), []byte(crasher), 0o600); err != nil {
		t.Fatal(err)
	}
	hits := filepath.Join(t.TempDir(), "hits")
	run := func(tags string) (out string, err error) {
		program := filepath.Join(t.TempDir(), "crasher")
		build := exec.Command("go", "build", "-tags", tags, "-o", program, "./"+dir)
		build.Env = append(os.Environ(), "CGO_ENABLED=0") // what the race detector takes is of no use there
		if b, err := build.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, b)
		}
		cmd := exec.Command(program)
		cmd.Env = append(os.Environ(), "HACLUSTER_FAILPOINT=failure.noted:3", "HACLUSTER_FAILPOINT_HITS="+hits)
		b, err := cmd.Output()
		return string(b), err
	}
	if out, err := run("failpoints"); err == nil || err.Error() != "signal: killed" || out != "0\n1\n" {
		t.Errorf("with the tag: %q, %v", out, err)
	}
	got, err := ReadHits(hits)
	if err != nil || got[FailureNoted] != 3 || got[RaftVoted] != 0 {
		t.Errorf("%v, %v", got, err)
	}
	if out, err := run(""); err != nil || out != "0\n1\n2\n3\n4\n" {
		t.Errorf("without the tag: %q, %v", out, err)
	}
}

// Without the tag a Hit costs nothing: 0 ns beside an empty loop, since the compiler leaves it out.
func BenchmarkHit(b *testing.B) {
	for range b.N {
		Hit(PrimaryWrite)
	}
}

func BenchmarkNothing(b *testing.B) {
	for range b.N {
	}
}
