package main

import (
	"bytes"
	"os"
	"regexp"
	"strings"
	"testing"
)

// The manual page names every flag that --help does.
func TestManualPageNamesEveryFlag(t *testing.T) {
	page, err := os.ReadFile("../../docs/haclusterd.8")
	if err != nil {
		t.Fatal(err)
	}
	text := strings.ReplaceAll(string(page), `\-`, "-")
	var help bytes.Buffer
	if _, err := parse([]string{"--help"}, &help); err == nil {
		t.Fatal("--help is no flag")
	}
	flags := regexp.MustCompile(`(?m)^  -([a-z-]+)`).FindAllStringSubmatch(help.String(), -1)
	if len(flags) < 8 {
		t.Fatalf("flags of --help: %v", flags)
	}
	for _, f := range flags {
		if !strings.Contains(text, "--"+f[1]) {
			t.Errorf("--%s is missing", f[1])
		}
	}
}
