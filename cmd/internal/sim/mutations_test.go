package sim

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// A mutation breaks one rule in the code under test: files of the repository with some text replaced. The model must
// notice within the seeds that it names; that the unchanged code passes them is what TestModel shows.
//
//	# what it breaks
//	seeds 500
//	replicas 3 (each of its seeds plays so many; without, each its own number)
//	file heartbeat/failover/promote.go
//	<<<<
//	text, exactly once in the file
//	====
//	what stands there instead
//	>>>>
type mutation struct {
	seeds string
	many  string            // replicas of each run; "0": each its own number
	focus string            // what its runs look at, as the flag of that name; "-1": nothing in particular
	tests string            // a package whose own tests notice, where a schedule that shows it is too rare to be met by chance
	files map[string]string // the changed text by path
}

// TestMutationsFitTheCode finds those that the code has moved away from; it takes no time.
func TestMutationsFitTheCode(t *testing.T) {
	root, paths := mutations(t)
	for _, p := range paths {
		if _, err := readMutation(root, p); err != nil {
			t.Error(err)
		}
	}
}

// TestMutationsAreCaught builds the model once for each mutation and demands that it fails.
func TestMutationsAreCaught(t *testing.T) {
	if os.Getenv("HACLUSTER_MUTATIONS") == "" {
		t.Skip("takes minutes: set HACLUSTER_MUTATIONS=1")
	}
	root, paths := mutations(t)
	slots := make(chan struct{}, 2)
	for _, p := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(p), ".txt"), func(t *testing.T) {
			t.Parallel()
			slots <- struct{}{}
			defer func() { <-slots }()
			m, err := readMutation(root, p)
			if err != nil {
				t.Fatal(err)
			}
			m.mustFail(t, root)
		})
	}
}

// mutations are the root of the repository and the files that describe them.
func mutations(t *testing.T) (root string, paths []string) {
	t.Helper()
	root, err := filepath.Abs("../../..")
	if err != nil {
		t.Fatal(err)
	}
	if paths, err = filepath.Glob("mutations/*.txt"); err != nil || len(paths) == 0 {
		t.Fatalf("no mutations found: %v", err)
	}
	return root, paths
}

func readMutation(root, path string) (*mutation, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	m := &mutation{focus: "-1", many: "0", files: map[string]string{}}
	file, rest := "", string(b)
	for rest != "" {
		line, more, _ := strings.Cut(rest, "\n")
		rest = more
		switch word, arg, _ := strings.Cut(line, " "); word {
		case "#":
		case "seeds":
			m.seeds = arg
		case "replicas":
			m.many = arg
		case "focus":
			m.focus = arg
		case "tests":
			m.tests = arg
		case "file":
			file = arg
			if _, ok := m.files[file]; !ok {
				b, err := os.ReadFile(filepath.Join(root, file))
				if err != nil {
					return nil, err
				}
				m.files[file] = string(b)
			}
		case "<<<<":
			from, more, ok := strings.Cut(rest, "\n====\n")
			to, more, ok2 := strings.Cut(more, "\n>>>>\n")
			if !ok || !ok2 {
				return nil, fmt.Errorf("%s: a hunk has no ==== or >>>>", path)
			}
			if n := strings.Count(m.files[file], from); n != 1 {
				return nil, fmt.Errorf("%s: its text is %d times in %s, not once: the code has moved, follow it:\n%s", path, n, file, from)
			}
			m.files[file], rest = strings.Replace(m.files[file], from, to, 1), more
		default:
			return nil, fmt.Errorf("%s: line %q", path, line)
		}
	}
	return m, nil
}

func (m *mutation) mustFail(t *testing.T, root string) {
	t.Helper()
	dir := t.TempDir()
	overlay := struct{ Replace map[string]string }{map[string]string{}}
	for f, text := range m.files {
		to := filepath.Join(dir, strings.ReplaceAll(f, "/", "_"))
		if err := os.WriteFile(to, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		overlay.Replace[filepath.Join(root, f)] = to
	}
	b, err := json.Marshal(overlay)
	if err != nil {
		t.Fatal(err)
	}
	list, bin, pkg := filepath.Join(dir, "overlay.json"), filepath.Join(dir, "sim.test"), "."
	args := []string{"-test.run", "^TestModel$", "-seeds", m.seeds, "-focus", m.focus, "-replicas", m.many, "-fails", "1"}
	if m.tests != "" {
		pkg, args = m.tests, []string{"-test.timeout", "5m"} // what waits for ever for what the mutation withholds has noticed
	}
	if err := os.WriteFile(list, b, 0o600); err != nil {
		t.Fatal(err)
	}
	build := exec.Command("go", "test", "-c", "-vet=off", "-overlay", list, "-o", bin, pkg)
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	run := exec.Command(bin, args...)
	if m.tests != "" { // where its golden files are: else those fail, whatever the mutation
		run.Dir = filepath.Join(root, strings.TrimPrefix(m.tests, "hacluster/"))
	}
	out, err := run.CombinedOutput()
	if err == nil {
		t.Fatalf("nothing notices: %v", run.Args)
	}
	for line := range strings.Lines(string(out)) {
		if line = strings.TrimSpace(line); strings.Contains(line, "seed ") || m.tests != "" && strings.HasPrefix(line, "--- FAIL") {
			t.Logf("%s is caught: %.300s", filepath.Base(t.Name()), line)
			break
		}
	}
}
