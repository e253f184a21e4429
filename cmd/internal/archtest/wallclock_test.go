package archtest

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// wall matches readings of the time of day. time.Now alone is none: differences of two use the monotonic clock, and so
// do deadlines that are made of it.
var wall = regexp.MustCompile(`\.(Unix|UnixMilli|UnixMicro|UnixNano)\(\)|time\.Now\(\)\.(UTC|Local|In|Format|Date|Clock|Year|Hour|Round|Truncate|Compare)\b|[^.]\bwallClock\b`)

// wallPlaces may read it: for people, or against the dates of a certificate, which are of that kind.
var wallPlaces = []string{
	"cmd/internal/node/clock_linux.go", "cmd/internal/node/journal.go", "cmd/internal/node/node.go", "cmd/internal/node/admin_failover.go", "cmd/internal/node/admin_async.go", // stamps
	"blockdev/rescue/find.go",                              // when an image that no resync belongs to was found
	"blockdev/rescue/shelf.go", "blockdev/rescue/early.go", // when the resync of a rescue image ended, or went on without it
	"cmd/internal/metrics/node.go", "cmd/internal/metrics/volume.go", // stamps of events and certificates, shown as they are
	"heartbeat/membership/counters.go",    // how often a line is logged
	"cmd/internal/node/lines.go",          // a person's calendar of rates is by the time of day
	"heartbeat/fence/agent/hold_linux.go", // whether the file of an agent is another than before
	"cmd/internal/node/scheduled.go",      // a person's schedule of verifies is by the time of day
}

// wallReaders lists the lines of a file's text that read the time of day.
func wallReaders(name, text string) (bad []string) {
	for i, line := range strings.Split(text, "\n") {
		code, _, _ := strings.Cut(line, "//")
		if wall.MatchString(code) {
			bad = append(bad, fmt.Sprintf("%s:%d reads the time of day: %s", name, i+1, strings.TrimSpace(line)))
		}
	}
	return bad
}

// faults.md T82: the time of day may step; what decides counts by CLOCK_BOOTTIME, or by the monotonic clock.
func TestT82TimeOfDayIsReadInNamedPlacesOnly(t *testing.T) {
	used := map[string]bool{}
	for _, p := range list(t) {
		if within(p.name(), "cmd/internal/e2e", "cmd/internal/lab", "cmd/internal/identity/pki", "proto") {
			continue // tests, and certificates, which are dated by it
		}
		for _, f := range p.GoFiles {
			text, err := os.ReadFile(filepath.Join(p.Dir, f))
			if err != nil {
				t.Fatal(err)
			}
			name := p.name() + "/" + f
			bad := wallReaders(name, string(text))
			if slices.Contains(wallPlaces, name) {
				used[name] = len(bad) > 0
				continue
			}
			for _, b := range bad {
				t.Errorf("%s: if people read it, name the file in wallPlaces; else use CLOCK_BOOTTIME", b)
			}
		}
	}
	for _, name := range wallPlaces {
		if !used[name] {
			t.Errorf("%s does not read the time of day any more: take it off the list", name)
		}
	}
}

func TestReadingsOfTheTimeOfDayAreSeen(t *testing.T) {
	for _, bad := range []string{"x := time.Now().Unix()", "at.UnixMilli()", "time.Now().UTC()", "if wallClock().After(t) {"} {
		if len(wallReaders("f", bad)) == 0 {
			t.Errorf("%q is not seen", bad)
		}
	}
	for _, good := range []string{"now := time.Now()", "time.Since(t)", "c.SetDeadline(time.Now().Add(d))", "time.UnixMilli(x)", "// at.Unix()"} {
		if len(wallReaders("f", good)) > 0 {
			t.Errorf("%q is taken for one", good)
		}
	}
}
