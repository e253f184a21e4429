package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"hacluster/cmd/internal/api"
)

// because is a status in which the volume is not served, for a reason that has the text.
func because(text string) func(*api.Status) bool {
	return func(s *api.Status) bool {
		return s.Quorum && len(s.Volumes) == 1 && s.Volumes[0].State == api.VolumeUnavailable && strings.Contains(s.Volumes[0].Reason, text)
	}
}

func TestDrainedNodeHandsOverAndTakesNothingByItself(t *testing.T) {
	r := healthy(t, Config{RTO: "10s"})
	r.admin(1, "node", "drain", "gamma") // the witness
	r.admin(1, "node", "drain", "nobody")
	l := r.load()
	node := r.until("healthy", Healthy).Volumes[0].Primary
	heir := other(node)
	r.admin(0, "node", "drain", node)
	r.until("it is served by the other", PrimaryIs(heir))
	if out, _ := r.admin(0, "status"); !strings.Contains(out, "drained") {
		t.Errorf("the status says nothing of it: %s", out)
	}
	l.more(50)
	r.until("healthy", Healthy)
	r.admin(3, "failover", "vol") // nobody was named, and it goes there by name only
	r.admin(1, "simulate", "node-loss", "nobody")
	if out, _ := r.admin(0, "simulate", "node-loss", heir, "-o", "json"); !strings.Contains(out, `"outcome": "unavailable"`) || !strings.Contains(out, node+" is drained") {
		t.Errorf("what would happen is told otherwise: %s", out)
	}
	if out, _ := r.admin(0, "simulate", "node-loss", node); !strings.Contains(out, "goes on") {
		t.Errorf("what would happen is told otherwise: %s", out)
	}
	r.Kill(heir)
	r.until("the drained node does not follow", because(node+" could follow and is drained"))
	r.admin(0, "node", "undrain", node)
	r.until("it follows", PrimaryIs(node))
	l.more(50)
	_, errs := r.admin(3, "node", "drain", node) // no other is a member
	if !strings.Contains(errs, "stays primary of 1 of its 1 volumes") {
		t.Errorf("a drain that moved nothing says %q", errs)
	}
	r.start(heir)
	r.until("healthy", Healthy)
	r.admin(0, "node", "drain", node)
	r.until("it is served by the other again", PrimaryIs(heir))
	r.admin(0, "node", "undrain", node)
	r.until("healthy", Healthy)
	if out, _ := r.admin(0, "simulate", "node-loss", heir, "-o", "json"); !strings.Contains(out, `"outcome": "moves"`) {
		t.Errorf("what would happen is told otherwise: %s", out)
	}
	for _, e := range []string{"0", "first"} {
		r.admin(2, "explain", e)
	}
	r.admin(1, "explain", "1000000")
	events, _ := r.admin(0, "events", "-o", "json")
	for _, line := range strings.Split(events, "\n") {
		var e api.Event
		if json.Unmarshal([]byte(line), &e) == nil && e.Kind == "promoted" && e.Number > 0 {
			out, _ := r.admin(0, "explain", fmt.Sprint(e.Number))
			if !strings.Contains(out, "because") || !strings.Contains(out, "R10") {
				t.Errorf("%s is explained by %s", line, out)
			}
			t.Log(out)
		}
	}
	l.stop()
	r.same()
}

func TestNothingMovesByItselfWhileThereIsMaintenance(t *testing.T) {
	r := healthy(t, Config{RTO: "6s"})
	l := r.load()
	r.admin(0, "maintenance", "on")
	v := r.until("healthy", Healthy).Volumes[0]
	r.Kill(v.Primary)
	r.until("nobody follows a primary that is lost", because("there is maintenance"))
	r.start(v.Primary)
	r.until("it serves again", PrimaryIs(v.Primary))
	l.more(50)
	r.until("healthy", Healthy)
	r.admin(0, "failover", "vol") // a person moves it
	r.until("it is served by the other", PrimaryIs(other(v.Primary)))
	r.until("healthy", Healthy)
	r.stop(other(v.Primary)) // SIGTERM: it is no reason to move either
	r.until("nobody follows", because("there is maintenance"))
	r.admin(0, "maintenance", "off")
	r.until("the other follows", PrimaryIs(v.Primary))
	r.start(other(v.Primary))
	r.until("healthy", Healthy)
	l.more(50)
	l.stop()
	r.same()
}
