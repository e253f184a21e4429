package config

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// loopback is a file that the daemon starts with; cases change one thing in it.
func loopback(t *testing.T) string {
	t.Helper()
	src, err := os.ReadFile("testdata/loopback.hcl")
	if err != nil {
		t.Fatal(err)
	}
	return string(src)
}

// changed replaces old, which must be there, by new.
func changed(t *testing.T, src, old, new string) string {
	t.Helper()
	if !strings.Contains(src, old) {
		t.Fatalf("the file does not hold %q", old)
	}
	return strings.Replace(src, old, new, 1)
}

// linesOf is what an operator sees of an error that must be Problems.
func linesOf(t *testing.T, err error) []string {
	t.Helper()
	if err == nil {
		return nil
	}
	var ps Problems
	if !errors.As(err, &ps) {
		t.Fatalf("error is %T (%v), want Problems", err, err)
	}
	return strings.Split(ps.Error(), "\n")
}

// refusal is one case of testdata/refuse.txt.
type refusalCase struct {
	name           string
	old, new, want []string
}

func refusals(t *testing.T) []refusalCase {
	t.Helper()
	src, err := os.ReadFile("testdata/refuse.txt")
	if err != nil {
		t.Fatal(err)
	}
	var all []refusalCase
	for line := range strings.Lines(string(src)) {
		line = strings.TrimSuffix(line, "\n")
		if name, ok := strings.CutPrefix(line, "== "); ok {
			all = append(all, refusalCase{name: name})
			continue
		}
		if len(all) == 0 || line == "" {
			continue
		}
		c := &all[len(all)-1]
		switch {
		case strings.HasPrefix(line, "- "):
			c.old = append(c.old, line[2:])
		case strings.HasPrefix(line, "+ "):
			c.new = append(c.new, line[2:])
		default:
			c.want = append(c.want, line)
		}
	}
	return all
}

// The names of the cases carry the numbers of faults.md.
func TestRefusedInTheseWords(t *testing.T) {
	all := refusals(t)
	if len(all) < 70 {
		t.Fatalf("%d cases read, there are more", len(all))
	}
	for _, tt := range all {
		t.Run(tt.name, func(t *testing.T) {
			src := changed(t, loopback(t), strings.Join(tt.old, "\n"), strings.Join(tt.new, "\n"))
			_, err := check("/etc/hacluster/cluster.hcl", []byte(src), Options{})
			if len(tt.want) == 0 {
				t.Fatal("the case says nothing about what is refused")
			}
			if diff := cmp.Diff(tt.want, linesOf(t, err)); diff != "" {
				t.Errorf("the lines differ (-want +got):\n%s", diff)
			}
		})
	}
}
