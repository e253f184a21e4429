package maps

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Each breaks one rule in the code under test: the model must notice.
var mutations = []struct{ name, file, old, new string }{
	{"skip a mark", "peer.go", "	setExcept(p.live, from, to, p.behind)\n", ""},
	{"skip a mark that was not sent", "peer.go", "func (p *Peer) Missed(r blockdev.Range) { p.fall(touched(r)) }", "func (p *Peer) Missed(r blockdev.Range) {}"},
	{"skip a mark on the standby", "standby.go", "		m.Set(from, to)\n	}\n	if s.flush", "		_ = m\n	}\n	if s.flush"},
	{"clear before the peer's flush", "primary.go", "case p.acked >= p.flushNum:", "case p.acked+1 >= p.flushNum:"},
	{"clear before our own flush", "primary.go", "m.flushID == 0 || !m.flushHere", "m.flushID == 0"},
	{"clear on a partial write", "peer.go", "from, to := whole(e.r, p.size); p.behind.Any", "from, to := touched(e.r); p.behind.Any"},
	{"clear what is in flight", "primary.go", "!e.complete {", "false {"},
	{"clear what was written since the flush began", "peer.go", "	p.unflush(from, to)\n	p.window.push", "	p.window.push"},
	{"replace maps instead of uniting them", "peer.go", "	p.behind.Or(theirs)\n", "	empty(p.behind)\n	p.behind.Or(theirs)\n"},
	{"ignore the peer's map", "peer.go", "	p.behind.Or(theirs)\n", ""},
	{"go on over a break", "peer.go", "	p.behind.Or(p.live)\n	empty(p.live)\n	empty(p.done)\n	empty(p.flushing)\n", "	p.done.Or(p.live)\n"},
	{"believe a flush that failed here", "primary.go", "	case !ok:\n", "	case !ok && id == 0:\n"},
	{"tell of one that is behind", "primary.go", "p.flushed && p.wholly", "p.flushed"},
	{"standby clears what it took since", "standby.go", "			m.And(s.since)\n", "			empty(m)\n"},
	{"adopt what not every member has", "peer.go", "	p.Unite(unsettled)\n", ""},
	{"trust a map that went back", "number.go", "	case a.Promised < b.Settled:\n		return lower(a, b)\n	case b.Promised < a.Settled:\n		return lower(b, a)\n", "	case false:\n		return lower(a, b)\n"},
	{"clear a region that was written since", "regions.go", "		s.leaving.Clear(from, to)\n", "		_ = from\n"},
	{"clear the rest of a span unseen", "regions.go", "(kept == nil || !kept.Test(i)) && s.equal(i, peers)", "true || s.equal(i, peers)"},
	{"clear a region with marks", "regions.go", "		if m.Any(from, to) {", "		if to < from && m.Any(from, to) {"},
}

// TestMutationsFitTheCode finds those that the code has moved away from; it takes no time.
func TestMutationsFitTheCode(t *testing.T) {
	for _, m := range mutations {
		src, err := os.ReadFile(m.file)
		if n := strings.Count(string(src), m.old); err != nil || n != 1 {
			t.Errorf("%s: %s has the text %d times (%v)", m.name, m.file, n, err)
		}
	}
}

// TestMutationsAreCaught builds and plays the model once for each.
func TestMutationsAreCaught(t *testing.T) {
	if os.Getenv("HACLUSTER_MUTATIONS") == "" {
		t.Skip("takes a minute: set HACLUSTER_MUTATIONS=1")
	}
	dir := t.TempDir()
	for i, m := range mutations {
		t.Run(m.name, func(t *testing.T) {
			src, err := os.ReadFile(m.file)
			if err != nil {
				t.Fatal(err)
			}
			path, err := filepath.Abs(m.file)
			if err != nil {
				t.Fatal(err)
			}
			changed := filepath.Join(dir, m.file+"."+string(rune('a'+i)))
			if err := os.WriteFile(changed, []byte(strings.Replace(string(src), m.old, m.new, 1)), 0o600); err != nil {
				t.Fatal(err)
			}
			overlay, err := json.Marshal(map[string]map[string]string{"Replace": {path: changed}})
			if err != nil {
				t.Fatal(err)
			}
			list := filepath.Join(dir, "overlay.json")
			if err := os.WriteFile(list, overlay, 0o600); err != nil {
				t.Fatal(err)
			}
			model := exec.Command("go", "test", "-overlay", list, "-vet=off", "-run", "TestModel", "-count=1", ".")
			model.Env = append(os.Environ(), seedsVariable+"=3000")
			out, err := model.CombinedOutput()
			switch {
			case err == nil:
				t.Errorf("nobody noticed")
			case !strings.Contains(string(out), "seed"):
				t.Errorf("it did not fail by the model:\n%s", out)
			default:
				line, _, _ := strings.Cut(string(out[max(0, strings.Index(string(out), "model_test.go")):]), "\n")
				t.Log(line)
			}
		})
	}
}
