package archtest

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// A mutant breaks one rule of the protocol on purpose, so that the laboratory can show that it would notice. It is a name
// that is harmless in every build but that of its own tag:
//
//	mutate_x.go       //go:build mutate_x     breaks the rule
//	mutate_x_off.go   //go:build !mutate_x    const mutateX = false, or a function that does nothing
var mutantTag = regexp.MustCompile(`(?m)^//go:build (!?)(mutate_[a-z_]+)$`)

// mutantFile is one file of a mutant; ok: the text is one.
type mutantFile struct {
	tag string
	off bool
}

func mutantOf(text string) (m mutantFile, ok bool) {
	found := mutantTag.FindStringSubmatch(text)
	if found == nil {
		return m, false
	}
	return mutantFile{tag: found[2], off: found[1] == "!"}, true
}

// harmless tells what a file that belongs to every build holds beside constants that are false and functions that do
// nothing: return false, or what they were given.
func harmless(f *ast.File) (names, bad []string) {
	for _, d := range f.Decls {
		switch d := d.(type) {
		case *ast.GenDecl:
			if d.Tok == token.IMPORT {
				continue
			}
			v, ok := d.Specs[0].(*ast.ValueSpec)
			if !ok || d.Tok != token.CONST || len(d.Specs) != 1 || len(v.Names) != 1 || len(v.Values) != 1 || !isFalse(v.Values[0]) {
				bad = append(bad, "a declaration that is no constant false")
				continue
			}
			names = append(names, v.Names[0].Name)
		case *ast.FuncDecl:
			names = append(names, d.Name.Name)
			if len(d.Body.List) != 1 || !returnsNothing(d) {
				bad = append(bad, d.Name.Name+" does something")
			}
		}
	}
	return names, bad
}

func isFalse(e ast.Expr) bool {
	id, ok := e.(*ast.Ident)
	return ok && id.Name == "false"
}

func returnsNothing(d *ast.FuncDecl) bool {
	r, ok := d.Body.List[0].(*ast.ReturnStmt)
	if !ok || len(r.Results) != 1 {
		return false
	}
	id, ok := r.Results[0].(*ast.Ident)
	if !ok || id.Name == "false" {
		return ok
	}
	p := d.Type.Params.List
	return len(p) == 1 && len(p[0].Names) == 1 && p[0].Names[0].Name == id.Name
}

// uses counts how often each name is mentioned in a text, comments left out.
func uses(f *ast.File, names map[string]int) {
	ast.Inspect(f, func(n ast.Node) bool {
		if id, ok := n.(*ast.Ident); ok {
			if _, ours := names[id.Name]; ours {
				names[id.Name]++
			}
		}
		return true
	})
}

func TestMutantsAreOffInTheDefaultBuild(t *testing.T) {
	tags, total := map[string]int{}, 0 // 1: the file that breaks, 2: the one that does not
	for _, p := range list(t) {
		all, err := filepath.Glob(filepath.Join(p.Dir, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		names, files := map[string]int{}, map[string]*ast.File{}
		for _, path := range all {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			name := filepath.Base(path)
			f, err := parser.ParseFile(token.NewFileSet(), path, text, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			built := slices.Contains(p.GoFiles, name)
			m, ok := mutantOf(string(text))
			switch {
			case !ok && built:
				files[name] = f
			case ok && m.off:
				tags[m.tag] |= 2
				found, bad := harmless(f)
				for _, b := range bad {
					t.Errorf("%s/%s is in every build and has %s", p.name(), name, b)
				}
				if !built || len(found) != 1 {
					t.Errorf("%s/%s: in the default build %t, it declares %v", p.name(), name, built, found)
				}
				for _, n := range found {
					names[n] = 0
				}
			case ok:
				tags[m.tag] |= 1
				if built {
					t.Errorf("%s/%s breaks a rule and is in the default build", p.name(), name)
				}
			}
			if strings.HasPrefix(name, "mutate_") != ok {
				t.Errorf("%s/%s: the files of mutants are called mutate_*, and no others", p.name(), name)
			}
		}
		for _, f := range files {
			uses(f, names)
		}
		for n, count := range names {
			total++
			if count != 1 {
				t.Errorf("%s mentions %s in %d places, not in one", p.name(), n, count)
			}
		}
	}
	for tag, both := range tags {
		if both != 3 {
			t.Errorf("%s lacks the file that breaks its rule, or the one that does not", tag)
		}
	}
	if total < 7 || len(tags) != total {
		t.Errorf("%d mutants of %d tags were found", total, len(tags))
	}
}

// Only the laboratory builds with such a tag: neither make nor a script does.
func TestNothingThatIsReleasedIsBuiltAsAMutant(t *testing.T) {
	root := filepath.Join("..", "..", "..")
	paths := []string{filepath.Join(root, "Makefile")}
	err := filepath.WalkDir(filepath.Join(root, "scripts"), func(path string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			paths = append(paths, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(text), "mutate_") {
			t.Errorf("%s names a mutant", path)
		}
	}
}

func TestHarmfulMutantFilesAreSeen(t *testing.T) {
	for _, c := range []struct {
		body string
		bad  bool
	}{
		{"const mutateX = false", false},
		{"func mutateX(now func()) func() { return now }", false},
		{"func mutateX(*int) bool { return false }", false},
		{"const mutateX = true", true},
		{"var mutateX = false", true},
		{"func mutateX(a int) int { return a + 1 }", true},
		{"func mutateX(a *int) bool { *a = 1; return false }", true},
	} {
		f, err := parser.ParseFile(token.NewFileSet(), "x.go", "package x; "+c.body, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, bad := harmless(f); (len(bad) > 0) != c.bad {
			t.Errorf("%s: %v", c.body, bad)
		}
	}
	if m, ok := mutantOf("//go:build !mutate_ack_early\n\npackage x"); !ok || !m.off || m.tag != "mutate_ack_early" {
		t.Error(fmt.Sprint(m, ok))
	}
}
