package e2e

import (
	"fmt"
	"testing"

	"hacluster/cmd/internal/api"
)

// inMode applies the mode, and comes back when it is in force: apply does, or says what it waits for, as on a machine that is
// so busy that a standby was just dropped.
func (r *rig) inMode(from, to string) {
	r.t.Helper()
	file := r.edited("mode.hcl", fmt.Sprintf("mode = %q", from), fmt.Sprintf("mode = %q", to))
	ctx, cancel := r.within()
	defer cancel()
	out, errs, code := r.Admin(ctx, "apply", file, "--yes", "--timeout", "20s")
	switch {
	case code == 0:
		r.says(out, "change online", "volume vol: mode", from+" -> "+to)
	case code == 1:
		r.says(errs, "the change is applied", "vol is in mode "+from)
	default:
		r.t.Fatalf("ha-admin apply: exit code %d\n%s%s", code, out, errs)
	}
	r.until("mode "+to+" is in force", func(s *api.Status) bool {
		return len(s.Volumes) == 1 && s.Volumes[0].Mode == to && s.Volumes[0].NextMode == ""
	})
	r.installApplied()
}

// R5, R13, R25: the mode changes under load without a move of the role and without an error, and a primary that is killed right behind
// the last change, to the strongest, has nothing that is lost with it.
func TestModeChangesUnderLoadAndAKilledPrimaryLosesNothing(t *testing.T) {
	modes := []string{"sync", "semisync", "async", "semisync", "sync", "async", "sync"}
	r := healthy(t, Config{Mode: modes[0]})
	l := r.load()
	l.more(100)
	before := r.vol()
	for i, to := range modes[1:] {
		r.inMode(modes[i], to)
		if v := r.vol(); v.Epoch != before.Epoch || v.Primary != before.Primary {
			t.Fatalf("in mode %s: epoch %d of %s, it was %d of %s", to, v.Epoch, v.Primary, before.Epoch, before.Primary)
		}
		if to != modes[len(modes)-1] {
			l.more(100)
		}
	}
	r.Kill(before.Primary)
	r.until("the other took over", PrimaryIs(other(before.Primary)))
	l.more(100)
	out, _ := r.admin(0, "events")
	r.says(out, "volume's mode changes", "volume's mode changed")
	r.start(before.Primary)
	r.until("the killed node is back", Healthy)
	l.stop()
	r.same()
}

// A change that is decided while nobody can carry it out is carried out by the next primary, over its own failover.
func TestModeChangeWaitsAndGoesOnWithTheNextPrimary(t *testing.T) {
	r := healthy(t, Config{})
	l := r.load()
	l.more(50)
	victim := r.vol().Primary
	r.Kill(victim)
	file := r.edited("mode.hcl", `mode = "sync"`, `mode = "semisync"`)
	ctx, cancel := r.within()
	defer cancel()
	for code := -1; code != 0 && code != 1; { // while a leader is elected, nobody answers
		var out, errs string
		if out, errs, code = r.Admin(ctx, "apply", file, "--yes", "--timeout", "20s"); code > 1 && code != 4 {
			t.Fatalf("ha-admin apply: exit code %d\n%s%s", code, out, errs)
		}
	}
	r.until("the next primary has put it in force", func(s *api.Status) bool {
		return len(s.Volumes) == 1 && s.Volumes[0].Mode == "semisync" && s.Volumes[0].Primary == other(victim)
	})
	l.more(50)
	r.installApplied()
	r.start(victim)
	r.until("the killed node is back", Healthy)
	r.Kill(other(victim))
	r.until("it takes over", PrimaryIs(victim))
	l.more(50)
	r.start(other(victim))
	r.until("all is well again", Healthy)
	l.stop()
	r.same()
}
