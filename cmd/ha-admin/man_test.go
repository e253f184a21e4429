package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// There is a page for each command that names each of its flags.
func TestManualPagesNameEveryCommandAndFlag(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	admin(t, "man", dir).wantSuccess(t)
	pages := 0
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		if c.Hidden {
			return
		}
		pages++
		name := strings.ReplaceAll(c.CommandPath(), " ", "-") + ".8"
		page, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Error(err)
			return
		}
		text := strings.ReplaceAll(string(page), `\-`, "-")
		for _, want := range []string{".TH", c.Short} {
			if !strings.Contains(text, want) {
				t.Errorf("%s: %q is missing", name, want)
			}
		}
		c.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if f.Name != "help" && !f.Hidden && !strings.Contains(text, "--"+f.Name) {
				t.Errorf("%s: --%s is missing", name, f.Name)
			}
		})
		for _, s := range c.Commands() {
			walk(s)
		}
	}
	walk((&app{}).root())
	if pages < 30 {
		t.Errorf("%d commands were looked at", pages)
	}
}

func TestManualPagesIntoAFileAreRefused(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if o := admin(t, "man", file); o.code != 1 || !strings.Contains(o.err, file) {
		t.Errorf("%+v", o)
	}
}
