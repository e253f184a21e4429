package scenario

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// The table of faults and phases in docs/lab.md names every scenario, and none that is not there: so a hole in it is one.
func TestTableOfFaultsAndPhasesNamesEveryScenario(t *testing.T) {
	b, err := os.ReadFile("../../../../docs/lab.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(b), "## Faults and phases")
	if section, _, _ = strings.Cut(section, "\n## "); !ok {
		t.Fatal("docs/lab.md has no section of faults and phases")
	}
	named := map[string]bool{}
	for line := range strings.Lines(section) {
		if !strings.HasPrefix(line, "|") {
			continue
		}
		for _, m := range regexp.MustCompile("`([a-z0-9-]+)`").FindAllStringSubmatch(line, -1) {
			if named[m[1]] = true; !has(m[1]) {
				t.Errorf("there is no scenario %s", m[1])
			}
		}
	}
	for _, s := range Table() {
		if !named[s.Name] {
			t.Errorf("scenario %s stands in no cell", s.Name)
		}
	}
}

func has(name string) bool {
	_, ok := Find(name)
	return ok
}
