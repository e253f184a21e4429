package archtest

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// What a pure package may import of the standard library. Durations are values; clocks are not.
var pureImports = []string{"cmp", "encoding/json", "errors", "fmt", "maps", "math", "math/bits", "slices", "strconv", "strings", "time"}

// pureFiles may import more: what works in memory on what it is given, and nowhere else.
var pureFiles = map[string][]string{"heartbeat/cluster/packed.go": {"bytes", "compress/flate", "io"}}

// impure lists what a pure package must not do in this file.
func impure(fset *token.FileSet, f *ast.File, more ...string) (bad []string) {
	say := func(n ast.Node, what string) {
		bad = append(bad, fmt.Sprintf("%s: %s", fset.Position(n.Pos()), what))
	}
	for _, i := range f.Imports {
		path, _ := strconv.Unquote(i.Path.Value)
		if standard(path) && !slices.Contains(pureImports, path) && !slices.Contains(more, path) {
			say(i, "imports "+path)
		}
		if path == "time" && i.Name != nil {
			say(i, "renames time")
		}
	}
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			say(n, "starts a goroutine")
		case *ast.ChanType:
			say(n, "has a channel")
		case *ast.SelectStmt, *ast.SendStmt:
			say(n, "uses a channel")
		case *ast.SelectorExpr:
			x, ok := n.X.(*ast.Ident)
			if ok && x.Name == "time" && x.Obj == nil && ast.IsExported(n.Sel.Name) && !timeless(n.Sel.Name) {
				say(n, "uses time."+n.Sel.Name)
			}
		}
		return true
	})
	return bad
}

// timeless reports whether a name of package time is a type or constant of durations.
func timeless(name string) bool {
	return slices.Contains([]string{"Duration", "Nanosecond", "Microsecond", "Millisecond", "Second", "Minute", "Hour"}, name)
}

func TestPurePackagesKnowNoDiskNetworkGoroutineOrClock(t *testing.T) {
	seen := 0
	for _, p := range list(t) {
		if !slices.Contains(pure, p.name()) {
			continue
		}
		for _, name := range p.GoFiles {
			fset := token.NewFileSet()
			f, err := parser.ParseFile(fset, filepath.Join(p.Dir, name), nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			seen++
			for _, b := range impure(fset, f, pureFiles[p.name()+"/"+name]...) {
				t.Error(strings.TrimPrefix(b, p.Dir))
			}
		}
	}
	if seen < len(pure) {
		t.Fatalf("%d files of %d pure packages were read", seen, len(pure))
	}
}

func TestImpurityIsSeen(t *testing.T) {
	for _, body := range []string{
		`import "os"`, `import "net"`, `import "net/netip"`, `import "sync"`, `import "sync/atomic"`, `import "context"`, `import "math/rand/v2"`,
		`import "runtime"`, `import "log/slog"`, `import "io"`, `import clock "time"`,
		`import "time"; var t = time.Now()`, `import "time"; func f() { time.Sleep(1) }`, `import "time"; var t *time.Timer`,
		`import "time"; var since = time.Since`, `func f() { go f() }`, `var c chan int`, `func f(c interface{}) { select {} }`,
	} {
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, "x.go", "package x; "+body, 0)
		if err != nil {
			t.Fatal(err)
		}
		if len(impure(fset, f)) == 0 {
			t.Errorf("%s passes as pure", body)
		}
	}
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, "x.go", `package x; import ("time"; "slices"); const d = 3 * time.Second; func f(a []time.Duration) { slices.Sort(a) }`, 0)
	if err != nil {
		t.Fatal(err)
	}
	if bad := impure(fset, f); len(bad) != 0 {
		t.Errorf("objected to without reason: %v", bad)
	}
}
